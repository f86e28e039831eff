"""The simulated sockets are held to the kernel: the same checks run on them and on real AF_UNIX sockets."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gatekeep._host import SHUT_RD, SHUT_WR, Ended
from gatekeep._host_net import RealNet
from gatekeep._host_processes import RealProcesses
from gatekeep._run_folder import RealGroupHome
from gatekeep.settings._bind import parse_bind

from .daemons import SimHome
from .runtime import BACKENDS, VirtualTime, run
from .sockets import SimListener, SimSocket
from .world import World

BACKLOG = 3


class Sockets(Protocol):
    """One kernel, with one listener of a group."""

    net: Any

    def connect(self) -> Any:
        """The front's end of a new connection."""

    def accept(self) -> Any:
        """A worker's end of the oldest connection that waits."""

    def hold(self, worker: Any) -> Callable[[], None]:
        """A forked child holds the worker's descriptor too, until the result is called."""

    def lose_daemon(self) -> None:
        """A daemon process that has inherited the listener ends."""

    def close_listener(self) -> None:
        """The group is closed."""


class _NetWithoutLoop(RealNet):
    """The calls that need no event loop."""

    def __init__(self) -> None:
        pass


class RealSockets:
    """The system's."""

    def __init__(self) -> None:
        self.net: Any = _NetWithoutLoop()
        self._processes = RealProcesses(self.net, lambda *_: None)
        home = self._processes.open_group("group", BACKLOG, 64)
        assert isinstance(home, RealGroupHome)
        self._home = home
        self._inherited = self._home.listener.dup()
        self._open: list[socket.socket] = []

    def connect(self) -> socket.socket:
        sock = self.net.connect(self._home.address)
        self._open.append(sock)
        return sock

    def accept(self) -> socket.socket:
        sock, _ = self._home.listener.accept()
        sock.setblocking(False)
        self._open.append(sock)
        return sock

    def hold(self, worker: socket.socket) -> Callable[[], None]:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        os.close(reader)

        def let_go() -> None:
            os.close(writer)
            os.waitpid(child, 0)

        return let_go

    def lose_daemon(self) -> None:
        self._inherited.close()

    def close_listener(self) -> None:
        self._inherited.close()
        self._home.close()

    def close(self) -> None:
        for sock in self._open:
            sock.close()
        try:
            self.close_listener()
        except OSError:
            pass
        self._processes.close()


class SimulatedSockets:
    """The world's."""

    def __init__(self) -> None:
        self.world = World(0)
        self.world.early_wakes = 0.0
        self.net = self.world.net
        home = self.world.processes.open_group("group", BACKLOG, 64)
        assert isinstance(home, SimHome)
        self._home = home
        self._inherited: SimListener = home.listener.dup("daemon")

    def connect(self) -> SimSocket:
        return self.net.connect(self._home.address)

    def accept(self) -> SimSocket:
        return (
            self._inherited.accept() if not self._inherited.closed else self._home.listener.accept("daemon")
        )

    def hold(self, worker: SimSocket) -> Callable[[], None]:
        return worker.dup("child").close

    def lose_daemon(self) -> None:
        self._inherited.close()

    def close_listener(self) -> None:
        self._inherited.close()
        self._home.close()


@pytest.fixture(params=["real", "simulated"])
def sockets(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "simulated":
        yield SimulatedSockets()
        return
    real = RealSockets()
    yield real
    real.close()


@pytest.fixture
def ends(sockets: Sockets) -> tuple[Any, Any]:
    """A connection: the front's end and the worker's."""
    front = sockets.connect()
    return front, sockets.accept()


def _fails(call: Callable[[], object]) -> str:
    """The name of the error that the call raises."""
    with pytest.raises(OSError) as caught:
        call()
    return errno.errorcode[caught.value.errno]


def _fill(sock: Any) -> bytes:
    """Send until no more fits; what was sent."""
    sent = bytearray()
    block = bytes(range(256)) * 64
    while True:
        try:
            sent += block[: sock.send(block)]
        except BlockingIOError:
            return bytes(sent)


def _drain(sock: Any) -> bytes:
    """Receive until nothing is there, or the end."""
    received = bytearray()
    try:
        while data := sock.recv(100_000):
            received += data
    except BlockingIOError:
        pass
    return bytes(received)


# --- the backlog ----------------------------------------------------------------------------------------------------


def test_a_listener_takes_backlog_plus_one_connections_and_then_says_eagain(sockets: Sockets) -> None:
    waiting = [sockets.connect() for _ in range(BACKLOG + 1)]
    assert _fails(sockets.connect) == "EAGAIN"
    assert len(waiting) == BACKLOG + 1


def test_an_accept_makes_room_for_one_more(sockets: Sockets) -> None:
    waiting = [sockets.connect() for _ in range(BACKLOG + 1)]
    taken = sockets.accept()
    waiting.append(sockets.connect())
    assert _fails(sockets.connect) == "EAGAIN"
    assert taken


def test_a_connection_that_was_given_up_keeps_its_place_in_the_backlog(sockets: Sockets) -> None:
    waiting = [sockets.connect() for _ in range(BACKLOG + 1)]
    waiting[0].close()
    assert _fails(sockets.connect) == "EAGAIN"
    assert sockets.accept().recv(10) == b""


def test_nobody_waits_is_eagain(sockets: Sockets) -> None:
    assert _fails(sockets.accept) == "EAGAIN"


def test_connections_are_accepted_in_order_with_what_was_sent_on_them(sockets: Sockets) -> None:
    fronts = [sockets.connect() for _ in range(3)]
    for number, front in enumerate(fronts):
        front.send(b"%d" % number)
    assert [sockets.accept().recv(10) for _ in fronts] == [b"0", b"1", b"2"]


def test_a_connection_in_the_backlog_survives_its_daemon(sockets: Sockets) -> None:
    front = sockets.connect()
    front.send(b"envelope")
    sockets.lose_daemon()
    assert _fails(lambda: front.recv(10)) == "EAGAIN"
    assert sockets.accept().recv(10) == b"envelope"


def test_what_waits_is_reset_when_the_last_listener_is_closed(sockets: Sockets) -> None:
    front = sockets.connect()
    front.send(b"envelope")
    sockets.close_listener()
    assert _fails(lambda: front.send(b"x")) == "EPIPE"
    assert _fails(lambda: front.recv(10)) == "ECONNRESET"
    assert front.recv(10) == b""


def test_what_waits_is_reset_even_if_nothing_was_sent(sockets: Sockets) -> None:
    front = sockets.connect()
    sockets.close_listener()
    assert _fails(lambda: front.recv(10)) == "ECONNRESET"


# --- data and ends --------------------------------------------------------------------------------------------------


def test_nothing_there_is_eagain(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    assert _fails(lambda: front.recv(10)) == "EAGAIN"
    assert _fails(lambda: worker.recv(10)) == "EAGAIN"


def test_several_sends_may_come_in_one_read_and_one_send_in_several(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    worker.send(b"abc")
    worker.send(b"def")
    assert [front.recv(4), front.recv(10)] == [b"abcd", b"ef"]


def test_a_peek_takes_nothing_away(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    worker.send(b"abc")
    assert [front.recv(2, socket.MSG_PEEK), front.recv(10)] == [b"ab", b"abc"]


def test_data_comes_before_the_end_of_the_stream(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    worker.send(b"GO")
    worker.close()
    assert [front.recv(10), front.recv(10), front.recv(10)] == [b"GO", b"", b""]


def test_a_send_after_the_peers_close_fails_with_epipe_at_once(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    front.close()
    assert _fails(lambda: worker.send(b"GO")) == "EPIPE"


def test_a_close_with_unread_data_resets_after_what_was_sent(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    front.send(b"envelope")
    worker.send(b"GO")
    worker.close()
    assert front.recv(10) == b"GO"
    assert _fails(lambda: front.recv(10)) == "ECONNRESET"
    assert front.recv(10) == b""


def test_a_send_does_not_take_the_reset_from_the_reader(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    front.send(b"envelope")
    worker.close()
    assert _fails(lambda: front.send(b"body")) == "EPIPE"
    assert _fails(lambda: front.recv(10)) == "ECONNRESET"


# --- giving up ------------------------------------------------------------------------------------------------------


def test_after_shut_rd_the_peers_send_fails_and_what_was_queued_stays_readable(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    worker.send(b"GO")
    front.shutdown(SHUT_RD)
    assert _fails(lambda: worker.send(b"HEAD")) == "EPIPE"
    assert [front.recv(10), front.recv(10)] == [b"GO", b""]


def test_after_shut_rd_without_a_claim_comes_the_end(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    front.shutdown(SHUT_RD)
    assert front.recv(10) == b""
    assert _fails(lambda: worker.send(b"GO")) == "EPIPE"


def test_shut_rd_leaves_the_other_direction_alone(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    front.shutdown(SHUT_RD)
    front.send(b"body")
    assert worker.recv(10) == b"body"
    assert _fails(lambda: worker.recv(10)) == "EAGAIN"


def test_shut_rd_of_a_connection_in_the_backlog_reaches_whoever_accepts_it(sockets: Sockets) -> None:
    front = sockets.connect()
    front.send(b"envelope")
    front.shutdown(SHUT_RD)
    worker = sockets.accept()
    assert worker.recv(10) == b"envelope"
    assert _fails(lambda: worker.send(b"GO")) == "EPIPE"


def test_shut_wr_is_the_end_of_the_stream_at_the_peer_and_no_more(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    front.send(b"body")
    front.shutdown(SHUT_WR)
    assert [worker.recv(10), worker.recv(10)] == [b"body", b""]
    worker.send(b"GO")
    assert front.recv(10) == b"GO"
    assert _fails(lambda: front.send(b"more")) == "EPIPE"


def test_a_shutdown_after_the_peers_close_is_no_error(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    worker.close()
    front.shutdown(SHUT_RD)
    front.shutdown(SHUT_WR)
    assert front.recv(10) == b""


def test_a_forked_child_that_holds_the_descriptor_delays_the_end(
    sockets: Sockets, ends: tuple[Any, Any]
) -> None:
    front, worker = ends
    let_go = sockets.hold(worker)
    worker.close()
    assert _fails(lambda: front.recv(10)) == "EAGAIN"
    assert front.send(b"body") == 4
    let_go()
    assert _fails(lambda: front.recv(10)) == "ECONNRESET"


def test_shut_rd_ends_what_a_forked_child_holds(sockets: Sockets, ends: tuple[Any, Any]) -> None:
    front, worker = ends
    let_go = sockets.hold(worker)
    worker.close()
    front.shutdown(SHUT_RD)
    assert front.recv(10) == b""
    let_go()


def test_a_closed_descriptor_is_ebadf(ends: tuple[Any, Any]) -> None:
    front, _ = ends
    front.close()
    front.close()
    assert _fails(lambda: front.recv(10)) == "EBADF"
    assert _fails(lambda: front.send(b"x")) == "EBADF"


def test_what_stands_in_the_backlog_is_unread(sockets: Sockets) -> None:
    front = sockets.connect()
    assert not sockets.net.unread(front)
    front.send(b"envelope")
    assert sockets.net.unread(front)
    worker = sockets.accept()
    assert sockets.net.unread(front)
    worker.recv(100)
    assert not sockets.net.unread(front)


def test_what_was_sent_to_one_who_is_gone_is_not_unread(sockets: Sockets, ends: tuple[Any, Any]) -> None:
    front, worker = ends
    front.send(b"envelope")
    worker.close()
    assert not sockets.net.unread(front)


# --- full buffers ---------------------------------------------------------------------------------------------------


def test_a_full_buffer_takes_a_part_and_then_says_eagain(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    large = bytes(1 << 22)
    sent = front.send(large)
    assert 0 < sent < len(large)
    assert _fails(lambda: front.send(large)) == "EAGAIN"
    assert len(_drain(worker)) == sent
    assert front.send(b"more") == 4


def test_what_went_into_a_full_buffer_comes_out_in_order(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    assert _fill(front) == _drain(worker)


def test_a_full_buffer_is_epipe_once_the_peer_reads_no_more(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    _fill(front)
    worker.shutdown(SHUT_RD)
    assert _fails(lambda: front.send(b"more")) == "EPIPE"


# --- waiting --------------------------------------------------------------------------------------------------------


def _run(sockets: Any, backend: str, main: Callable[[], Awaitable[None]]) -> None:
    if isinstance(sockets, SimulatedSockets):

        async def simulated(time: VirtualTime) -> None:
            await main()

        run(simulated, backend, 0, sockets.world.idle)
        return

    async def real() -> None:
        sockets.net = RealNet()
        with anyio.fail_after(10):
            await main()

    anyio.run(real, backend=backend)


async def _others_wait() -> None:
    for _ in range(10):
        await checkpoint()


REASONS: dict[str, Callable[[Any, Any], object]] = {
    "data": lambda front, worker: worker.send(b"GO"),
    "the peer's close": lambda front, worker: worker.close(),
    "the peer's SHUT_WR": lambda front, worker: worker.shutdown(SHUT_WR),
    "our own SHUT_RD": lambda front, worker: front.shutdown(SHUT_RD),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reason", REASONS)
def test_a_waiting_reader_is_woken_by(reason: str, sockets: Sockets, backend: str) -> None:
    async def main() -> None:
        front, worker = sockets.connect(), sockets.accept()
        waiter = sockets.net.waiter(front)
        woken = anyio.Event()

        async def wait() -> None:
            await waiter.wait_readable()
            woken.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await _others_wait()
            assert not woken.is_set()
            REASONS[reason](front, worker)
            await woken.wait()
        waiter.close()

    _run(sockets, backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_waiting_reader_is_interrupted(sockets: Sockets, backend: str) -> None:
    async def main() -> None:
        front, worker = sockets.connect(), sockets.accept()
        waiter = sockets.net.waiter(front)

        async def wait() -> None:
            await waiter.wait_readable()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await _others_wait()
            waiter.interrupt()
        assert _fails(lambda: front.recv(10)) == "EAGAIN"
        worker.send(b"GO")
        await waiter.wait_readable()
        assert front.recv(10) == b"GO"
        waiter.close()

    _run(sockets, backend, main)


WRITE_REASONS: dict[str, Callable[[Any, Any], object]] = {
    "room": lambda front, worker: _drain(worker),
    "the peer's close": lambda front, worker: worker.close(),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reason", WRITE_REASONS)
def test_a_waiting_writer_is_woken_by(reason: str, sockets: Sockets, backend: str) -> None:
    async def main() -> None:
        front, worker = sockets.connect(), sockets.accept()
        _fill(front)
        waiter = sockets.net.waiter(front)
        woken = anyio.Event()

        async def wait() -> None:
            await waiter.wait_writable()
            woken.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await _others_wait()
            assert not woken.is_set()
            WRITE_REASONS[reason](front, worker)
            await woken.wait()
        waiter.close()

    _run(sockets, backend, main)


def _is_readable(sock: Any) -> bool:
    return (
        bool(select.select([sock], [], [], 0)[0]) if isinstance(sock, socket.SocketType) else sock.readable()
    )


def _is_writable(sock: Any) -> bool:
    return (
        bool(select.select([], [sock], [], 0)[1]) if isinstance(sock, socket.SocketType) else sock.writable()
    )


def test_what_poll_says_of_a_listener(sockets: Any) -> None:
    listener = sockets._home.listener
    assert not _is_readable(listener)
    front = sockets.connect()
    assert _is_readable(listener)
    assert sockets.accept()
    assert not _is_readable(listener)
    front.close()


def test_what_poll_says_of_a_hop(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    assert not _is_readable(worker)
    assert _is_writable(worker)
    worker.send(b"GO")
    assert _is_readable(front)
    front.close()
    assert _is_readable(worker)
    assert _is_writable(worker)


def test_poll_calls_a_full_buffer_writable_when_three_quarters_are_free(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    filled = len(_fill(worker))
    assert not _is_writable(worker)
    front.recv(filled // 4)
    assert not _is_writable(worker)
    _drain(front)
    assert _is_writable(worker)


def test_poll_does_not_tell_a_writer_of_the_peers_shut_rd(ends: tuple[Any, Any]) -> None:
    front, worker = ends
    _fill(worker)
    front.shutdown(SHUT_RD)
    assert not _is_writable(worker)
    assert _fails(lambda: worker.send(b"DATA")) == "EPIPE"


def test_a_blocking_send_that_waits_for_room_fails_when_the_peer_shuts_its_reading_side(
    ends: tuple[Any, Any],
) -> None:
    front, worker = ends
    _fill(worker)
    if not isinstance(worker, socket.SocketType):
        assert not worker.blocks_no_more()
        front.shutdown(SHUT_RD)
        assert worker.blocks_no_more()
        assert _fails(lambda: worker.send(b"DATA")) == "EPIPE"
        return
    worker.setblocking(True)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(worker.sendall, b"DATA")
        front.shutdown(SHUT_RD)
        assert isinstance(sending.exception(timeout=10), BrokenPipeError)


# --- ends, told by the event loop -----------------------------------------------------------------------------------


def _client_pair(sockets: Any) -> tuple[Any, Any]:
    """A client's TCP connection: the front's end, with its net's waiter, and the client's."""
    bind = parse_bind("127.0.0.1:0")
    listener, _ = sockets.net.listen(bind, 5)[0]
    if isinstance(sockets, SimulatedSockets):
        client = sockets.net.doors[-1].connect("client")
        return sockets.net.accept(listener).socket, client
    client = socket.create_connection(listener.getsockname())
    client.setblocking(False)
    select.select([listener], [], [], 10)
    front = sockets.net.accept(listener).socket
    listener.close()
    sockets._open += [front, client]
    return front, client


def _hop_pair(sockets: Any) -> tuple[Any, Any]:
    """A hop: the front's end and the worker's."""
    front = sockets.connect()
    return front, sockets.accept()


def _reset(sockets: Any, peer: Any) -> None:
    if isinstance(peer, SimSocket):
        peer.abort()
    else:
        RealNet.abort(sockets.net, peer)


PAIRS = {"client": _client_pair, "hop": _hop_pair}

END_REASONS: dict[str, tuple[Callable[[Any, Any, Any], object], dict[str, Ended]]] = {
    "nothing": (lambda sockets, front, peer: None, {"client": Ended.NOT, "hop": Ended.NOT}),
    "data": (lambda sockets, front, peer: peer.send(b"x"), {"client": Ended.NOT, "hop": Ended.NOT}),
    "the peer's close": (
        lambda sockets, front, peer: peer.close(),
        {"client": Ended.SENDING, "hop": Ended.BROKEN},
    ),
    "the peer's SHUT_WR": (
        lambda sockets, front, peer: peer.shutdown(SHUT_WR),
        {"client": Ended.SENDING, "hop": Ended.SENDING},
    ),
    "the peer's close with unread data": (
        lambda sockets, front, peer: (front.send(b"x"), _until_readable(peer), peer.close()),
        {"client": Ended.BROKEN, "hop": Ended.BROKEN},
    ),
    "the peer's reset": (
        lambda sockets, front, peer: _reset(sockets, peer),
        {"client": Ended.BROKEN, "hop": Ended.BROKEN},
    ),
    "data and the peer's SHUT_WR": (
        lambda sockets, front, peer: (peer.send(b"x"), peer.shutdown(SHUT_WR)),
        {"client": Ended.SENDING, "hop": Ended.SENDING},
    ),
    "the peer's SHUT_WR and our own": (
        lambda sockets, front, peer: (
            peer.shutdown(SHUT_WR),
            _until_readable(front),
            front.shutdown(SHUT_WR),
        ),
        {"client": Ended.BROKEN, "hop": Ended.BROKEN},
    ),
    "our own SHUT_WR": (
        lambda sockets, front, peer: front.shutdown(SHUT_WR),
        {"client": Ended.NOT, "hop": Ended.NOT},
    ),
    "our own SHUT_RD": (lambda sockets, front, peer: front.shutdown(SHUT_RD), {"hop": Ended.SENDING}),
}
"""What the peer or we do, and what we are told of it: by TCP a client's close is like its SHUT_WR."""


def _until_readable(sock: Any) -> None:
    if isinstance(sock, socket.SocketType):
        select.select([sock], [], [], 10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "reason"), [(kind, reason) for reason, (_, told) in END_REASONS.items() for kind in told]
)
@pytest.mark.parametrize("early", [False, True], ids=["while registered", "before"])
def test_an_end_is_told_by_the_loop(sockets: Any, backend: str, kind: str, reason: str, early: bool) -> None:
    """Later than it happens, to whoever waits for nothing, and also where it happened before anybody asked."""
    act, told = END_REASONS[reason]

    async def main() -> None:
        front, peer = PAIRS[kind](sockets)
        if early:
            act(sockets, front, peer)
        waiter = sockets.net.waiter(front)
        heard: list[Ended] = []
        event = anyio.Event()

        def on_end() -> None:
            heard.append(waiter.ended)
            if waiter.ended == told[kind]:
                event.set()

        waiter.on_end = on_end
        assert waiter.ended is Ended.NOT
        if not early:
            act(sockets, front, peer)
        assert not heard
        if told[kind]:
            await event.wait()
            assert waiter.ended is told[kind]
            # Whoever waits to read later finds the end, or what came before it.
            await waiter.wait_readable()
        else:
            await _others_wait()
            assert not heard
        waiter.close()
        front.close()

    _run(sockets, backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_came_while_nobody_waited_wakes_the_next_reader_once(sockets: Any, backend: str) -> None:
    async def main() -> None:
        front, worker = _hop_pair(sockets)
        waiter = sockets.net.waiter(front)
        worker.send(b"GO")
        await waiter.wait_readable()
        assert front.recv(10) == b"GO"
        with anyio.move_on_after(0.05) as patience:
            await waiter.wait_readable()
        assert patience.cancelled_caught
        waiter.close()

    _run(sockets, backend, main)
