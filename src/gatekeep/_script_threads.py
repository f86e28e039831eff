"""Threads for scripts that decide about requests: few, and none of them is waited for beyond its time.

A thread that hangs cannot be ended. It is written off and the request refused; as long as it hangs it counts, so that they stay
few, and when it comes back it works on. They are daemon threads: none delays the end of the program.
"""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import anyio
from anyio import from_thread
from anyio.lowlevel import EventLoopToken, current_token

SIZE = 8
"""How many may work at once, and how many may hang."""


class NoThread(Exception):
    """All of them hang, or none was free in time."""


class Expired(Exception):
    """It took too long. `stack` is what the thread does."""

    def __init__(self, stack: str) -> None:
        super().__init__("it took too long")
        self.stack = stack


class Raised(Exception):
    """It raised `error`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class _Job:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = anyio.Event()
        self.token: EventLoopToken = current_token()
        self.thread = 0
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = False

    def run(self) -> None:
        self.thread = threading.get_ident()
        try:
            self.result = self.function()
        except BaseException as error:  # `sys.exit()` included: it is nobody's end
            self.error = error

    def tell(self) -> None:
        """Wake whoever waits for it."""
        try:
            from_thread.run_sync(self.done.set, token=self.token)
        except BaseException:
            pass  # the event loop is gone

    def stack(self) -> str:
        frame = sys._current_frames().get(self.thread)
        return "".join(traceback.format_stack(frame)[2:]) if frame is not None else ""


class ScriptThreads:
    """A pool for one gateway. Made where it is to be used: in its event loop."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._places = anyio.Semaphore(size)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = 0
        self._hanging: set[_Job] = set()
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], Any], timeout: float) -> Any:
        """Call it in a thread, and return what it returns.

        Args:
            timeout: seconds that it may take, the wait for a thread included; `math.inf` for ever.

        Raises:
            NoThread: there was none.
            Expired: it took longer; it runs on.
            Raised: it raised something.
        """
        if len(self._hanging) >= self._size:
            raise NoThread(f"all {self._size} threads for scripts hang")
        job = _Job(function)
        with anyio.move_on_after(timeout):
            async with self._places:
                self._start(job)
                try:
                    await job.done.wait()
                finally:
                    self._write_off_unless_finished(job)
        if not job.thread:
            raise NoThread("no thread for scripts was free in time")
        if not job.finished:
            raise Expired(job.stack())
        if job.error is not None:
            raise Raised(job.error)
        return job.result

    def _start(self, job: _Job) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._work, name="gatekeep-script", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            with self._lock:
                job.finished = True
                self._hanging.discard(job)
                self._idle += 1
            job.tell()

    def _write_off_unless_finished(self, job: _Job) -> None:
        with self._lock:
            if not job.finished:
                self._hanging.add(job)

    def close(self) -> None:
        """Let the threads end that do not hang."""
        with self._lock:
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._jobs.put(None)
