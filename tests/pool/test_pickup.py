"""The pickup stage: an envelope is claimed whole, or the connection is let go of."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from gatekeep._frames import HEADER, LIMIT, frame
from gatekeep.pool._pickup import NotARequest, claim, pick_up, read_envelope
from gatekeep.transport import _wire
from gatekeep.transport._wire import Envelope, Go, Kind

ENVELOPE = Envelope(7, 1.0, 2.0, 3.0, 1, {"PATH_INFO": "/", "HTTP_HOST": "test"}, b"body", False)
SENT = _wire.encode(ENVELOPE)
PID, THREAD, NOW = 4711, 3, 12.5


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
