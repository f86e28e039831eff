"""Frames come back as they were sent, however the stream is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from gatekeep._frames import HEADER, Decoder, FrameError, frame

KINDS = st.integers(0, 255)
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=40)), max_size=8)


def pieces(data: bytes, cuts: set[int]) -> list[bytes]:
    """The data, cut at these places."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[begin:end] for begin, end in pairwise(places)]


def decoded(decoder: Decoder, parts: list[bytes]) -> list[tuple[int, bytes]]:
    found = []
    for part in parts:
        decoder.feed(part)
        found += decoder.frames()
    return found


def test_a_frame_is_a_byte_of_kind_four_of_length_and_the_payload() -> None:
    assert frame(7, b"abc") == b"\x07\x00\x00\x00\x03abc"
    assert frame(255) == b"\xff\x00\x00\x00\x00"


@given(FRAMES, st.sets(st.integers(0, 300)))
def test_frames_come_back_identical_however_the_stream_is_cut(
    frames: list[tuple[int, bytes]], cuts: set[int]
) -> None:
    stream = b"".join(frame(kind, payload) for kind, payload in frames)
    assert decoded(Decoder(), pieces(stream, cuts)) == frames


@given(FRAMES, st.sets(st.integers(0, 300)), st.frozensets(KINDS))
def test_streamed_frames_come_back_in_pieces_that_add_up(
    frames: list[tuple[int, bytes]], cuts: set[int], streamed: frozenset[int]
) -> None:
    stream = b"".join(frame(kind, payload) for kind, payload in frames)
    found = iter(decoded(Decoder(streamed), pieces(stream, cuts)))
    for kind, payload in frames:
        seen_kind, seen = next(found)
        while kind in streamed and len(seen) < len(payload):
            piece_kind, piece = next(found)
            assert (piece_kind, bool(piece)) == (kind, True)
            seen += piece
        assert (seen_kind, seen) == (kind, payload)
    assert next(found, None) is None


@given(st.binary(min_size=1, max_size=60), st.sets(st.integers(0, 80)))
def test_a_streamed_piece_is_given_out_as_soon_as_it_is_there(payload: bytes, cuts: set[int]) -> None:
    decoder = Decoder(frozenset({1}))
    fed = given_out = 0
    for part in pieces(frame(1, payload), cuts):
        decoder.feed(part)
        fed += len(part)
        given_out += sum(len(piece) for _, piece in decoder.frames())
        assert given_out == max(0, fed - HEADER.size)


@given(FRAMES, st.sets(st.integers(0, 300)), st.frozensets(KINDS))
def test_an_end_cuts_no_frame_only_where_it_says_so(
    frames: list[tuple[int, bytes]], cuts: set[int], streamed: frozenset[int]
) -> None:
    ends = {0}
    for kind, payload in frames:
        ends.add(max(ends) + len(frame(kind, payload)))
    decoder = Decoder(streamed)
    assert decoder.is_between_frames()
    fed = 0
    for part in pieces(b"".join(frame(*item) for item in frames), cuts):
        decoder.feed(part)
        fed += len(part)
        list(decoder.frames())
        assert decoder.is_between_frames() == (fed in ends)


def test_frames_that_nobody_took_yet_are_not_an_end() -> None:
    decoder = Decoder()
    decoder.feed(frame(1) + frame(2))
    assert not decoder.is_between_frames()
    assert decoder.next_frame() == (1, b"")
    assert not decoder.is_between_frames()
    assert decoder.next_frame() == (2, b"")
    assert decoder.is_between_frames()
    assert decoder.next_frame() is None


def test_a_frame_of_exactly_the_limit_passes_and_one_byte_more_is_refused_at_its_header() -> None:
    decoder = Decoder(limit=10)
    decoder.feed(frame(1, b"x" * 10))
    assert decoder.next_frame() == (1, b"x" * 10)
    decoder.feed(HEADER.pack(3, 11))
    with pytest.raises(FrameError, match="kind 3 and 11 bytes, the limit is 10"):
        decoder.next_frame()


def test_the_limit_does_not_concern_streamed_kinds() -> None:
    decoder = Decoder(frozenset({3}), limit=10)
    decoder.feed(HEADER.pack(3, 1 << 31) + b"x" * 100)
    assert decoder.next_frame() == (3, b"x" * 100)
    assert decoder.next_frame() is None


def test_an_empty_streamed_frame_is_given_out_once() -> None:
    decoder = Decoder(frozenset({3}))
    decoder.feed(frame(3) + frame(3, b"a"))
    assert list(decoder.frames()) == [(3, b""), (3, b"a")]
