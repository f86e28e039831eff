"""The spool: bytes in order through memory and a file that is bounded, on a disk that may be full, on every event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, settings, strategies as st

from conftest import LOOPS
from gatekeep._host_real import RealHost, RealSpoolFile
from gatekeep.transport import _spool
from gatekeep.transport._spool import PIECE, Spool

SMALL_PIECE = 100


class FakeFile:
    """A file in memory. A write may come short, and there is no space beyond a size."""

    def __init__(self, space: int = 1 << 40, at_once: int = 1 << 40) -> None:
        self.space = space
        self.at_once = at_once
        self.content = bytearray()
        self.writes: list[int] = []
        self.closed = False

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        assert not self.closed
        count = min(len(data), self.at_once, self.space - offset)
        if count <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert offset <= len(self.content), "a hole"
        self.content[offset : offset + count] = data[:count]
        self.writes.append(count)
        return count

    def pread(self, size: int, offset: int) -> bytes:
        assert not self.closed
        return bytes(self.content[offset : offset + min(size, self.at_once)])

    def close(self) -> None:
        self.closed = True


class FakeHost:
    """Does what blocks at once, but lets the other tasks go on for some turns before and after it."""

    def __init__(self, file: FakeFile, turns: Iterator[int] | None = None) -> None:
        self.file = file
        self.calls: list[str] = []
        self._turns = turns or iter(lambda: 1, 0)

    def spool_file(self, folder: str) -> FakeFile:
        return self.file

    async def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        self.calls.append(function.__name__)
        await self._pause()
        try:
            return function(*args)
        finally:
            with anyio.CancelScope(shield=True):
                await self._pause()

    async def _pause(self) -> None:
        for _ in range(next(self._turns, 0)):
            await anyio.lowlevel.checkpoint()


def pattern(size: int, start: int = 0) -> bytes:
    """Bytes that show it when one is missing or out of place."""
    number = bytes(range(251))
    start %= 251
    return (number * (size // 251 + 2))[start : start + size]


async def take_all(spool: Spool) -> bytes:
    taken = bytearray()
    while await spool.wait_filled():
        taken += await spool.take()
    return bytes(taken)


async def take_present(spool: Spool) -> bytes:
    taken = bytearray()
    while piece := await spool.take():
        taken += piece
    return bytes(taken)


class Putting:
    """A task that puts once, and whether it is through."""

    def __init__(self, tasks: TaskGroup, spool: Spool, data: bytes) -> None:
        self.returned = False
        tasks.start_soon(self._put, spool, data)

    async def _put(self, spool: Spool, data: bytes) -> None:
        await spool.put(data)
        self.returned = True


async def settle() -> None:
    """Let all other tasks come to where they wait."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


# --- any order of things, with a file in memory

turn_counts = st.lists(st.integers(0, 3), max_size=60)


@settings(max_examples=300)
@given(
    pieces=st.lists(st.integers(0, 400), max_size=25),
    memory=st.integers(0, 300),
    limit=st.integers(0, 900),
    space=st.one_of(st.just(1 << 40), st.integers(0, 600)),
    at_once=st.one_of(st.just(1 << 40), st.integers(1, 50)),
    put_turns=turn_counts,
    take_turns=turn_counts,
    disk_turns=turn_counts,
    backend=st.sampled_from(["asyncio", "trio"]),
)
def test_what_is_put_comes_out_in_order_however_puts_and_takes_interleave(
    pieces: list[int],
    memory: int,
    limit: int,
    space: int,
    at_once: int,
    put_turns: list[int],
    take_turns: list[int],
    disk_turns: list[int],
    backend: str,
) -> None:
    file = FakeFile(space, at_once)
    host = FakeHost(file, iter(disk_turns))
    put, taken = 0, bytearray()

    def check(spool: Spool) -> None:
        assert spool.size == put - len(taken)
        assert len(spool._tail) <= memory + max(pieces)
        assert spool._in_file <= limit
        assert len(file.content) <= min(limit, space)

    async def pauses(turns: Iterator[int]) -> None:
        for _ in range(next(turns, 0)):
            await anyio.lowlevel.checkpoint()

    async def putter(spool: Spool) -> None:
        nonlocal put
        turns = iter(put_turns)
        for size in pieces:
            data = pattern(size, put)
            put += size
            await spool.put(data)
            assert len(spool._tail) <= memory
            check(spool)
            await pauses(turns)
        spool.end()

    async def taker(spool: Spool) -> None:
        turns = iter(take_turns)
        while await spool.wait_filled():
            piece = await spool.take()
            assert 0 < len(piece) <= SMALL_PIECE
            taken.extend(piece)
            check(spool)
            await pauses(turns)

    async def main() -> None:
        spool = Spool(host, "", memory, limit)  # type: ignore[arg-type]
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(putter, spool)
                tasks.start_soon(taker, spool)
        assert (spool.size, await spool.take()) == (0, b"")
        await spool.aclose()
        assert file.closed == bool(host.calls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_spool, "PIECE", SMALL_PIECE)
        anyio.run(main, backend=backend)
    assert bytes(taken) == pattern(sum(pieces))


@settings(max_examples=200)
@given(
    pieces=st.lists(st.integers(0, 400), max_size=25),
    memory=st.integers(0, 300),
    at_once=st.one_of(st.just(1 << 40), st.integers(1, 50)),
)
def test_without_a_limit_all_is_put_before_anything_is_taken(
    pieces: list[int], memory: int, at_once: int
) -> None:
    file = FakeFile(at_once=at_once)

    async def main() -> bytes:
        spool = Spool(FakeHost(file), "", memory)  # type: ignore[arg-type]
        for size in pieces:
            await spool.put(pattern(size, spool.size))
            assert len(spool._tail) <= memory
        assert spool.size == sum(pieces)
        spool.end()
        return await take_all(spool)

    assert anyio.run(main) == pattern(sum(pieces))
    assert bool(file.content) <= (sum(pieces) > memory)


# --- when the file is used

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(LOOPS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return LOOPS[request.param]


def spool_on(file: FakeFile, memory: int, limit: int | None = None) -> tuple[Spool, FakeHost]:
    host = FakeHost(file)
    return Spool(host, "", memory, limit), host  # type: ignore[arg-type]


async def test_what_fits_into_memory_never_touches_the_file() -> None:
    spool, host = spool_on(FakeFile(), 1000)
    for _ in range(100):
        await spool.put(pattern(400))
        await spool.put(pattern(600))
        assert await spool.take() == pattern(400) + pattern(600)
    await spool.aclose()
    assert host.calls == []


async def test_a_large_body_makes_one_write_for_each_memory_full_and_reads_large_pieces() -> None:
    spool, host = spool_on(FakeFile(), 1 << 17)
    for number in range(128):
        await spool.put(pattern(1 << 16, number << 16))
    assert host.calls == ["_write"] * 42
    spool.end()
    assert await take_all(spool) == pattern(1 << 23)
    assert host.calls.count("_read") == -(-42 * (3 << 16) // PIECE)


async def test_an_emptied_file_is_used_from_its_beginning_again() -> None:
    spool, host = spool_on(FakeFile(), 100, 10_000)
    for start in range(0, 5000, 500):
        await spool.put(pattern(500, start))
        assert await spool.take() == pattern(500, start)
    assert len(host.file.content) == 500


async def test_a_limit_of_nothing_means_no_file() -> None:
    spool, host = spool_on(FakeFile(), 100, 0)
    await spool.put(pattern(100))
    async with anyio.create_task_group() as tasks:
        putting = Putting(tasks, spool, pattern(1, 100))
        await settle()
        assert not putting.returned
        assert await spool.take() == pattern(101)
    assert putting.returned
    await spool.aclose()
    assert (host.calls, spool.disk_error) == ([], None)


# --- back-pressure


async def test_a_full_spool_lets_put_wait_until_something_is_taken() -> None:
    spool, _ = spool_on(FakeFile(), 100, 1000)
    await spool.put(pattern(1000))
    await spool.put(pattern(100, 1000))
    async with anyio.create_task_group() as tasks:
        putting = Putting(tasks, spool, pattern(1, 1100))
        await settle()
        assert not putting.returned
        assert spool.size == 1101
        assert await spool.take() == pattern(1000)
    assert await take_present(spool) == pattern(101, 1000)


async def test_a_put_that_is_cancelled_while_it_waits_has_put() -> None:
    spool, _ = spool_on(FakeFile(), 10, 10)
    async with anyio.create_task_group() as tasks:
        putting = Putting(tasks, spool, pattern(50))
        await settle()
        tasks.cancel_scope.cancel()
    assert not putting.returned
    assert await take_present(spool) == pattern(50)


@pytest.mark.parametrize("turns", range(8))
async def test_a_put_that_is_cancelled_while_it_writes_loses_and_doubles_nothing(turns: int) -> None:
    host = FakeHost(FakeFile(), iter(lambda: 3, 0))
    spool = Spool(host, "", 10, 100)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        Putting(tasks, spool, pattern(50))
        await anyio.lowlevel.checkpoint()
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert spool.size in (0, 50)
    if spool.size:  # the task had begun
        await spool.put(pattern(30, 50))
        assert await take_present(spool) == pattern(80)


async def test_waiting_ends_when_something_comes_and_when_nothing_will() -> None:
    spool, _ = spool_on(FakeFile(), 100)
    found: list[bool] = []

    async def wait() -> None:
        found.append(await spool.wait_filled())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await settle()
        assert found == []
        await spool.put(b"x")
    spool.end()
    assert (found, await spool.wait_filled()) == ([True], True), "what was put before the end is still there"
    await spool.take()
    assert not await spool.wait_filled()

    other, _ = spool_on(FakeFile(), 100)
    async with anyio.create_task_group() as tasks:
        spool = other
        tasks.start_soon(wait)
        await settle()
        other.end()
    assert found == [True, False]


# --- a disk that is full


@pytest.mark.parametrize("at_once", [7, 1 << 40])
async def test_a_full_disk_is_raised_where_nobody_takes_meanwhile(at_once: int) -> None:
    spool, host = spool_on(FakeFile(space=150, at_once=at_once), 100)
    await spool.put(pattern(101))
    with pytest.raises(OSError) as full:
        await spool.put(pattern(101))
    assert full.value.errno == errno.ENOSPC
    await spool.aclose()
    assert host.file.closed
    assert spool.size == 0


async def test_a_full_disk_is_back_pressure_for_a_response() -> None:
    spool, host = spool_on(FakeFile(space=250), 100, 1000)
    await spool.put(pattern(200))
    assert spool.disk_error is None
    async with anyio.create_task_group() as tasks:
        Putting(tasks, spool, pattern(101, 200))
        await settle()
        assert spool.disk_error is not None
        assert spool.disk_error.errno == errno.ENOSPC
        assert spool.disk_error.__traceback__ is None, "it would keep a copy of what was to be written"
        assert await spool.take() == pattern(200)
        await settle()
        assert len(spool._tail) == 101, "there is still too much in memory"
        assert await spool.take() == pattern(101, 200)
    calls = len(host.calls)
    async with anyio.create_task_group() as tasks:
        Putting(tasks, spool, pattern(300))
        await settle()
        assert await spool.take() == pattern(300)
    assert len(host.calls) == calls, "the disk is not asked again"


class NothingGoesIn(FakeFile):
    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return 0


async def test_a_file_that_takes_nothing_without_an_error_is_a_full_one() -> None:
    spool, _ = spool_on(NothingGoesIn(), 10)
    with pytest.raises(OSError, match="takes nothing"):
        await spool.put(pattern(11))


async def test_a_file_that_has_become_shorter_is_an_error_and_not_the_end() -> None:
    spool, host = spool_on(FakeFile(), 10)
    await spool.put(pattern(200))
    del host.file.content[150:]
    with pytest.raises(OSError, match="shorter"):
        await spool.take()


# --- real files


@pytest.fixture
async def host() -> Any:
    host = RealHost()
    yield host
    host.close()


class Watched(RealSpoolFile):
    """A real file that says in which threads it was used and how large it became."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.threads: set[int] = set()
        self.largest = 0

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        count = super().pwrite(data[:30_000], offset)
        self.threads.add(threading.get_ident())
        assert self._file is not None
        self.largest = max(self.largest, os.fstat(self._file.fileno()).st_size)
        return count

    def pread(self, size: int, offset: int) -> bytes:
        self.threads.add(threading.get_ident())
        return super().pread(size, offset)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        super().close()


def host_file(spool: Spool) -> Any:
    return spool._file._file  # type: ignore[attr-defined]


def watched(host: RealHost, monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """The files that the host will make."""
    files: list[Watched] = []

    def spool_file(folder: str) -> Watched:
        files.append(Watched(folder))
        return files[-1]

    monkeypatch.setattr(host, "spool_file", spool_file)
    return files


async def test_a_response_of_any_length_passes_through_a_real_file_of_bounded_size(
    host: RealHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = watched(host, monkeypatch)
    spool = Spool(host, str(tmp_path), 1 << 16, 1_000_003)
    length = 8_000_000

    async def put_all() -> None:
        for start in range(0, length, 50_000):
            await spool.put(pattern(50_000, start))
        spool.end()

    taken = bytearray()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(put_all)
            while await spool.wait_filled():
                taken += await spool.take()
        await spool.aclose()
    assert taken == pattern(length)
    assert files[0].largest <= 1_000_003
    assert threading.get_ident() not in files[0].threads, "nothing of it blocks the event loop"


async def test_a_real_file_has_no_name_and_goes_with_the_spool(host: RealHost, tmp_path: Path) -> None:
    spool = Spool(host, str(tmp_path), 1000)
    await spool.put(pattern(500_000))
    file = host_file(spool)
    assert os.listdir(tmp_path) == []
    assert os.fstat(file.fileno()).st_size == 500_000
    with anyio.CancelScope() as scope:
        scope.cancel()
        await spool.aclose()
    assert file.closed
    await spool.aclose()


async def test_a_folder_that_is_not_there_is_an_error_of_put(host: RealHost, tmp_path: Path) -> None:
    spool = Spool(host, str(tmp_path / "nowhere"), 1000)
    await spool.put(pattern(1000))
    with pytest.raises(FileNotFoundError):
        await spool.put(pattern(1))
    await spool.aclose()


@pytest.mark.parametrize("anyio_backend", [LOOPS["asyncio"], LOOPS["uvloop"]], ids=["asyncio", "uvloop"])
async def test_a_write_that_its_task_did_not_wait_for_ends_before_its_descriptor_is_given_back(
    host: RealHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    real_pwrite, seen = os.pwrite, []

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        inside.set()
        go_on.wait(60)
        seen.append(os.fstat(descriptor).st_ino)
        return real_pwrite(descriptor, data, offset)

    spool = Spool(host, str(tmp_path), 1000)
    monkeypatch.setattr(os, "pwrite", pwrite)
    putting = asyncio.create_task(spool.put(pattern(2000)))
    while not inside.is_set():
        await anyio.sleep(0.001)
    file = host_file(spool)
    inode = os.fstat(file.fileno()).st_ino
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    closing = asyncio.create_task(spool.aclose())
    await settle()
    assert not file.closed
    go_on.set()
    await closing
    assert file.closed
    assert seen == [inode]


def test_a_write_that_comes_after_the_close_makes_no_file(tmp_path: Path) -> None:
    file = RealSpoolFile(str(tmp_path))
    file.close()
    file.close()
    for late in (lambda: file.pwrite(b"x", 0), lambda: file.pread(1, 0)):
        with pytest.raises(OSError) as refused:
            late()
        assert refused.value.errno == errno.EBADF
    assert file._file is None
