"""What a thread is blocked in, and how to end it: real threads in real calls."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import http.client
import itertools
import mmap
import os
import platform
import queue
import random
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_until
from gatekeep.pool import _blocked, _syscalls
from gatekeep.pool._blocked import Blocked, is_supported, look, shut, why_not
from gatekeep.pool._stacks import inject
from running import process

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason=why_not()),
    pytest.mark.usefixtures("no_garbage_collection"),
]

WAIT = 20.0

MOMENT = 0.5
"""Seconds: how long a call lasts that cannot be ended from outside; it is made again and again until a test has seen it."""

LONG = 100.0
"""Seconds: a timeout that no test waits for."""


class Interrupted(BaseException):
    """What is sent to a thread that is stuck."""


class Stuck:
    """A thread that gets stuck. How it ended is kept."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._work = work
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            try:
                self.result = self._work()
            finally:
                self._run_python()
        except BaseException as error:
            self.error = error

    @staticmethod
    def _run_python() -> None:
        """Where the call itself raises, what was sent comes only when the next function begins."""

    @property
    def tid(self) -> int:
        assert self.thread.native_id is not None
        return self.thread.native_id

    def blocked(self, *calls: str) -> Blocked:
        """What it is blocked in, once it is one of those calls."""
        found: list[Blocked] = []

        def arrived() -> bool:
            assert self.thread.is_alive(), self.error
            blocked = look(self.tid)
            found[:] = [blocked] if blocked is not None and blocked.call in calls else []
            return bool(found)

        wait_until(arrived)
        return found[0]

    def send_exception(self) -> None:
        assert self.thread.ident is not None
        inject(self.thread.ident, Interrupted)

    def interrupt(self, never: tuple[int, ...] = ()) -> Blocked | None:
        self.send_exception()
        return shut(self.tid, never)

    def join(self) -> None:
        self.thread.join(WAIT)
        assert not self.thread.is_alive(), look(self.tid)

    def assert_unwound(self) -> None:
        self.join()
        assert isinstance(self.error, Interrupted)


class Network:
    """Connections over loopback to a peer that says nothing. All that was made is closed at the end."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.listener = self.keep(socket.create_server(("127.0.0.1", 0), backlog=128))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.peer_text = f"127.0.0.1:{self.address[1]}"

    def keep(self, sock: socket.socket) -> socket.socket:
        return self._stack.enter_context(sock)

    def connect(self, timeout: float | None = None) -> tuple[socket.socket, socket.socket]:
        """A connection: our end, the peer's."""
        client = self.keep(socket.create_connection(self.address, WAIT))
        client.settimeout(timeout)
        peer, _ = self.listener.accept()
        peer.settimeout(WAIT)
        return client, self.keep(peer)

    def accept_request(self) -> None:
        """Take a client's request, and do not answer: from now on it waits for that, and no more for its connection."""
        peer = self.keep(self.listener.accept()[0])
        peer.settimeout(WAIT)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += peer.recv(65536)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        first, second = socket.socketpair()
        return self.keep(first), self.keep(second)

    def end_later(self, *socks: socket.socket) -> None:
        """Let go of threads that are not interrupted, at the end."""
        for sock in socks:
            self._stack.callback(sock.shutdown, socket.SHUT_RDWR)


@pytest.fixture
def network() -> Iterator[Network]:
    with contextlib.ExitStack() as stack:
        yield Network(stack)


POLLS = ("poll", "ppoll")
SELECTS = ("select", "pselect6")
EPOLLS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")


# --- calls about one descriptor


@pytest.mark.parametrize("method", ["recv", "recvmsg", "read", "readv"])
def test_a_thread_that_receives_without_a_timeout_is_seen_and_unwound(network: Network, method: str) -> None:
    client, _ = network.connect()
    number = client.fileno()
    call = {
        "recv": lambda: client.recv(1),
        "recvmsg": lambda: client.recvmsg(1),
        "read": lambda: os.read(number, 1),
        "readv": lambda: os.readv(number, [bytearray(1)]),
    }[method]
    stuck = Stuck(call)
    expected = Blocked("recvfrom" if method == "recv" else method, (number,), (network.peer_text,))
    assert stuck.blocked(expected.call) == expected
    assert stuck.interrupt() == expected
    stuck.assert_unwound()


@pytest.mark.parametrize("method", ["sendall", "sendmsg", "write", "writev"])
def test_a_thread_that_sends_to_a_peer_that_does_not_read_is_unwound(network: Network, method: str) -> None:
    client, _ = network.connect()
    number, data = client.fileno(), bytes(1 << 20)
    call: Callable[[], Any] = {
        "sendall": lambda: client.sendall(data),
        "sendmsg": lambda: client.sendmsg([data]),
        "write": lambda: os.write(number, data),
        "writev": lambda: os.writev(number, [data]),
    }[method]

    def send_for_ever() -> None:
        while True:
            call()

    stuck = Stuck(send_for_ever)
    name = "sendto" if method == "sendall" else method
    assert stuck.blocked(name) == Blocked(name, (number,), (network.peer_text,))
    stuck.send_exception()
    # The peer's last acknowledgement may be late, and make room once more: then it does not sleep for that moment.
    wait_until(lambda: shut(stuck.tid) is not None)
    stuck.assert_unwound()


def test_a_thread_that_receives_with_a_timeout_is_seen_in_poll_and_unwound(network: Network) -> None:
    client, _ = network.connect(LONG)
    stuck = Stuck(lambda: client.recv(1))
    assert stuck.blocked(*POLLS).peers == (network.peer_text,)
    blocked = stuck.interrupt()
    assert blocked is not None
    assert blocked.descriptors == (client.fileno(),)
    stuck.assert_unwound()


@pytest.mark.parametrize("timeout", [None, LONG])
def test_http_client_is_unwound(network: Network, timeout: float | None) -> None:
    def fetch() -> None:
        connection = http.client.HTTPConnection(*network.address, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            connection.getresponse()

    stuck = Stuck(fetch)
    network.accept_request()
    assert stuck.blocked("recvfrom", *POLLS).peers == (network.peer_text,)
    assert stuck.interrupt() is not None
    stuck.assert_unwound()


@pytest.mark.parametrize("timeout", [None, LONG])
def test_requests_is_unwound(network: Network, timeout: float | None) -> None:
    requests = pytest.importorskip("requests")
    stuck = Stuck(lambda: requests.get(f"http://{network.peer_text}/", timeout=timeout))
    network.accept_request()
    assert stuck.blocked("recvfrom", *POLLS).peers == (network.peer_text,)
    assert stuck.interrupt() is not None
    stuck.assert_unwound()


def test_a_unix_connection_is_shut_in_a_direct_call_even_within_the_process(network: Network) -> None:
    client, _ = network.pair()
    stuck = Stuck(lambda: client.recv(1))
    peers = (f"a UNIX socket of process {os.getpid()}",)
    assert stuck.blocked("recvfrom") == Blocked("recvfrom", (client.fileno(),), peers)
    assert stuck.interrupt() is not None
    stuck.assert_unwound()


def test_a_connected_datagram_socket_is_shut_in_a_direct_call(network: Network) -> None:
    client = network.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.connect(network.address)
    stuck = Stuck(lambda: client.recv(1))
    stuck.blocked("recvfrom")
    assert stuck.interrupt() is not None
    stuck.assert_unwound()


@pytest.fixture
def full(network: Network) -> tuple[str, int]:
    """An address that answers no SYN: the queue of its listener is full."""
    listener = network.keep(socket.create_server(("127.0.0.1", 0), backlog=0))
    address: tuple[str, int] = listener.getsockname()
    waiting = [network.keep(socket.socket()) for _ in range(3)]
    for client in waiting:
        client.setblocking(False)
        client.connect_ex(address)
    wait_until(lambda: bool(select.select([], waiting, [], 0)[1]))  # the one for which there was room
    return address


@pytest.mark.parametrize("timeout", [None, LONG])
def test_a_thread_that_connects_to_a_host_that_does_not_answer_is_unwound(
    network: Network, full: tuple[str, int], timeout: float | None
) -> None:
    client = network.keep(socket.socket())
    client.settimeout(timeout)
    stuck = Stuck(lambda: client.connect(full))
    blocked = stuck.blocked("connect", *POLLS)
    assert blocked.descriptors == (client.fileno(),)
    assert blocked.peers == (f"127.0.0.1:{full[1]}",)
    assert stuck.interrupt() is not None
    stuck.assert_unwound()


# --- calls about several


def test_a_thread_in_select_loses_the_connections_that_it_waits_for(network: Network) -> None:
    (first, first_peer), (second, second_peer), (other, other_peer) = [network.connect() for _ in range(3)]
    network.connect()
    stuck = Stuck(lambda: select.select([first], [], [second], LONG))
    assert set(stuck.blocked(*SELECTS).descriptors) == {first.fileno(), second.fileno()}
    blocked = stuck.interrupt()
    assert blocked is not None
    assert blocked.peers == (network.peer_text,) * 2
    stuck.assert_unwound()
    assert [first_peer.recv(1), second_peer.recv(1)] == [b"", b""]
    assert_untouched(other, other_peer)


def test_a_thread_in_select_with_empty_sets_is_described(network: Network) -> None:
    stop = threading.Event()

    def wait() -> None:
        while not stop.is_set():
            select.select([], [], [], MOMENT)

    stuck = Stuck(wait)
    assert stuck.blocked(*SELECTS).descriptors == ()
    assert shut(stuck.tid) is None
    stop.set()
    stuck.join()


@pytest.mark.parametrize("timeout", [None, LONG * 1000])
def test_a_thread_in_poll_loses_the_connections_that_it_waits_for(
    network: Network, timeout: float | None
) -> None:
    connections = [network.connect() for _ in range(4)]
    poller = select.poll()
    for client, _ in connections[:3]:
        poller.register(client, select.POLLIN)
    stuck = Stuck(lambda: poller.poll(timeout))
    numbers = tuple(client.fileno() for client, _ in connections[:3])
    assert set(stuck.blocked(*POLLS).descriptors) == set(numbers)
    assert stuck.interrupt() is not None
    stuck.assert_unwound()
    assert [peer.recv(1) for _, peer in connections[:3]] == [b""] * 3
    assert_untouched(*connections[3])


def test_a_thread_in_epoll_loses_the_connections_that_it_waits_for(network: Network) -> None:
    (client, peer), (other, other_peer) = network.connect(), network.connect()
    with select.epoll() as epoll:
        epoll.register(client, select.EPOLLIN)
        stuck = Stuck(epoll.poll)
        assert stuck.blocked(*EPOLLS) == Blocked(
            stuck.blocked(*EPOLLS).call, (client.fileno(),), (network.peer_text,)
        )
        assert stuck.interrupt() is not None
        stuck.assert_unwound()
    assert peer.recv(1) == b""
    assert_untouched(other, other_peer)


def test_what_epoll_has_told_of_once_is_shut_as_well_but_not_what_it_no_longer_waits_for(
    network: Network,
) -> None:
    (edge, edge_peer), (once, once_peer) = network.connect(), network.connect()
    edge_peer.send(b"unread")
    once_peer.send(b"unread")
    with select.epoll() as epoll:
        epoll.register(edge, select.EPOLLIN | select.EPOLLET)
        epoll.register(once, select.EPOLLIN | select.EPOLLONESHOT)
        told: set[int] = set()
        wait_until(lambda: told.update(number for number, _ in epoll.poll(0)) or len(told) == 2)
        stuck = Stuck(epoll.poll)
        assert stuck.blocked(*EPOLLS).descriptors == (edge.fileno(),)
        assert stuck.interrupt() is not None
        stuck.assert_unwound()
    assert_untouched(once, once_peer)


@pytest.mark.parametrize(
    "make",
    [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector],
    ids=lambda m: m.__name__,
)
def test_a_thread_in_a_selector_is_unwound(network: Network, make: type[selectors.BaseSelector]) -> None:
    client, _ = network.connect()
    with make() as selector:
        selector.register(client, selectors.EVENT_READ)
        stuck = Stuck(selector.select)
        stuck.blocked(*SELECTS, *POLLS, *EPOLLS)
        assert stuck.interrupt() is not None
        stuck.assert_unwound()


def test_asyncio_in_a_thread_is_unwound_and_cleans_up(network: Network) -> None:
    cleaned: list[str] = []

    async def main() -> None:
        reader, writer = await asyncio.open_connection(*network.address)
        try:
            await reader.read(1)
        finally:
            # An executor's end is told to the loop through its wake-up.
            await asyncio.get_running_loop().run_in_executor(None, cleaned.append, "up")
            writer.close()

    stuck = Stuck(lambda: asyncio.run(main()))
    peer = network.keep(network.listener.accept()[0])
    wait_until(lambda: len(stuck.blocked(*EPOLLS).descriptors) == 2)
    blocked = stuck.interrupt()
    assert blocked is not None
    assert blocked.peers == (network.peer_text,)
    stuck.assert_unwound()
    assert cleaned == ["up"]
    peer.settimeout(WAIT)
    assert peer.recv(1) == b""


def test_an_event_loops_own_wake_up_is_not_shut(network: Network) -> None:
    loop = asyncio.new_event_loop()
    stuck = Stuck(loop.run_forever)
    stuck.blocked(*EPOLLS)
    assert shut(stuck.tid) is None
    loop.call_soon_threadsafe(loop.stop)
    stuck.join()
    loop.close()
    assert stuck.error is None


# --- what is never shut


def assert_untouched(ours: socket.socket, theirs: socket.socket) -> None:
    """Nobody has shut this connection."""
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        sender.sendall(b"still there")
        receiver.settimeout(WAIT)
        received = b""
        while not received.endswith(b"still there"):  # behind what was unread
            data = receiver.recv(64)
            assert data, "its end has come"
            received += data


@pytest.mark.parametrize("timeout", [None, LONG])
@pytest.mark.parametrize("named_by", ["its number", "another number"])
def test_a_descriptor_of_our_own_is_never_shut(
    network: Network, timeout: float | None, named_by: str
) -> None:
    hop, front = network.connect(timeout)
    named = hop.fileno() if named_by == "its number" else network.keep(hop.dup()).fileno()
    stuck = Stuck(lambda: hop.recv(1))
    stuck.blocked("recvfrom", *POLLS)
    assert shut(stuck.tid, never=(named, 999_999)) is None
    front.sendall(b"!")
    stuck.join()
    assert stuck.result == b"!"
    assert_untouched(hop, front)


def test_a_descriptor_of_our_own_among_others_is_left_out(network: Network) -> None:
    (hop, front), (client, _) = network.connect(), network.connect()
    stuck = Stuck(lambda: select.select([hop, client], [], [], LONG))
    stuck.blocked(*SELECTS)
    blocked = stuck.interrupt(never=(hop.fileno(),))
    assert blocked is not None
    assert blocked.descriptors == (client.fileno(),)
    stuck.assert_unwound()
    assert_untouched(hop, front)


def test_a_listener_is_described_and_not_shut(network: Network) -> None:
    stuck = Stuck(network.listener.accept)
    assert stuck.blocked("accept", "accept4").descriptors == (network.listener.fileno(),)
    assert shut(stuck.tid) is None
    client = network.keep(socket.create_connection(network.address, WAIT))
    stuck.join()
    network.keep(stuck.result[0])
    assert stuck.result[1] == client.getsockname()


def test_a_pipe_is_described_and_not_shut() -> None:
    reading, writing = os.pipe()
    stuck = Stuck(lambda: os.read(reading, 1))
    assert stuck.blocked("read") == Blocked("read", (reading,), ())
    assert shut(stuck.tid) is None
    os.write(writing, b"!")
    stuck.join()
    assert stuck.result == b"!"
    os.close(reading)
    os.close(writing)


def test_a_datagram_socket_in_poll_is_not_shut(network: Network) -> None:
    client, peer = [network.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
    peer.bind(("127.0.0.1", 0))
    client.connect(peer.getsockname())
    client.settimeout(LONG)
    stuck = Stuck(lambda: client.recv(1))
    stuck.blocked(*POLLS)
    assert shut(stuck.tid) is None
    peer.sendto(b"!", client.getsockname())
    stuck.join()
    assert stuck.result == b"!"


def test_a_unix_connection_that_its_listener_has_no_room_for_is_described_and_not_shut(
    network: Network, tmp_path: Path
) -> None:
    listener = network.keep(socket.socket(socket.AF_UNIX))
    listener.bind(str(tmp_path / "full"))
    listener.listen(0)
    network.keep(socket.socket(socket.AF_UNIX)).connect(listener.getsockname())
    client = network.keep(socket.socket(socket.AF_UNIX))
    stuck = Stuck(lambda: client.connect(listener.getsockname()))
    assert stuck.blocked("connect") == Blocked("connect", (client.fileno(),), ())
    assert shut(stuck.tid) is None
    network.keep(listener.accept()[0])
    stuck.join()
    assert stuck.error is None


def test_a_sleep_has_no_descriptor() -> None:
    stop = threading.Event()

    def sleep() -> None:
        while not stop.is_set():
            time.sleep(MOMENT)

    stuck = Stuck(sleep)
    assert stuck.blocked("clock_nanosleep", "nanosleep", "select", "pselect6").descriptors == ()
    assert shut(stuck.tid) is None
    stop.set()
    stuck.join()


def test_a_thread_that_waits_for_a_child_has_no_descriptor() -> None:
    with process([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        stuck = Stuck(child.wait)
        assert stuck.blocked("wait4", "waitid").descriptors == ()
        assert shut(stuck.tid) is None
        child.communicate(b"\n", WAIT)
        stuck.join()


def test_a_thread_that_waits_for_a_lock_is_in_no_call_that_is_known() -> None:
    lock = threading.Lock()
    lock.acquire()
    stuck = Stuck(lock.acquire)
    wait_until(lambda: asleep(stuck.tid))
    assert look(stuck.tid) is None
    assert shut(stuck.tid) is None
    lock.release()
    stuck.join()


def asleep(tid: int) -> bool:
    return not Path(f"/proc/self/task/{tid}/syscall").read_text().startswith("running")


def test_a_thread_that_runs_or_is_not_there_is_in_no_call() -> None:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    stuck = Stuck(spin)
    assert [look(stuck.tid), shut(stuck.tid)] == [None, None]
    stop.set()
    stuck.join()
    for tid in (stuck.tid, 1, 0, -1, 2**40):
        assert [look(tid), shut(tid)] == [None, None]


# --- whose descriptor is it?


@pytest.mark.parametrize("state", ["in another mode", "ready"])
def test_a_number_that_was_closed_under_the_thread_and_now_names_another_socket_is_not_shut(
    network: Network, state: str
) -> None:
    client, peer = network.connect()
    bystander, bystander_peer = network.connect(LONG if state == "in another mode" else None)
    if state == "ready":
        bystander_peer.send(b"unread")
    number = client.fileno()
    held = network.keep(client.dup())
    stuck = Stuck(lambda: os.read(number, 1))
    stuck.blocked("read")
    os.dup2(bystander.fileno(), number)
    wait_until(lambda: state != "ready" or bool(select.select([bystander], [], [], 0)[0]))
    assert shut(stuck.tid) is None
    assert_untouched(bystander, bystander_peer)
    peer.send(b"!")
    stuck.join()
    del held


def test_a_number_that_epoll_knew_as_another_socket_is_not_shut(network: Network) -> None:
    (client, peer), (bystander, bystander_peer) = network.connect(), network.connect()
    held = network.keep(client.dup())
    with select.epoll() as epoll:
        epoll.register(client, select.EPOLLIN)
        stuck = Stuck(epoll.poll)
        stuck.blocked(*EPOLLS)
        os.dup2(bystander.fileno(), client.fileno())
        assert shut(stuck.tid) is None
        assert_untouched(bystander, bystander_peer)
        peer.send(b"!")
        stuck.join()
    del held


def test_a_thread_that_moves_on_while_it_is_looked_at_is_not_touched(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, peer = network.connect()
    stuck = Stuck(lambda: [client.recv(1), client.recv(1)])
    stuck.blocked("recvfrom")

    def move_on(call: _syscalls.Call) -> list[_syscalls.Wait]:
        """By the second look it sleeps in the same call with the same arguments, but it is another call."""
        waits = _syscalls.waits_of(call)
        before = _syscalls.current_call(stuck.tid)
        peer.send(b"!")
        wait_until(lambda: (_syscalls.current_call(stuck.tid) or before) != before)
        return waits

    with monkeypatch.context() as patch:
        patch.setattr(_blocked, "waits_of", move_on)
        assert shut(stuck.tid) is None
    peer.send(b"!")
    stuck.join()
    assert stuck.result == [b"!", b"!"]


def test_a_number_that_becomes_another_socket_while_it_is_looked_at_is_not_shut(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    (client, peer), (bystander, bystander_peer) = network.connect(), network.connect()
    stuck = Stuck(lambda: client.recv(1))
    stuck.blocked("recvfrom")
    kept = network.keep(client.dup())
    looks = itertools.count()

    def change_hands(tid: int) -> _syscalls.Call | None:
        if next(looks) == 1:
            os.dup2(bystander.fileno(), client.fileno())
        return _syscalls.current_call(tid)

    with monkeypatch.context() as patch:
        patch.setattr(_blocked, "current_call", change_hands)
        assert shut(stuck.tid) is None
    assert_untouched(bystander, bystander_peer)
    peer.send(b"!")
    stuck.join()
    del kept


class Hostile:
    """Threads that open, close and reuse descriptors as fast as they can.

    The client waits on a connection, until its partner sends a byte or the connection is shut, closes it, and begins again. The
    bystander's connections get the numbers that were free a moment ago, and are never to be shut.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.rounds = self.client_shut = self.bystanders = self.bystanders_shut = 0
        self._stop = threading.Event()
        self._peers: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
        self.client = Stuck(self._be_client)
        self.others = [Stuck(self._be_partner), Stuck(self._be_bystander)]

    def has_proved_something(self) -> bool:
        """Whether it has gone on for long enough, however slow the machine is."""
        return self.client_shut > 0 and min(self.rounds, self.bystanders) > 100

    def end(self) -> None:
        self._stop.set()
        for stuck in (self.client, *self.others):
            stuck.join()
            assert stuck.error is None

    def _be_client(self) -> None:
        while not self._stop.is_set():
            sock, peer = socket.socketpair()
            with sock:
                self._peers.put(peer)
                sock.settimeout(self.timeout)
                self.client_shut += sock.recv(1) == b""
            time.sleep(0)  # the bystander may have the number
            self.rounds += 1
        self._peers.put(None)

    def _be_partner(self) -> None:
        dice = random.Random(1)
        while (peer := self._peers.get()) is not None:
            with peer, contextlib.suppress(BrokenPipeError):
                time.sleep(dice.choice([0, 0, 0.0001, 0.001]))
                peer.send(b"!")

    def _be_bystander(self) -> None:
        dice = random.Random(2)
        while not self._stop.is_set():
            with contextlib.ExitStack() as stack:
                pairs = [socket.socketpair() for _ in range(dice.randrange(1, 4))]
                socks = [stack.enter_context(sock) for pair in pairs for sock in pair]
                for sock in socks:
                    sock.settimeout(self.timeout)
                time.sleep(dice.choice([0, 0, 0.0001]))
                self.bystanders_shut += sum(map(self._is_shut, socks))
            self.bystanders += len(pairs)

    @staticmethod
    def _is_shut(sock: socket.socket) -> bool:
        looker = select.poll()
        looker.register(sock, select.POLLIN)
        return bool(looker.poll(0))


def waits_seen_slowly(call: _syscalls.Call) -> list[_syscalls.Wait]:
    """As on a busy machine: the others have the time to do anything between two steps."""
    waits = _syscalls.waits_of(call)
    time.sleep(random.choice([0, 0.0001, 0.0003]))
    return waits


@pytest.mark.slow
@pytest.mark.parametrize("timeout", [None, LONG])
def test_a_bystanders_connection_is_never_shut(
    timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pairs stand for connections to others: they are quick.
    monkeypatch.setattr(_blocked, "owner_of_peer", lambda sock: 0)
    hostile = Hostile(timeout)
    shuts = 0
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline or not hostile.has_proved_something():
        assert time.monotonic() < deadline + WAIT, vars(hostile)
        shuts += shut(hostile.client.tid) is not None
    hostile.end()
    assert hostile.bystanders_shut == 0, vars(hostile)
    assert hostile.client_shut <= shuts
    assert hostile.has_proved_something(), vars(hostile)
    print(f"{hostile.rounds} rounds, {hostile.bystanders} bystanders, {shuts} shut")


# --- what must not happen meanwhile


def test_looking_leaves_the_mode_of_the_applications_sockets_alone(network: Network) -> None:
    client, peer = network.connect()
    stuck = Stuck(lambda: client.recv(1))
    socket.setdefaulttimeout(LONG)
    try:
        stuck.blocked("recvfrom")
        shut(stuck.tid, never=(client.fileno(),))
    finally:
        socket.setdefaulttimeout(None)
    assert not fcntl.fcntl(client.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    peer.send(b"!")
    stuck.join()


def test_looking_keeps_no_descriptor(network: Network) -> None:
    client, _ = network.connect(LONG)
    stuck = Stuck(lambda: client.recv(1))
    stuck.blocked(*POLLS)
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(50):
        look(stuck.tid)
        shut(stuck.tid, never=(client.fileno(),))
    # Threads that an earlier test has left behind may close theirs.
    assert set(os.listdir("/proc/self/fd")) <= before
    assert stuck.interrupt() is not None
    stuck.assert_unwound()


def test_memory_that_is_not_mapped_is_an_error_and_no_crash() -> None:
    mapping = mmap.mmap(-1, mmap.PAGESIZE)
    window = ctypes.c_char.from_buffer(mapping)
    address = ctypes.addressof(window)
    mapping[:3] = b"abc"
    assert _syscalls.read_memory(address, 3) == b"abc"
    del window
    mapping.close()
    for wrong in (address, 0, 8, -1, 2**47, 2**63, 2**64 - 8):
        with pytest.raises(OSError):
            _syscalls.read_memory(wrong, 64)


def test_calls_whose_arguments_are_nonsense_are_errors_and_no_crash() -> None:
    dice = random.Random(3)
    for name in ("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait2", "recvfrom"):
        for _ in range(200):
            arguments = tuple(
                dice.choice([0, 1, 2**31, 2**32 - 1, dice.getrandbits(47), dice.getrandbits(64)])
                for _ in range(6)
            )
            with contextlib.suppress(OSError):
                assert len(_syscalls.waits_of(_syscalls.Call(name, arguments, ()))) <= _syscalls.MOST


def test_a_thread_that_waits_for_very_many_is_looked_at_in_part(network: Network) -> None:
    client, _ = network.connect()
    poller = select.epoll()
    copies = [network.keep(client.dup()) for _ in range(_syscalls.MOST + 20)]
    for copy in copies:
        poller.register(copy, select.EPOLLIN)
    stuck = Stuck(poller.poll)
    assert len(stuck.blocked(*EPOLLS).descriptors) == _syscalls.MOST
    assert stuck.interrupt() is not None
    stuck.assert_unwound()
    poller.close()


STOPPED = """
import os, signal, socket, sys, threading, time
from gatekeep.pool._blocked import look, shut

def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, open(f"/proc/self/task/{tid}/syscall").read()
        time.sleep(0.005)

listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
client.settimeout(100)
thread = threading.Thread(target=client.recv, args=(1,), daemon=True)
thread.start()
tid = thread.native_id
wait(lambda: look(tid) and "poll" in look(tid).call)
print("waits", flush=True)
sys.stdin.readline()
wait(lambda: look(tid))
print(look(tid).call, look(tid).descriptors == (client.fileno(),), flush=True)
assert shut(tid)
thread.join(20)
print("returned" if not thread.is_alive() else "stuck", flush=True)
"""


@pytest.mark.slow
def test_a_thread_whose_process_was_stopped_and_continued_is_reached() -> None:
    command = [sys.executable, "-c", STOPPED]
    with process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        child.send_signal(signal.SIGCONT)
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() in ("poll True\n", "ppoll True\n")
        assert child.stdout.readline() == "returned\n"


# --- where it works


def test_it_says_why_it_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (is_supported(), why_not()) == (True, "")
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "pdp11")
        assert (is_supported(), why_not()) == (False, "the system calls of pdp11 are not known")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert why_not() == "only Linux tells what a thread is blocked in"
    with monkeypatch.context() as patch:
        patch.setattr(_syscalls, "_task", lambda tid, name: "/proc/self/nowhere")
        assert why_not().startswith("/proc/self/task/TID/syscall cannot be read: ")


def test_another_machines_table_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    monkeypatch.setattr("platform.machine", lambda: other)
    assert "does not have the system calls of a 64-bit process" in why_not()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_process_that_gave_up_its_privileges_after_exec_says_that_it_cannot_be_read() -> None:
    code = "import os; from gatekeep.pool._blocked import why_not; os.setuid(65534); print(why_not())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "cannot be read" in printed.stdout, printed


def test_both_tables_know_the_calls_of_every_decoder() -> None:
    assert set(_syscalls.X86_64.values()) >= {*_syscalls.RECEIVING, *_syscalls.SENDING, *_syscalls.DECODERS}
    legacy = {"poll", "select", "epoll_wait"}  # these have no number there
    assert set(_syscalls.GENERIC.values()) == set(_syscalls.X86_64.values()) - legacy
