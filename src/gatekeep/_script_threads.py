"""Threads for scripts that decide about requests: few for each script, and none of them is waited for beyond its time.

A thread that hangs cannot be ended. It is written off and the request refused; as long as it hangs it counts, so that they stay
few, and when it comes back it works on. They are daemon threads: none delays the end of the program.

Some never come back, such as those that wait for a server which was cut off. So when all hang, one request is let through now and
then: if its thread comes back in time, whatever made the others hang is over, and they count no more.

A script shares its threads with no other: where one waits for a server that does not answer, the others decide as ever.
"""

from __future__ import annotations

import contextlib
import math
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Hashable
from typing import Any

import anyio
from anyio.lowlevel import current_token

SIZE = 8
"""How many may work at once, and how many may hang beside them."""

MOST = 256
"""How many may hang in all, those that count no more included."""

FIRST_TRIAL, LONGEST_PAUSE = 10.0, 600.0
"""Seconds from when all hang to the first request that is let through, and between two of them at most: each pause is twice the
one before."""


class NoThread(Exception):
    """Too many of them hang, or none was free in time."""


class Expired(Exception):
    """It took too long. `stack` is what the thread does."""

    def __init__(self, stack: str) -> None:
        super().__init__("it took too long")
        self.stack = stack


class Raised(Exception):
    """It raised `error`, which has lost its traceback: what the frames knew (passwords) is not kept. `details` has it as text."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.details = _formatted(error)
        self.error = error.with_traceback(None)


def _formatted(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # whatever else it is, it is a stranger's
        return f"{type(error).__name__}, which cannot be shown\n"


class _Job:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = anyio.Event()
        self.loop: Any = current_token().native_token
        self.thread = 0
        self.result: Any = None
        self.raised: Raised | None = None
        self.finished = False
        self.is_trial = False

    def run(self) -> None:
        self.thread = threading.get_ident()
        try:
            self.result = self.function()
        except BaseException as error:  # `sys.exit()` included: it is nobody's end
            self.raised = Raised(error)

    def tell(self) -> None:
        """Wake whoever waits for it. Not with `from_thread.run_sync`, which waits for ever where the loop ends just then."""
        # asyncio's name for it, and trio's.
        soon = getattr(self.loop, "call_soon_threadsafe", None) or self.loop.run_sync_soon
        with contextlib.suppress(RuntimeError):  # the event loop is gone
            soon(self.done.set)

    def stack(self) -> str:
        frame = sys._current_frames().get(self.thread)
        return "".join(traceback.format_stack(frame)[2:]) if frame is not None else ""


class ScriptPools:
    """The pools of one gateway, to be used in one event loop."""

    def __init__(self) -> None:
        self._pools: dict[Hashable, ScriptThreads] = {}

    def of(self, script: Hashable) -> ScriptThreads:
        """The pool of that script."""
        if script not in self._pools:
            self._pools[script] = ScriptThreads()
        return self._pools[script]

    def close(self) -> None:
        """Let all threads end, as `ScriptThreads.close` says."""
        for pool in self._pools.values():
            pool.close()


class ScriptThreads:
    """One script's pool."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._places = anyio.Semaphore(size)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = 0
        self._hanging: set[_Job] = set()
        self._given_up: set[_Job] = set()
        self._pause, self._next_trial = FIRST_TRIAL, math.inf
        self._closed = False
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], Any], timeout: float) -> Any:
        """Call it in a thread, and return what it returns.

        Args:
            timeout: seconds that it may take, and that it may wait for a thread before; `math.inf` for ever. The wait is not part
                of its time: in a rush those that came late would be begun and never finished.

        Raises:
            NoThread: there was none.
            Expired: it took longer; it runs on.
            Raised: it raised something.
        """
        job = _Job(function)
        job.is_trial = self._check_room()
        try:
            await self._find_place(job, timeout)
        finally:
            if job.is_trial:
                self._end_trial(job)
        if job.raised is not None:
            raise job.raised
        if job.finished:
            return job.result
        if not job.thread:
            raise NoThread("a thread for scripts did not start in time")
        raise Expired(job.stack())

    async def _find_place(self, job: _Job, timeout: float) -> None:
        with anyio.move_on_after(timeout) as wait:
            await self._places.acquire()
        if wait.cancelled_caught:
            raise NoThread("no thread for scripts was free in time")
        try:
            # Whoever had the place before may have left it hanging.
            job.is_trial = job.is_trial or self._check_room()
            await self._do(job, timeout)
        finally:
            self._places.release()

    async def _do(self, job: _Job, timeout: float) -> None:
        self._start(job)
        try:
            with anyio.move_on_after(timeout):
                await job.done.wait()
        finally:
            self._write_off_unless_finished(job)

    def _check_room(self) -> bool:
        """See whether there is a thread to be had. True where it is only to find out whether others would still hang."""
        if len(self._hanging) < self._size:
            return False
        if anyio.current_time() < self._next_trial or len(self._hanging) + len(self._given_up) >= MOST:
            raise NoThread(f"{len(self._hanging)} threads for scripts hang")
        self._next_trial = math.inf
        return True

    def _end_trial(self, job: _Job) -> None:
        if job.finished:
            with self._lock:
                self._given_up |= self._hanging
                self._hanging.clear()
            self._pause = FIRST_TRIAL
        else:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._next_trial = anyio.current_time() + self._pause

    def _start(self, job: _Job) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._start_thread()
        self._jobs.put(job)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="gatekeep-script", daemon=True).start()
        except RuntimeError as error:  # the system has no more of them
            raise NoThread(str(error)) from None

    def _work(self) -> None:
        while self._serve():
            pass

    def _serve(self) -> bool:
        """Do one job, of which nothing is kept (its password) while the thread waits for the next. Whether to wait for that."""
        job = self._jobs.get()
        if job is None:
            return False
        job.run()
        with self._lock:
            job.finished = True
            self._hanging.discard(job)
            self._given_up.discard(job)
            if not self._hanging:
                self._pause = FIRST_TRIAL
            goes_on = not self._closed and self._idle < self._size
            self._idle += goes_on
        job.tell()
        return goes_on

    def _write_off_unless_finished(self, job: _Job) -> None:
        with self._lock:
            if job.finished:
                return
            self._hanging.add(job)
            if len(self._hanging) == self._size:
                self._next_trial = anyio.current_time() + self._pause

    def close(self) -> None:
        """Let the threads end: now where they are idle, and when they come back where they hang."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._jobs.put(None)
