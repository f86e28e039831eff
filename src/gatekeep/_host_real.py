"""The operating system as a `Host`: sockets, processes, temporary files, clocks, threads. Nothing is decided here."""

from __future__ import annotations

import errno
import io
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from gatekeep._host import SpoolFile
from gatekeep._host_net import RealNet
from gatekeep._host_processes import RealProcesses

T = TypeVar("T")


class RealSpoolFile:
    """A temporary file.

    The lock is for a thread whose task did not wait for its end (asyncio cancels whatever is awaited): without it a `close`
    lets the thread write into whatever file or socket gets the descriptor's number next, or make a file that nobody closes.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder or None
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        self._closed = False

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        with self._lock:
            return os.pwrite(self._descriptor(), data, offset)

    def pread(self, size: int, offset: int) -> bytes:
        with self._lock:
            return os.pread(self._descriptor(), size, offset)

    def _descriptor(self) -> int:
        if self._closed:
            raise OSError(errno.EBADF, "the temporary file is closed")
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
        return self._file.fileno()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


class RealClock:
    """`time.monotonic` is one clock for all processes of a Linux host; an event loop's own is not (trio adds an offset)."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class RealChance:
    """The system's randomness."""

    bits = random.SystemRandom().getrandbits


class RealHost:
    """The operating system. Made inside the event loop that is to use it; `close` it last."""

    def __init__(self, inherited: Mapping[str, Sequence[int]] = MappingProxyType({})) -> None:
        self._limiter = anyio.CapacityLimiter(8)
        self.net = RealNet(inherited)
        self.processes = RealProcesses(self.net, self.run_blocking)
        self.clock = RealClock()
        self.chance = RealChance()

    def spool_file(self, folder: str) -> SpoolFile:
        return RealSpoolFile(folder)

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)

    def close(self) -> None:
        """Remove what was made in the file system, and wait for nothing any more."""
        self.processes.close()
        self.net.close()
