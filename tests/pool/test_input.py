"""`wsgi.input` over a real hop."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from gatekeep._frames import HEADER, LIMIT, frame
from gatekeep.pool._input import BodyCut, HopReader, body_stream
from gatekeep.transport._wire import BODY_END, Envelope, Kind


@pytest.fixture
def hop() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The worker's end and the front's."""
    worker, front = socket.socketpair()
    with worker, front:
        yield worker, front


def reading(hop: tuple[socket.socket, socket.socket], sent: bytes, *, end: bool = False) -> HopReader:
    """A reader to whom this was sent, and then, if so, the end."""
    worker, front = hop
    front.sendall(sent)
    if end:
        front.shutdown(socket.SHUT_WR)
    return HopReader(worker)


def body(*pieces: bytes) -> bytes:
    return b"".join(frame(Kind.BODY, piece) for piece in pieces)


def envelope(content: bytes, *, streamed: bool) -> Envelope:
    return Envelope(1, 0, 0, 0, 1, {}, content, streamed)


def test_pieces_become_one_stream_that_ends_and_stays_ended(hop) -> None:
    reader = reading(hop, body(b"ab", b"c") + BODY_END)
    assert reader.readall() == b"abc"
    assert [reader.read(5), reader.read(), reader.readall()] == [b""] * 3


def test_a_read_returns_what_is_there_and_never_more_than_was_asked_for(hop) -> None:
    reader = reading(hop, body(b"abcde") + BODY_END)
    assert [reader.read(3), reader.read(3), reader.read(3)] == [b"abc", b"de", b""]


def test_an_empty_body_is_empty_at_once(hop) -> None:
    assert reading(hop, BODY_END).read(10) == b""


def test_an_empty_piece_is_no_end(hop) -> None:
    assert reading(hop, body(b"a", b"", b"b") + BODY_END).readall() == b"ab"


def test_reading_nothing_waits_for_nothing(hop) -> None:
    assert body_stream(envelope(b"", streamed=True), hop[0]).read(0) == b""


@given(
    st.lists(st.binary(max_size=30), max_size=6),
    st.sets(st.integers(1, 200), max_size=12),
    st.lists(st.integers(0, 40), max_size=12),
)
def test_any_pieces_cut_anywhere_and_read_in_any_sizes_are_the_body(
    pieces: list[bytes], cuts: set[int], sizes: list[int]
) -> None:
    sent = body(*pieces) + BODY_END
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    worker, front = socket.socketpair()

    def send() -> None:
        for begin, end in pairwise(places):
            front.sendall(sent[begin:end])

    with worker, front:
        sender = threading.Thread(target=send)
        sender.start()
        stream = io.BufferedReader(HopReader(worker), 16)
        found = [stream.read(size) for size in sizes]
        assert all(len(piece) <= size for piece, size in zip(found, sizes, strict=True))
        assert b"".join([*found, stream.read()]) == b"".join(pieces)
        assert (stream.read(), stream.read(1), stream.readline(), list(stream)) == (b"", b"", b"", [])
        sender.join()


@pytest.mark.parametrize(
    "sent", [b"", body(b"ab"), body(b"ab")[:-1], body(b"ab")[:2], body() + BODY_END[:-1]]
)
def test_an_early_end_is_never_taken_for_the_end_of_the_body(hop, sent: bytes) -> None:
    reader = reading(hop, sent, end=True)
    with pytest.raises(BodyCut, match="ended early"):
        reader.readall()
    with pytest.raises(BodyCut):
        reader.read(1)


def test_what_came_before_an_early_end_can_be_read(hop) -> None:
    reader = reading(hop, body(b"ab"), end=True)
    assert reader.read(10) == b"ab"
    with pytest.raises(BodyCut):
        reader.read(10)


def test_a_broken_connection_is_an_early_end(hop) -> None:
    worker, front = hop
    worker.send(b"unread")
    front.close()  # with unread data: a reset
    with pytest.raises(BodyCut, match="ended early"):
        HopReader(worker).read(1)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (frame(Kind.ENVELOPE, b"x"), "a frame of kind 1 inside"),
        (frame(99), "a frame of kind 99 inside"),
        (HEADER.pack(Kind.GO, LIMIT + 1), "the limit is"),
    ],
)
def test_what_is_no_body_is_never_given_to_the_application(hop, sent: bytes, said: str) -> None:
    reader = reading(hop, body(b"a") + sent)
    assert reader.read(1) == b"a"
    with pytest.raises(BodyCut, match=said):
        reader.read(1)


def test_a_body_that_does_not_come_on_within_socket_timeout_is_cut(hop) -> None:
    worker, front = hop
    front.sendall(body(b"ab"))
    stream = body_stream(envelope(b"", streamed=True), worker, 0.05)
    assert stream.read(2) == b"ab"
    with pytest.raises(BodyCut, match=r"ended early: socket-timeout: reading waited"):
        stream.read(1)


@pytest.mark.parametrize(
    "what_cuts_it",
    [pytest.param(b"", id="a timeout"), pytest.param(frame(Kind.ENVELOPE, b"x"), id="another frame")],
)
def test_a_body_that_was_cut_is_not_taken_up_again_by_what_comes_late(hop, what_cuts_it: bytes) -> None:
    worker, front = hop
    front.sendall(body(b"ab") + what_cuts_it)
    stream = body_stream(envelope(b"", streamed=True), worker, 0.05)
    with pytest.raises(BodyCut) as first:
        stream.read()
    front.sendall(body(b"cd") + BODY_END)
    for _ in range(2):
        with pytest.raises(BodyCut) as again:
            stream.read()
        assert str(again.value) == str(first.value)


def test_a_body_that_comes_slowly_is_no_timeout(hop) -> None:
    worker, front = hop
    stream = body_stream(envelope(b"", streamed=True), worker, 60.0)
    for byte in b"slowly":
        front.sendall(body(bytes([byte])))
        assert stream.read(1) == bytes([byte])


def test_a_cut_body_is_a_connection_error_as_applications_expect() -> None:
    assert issubclass(BodyCut, ConnectionError)


def test_a_small_body_comes_with_the_envelope(hop) -> None:
    stream = body_stream(envelope(b"line one\nline two", streamed=False), hop[0])
    assert (stream.readline(), stream.read(), stream.read()) == (b"line one\n", b"line two", b"")


def test_a_streamed_body_comes_over_the_hop(hop) -> None:
    worker, front = hop
    stream = body_stream(envelope(b"", streamed=True), worker)
    front.sendall(body(b"line one\nline ", b"two") + BODY_END)
    assert (stream.readline(), stream.read(), stream.read()) == (b"line one\n", b"line two", b"")


def test_closing_the_stream_leaves_the_hop_open(hop) -> None:
    worker, front = hop
    stream = body_stream(envelope(b"", streamed=True), worker)
    stream.close()
    worker.sendall(b"answer")
    assert front.recv(10) == b"answer"
