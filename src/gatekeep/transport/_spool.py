"""A queue of bytes, in memory while it is short and in a temporary file beyond that.

A request's body is received into one before a worker is asked, so that a slow upload holds no worker. A response lies in one when
its client reads more slowly than the worker writes, so that a slow download holds none either, up to the size of the file.

The oldest bytes are in the file, the newest in memory. The file is a ring: somebody may read a long response for hours, a
little behind the worker all the time, and it must not grow to all that ever passed.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import anyio

from gatekeep._errors import NoSpace
from gatekeep._host import Host, SpoolFile

PIECE = 1 << 18
"""The most bytes that come out at once, and the size of a read from the file."""

UNLIMITED = 1 << 62


class Spool:
    """Bytes come out as they went in. One task may put and one may take, both at the same time.

    The file is made, written and read in threads. A task that its event loop itself cancels (`asyncio.Task.cancel`) leaves such a
    thread behind, and nobody knows what it has done: then only `aclose` may follow. After a cancelled anyio scope everything may.

    Args:
        host: makes the file, and has the threads.
        folder: where the file is to be; empty for the system's place.
        memory: bytes that may stay in memory; what is more goes to the file, all that there is at once.
        limit: the most unread bytes in the file, 0 for no file at all; beyond it `put` waits for room. None: there is no limit
            and nobody takes meanwhile, so `put` never waits.

    Attributes:
        disk_error: why the file is not written any more, where there is a limit: then memory must do.
        ended: whether nothing will be put any more.
    """

    def __init__(self, host: Host, folder: str, memory: int, limit: int | None = None) -> None:
        self.disk_error: OSError | None = None
        self.ended = False
        self._run_blocking = host.run_blocking
        self._file = host.spool_file(folder)
        self._file_used = False
        self._memory = memory
        self._bounded = limit is not None
        self._ring = UNLIMITED if limit is None else limit
        self._read_at = 0
        self._in_file = 0
        self._tail = bytearray()
        self._disk = anyio.Lock(fast_acquire=True)
        self._filled = anyio.Event()
        self._drained = anyio.Event()

    @property
    def size(self) -> int:
        """How many bytes are in it."""
        return self._in_file + len(self._tail)

    async def put(self, data: bytes | memoryview) -> None:
        """Add to the end. They can be taken at once; with a limit, it returns when there is room for more.

        Cancelled or not, they are in the spool.

        Raises:
            OSError: the file cannot be made or written, and there is no limit.
        """
        self._tail += data
        self._filled.set()
        while len(self._tail) > self._memory:
            if not await self._spill():
                self._drained = anyio.Event()
                await self._drained.wait()

    async def _spill(self) -> bool:
        """Move what is in memory to the file, as far as there is room. False: there is none."""
        async with self._disk:
            count = min(len(self._tail), self._room())
            if count == 0:
                return False
            # A copy: a view would lock the array, and its thread or its error's traceback may keep it for long.
            data = bytes(memoryview(self._tail)[:count])
            at = (self._read_at + self._in_file) % self._ring
            self._file_used = True
            try:
                await self._run_blocking(_write, self._file, data, at, self._ring)
            except OSError as error:
                if not self._bounded:
                    raise
                self.disk_error = error.with_traceback(None)
                return False
            del self._tail[:count]
            self._in_file += count
            return True

    def _room(self) -> int:
        return 0 if self.disk_error else self._ring - self._in_file

    def end(self) -> None:
        """Nothing will be put any more."""
        self.ended = True
        self._filled.set()

    async def wait_filled(self) -> bool:
        """Wait until there is something to take. False: there is nothing, and nothing will come."""
        while not self.size and not self.ended:
            self._filled = anyio.Event()
            await self._filled.wait()
        return self.size > 0

    async def take(self) -> bytes:
        """The oldest bytes, at most `PIECE` of them; empty when there are none.

        Raises:
            OSError: the file cannot be read.
        """
        if not self._in_file and not self._disk.locked():
            return self._take_from_memory()
        async with self._disk:
            return await self._take_from_file() if self._in_file else self._take_from_memory()

    def _take_from_memory(self) -> bytes:
        data = bytes(memoryview(self._tail)[:PIECE])
        del self._tail[:PIECE]
        self._drained.set()
        return data

    async def _take_from_file(self) -> bytes:
        size = min(PIECE, self._in_file)
        data = await self._run_blocking(_read, self._file, size, self._read_at, self._ring)
        self._in_file -= size
        # From the beginning again whenever possible: what has been written once is on the disk already.
        self._read_at = (self._read_at + size) % self._ring if self._in_file else 0
        self._drained.set()
        return data

    async def aclose(self) -> None:
        """Drop what is in it and give the file back, though the task be cancelled. Nobody may be putting or taking."""
        self.end()
        self._tail.clear()
        self._in_file = 0
        if self._file_used:
            # In a thread: to free the blocks of a large file takes the file system a while.
            with anyio.CancelScope(shield=True):
                await self._run_blocking(self._file.close)


# These two run in threads, and touch nothing but what they are given.


def _write(file: SpoolFile, data: bytes, at: int, ring: int) -> None:
    left = memoryview(data)
    while left:
        count = file.pwrite(left[: ring - at], at)
        if count == 0:
            raise OSError(errno.ENOSPC, "the temporary file takes nothing")
        left, at = left[count:], (at + count) % ring


def _read(file: SpoolFile, size: int, at: int, ring: int) -> bytes:
    pieces = []
    while size:
        piece = file.pread(min(size, ring - at), at)
        if not piece:
            raise OSError(errno.EIO, "the temporary file is shorter than what was written to it")
        pieces.append(piece)
        size, at = size - len(piece), (at + len(piece)) % ring
    return b"".join(pieces)


async def keep_body(spool: Spool, start: bytes, read: Callable[[], Awaitable[bytes]]) -> None:
    """Put a request's body into a spool: what has come of it, and what is read until nothing is. Then the spool has ended.

    Raises:
        NoSpace: it cannot be kept.
    """
    try:
        await spool.put(start)
        while piece := await read():
            await spool.put(piece)
    except OSError as error:
        await spool.aclose()
        raise NoSpace(f"no room for the request's body: {error}") from error
    finally:
        spool.end()
