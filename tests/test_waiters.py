"""Waiting for real sockets on every event loop: nothing that happens is missed, whoever waits for it and when."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from conftest import LOOPS
from gatekeep._host import Ended, Waiter
from gatekeep._host_net import RealNet
from gatekeep._waiters import LoopWaiter, TrioWaiter, is_asyncio

needs_epoll = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the kernel has no epoll")

SOON = 0.05
"""Seconds after which what has not happened is taken not to happen; only for what must not."""


def run(loop: str, main: Callable[[], Awaitable[None]]) -> None:
    backend, options = LOOPS[loop]

    async def bounded() -> None:
        with anyio.fail_after(60):
            await main()

    anyio.run(bounded, backend=backend, backend_options=options)


@contextlib.asynccontextmanager
async def net_open() -> AsyncIterator[RealNet]:
    net = RealNet()
    try:
        yield net
    finally:
        with anyio.CancelScope(shield=True):
            await turns()  # what the loop has noticed already is still told
        net.close()


class Pair:
    """Two ends of one connection; `ours` is waited for."""

    def __init__(self, kind: str) -> None:
        if kind == "unix":
            self.ours, self.theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                self.theirs = socket.create_connection(server.getsockname())
                self.ours, _ = server.accept()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)

    def reset(self) -> None:
        """The peer breaks the connection."""
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.theirs.close()

    def fill(self) -> None:
        """Send until the peer's buffer is full."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.ours.send(bytes(65536))

    def drain(self) -> int:
        """The peer reads all that there is."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while data := self.theirs.recv(1 << 20):
                count += len(data)
        return count

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()


Make = Callable[[Any], contextlib.AbstractAsyncContextManager[Waiter]]


@pytest.fixture(params=["epoll", "loop"])
def make(request: pytest.FixtureRequest) -> Make:
    """Both ways to wait: with an epoll of our own, and as it is done on systems that have none."""

    @contextlib.asynccontextmanager
    async def with_epoll(sock: Any) -> AsyncIterator[Waiter]:
        async with net_open() as net:
            waiter = net.waiter(sock)
            yield waiter
            waiter.close()

    @contextlib.asynccontextmanager
    async def with_loop(sock: Any) -> AsyncIterator[Waiter]:
        waiter: Waiter = LoopWaiter(sock) if is_asyncio() else TrioWaiter(sock)
        yield waiter
        waiter.close()

    if request.param == "epoll" and not hasattr(select, "epoll"):
        pytest.skip("the kernel has no epoll")
    return with_epoll if request.param == "epoll" else with_loop


async def returns(wait: Awaitable[None]) -> bool:
    """Whether the wait ends soon, though it should not."""
    with anyio.move_on_after(SOON):
        await wait
        return True
    return False


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await anyio.sleep(0.001)


class Waits:
    """A task that waits, and whether it has returned."""

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        self.over = False
        self._wait = wait

    async def run(self) -> None:
        await self._wait()
        self.over = True


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await checkpoint()


# --- readable, writable, interrupted: both ways to wait


def test_a_wait_ends_when_data_comes(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            for number in range(3):
                waits = Waits(waiter.wait_readable)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(waits.run)
                    await turns()
                    assert not waits.over
                    pair.theirs.send(b"x" * (number + 1))
                assert pair.ours.recv(100) == b"x" * (number + 1)
                with pytest.raises(BlockingIOError):
                    pair.ours.recv(100)

    run(loop, main)


def test_what_came_before_the_wait_is_not_lost(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            for _ in range(3):
                pair.theirs.send(b"data")
                await turns(30)  # the event comes while nobody waits
                while True:  # it may be too early, too
                    await waiter.wait_readable()
                    try:
                        assert pair.ours.recv(100) == b"data"
                        break
                    except BlockingIOError:
                        continue

    run(loop, main)


def test_what_came_before_there_was_a_waiter_is_not_lost(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        pair.theirs.send(b"data")
        async with make(pair.ours) as waiter:
            await waiter.wait_readable()
            assert pair.ours.recv(100) == b"data"

    run(loop, main)


def test_a_wait_that_was_cancelled_leaves_the_next_one_as_it_was(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            for wait in (waiter.wait_readable, waiter.wait_readable):
                assert not await returns(wait())
            pair.theirs.send(b"data")
            await waiter.wait_readable()
            assert pair.ours.recv(100) == b"data"
            pair.fill()
            assert not await returns(waiter.wait_writable())
            waits = Waits(waiter.wait_writable)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(waits.run)
                await turns()
                while not waits.over:  # what was on its way comes after what was there
                    pair.drain()
                    await anyio.sleep(0.001)
            assert pair.ours.send(b"more") == 4

    run(loop, main)


def test_a_wait_for_room_ends_when_the_peer_has_read(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            for _ in range(3):
                pair.fill()
                waits = Waits(waiter.wait_writable)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(waits.run)
                    await turns()
                    assert not waits.over
                    while not waits.over:
                        pair.drain()
                        await anyio.sleep(0.001)
                assert pair.ours.send(b"more") == 4

    run(loop, main)


def test_where_there_is_room_a_wait_for_it_ends_at_once(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            for _ in range(3):
                await waiter.wait_writable()

    run(loop, main)


def test_one_task_waits_for_each_direction(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            pair.fill()
            reads, writes = Waits(waiter.wait_readable), Waits(waiter.wait_writable)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reads.run)
                tasks.start_soon(writes.run)
                await turns()
                assert (reads.over, writes.over) == (False, False)
                pair.theirs.send(b"data")
                await until(lambda: reads.over)
                assert not writes.over
                while not writes.over:
                    pair.drain()
                    await anyio.sleep(0.001)

    run(loop, main)


def test_an_interrupt_ends_the_wait_that_is_going_on(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            for _ in range(2):
                waits = Waits(waiter.wait_readable)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(waits.run)
                    await turns()
                    waiter.interrupt()
                    waiter.interrupt()
                assert waits.over
                with pytest.raises(BlockingIOError):
                    pair.ours.recv(100)
            pair.theirs.send(b"data")
            await waiter.wait_readable()
            assert pair.ours.recv(100) == b"data"

    run(loop, main)


def test_an_interrupt_while_nobody_waits_is_nothing(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            waiter.interrupt()
            assert not await returns(waiter.wait_readable())
            waiter.interrupt()
            pair.theirs.send(b"data")
            await waiter.wait_readable()

    run(loop, main)


def test_data_that_comes_in_the_moment_of_an_interrupt_is_not_lost(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            for order in ("data first", "interrupt first"):
                waits = Waits(waiter.wait_readable)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(waits.run)
                    await turns()
                    if order == "data first":
                        pair.theirs.send(b"data")
                    waiter.interrupt()
                    if order != "data first":
                        pair.theirs.send(b"data")
                while True:
                    try:
                        assert pair.ours.recv(100) == b"data"
                        break
                    except BlockingIOError:
                        await waiter.wait_readable()

    run(loop, main)


def test_the_end_is_readable_for_ever(loop: str, make: Make, pair: Pair) -> None:
    async def main() -> None:
        async with make(pair.ours) as waiter:
            pair.theirs.send(b"data")
            pair.theirs.close()
            await waiter.wait_readable()
            assert pair.ours.recv(100) == b"data"
            for _ in range(3):
                await waiter.wait_readable()
                assert pair.ours.recv(100) == b""

    run(loop, main)


# --- the end, while nobody waits


class Ends:
    """What `on_end` has told."""

    def __init__(self, waiter: Waiter) -> None:
        self.told: list[Ended] = []
        self._waiter = waiter
        waiter.on_end = self._tell

    def _tell(self) -> None:
        self.told.append(self._waiter.ended)


@needs_epoll
def test_an_end_of_the_peers_sending_is_told_while_nobody_waits(loop: str, pair: Pair) -> None:
    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            ends = Ends(waiter)
            await turns()
            assert (waiter.ended, ends.told) == (Ended.NOT, [])
            pair.theirs.send(b"a request")
            await turns(30)
            assert (waiter.ended, ends.told) == (Ended.NOT, [])
            pair.theirs.shutdown(socket.SHUT_WR)
            await until(lambda: bool(ends.told))
            assert set(ends.told) == {waiter.ended} == {Ended.SENDING}
            assert pair.ours.recv(100) == b"a request"
            assert pair.ours.send(b"an answer") == 9, "it may be read"
            assert pair.theirs.recv(100) == b"an answer"
            waiter.close()

    run(loop, main)


@needs_epoll
@pytest.mark.parametrize("shut_before", [False, True])
def test_a_reset_is_told_while_nobody_waits(loop: str, shut_before: bool) -> None:
    pair = Pair("tcp")

    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            ends = Ends(waiter)
            await turns()
            if shut_before:
                pair.theirs.shutdown(socket.SHUT_WR)
                await until(lambda: bool(ends.told))
            pair.reset()
            await until(lambda: Ended.BROKEN in ends.told)
            assert waiter.ended is Ended.BROKEN
            assert ends.told == sorted(ends.told), "it never gets better"
            waiter.close()

    run(loop, main)
    pair.close()


@needs_epoll
def test_a_peer_that_is_gone_is_found_out_when_something_is_sent_to_it(loop: str) -> None:
    pair = Pair("tcp")

    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            ends = Ends(waiter)
            pair.theirs.close()
            await until(lambda: bool(ends.told))
            assert waiter.ended is Ended.SENDING, "nobody can tell it from one that half-closed"
            pair.ours.send(b"are you there?")
            await until(lambda: ends.told[-1] is Ended.BROKEN)
            waiter.close()

    run(loop, main)
    pair.close()


@needs_epoll
def test_a_unix_peer_that_has_closed_is_broken(loop: str) -> None:
    pair = Pair("unix")

    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            ends = Ends(waiter)
            pair.theirs.close()
            await until(lambda: bool(ends.told))
            assert waiter.ended is Ended.BROKEN
            waiter.close()

    run(loop, main)
    pair.close()


@needs_epoll
def test_an_end_is_told_while_somebody_waits_too(loop: str, pair: Pair) -> None:
    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            ends = Ends(waiter)
            waits = Waits(waiter.wait_readable)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(waits.run)
                await turns()
                pair.theirs.shutdown(socket.SHUT_WR)
            assert waits.over
            assert waiter.ended is Ended.SENDING
            assert ends.told
            waiter.close()

    run(loop, main)


@needs_epoll
def test_a_peer_that_only_sends_no_more_does_not_end_a_wait_for_room(loop: str, pair: Pair) -> None:
    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            ends = Ends(waiter)
            pair.fill()
            waits = Waits(waiter.wait_writable)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(waits.run)
                await turns()
                pair.theirs.shutdown(socket.SHUT_WR)
                await until(lambda: bool(ends.told))
                await anyio.sleep(SOON)
                assert not waits.over
                while not waits.over:
                    pair.drain()
                    await anyio.sleep(0.001)
            waiter.close()

    run(loop, main)


@needs_epoll
def test_a_reset_ends_every_wait(loop: str) -> None:
    pair = Pair("tcp")

    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            pair.fill()
            reads, writes = Waits(waiter.wait_readable), Waits(waiter.wait_writable)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reads.run)
                tasks.start_soon(writes.run)
                await turns()
                pair.reset()
            assert waiter.ended is Ended.BROKEN
            with pytest.raises(ConnectionResetError):
                pair.ours.recv(100)
            waiter.close()

    run(loop, main)
    pair.close()


# --- closing


@needs_epoll
def test_after_close_nothing_is_told(loop: str, pair: Pair) -> None:
    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            ends = Ends(waiter)
            await turns()
            pair.theirs.shutdown(socket.SHUT_WR)
            waiter.close()  # the event is there already
            waiter.close()
            await turns(30)
            assert ends.told == []
            assert pair.ours.recv(100) == b"", "the socket is as it was"

    run(loop, main)


@needs_epoll
def test_a_descriptor_that_is_used_again_is_another_socket(loop: str) -> None:
    async def main() -> None:
        async with net_open() as net:
            for _ in range(5):
                old = Pair("unix")
                number = old.ours.fileno()
                waiter = net.waiter(old.ours)
                ends = Ends(waiter)
                await turns()
                old.theirs.send(b"for the old one")
                old.theirs.shutdown(socket.SHUT_WR)
                waiter.close()
                old.close()
                new = Pair("unix")
                assert number in (new.ours.fileno(), new.theirs.fileno())
                waiter = net.waiter(new.ours)
                assert waiter.ended is Ended.NOT
                assert not await returns(waiter.wait_readable()) or number != new.ours.fileno()
                new.theirs.send(b"for the new one")
                await waiter.wait_readable()
                assert new.ours.recv(100) == b"for the new one"
                assert ends.told == []
                waiter.close()
                new.close()

    run(loop, main)


@needs_epoll
def test_a_socket_that_was_forgotten_can_be_waited_for_again(loop: str, pair: Pair) -> None:
    async def main() -> None:
        async with net_open() as net:
            for _ in range(3):
                waiter = net.waiter(pair.ours)
                pair.theirs.send(b"data")
                await waiter.wait_readable()
                assert pair.ours.recv(100) == b"data"
                waiter.close()

    run(loop, main)


@needs_epoll
def test_a_waiter_may_be_closed_after_all_waiting_is(loop: str, pair: Pair) -> None:
    async def main() -> None:
        async with net_open() as net:
            waiter = net.waiter(pair.ours)
            await turns()
        await turns()
        waiter.close()

    run(loop, main)


@needs_epoll
def test_an_end_may_close_other_sockets_whose_events_are_due(loop: str) -> None:
    async def main() -> None:
        async with net_open() as net:
            pairs = [Pair("unix") for _ in range(20)]
            waiters = [net.waiter(pair.ours) for pair in pairs]
            told: list[int] = []

            def ended(number: int) -> None:
                told.append(number)
                for waiter, pair in zip(waiters, pairs, strict=True):
                    waiter.close()
                    pair.ours.close()

            for number, waiter in enumerate(waiters):
                waiter.on_end = lambda number=number: ended(number)
            await turns()
            for pair in pairs:
                pair.theirs.shutdown(socket.SHUT_WR)
            await until(lambda: bool(told))
            await turns(30)
            assert len(told) == 1
            for pair in pairs:
                pair.close()

    run(loop, main)


# --- many


@needs_epoll
def test_more_sockets_than_are_looked_at_at_once_are_all_served(loop: str) -> None:
    count, rounds = 300, 5

    async def main() -> None:
        async with net_open() as net:
            pairs = [Pair("unix") for _ in range(count)]

            async def serve(pair: Pair) -> None:
                waiter = net.waiter(pair.ours)
                for number in range(rounds):
                    while True:
                        try:
                            assert pair.ours.recv(100) == str(number).encode()
                            break
                        except BlockingIOError:
                            await waiter.wait_readable()
                    served.append(number)
                waiter.close()

            served: list[int] = []
            async with anyio.create_task_group() as tasks:
                for pair in pairs:
                    tasks.start_soon(serve, pair)
                for number in range(rounds):
                    for pair in pairs:
                        pair.theirs.send(str(number).encode())
                    await until(lambda number=number: len(served) == count * (number + 1))  # type: ignore[misc]
            for pair in pairs:
                pair.close()

    run(loop, main)


@needs_epoll
def test_all_of_many_ends_are_told(loop: str) -> None:
    async def main() -> None:
        async with net_open() as net:
            pairs = [Pair("unix") for _ in range(300)]
            waiters = [net.waiter(pair.ours) for pair in pairs]
            ends = [Ends(waiter) for waiter in waiters]
            for pair in pairs:
                pair.theirs.shutdown(socket.SHUT_WR)
            await until(lambda: all(end.told for end in ends))
            assert {waiter.ended for waiter in waiters} == {Ended.SENDING}
            for waiter, pair in zip(waiters, pairs, strict=True):
                waiter.close()
                pair.close()

    run(loop, main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_all_waiting_may_be_closed_in_the_moment_of_an_event(backend: str) -> None:
    async def main() -> None:
        for _ in range(50):
            net = RealNet()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            waiter = net.waiter(ours)
            await checkpoint()
            theirs.send(b"data")
            await checkpoint()
            waiter.close()
            net.close()
            await checkpoint()
            ours.close()
            theirs.close()

    anyio.run(main, backend=backend)
