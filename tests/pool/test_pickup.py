"""The pickup stage: an envelope is claimed whole, or discarded because it is late, or the connection is let go of."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gatekeep._frames import HEADER, LIMIT, frame
from gatekeep.pool._pickup import NotARequest, claim, pick_up, read_envelope
from gatekeep.transport import _wire
from gatekeep.transport._wire import Envelope, Go, Kind

ENVELOPE = Envelope(7, 1.0, 2.0, 3.0, 1, {"PATH_INFO": "/", "HTTP_HOST": "test"}, b"body", False)
SENT = _wire.encode(ENVELOPE)
PID, THREAD, NOW = 4711, 3, 12.5


class Log:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.said.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.said.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.said.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.said.append(("error", event, fields))


@pytest.fixture
def hop() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end and the front's."""
    worker, front = socket.socketpair()
    with worker, front:
        yield worker, front


def picked_up(hop: tuple[socket.socket, socket.socket], sent: bytes) -> Envelope | None:
    """What a worker makes of a connection on which this came, and then the end."""
    worker, front = hop
    front.sendall(sent)
    front.shutdown(socket.SHUT_WR)
    return pick_up(worker, PID, THREAD, NOW)


def heard(hop: tuple[socket.socket, socket.socket]) -> list[tuple[int, bytes]]:
    """What the worker said."""
    worker, front = hop
    worker.close()
    decoder = _wire.front_decoder()
    while data := front.recv(65536):
        decoder.feed(data)
    return list(decoder.frames())


def test_an_envelope_is_claimed_with_process_thread_and_time(hop) -> None:
    assert picked_up(hop, SENT) == ENVELOPE
    ((kind, payload),) = heard(hop)
    assert (kind, _wire.decode_go(payload)) == (Kind.GO, Go(PID, THREAD, NOW))


@pytest.mark.parametrize("cut", range(1, len(SENT)))
def test_an_envelope_may_come_in_pieces_cut_anywhere(hop, cut: int) -> None:
    worker, front = hop
    front.sendall(SENT[:cut])
    found: list[Envelope | None] = []
    thread = threading.Thread(target=lambda: found.append(pick_up(worker, PID, THREAD, NOW)))
    thread.start()
    front.sendall(SENT[cut:])
    thread.join()
    assert found == [ENVELOPE]


def test_a_large_envelope_comes_whole(hop) -> None:
    worker, front = hop
    large = Envelope(7, 1.0, 2.0, 3.0, 1, {"HTTP_X": "x" * 2_000_000}, b"", True)
    thread = threading.Thread(target=front.sendall, args=(_wire.encode(large),))
    thread.start()
    assert pick_up(worker, PID, THREAD, NOW) == large
    thread.join()


@pytest.mark.parametrize("cut", range(len(SENT)))
def test_an_envelope_that_stopped_short_is_not_claimed(hop, cut: int) -> None:
    assert picked_up(hop, SENT[:cut]) is None
    assert heard(hop) == []


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"\xff" * 100, id="ones"),
        pytest.param(frame(Kind.GO, b"x"), id="another kind"),
        pytest.param(frame(Kind.ENVELOPE), id="empty"),
        pytest.param(frame(Kind.ENVELOPE, b"\xc1" * 20), id="no messagepack"),
        pytest.param(frame(Kind.ENVELOPE, msgspec.msgpack.encode([1, 2])), id="another message"),
        pytest.param(frame(Kind.ENVELOPE, msgspec.msgpack.encode({"request": 1})), id="no array"),
        pytest.param(SENT + b"\0", id="something behind it"),
        pytest.param(SENT + SENT, id="another one behind it"),
        pytest.param(SENT + frame(Kind.BODY, b"x"), id="a body before the claim"),
        pytest.param(HEADER.pack(Kind.ENVELOPE, LIMIT + 1) + SENT, id="too long"),
        pytest.param(HEADER.pack(Kind.ENVELOPE, 2**32 - 1), id="far too long"),
    ],
)
def test_what_is_no_envelope_is_not_claimed(hop, sent: bytes) -> None:
    assert picked_up(hop, sent) is None
    assert heard(hop) == []


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(msgspec.msgpack.encode(ENVELOPE).replace(b"PATH", b"PA\xffH"), id="no utf-8"),
        pytest.param(b"\x99" + msgspec.msgpack.encode(ENVELOPE)[1:] + b"\x91" * 50_000, id="deeply nested"),
    ],
)
def test_a_damaged_envelope_is_not_claimed_though_msgspec_does_not_call_it_so(hop, payload: bytes) -> None:
    assert picked_up(hop, frame(Kind.ENVELOPE, payload)) is None
    assert heard(hop) == []


def test_a_frame_that_is_too_long_is_refused_at_its_header(hop) -> None:
    worker, front = hop
    front.sendall(HEADER.pack(Kind.ENVELOPE, LIMIT + 1))
    with pytest.raises(NotARequest, match=f"{LIMIT + 1} bytes where an envelope was due"):
        read_envelope(worker)


def test_a_front_that_is_gone_gets_no_claim(hop) -> None:
    worker, front = hop
    front.sendall(SENT)
    front.close()
    assert pick_up(worker, PID, THREAD, NOW) is None


def test_a_front_that_has_given_the_request_up_gets_no_claim(hop) -> None:
    worker, front = hop
    front.sendall(SENT)
    front.shutdown(socket.SHUT_RD)
    assert pick_up(worker, PID, THREAD, NOW) is None
    assert front.recv(100) == b""


def test_a_front_that_goes_after_the_envelope_was_read_gets_no_claim(hop) -> None:
    worker, front = hop
    front.sendall(SENT)
    assert read_envelope(worker) == ENVELOPE
    front.shutdown(socket.SHUT_RD)
    assert not claim(worker, PID, THREAD, NOW)


def test_a_claim_that_was_sent_stays_readable_after_the_front_gave_up(hop) -> None:
    worker, front = hop
    front.sendall(SENT)
    assert pick_up(worker, PID, THREAD, NOW) == ENVELOPE
    front.shutdown(socket.SHUT_RD)
    assert [kind for kind, _ in heard(hop)] == [Kind.GO]


# --- queue-timeout


def waited(seconds: float) -> Envelope:
    """An envelope that was written so long ago."""
    return Envelope(7, 1.0, time.monotonic() - seconds, 3.0, 2, {"PATH_INFO": "/"}, b"", False)


def test_a_request_that_waited_too_long_is_discarded_and_the_front_is_told(hop) -> None:
    worker, front = hop
    front.sendall(_wire.encode(waited(100.0)))
    log = Log()
    assert pick_up(worker, PID, THREAD, NOW, queue_timeout=50.0, log=log) is None
    ((level, event, fields),) = log.said
    assert (level, event, fields["request_id"]) == ("debug", "pickup.discarded", f"{7:016x}")
    assert (fields["age"] >= 100.0, fields["attempt"]) == (True, 2)
    assert heard(hop) == [(Kind.EXPIRED, b"")]


@pytest.mark.parametrize(("seconds", "queue_timeout"), [(0.0, 50.0), (10.0, 10_000.0), (1e9, float("inf"))])
def test_a_request_that_waited_within_its_time_is_claimed(hop, seconds: float, queue_timeout: float) -> None:
    worker, front = hop
    envelope = waited(seconds)
    front.sendall(_wire.encode(envelope))
    log = Log()
    assert pick_up(worker, PID, THREAD, NOW, queue_timeout=queue_timeout, log=log) == envelope
    assert log.said == []
    assert [kind for kind, _ in heard(hop)] == [Kind.GO]


def test_the_age_counts_at_the_end_of_the_envelope_not_at_the_accept(hop) -> None:
    worker, front = hop
    front.sendall(_wire.encode(waited(100.0)))
    accepted_in_time = time.monotonic() - 99.0
    assert pick_up(worker, PID, THREAD, accepted_in_time, queue_timeout=50.0) is None


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_RDWR])
def test_a_late_request_of_a_front_that_gave_it_up_is_discarded_quietly(hop, how: int) -> None:
    worker, front = hop
    front.sendall(_wire.encode(waited(100.0)))
    front.shutdown(how)
    assert pick_up(worker, PID, THREAD, NOW, queue_timeout=50.0) is None


# --- socket-timeout


@pytest.mark.parametrize("cut", [0, 1, HEADER.size, len(SENT) - 1])
def test_an_envelope_that_does_not_come_on_within_socket_timeout_is_dropped(hop, cut: int) -> None:
    worker, front = hop
    front.sendall(SENT[:cut])
    log = Log()
    assert pick_up(worker, PID, THREAD, NOW, socket_timeout=0.05, log=log) is None
    ((level, event, fields),) = log.said
    assert (level, event) == ("warning", "pickup.timed_out")
    assert (fields["stage"], fields["timer"]) == ("pickup", "socket-timeout")
    assert heard(hop) == []
