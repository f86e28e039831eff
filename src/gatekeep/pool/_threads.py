"""The worker threads of a daemon process: who waits, who serves.

Leader/follower. At any moment an idle worker is one of three things:

* the LEADER waits for a connection in the kernel and serves it itself: nothing is handed over on the request path;
* the DEPUTY becomes leader when the leader has left to serve and does not come back soon (`_patience`). While requests are
  brief it sleeps through them: the worker that finished one leads again. So a busy process does not wake a thread for every
  request;
* the others are PARKED, the last one first to be woken: warm threads are used again.

All of it is decided under one lock. A worker sleeps on a lock of its own.
"""

from __future__ import annotations

import math
import os
import resource
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Protocol

from gatekeep.lifecycle._slots import Row
from gatekeep.pool._patience import GIVE_WAY, LOOK, REST, WORTHWHILE, pause_before_wait
from gatekeep.pool._region import Region

SAMPLED = 32
"""One request of so many is measured, and each that follows one which took its time: to ask for a thread's CPU time is a system
call."""

SAMPLE_WEIGHT = 0.25
"""How much one sample counts in how long requests usually wait."""


class Worker:
    """One worker thread, known by its number.

    Attributes:
        number: its slot on the scoreboard.
        hop: the connection that it serves.
        accepted_at: when it accepted that one (`time.monotonic`).
        region: where the application may be interrupted.
        thread: its thread, once that was started.
        computed: the CPU time that it had used by then, where this request is measured; else negative.
        slept: how often it had slept by then.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.accepted_at = 0.0
        self.computed = -1.0
        self.slept = 0
        self.region = Region()
        self.thread: threading.Thread | None = None
        self.hop: socket.SocketType | None = None
        self._bell = threading.Lock()
        self._bell.acquire()

    def sleep(self, seconds: float | None) -> None:
        """Sleep until `ring`, or for so long at most."""
        if seconds is None:
            self._bell.acquire()
        else:
            self._bell.acquire(timeout=seconds)

    def ring(self) -> None:
        """Wake it; before it sleeps, its next sleep is over at once."""
        try:
            self._bell.release()
        except RuntimeError:
            pass  # it was rung before and has not slept since


Serve = Callable[[socket.SocketType, Worker], None]


class Listener(Protocol):
    """Where connections come from: `_listener.Listener`, or `_inbox.Inbox`."""

    def wait(self, *, busy: bool) -> None: ...
    def accept_nowait(self) -> socket.SocketType | None: ...
    def wake(self) -> None: ...


class Load(Protocol):
    """How busy the process is: see `CpuLoad`."""

    def share(self, now: float) -> float: ...


class Crew:
    """The worker threads. `serve` is called with each connection, in the worker's thread, and must not raise.

    All that the threads share is made before the first of them starts.

    Args:
        row: their row on the scoreboard.
        name: what the threads' names begin with.
        load: how much of one CPU the process uses, where that is no matter of these threads alone.

    Attributes:
        served: connections that were accepted.
    """

    def __init__(
        self,
        listener: Listener,
        threads: int,
        serve: Serve,
        row: Row,
        *,
        name: str = "gatekeep-worker",
        load: Load | None = None,
    ) -> None:
        self._listener = listener
        self._name = name
        self._serve = serve
        self._row = row
        self._mutex = threading.Lock()
        self._leader: Worker | None = None
        self._deputy: Worker | None = None
        self._deputy_rests = False
        self._giving_way: Worker | None = None
        self._parked: list[Worker] = []
        self._running = 0
        self._stopping = False
        self._opened = threading.Event()
        self._accepted_at = 0.0
        self._finished_at = time.monotonic()
        self.served = 0
        self._lengthy = False
        self._usual_wait = 0.0
        self._load = load or CpuLoad()
        self.workers = [Worker(number) for number in range(threads)]

    def start(self) -> None:
        """Start the threads; they wait for `open`. They are daemon threads: none of them delays the end of the process.

        Raises:
            RuntimeError: the system has no room for so many.
        """
        for worker in self.workers:
            name = f"{self._name}-{worker.number}"
            thread = threading.Thread(target=self._work, args=(worker,), name=name, daemon=True)
            thread.start()
            worker.thread = thread

    def open(self) -> None:
        """Accept connections from now on."""
        self._opened.set()

    def stop(self) -> None:
        """Accept nothing any more. Requests that run are not touched."""
        with self._mutex:
            self._stopping = True
            idle = [*self._parked, *([self._deputy] if self._deputy else [])]
        self._listener.wake()
        for worker in idle:
            worker.ring()

    def quiet_since(self) -> float:
        """Since when nothing runs, on `time.monotonic`'s clock; `math.inf` while something does."""
        with self._mutex:
            return math.inf if self._running else self._finished_at

    def _work(self, worker: Worker) -> None:
        worker.region.bind()
        self._opened.wait()
        while not self._stopping:
            try:
                if self._next_connection(worker):
                    assert worker.hop is not None
                    self._serve(worker.hop, worker)
            except BaseException:
                # A fault of ours, or an exception that somebody sent to this thread for a request that is over. It must not
                # cost the process a thread.
                _report_fault()
            finally:
                if worker.hop is not None:
                    self._release(worker)

    def _release(self, worker: Worker) -> None:
        assert worker.hop is not None
        try:
            worker.hop.close()
        except OSError:
            pass  # the application has closed what it took for its own
        worker.hop = None
        self._finished(worker)

    def _finished(self, worker: Worker) -> None:
        """The worker has served its connection; where nobody leads and nothing runs it leads again."""
        now = time.monotonic()
        took = now - worker.accepted_at
        self._lengthy = took > WORTHWHILE
        if worker.computed >= 0:
            self._measured(worker, took)
        with self._mutex:
            self._running -= 1
            self._finished_at = now
            self._row.set_running(self._running)
            if not self._running:
                self._leader = self._leader or worker
                if self._giving_way is not None:
                    self._giving_way.ring()

    def _measured(self, worker: Worker, took: float) -> None:
        """For how long did the request wait, or its thread for the GIL? Several threads may say so at once, and one is enough.

        A thread that never slept has not waited: the kernel had others run, on a machine that has too much to do.
        """
        computed = time.thread_time() - worker.computed
        slept = sleeps() != worker.slept
        waited = took - computed if slept else 0.0
        worker.computed = -1.0
        self._usual_wait += (waited - self._usual_wait) * SAMPLE_WEIGHT

    def _next_connection(self, worker: Worker) -> bool:
        """Wait until this worker has a connection in `hop`. False when it is time to end."""
        while not self._stopping:
            if self._take_lead(worker) and self._accept(worker):
                return True
        return False

    # --- becoming leader

    def _take_lead(self, worker: Worker) -> bool:
        """Become the leader, or sleep. False when it is time to look again."""
        if self._leader is worker:
            return True
        with self._mutex:
            if self._stopping:
                return False
            if worker in self._parked:
                self._parked.remove(worker)  # who is awake is not parked, whatever woke it
            pause = self._pause()
            if self._leader is None and pause <= 0:
                self._leader = worker
                if self._deputy is worker:
                    self._deputy = None
                return True
            seconds = self._become_follower(worker, pause)
        worker.sleep(seconds)
        return False

    def _pause(self) -> float:
        if not self._running:
            return 0.0
        now = time.monotonic()
        return self._pause_at(now)

    def _pause_at(self, now: float) -> float:
        return pause_before_wait(now - self._accepted_at, self._usual_wait, self._load.share(now))

    def _become_follower(self, worker: Worker, pause: float) -> float | None:
        """Take the deputy's place or park. Returns how long to sleep."""
        if self._deputy is not None and self._deputy is not worker:
            self._parked.append(worker)
            return None
        self._deputy = worker
        if self._leader is None:
            return pause
        # While requests keep coming the deputy sleeps with one eye open: to wake it for each of them would cost more.
        self._deputy_rests = time.monotonic() - self._accepted_at > REST
        return None if self._deputy_rests else LOOK

    # --- leading

    def _accept(self, worker: Worker) -> bool:
        """Wait for a connection as the leader. False when the leader should look again."""
        self._listener.wait(busy=self._running > 0)
        if self._running:
            self._give_way(worker)
        hop = self._listener.accept_nowait()
        if hop is None:
            return False  # another process was quicker
        return self._leave_lead(worker, hop)

    def _give_way(self, worker: Worker) -> None:
        """Leave the connection that waits to a process that has nothing to do, if there is one."""
        with self._mutex:
            if not self._running or not self._row.board.is_another_idle(self._row.index):
                return
            self._giving_way = worker
        worker.sleep(GIVE_WAY)
        self._giving_way = None

    def _leave_lead(self, worker: Worker, hop: socket.SocketType) -> bool:
        """The leader has a connection and goes to serve it: see to it that somebody will take its place.

        False when the crew was told to stop meanwhile: the connection, which nobody has claimed, goes back to the front.
        """
        with self._mutex:
            if self._stopping:
                hop.close()
                return False
            worker.hop = hop
            worker.accepted_at = self._accepted_at = time.monotonic()
            self.served += 1
            if self._lengthy or self.served % SAMPLED == 1:
                worker.computed = time.thread_time()
                worker.slept = sleeps()
            self._running += 1
            self._row.set_running(self._running)
            self._leader = None
            follower = self._next_deputy()
        if follower is not None:
            follower.ring()
        return True

    def _next_deputy(self) -> Worker | None:
        """The worker that must be woken to watch for the leader's return; None where one is awake enough."""
        rested, self._deputy_rests = self._deputy_rests, False
        if self._deputy is None and self._parked:
            self._deputy = self._parked.pop()
            return self._deputy
        if rested:
            return self._deputy
        if self._usual_wait < WORTHWHILE:
            return None  # it has a moment to sleep, however busy the CPU is, which costs a system call to find out
        return self._deputy if self._pause_at(self._accepted_at) <= 0 else None

    def close_in_child(self) -> None:
        """Close what the threads hold, in a child that the application forked."""
        for worker in self.workers:
            if worker.hop is not None:
                os.close(worker.hop.detach())


def _report_fault() -> None:
    try:
        traceback.print_exc()
    except BaseException:
        pass  # an exception that cannot even be printed


def sleeps() -> int:
    """How often this thread has slept so far (Linux); elsewhere each time is another."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return time.monotonic_ns()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class CpuLoad:
    """How much of one CPU this process used lately."""

    WINDOW = 0.001

    def __init__(self) -> None:
        self._at = 0.0
        self._used = 0.0
        self._share = 0.0

    def share(self, now: float) -> float:
        """The share since the last look, or since the one before where that is only a moment ago."""
        elapsed = now - self._at
        if elapsed >= self.WINDOW:
            used = time.process_time()
            self._share = (used - self._used) / elapsed
            self._at, self._used = now, used
        return self._share
