"""One connection: what is there comes first, a wait ends when its time is over, and a flood does not stop the loop."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from conftest import LOOPS
from gatekeep._alarms import Alarm, Alarms
from gatekeep._channel import CHECKPOINT_BYTES, Channel, WaitExpired
from gatekeep._events import Record
from gatekeep._host import Ended
from gatekeep._host_net import RealNet
from gatekeep.transport._hop import Hop


class Monotonic:
    """The system's clock."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class Line:
    """A channel of ours and the blocking socket at its other end."""

    def __init__(self, net: RealNet, alarms: Alarms, kind: str, options: dict[str, Any]) -> None:
        if kind == "unix":
            ours, self.peer = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                self.peer = socket.create_connection(server.getsockname())
                ours, _ = server.accept()
        ours.setblocking(False)
        self.peer.settimeout(30)
        self.ours = ours
        self.net = net
        self.alarm = Alarm(alarms)
        self.channel = Channel(net, ours, self.alarm, **options)

    def ring_after(self, seconds: float) -> None:
        self.alarm.set(time.monotonic() + seconds)

    def fill(self) -> None:
        """Send until there is no room."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.ours.send(bytes(65536))


def talk(loop: str, play: Callable[[Line], Awaitable[None]], kind: str = "unix", **options: Any) -> None:
    """Play something over a line on one event loop, where alarms ring."""
    backend, backend_options = LOOPS[loop]

    async def main() -> None:
        net, alarms = RealNet(), Alarms()
        line = Line(net, alarms, kind, options)
        try:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(alarms.run, Monotonic())
                    await play(line)
                    tasks.cancel_scope.cancel()
        finally:
            line.channel.close()
            line.peer.close()
            for _ in range(10):
                await checkpoint()  # what the loop has noticed already is still told
            net.close()

    anyio.run(main, backend=backend, backend_options=backend_options)


@pytest.fixture(params=["unix", "tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


RECEIVES = pytest.mark.parametrize("receive", [Channel.receive, Channel.receive_next])


async def later(line: Line, act: Callable[[], object]) -> None:
    """Do something when the other task waits."""
    for _ in range(10):
        await checkpoint()
    act()


# --- receiving


@RECEIVES
def test_what_is_there_is_received_and_what_comes_next_and_the_end(
    loop: str, kind: str, receive: Callable[..., Awaitable[bytes]]
) -> None:
    async def play(line: Line) -> None:
        line.peer.sendall(b"one")
        assert await receive(line.channel) == b"one"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, line, lambda: line.peer.sendall(b"two"))
            assert await receive(line.channel) == b"two"
        line.peer.sendall(b"three")
        line.peer.close()
        assert await receive(line.channel) == b"three"
        assert await receive(line.channel) == b""
        assert await receive(line.channel) == b""

    talk(loop, play, kind)


@RECEIVES
def test_what_a_small_read_has_left_is_not_waited_for(
    loop: str, receive: Callable[..., Awaitable[bytes]]
) -> None:
    async def play(line: Line) -> None:
        line.peer.sendall(b"abcdefgh")
        assert await receive(line.channel, 4) == b"abcd"
        assert await receive(line.channel, 4) == b"efgh"
        line.ring_after(0.01)
        with pytest.raises(WaitExpired):
            await receive(line.channel, 4)

    talk(loop, play)


def test_a_receive_that_was_cancelled_has_taken_nothing(loop: str) -> None:
    async def play(line: Line) -> None:
        for number in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(line.channel.receive)
                for _ in range(5):
                    await checkpoint()
                tasks.cancel_scope.cancel()
            line.peer.sendall(str(number).encode())
            assert await line.channel.receive() == str(number).encode()

    talk(loop, play)


# --- the alarm


@RECEIVES
def test_a_receive_waits_until_the_alarm_rings_and_no_less(
    loop: str, kind: str, receive: Callable[..., Awaitable[bytes]]
) -> None:
    async def play(line: Line) -> None:
        for _ in range(2):
            began = time.monotonic()
            line.alarm.set(began + 0.05)
            with pytest.raises(WaitExpired, match="nothing came in time"):
                await receive(line.channel)
            assert time.monotonic() - began >= 0.05
        line.alarm.off()
        line.peer.sendall(b"late")
        assert await receive(line.channel) == b"late", "the connection is as good as before"

    talk(loop, play, kind)


@RECEIVES
def test_an_alarm_that_rang_before_ends_the_next_wait_at_once(
    loop: str, receive: Callable[..., Awaitable[bytes]]
) -> None:
    async def play(line: Line) -> None:
        line.alarm.ring_now()
        for _ in range(2):
            with pytest.raises(WaitExpired):
                await receive(line.channel)
        line.alarm.off()
        line.ring_after(3600)
        line.peer.sendall(b"data")
        assert await receive(line.channel) == b"data"

    talk(loop, play)


def test_what_is_there_comes_before_the_alarm(loop: str) -> None:
    async def play(line: Line) -> None:
        line.peer.sendall(b"data")
        line.alarm.ring_now()
        assert await line.channel.receive() == b"data"
        with pytest.raises(WaitExpired):
            await line.channel.receive()

    talk(loop, play)


@RECEIVES
def test_an_alarm_that_was_moved_back_does_not_end_the_wait(
    loop: str, receive: Callable[..., Awaitable[bytes]]
) -> None:
    async def play(line: Line) -> None:
        line.ring_after(0.02)
        line.ring_after(3600)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_after_a_while, line)
            assert await receive(line.channel) == b"data"

    async def send_after_a_while(line: Line) -> None:
        await anyio.sleep(0.1)
        line.peer.sendall(b"data")

    talk(loop, play)


def test_an_alarm_does_not_end_a_send(loop: str) -> None:
    async def play(line: Line) -> None:
        line.fill()
        line.alarm.ring_now()
        with anyio.move_on_after(0.05) as scope:
            await line.channel.send(b"more")
        assert scope.cancelled_caught

    talk(loop, play)


# --- sending


def read_all(peer: socket.socket, pause: float = 0.0) -> Iterator[bytes]:
    while data := peer.recv(1 << 16):
        yield data
        time.sleep(pause)


class Reader(threading.Thread):
    """Reads all that comes, slowly if asked to."""

    def __init__(self, peer: socket.socket, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.received = b""
        self._peer = peer
        self._pause = pause
        self.start()

    def run(self) -> None:
        self.received = b"".join(read_all(self._peer, self._pause))


def test_a_send_that_gets_nowhere_ends_after_its_time_and_no_sooner(loop: str, kind: str) -> None:
    async def play(line: Line) -> None:
        line.fill()
        began = time.monotonic()
        with pytest.raises(WaitExpired, match=r"nothing was taken for 0\.05 s"):
            await line.channel.send(bytes(1 << 22))
        assert time.monotonic() - began >= 0.048, "libuv's timers know milliseconds"

    talk(loop, play, kind, send_timeout=0.05)


def test_a_send_may_take_longer_than_its_time_while_some_of_it_goes_out(loop: str) -> None:
    data = random.Random(1).randbytes(3 << 20)

    async def play(line: Line) -> None:
        reader = Reader(line.peer, pause=0.12)
        began = time.monotonic()
        await line.channel.send(data)
        took.append(time.monotonic() - began)
        line.channel.stop_writing()
        while reader.is_alive():
            await anyio.sleep(0.005)
        assert reader.received == data

    took: list[float] = []
    # At least 48 reads of 64 KiB, most of which the send has to wait for; a busy machine may keep one of them for long.
    talk(loop, play, send_timeout=5.0)
    assert took[0] > 5.0


@pytest.mark.parametrize("sizes", [[0], [1], [10, 20], [65536, 1], [1 << 20, 3, 1 << 20], [100] * 50])
def test_parts_arrive_whole_and_in_order(loop: str, kind: str, sizes: list[int]) -> None:
    chance = random.Random(2)
    parts: list[bytes | memoryview] = [chance.randbytes(size) for size in sizes]

    async def play(line: Line) -> None:
        reader = Reader(line.peer)
        for rest in line.channel.send_parts_nowait(list(parts)):
            await line.channel.send(rest)
        line.channel.stop_writing()
        while reader.is_alive():
            await anyio.sleep(0.001)
        assert reader.received == b"".join(parts)

    talk(loop, play, kind)


def test_a_send_to_one_that_is_gone_fails(loop: str) -> None:
    async def play(line: Line) -> None:
        line.peer.close()
        with pytest.raises(BrokenPipeError):
            await line.channel.send(b"data")

    talk(loop, play)


def test_a_peer_that_goes_ends_a_send_that_waits(loop: str) -> None:
    async def play(line: Line) -> None:
        line.fill()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, line, line.peer.close)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await line.channel.send(bytes(1 << 22))

    talk(loop, play)


# --- TCP's own timeout


class TimedOutSocket:
    """A connection that TCP has given up: nothing of it was acknowledged for too long."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno, self.close = sock.fileno, sock.close

    def _fail(self, *_: Any) -> Any:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    recv = send = _fail


def test_tcps_own_timeout_is_no_expired_wait(loop: str) -> None:
    async def play(line: Line) -> None:
        line.channel.socket = TimedOutSocket(line.ours)  # type: ignore[assignment]
        for act in (line.channel.receive(), line.channel.receive_next(), line.channel.send(b"data")):
            line.peer.send(b"so that nobody waits")
            with pytest.raises(TimeoutError) as failed:
                await act
            assert type(failed.value) is TimeoutError

    talk(loop, play)


def test_for_a_hop_tcps_own_timeout_is_its_end_and_an_alarm_is_not(loop: str) -> None:
    async def play(line: Line) -> None:
        hop = Hop(line.channel, 0.0, Record(1, "", 0.0))
        line.alarm.ring_now()
        with pytest.raises(WaitExpired):
            await hop.read_more()
        line.alarm.off()
        line.channel.socket = TimedOutSocket(line.ours)  # type: ignore[assignment]
        assert not await hop.read_more()

    talk(loop, play)


def test_a_connection_that_tcp_gives_up_really_says_so(loop: str) -> None:
    """The peer is there, but has not read for so long that the kernel gives up."""

    async def play(line: Line) -> None:
        line.ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
        line.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        with pytest.raises(TimeoutError) as failed:
            while True:
                await line.channel.send(bytes(1 << 20))
        assert type(failed.value) is TimeoutError
        assert line.channel.ended is Ended.BROKEN

    talk(loop, play, "tcp", send_timeout=50)


# --- interrupts, ends, looks


@RECEIVES
def test_an_interrupt_ends_the_receive_that_is_pending(
    loop: str, receive: Callable[..., Awaitable[bytes]]
) -> None:
    async def play(line: Line) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, line, line.channel.interrupt)
            assert await receive(line.channel) == b""
        line.ring_after(0.01)
        with pytest.raises(WaitExpired):
            await receive(line.channel)

    talk(loop, play)


@RECEIVES
def test_an_interrupt_is_kept_for_the_next_receive_and_what_is_there_comes_first(
    loop: str, receive: Callable[..., Awaitable[bytes]]
) -> None:
    async def play(line: Line) -> None:
        line.channel.interrupt()
        assert await receive(line.channel) == b""
        line.peer.sendall(b"data")
        line.channel.interrupt()
        assert await receive(line.channel) == b"data"
        line.ring_after(0.01)
        with pytest.raises(WaitExpired):
            await receive(line.channel)

    talk(loop, play)


def test_an_end_is_told_while_nobody_waits(loop: str, kind: str) -> None:
    async def play(line: Line) -> None:
        told = anyio.Event()
        assert line.channel.ended is Ended.NOT
        line.channel.when_ended(told.set)
        line.peer.shutdown(socket.SHUT_WR)
        await told.wait()
        assert line.channel.ended is Ended.SENDING

    talk(loop, play, kind)


def test_a_look_takes_nothing_and_an_end_is_no_data(loop: str) -> None:
    async def play(line: Line) -> None:
        assert not line.channel.has_data()
        line.peer.sendall(b"data")
        assert line.channel.has_data()
        assert await line.channel.receive() == b"data"
        line.peer.close()
        assert not line.channel.has_data()

    talk(loop, play)


def test_what_the_peer_has_not_read_is_known(loop: str) -> None:
    async def play(line: Line) -> None:
        assert not line.channel.is_unread()
        await line.channel.send(b"data")
        assert line.channel.is_unread()
        line.peer.recv(100)
        assert not line.channel.is_unread()

    talk(loop, play)


def test_after_the_reading_side_is_shut_what_is_queued_is_read_and_then_the_end(loop: str) -> None:
    async def play(line: Line) -> None:
        line.peer.sendall(b"queued")
        line.channel.stop_reading()
        line.channel.stop_reading()
        with pytest.raises(BrokenPipeError):
            line.peer.sendall(b"late")
        assert await line.channel.receive() == b"queued"
        assert await line.channel.receive() == b""

    talk(loop, play)


def test_shutting_the_reading_side_ends_a_pending_receive(loop: str) -> None:
    async def play(line: Line) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, line, line.channel.stop_reading)
            assert await line.channel.receive_next() == b""

    talk(loop, play)


def test_an_abort_resets_the_connection(loop: str) -> None:
    async def play(line: Line) -> None:
        await line.channel.send(b"the beginning")
        line.channel.abort()
        with pytest.raises(ConnectionResetError):
            while line.peer.recv(100):
                pass

    talk(loop, play, "tcp")


def test_one_that_is_forgotten_stays_open(loop: str) -> None:
    async def play(line: Line) -> None:
        line.channel.forget()
        line.peer.sendall(b"data")
        assert line.ours.recv(100) == b"data"
        again = Channel(line.net, line.ours)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, line, lambda: line.peer.sendall(b"more"))
            assert await again.receive() == b"more"
        again.forget()

    talk(loop, play)


# --- floods


class Flood:
    """A connection that always has more, and always takes more."""

    def __init__(self, sock: socket.socket) -> None:
        self.fileno, self.close = sock.fileno, sock.close

    def recv(self, size: int, flags: int = 0) -> bytes:
        return bytes(size)

    def send(self, data: bytes | memoryview) -> int:
        return len(data)


@pytest.mark.parametrize("size", [1, 65536])
@pytest.mark.parametrize("direction", ["receive", "receive next", "send"])
def test_a_flood_lets_the_others_have_their_turn(loop: str, direction: str, size: int) -> None:
    async def play(line: Line) -> None:
        line.channel.socket = Flood(line.ours)  # type: ignore[assignment]
        moved = 0
        done = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(later, line, done.set)
            await line.channel.receive(size)  # afterwards it knows that there may be more
            while not done.is_set():
                if direction == "send":
                    await line.channel.send(bytes(size))
                elif direction == "receive":
                    await line.channel.receive(size)
                else:
                    await line.channel.receive_next(size)
                moved += size
        assert moved <= 20 * CHECKPOINT_BYTES

    talk(loop, play)
