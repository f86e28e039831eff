"""Temporary files as the file system has them: full at the wrong moment, and no less slow than a thread."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .world import World

FAULTS = ("disk full", "no file", "short write", "short read", "disk broken")


class Disk:
    """The file system.

    Attributes:
        free: bytes that are left on it.
        files: those that were made and not given back.
        made: how many there ever were. written, read: bytes, in all.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.free: float = inf
        self.files: dict[SimSpoolFile, None] = {}
        self.made = self.written = self.read = 0
        self._threads = 0

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[None]:
        """What is called now may block."""
        self._threads += 1
        try:
            yield
        finally:
            self._threads -= 1

    def called(self, call: str) -> None:
        """A call that blocks."""
        if not self._threads:
            self.world.violation(f"{call} of a temporary file would block the event loop")

    def fails(self, fault: str, number: int) -> None:
        """Perhaps."""
        if self.world.strikes(fault):
            raise OSError(number, os.strerror(number))


class SimSpoolFile:
    """A temporary file."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._content: bytearray | None = None
        self._closed = False

    def pwrite(self, data: bytes | memoryview, offset: int, /) -> int:
        disk = self._disk
        disk.called("pwrite")
        content = self._open()
        disk.fails("disk full", errno.ENOSPC)
        size = len(data)
        if size > 1 and disk.world.strikes("short write"):
            size = disk.world.random.randrange(1, size)
        growth = max(0, offset + size - len(content))
        if growth > disk.free:
            size -= int(growth - disk.free)
            growth = int(disk.free)
            if size <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        disk.free -= growth
        disk.written += size
        content += bytes(growth)
        content[offset : offset + size] = data[:size]
        return size

    def pread(self, size: int, offset: int, /) -> bytes:
        disk = self._disk
        disk.called("pread")
        content = self._open()
        disk.fails("disk broken", errno.EIO)
        if size > 1 and disk.world.strikes("short read"):
            size = disk.world.random.randrange(1, size)
        disk.read += size
        return bytes(content[offset : offset + size])

    def _open(self) -> bytearray:
        if self._closed:
            raise OSError(errno.EBADF, "the temporary file is closed")
        if self._content is None:
            self._disk.fails("no file", errno.EMFILE)
            self._content = bytearray()
            self._disk.files[self] = None
            self._disk.made += 1
        return self._content

    def close(self) -> None:
        self._disk.called("close")
        self._closed = True
        if self._content is not None:
            self._disk.free += len(self._content)
            self._content = None
            del self._disk.files[self]
