"""Reads and writes on a real hop, each bounded by socket-timeout."""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatekeep.pool import _hop
from gatekeep.pool._hop import HopTimedOut, receive, send_all, send_file

SHORT = 0.05
LONG = 60.0
"""Seconds: never waited for to the end where the test passes."""

MUCH = b"0123456789abcdef" * 100_000
"""More than a socket's buffers hold."""

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["blocking", "non-blocking"])
def hop(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The worker's end and the front's."""
    worker, front = socket.socketpair()
    worker.setblocking(request.param == "blocking")
    with worker, front:
        yield worker, front


def in_thread(function: Callable[..., object], *args: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def read_all(front: socket.socket, into: bytearray) -> None:
    while data := front.recv(1 << 20):
        into += data


def wait_asleep(thread: threading.Thread) -> None:
    """Wait until the thread sleeps, most likely in the call that is tested."""
    deadline = time.monotonic() + LONG
    status = Path(f"/proc/self/task/{thread.native_id}/stat")
    while status.read_text().rsplit(")", 1)[1].split()[0] != "S":
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- reading


def test_what_is_there_is_read_without_a_wait(hop: Pair) -> None:
    worker, front = hop
    front.sendall(b"abc")
    assert (receive(worker, 2, 0.0), receive(worker, 10, 0.0)) == (b"ab", b"c")


@pytest.mark.parametrize("timeout", [LONG, math.inf, 1e300])
def test_a_read_waits_for_what_comes(hop: Pair, timeout: float) -> None:
    worker, front = hop
    found: list[bytes] = []
    reader = in_thread(lambda: found.append(receive(worker, 10, timeout)))
    wait_asleep(reader)
    front.sendall(b"late")
    reader.join()
    assert found == [b"late"]


def test_a_read_that_waits_longer_than_socket_timeout_fails(hop: Pair) -> None:
    began = time.monotonic()
    with pytest.raises(HopTimedOut, match=r"^socket-timeout: reading waited for the front for 0.05 s$"):
        receive(hop[0], 10, SHORT)
    assert time.monotonic() - began >= SHORT


def test_a_timeout_is_an_oserror_as_all_faults_of_sockets(hop: Pair) -> None:
    assert issubclass(HopTimedOut, OSError)


def test_the_end_of_the_stream_is_read_at_once_or_after_a_wait(hop: Pair) -> None:
    worker, front = hop
    found: list[bytes] = []
    reader = in_thread(lambda: found.append(receive(worker, 10, LONG)))
    wait_asleep(reader)
    front.shutdown(socket.SHUT_WR)
    reader.join()
    assert [*found, receive(worker, 10, LONG)] == [b"", b""]


def test_a_broken_connection_is_no_timeout(hop: Pair) -> None:
    worker, front = hop
    worker.send(b"unread")
    front.close()
    with pytest.raises(ConnectionResetError):
        receive(worker, 10, LONG)


# --- writing


@pytest.mark.parametrize("data", [b"", b"x", MUCH])
def test_all_is_sent_whatever_its_size(hop: Pair, data: bytes) -> None:
    worker, front = hop
    found = bytearray()
    reader = in_thread(read_all, front, found)
    send_all(worker, data, LONG)
    worker.shutdown(socket.SHUT_WR)
    reader.join()
    assert found == data


def test_a_write_of_which_nothing_is_taken_for_socket_timeout_fails(hop: Pair) -> None:
    worker, _ = hop
    began = time.monotonic()
    with pytest.raises(HopTimedOut, match=r"^socket-timeout: writing waited for the front for 0.05 s$"):
        send_all(worker, MUCH, SHORT)
    assert time.monotonic() - began >= SHORT


def test_the_next_write_to_a_peer_that_takes_nothing_fails_too(hop: Pair) -> None:
    worker, _ = hop
    for data in (MUCH, b"x"):
        with pytest.raises(HopTimedOut):
            send_all(worker, data, SHORT)


def test_a_peer_that_takes_too_little_to_be_writable_is_no_timeout(
    hop: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reader empties three quarters of a buffer, which `poll()` waits for, in more than socket-timeout."""
    worker, front = hop
    found = bytearray()

    class InVain:
        """A wait during which the peer takes a little."""

        def register(self, *_: object) -> None:
            self.real = select.poll()
            self.real.register(worker, select.POLLOUT)

        def poll(self, _: int) -> list[tuple[int, int]]:
            found.extend(front.recv(50_000))  # more than one buffer of the kernel's
            return self.real.poll(0)

    monkeypatch.setattr(_hop, "poll", InVain)
    send_all(worker, MUCH, SHORT)
    assert len(found) < len(MUCH)
    worker.shutdown(socket.SHUT_WR)
    read_all(front, found)
    assert found == MUCH


def test_a_write_to_a_peer_that_goes_meanwhile_is_no_timeout(hop: Pair) -> None:
    worker, front = hop
    found: list[OSError] = []

    def send() -> None:
        try:
            send_all(worker, MUCH, LONG)
        except OSError as error:
            found.append(error)

    sender = in_thread(send)
    wait_asleep(sender)
    front.close()
    sender.join()
    assert [type(error) for error in found] in ([BrokenPipeError], [ConnectionResetError])


# --- files


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(MUCH)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(
    ("offset", "count", "there"),
    [
        (0, len(MUCH), len(MUCH)),
        (1000, 500_000, 500_000),
        (0, 10, 10),
        (0, 0, 0),
        (1000, len(MUCH), len(MUCH) - 1000),
        (len(MUCH), 10, 0),
    ],
)
def test_a_file_is_sent_as_far_as_it_goes(hop: Pair, file: int, offset: int, count: int, there: int) -> None:
    worker, front = hop
    worker.setblocking(False)
    found = bytearray()
    reader = in_thread(read_all, front, found)
    assert send_file(worker, file, offset, count, LONG) == there
    worker.shutdown(socket.SHUT_WR)
    reader.join()
    assert found == MUCH[offset : offset + count]


def test_a_file_of_which_nothing_is_taken_for_socket_timeout_fails(hop: Pair, file: int) -> None:
    worker, front = hop
    worker.setblocking(False)
    with pytest.raises(HopTimedOut, match=r"^socket-timeout: writing waited"):
        send_file(worker, file, 0, len(MUCH), SHORT)
    found = bytearray()
    worker.shutdown(socket.SHUT_WR)
    read_all(front, found)
    assert 0 < len(found) < len(MUCH)
    assert MUCH.startswith(bytes(found))


def test_a_file_for_a_peer_that_goes_meanwhile_is_no_timeout(hop: Pair, file: int) -> None:
    worker, front = hop
    worker.setblocking(False)
    front.close()
    with pytest.raises(BrokenPipeError):
        send_file(worker, file, 0, len(MUCH), LONG)
