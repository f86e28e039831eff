"""What front and worker say to each other arrives as it was said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from gatekeep._frames import Decoder, frame
from gatekeep.transport import _wire
from gatekeep.transport._wire import End, Envelope, Fail, Go, Head, Kind

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LATIN = st.text(st.characters(max_codepoint=255), max_size=20)
SECONDS = st.floats(0, 1e10)
COUNT = st.integers(0, 2**31)

ENVELOPES = st.builds(
    Envelope,
    request=st.integers(0, 2**63),
    began=SECONDS,
    stamp=SECONDS,
    wall=SECONDS,
    attempt=COUNT,
    environ=st.dictionaries(LATIN, LATIN, max_size=5),
    body=st.binary(max_size=30),
    streamed=st.booleans(),
)
GOS = st.builds(Go, pid=COUNT, thread=COUNT, stamp=SECONDS)
HEADS = st.builds(
    Head, status=st.integers(200, 999), reason=LATIN, fields=st.lists(st.tuples(LATIN, LATIN), max_size=5)
)
ENDS = st.builds(End, stamp=SECONDS)
FAILS = st.builds(Fail, message=TEXT, stamp=SECONDS)

Decode = Callable[[bytes], Any]

DECODERS: dict[Kind, Decode] = {
    Kind.ENVELOPE: _wire.decode_envelope,
    Kind.GO: _wire.decode_go,
    Kind.HEAD: _wire.decode_head,
    Kind.END: _wire.decode_end,
    Kind.FAIL: _wire.decode_fail,
}


def one_frame(decoder: Decoder, data: bytes) -> tuple[int, bytes]:
    decoder.feed(data)
    (item,) = decoder.frames()
    assert decoder.is_between_frames()
    return item


@given(ENVELOPES)
def test_an_envelope_arrives_as_it_was_sent(envelope: Envelope) -> None:
    kind, payload = one_frame(_wire.worker_decoder(), _wire.encode(envelope))
    assert (kind, _wire.decode_envelope(payload)) == (Kind.ENVELOPE, envelope)


@given(GOS | HEADS | ENDS | FAILS)
def test_what_a_worker_says_arrives_as_it_was_sent(message: Go | Head | End | Fail) -> None:
    kind, payload = one_frame(_wire.front_decoder(), _wire.encode(message))
    assert DECODERS[Kind(kind)](payload) == message


def test_the_kind_is_that_of_the_message() -> None:
    kinds = {
        type(message): one_frame(Decoder(), _wire.encode(message))[0]
        for message in (
            Envelope(1, 0, 0, 0, 1, {}, b"", False),
            Go(1, 2, 3),
            Head(200, "", []),
            End(1),
            Fail("", 1),
        )
    }
    assert kinds == {
        Envelope: Kind.ENVELOPE,
        Go: Kind.GO,
        Head: Kind.HEAD,
        End: Kind.END,
        Fail: Kind.FAIL,
    }


def test_structured_payloads_are_arrays_so_that_their_order_is_the_contract() -> None:
    payload = one_frame(Decoder(), _wire.encode(Go(pid=7, thread=2, stamp=1.5)))[1]
    assert msgspec.msgpack.decode(payload) == [7, 2, 1.5]
    payload = one_frame(Decoder(), _wire.encode(Head(200, "OK", [("A", "b")])))[1]
    assert msgspec.msgpack.decode(payload) == [200, "OK", [["A", "b"]], 0]
    envelope = Envelope(9, 0.5, 1.5, 2.5, 3, {"A": "b"}, b"body", True)
    payload = one_frame(Decoder(), _wire.encode(envelope))[1]
    assert msgspec.msgpack.decode(payload) == [9, 0.5, 1.5, 2.5, 3, {"A": "b"}, b"body", True, ""]


@pytest.mark.parametrize(
    ("data", "kind"),
    [(_wire.BODY_END, Kind.BODY_END), (_wire.REJECT, Kind.REJECT), (_wire.EXPIRED, Kind.EXPIRED)],
)
def test_what_needs_no_payload_has_none(data: bytes, kind: Kind) -> None:
    assert one_frame(Decoder(), data) == (kind, b"")


def test_bodies_are_passed_on_piece_by_piece_each_in_its_own_direction() -> None:
    for decoder, streamed, whole in (
        (_wire.worker_decoder(), Kind.BODY, Kind.DATA),
        (_wire.front_decoder(), Kind.DATA, Kind.BODY),
    ):
        decoder.feed(frame(streamed, b"abc")[:-1])
        assert decoder.next_frame() == (streamed, b"ab")
        decoder.feed(b"c" + frame(whole, b"abc")[:-1])
        assert decoder.next_frame() == (streamed, b"c")
        assert decoder.next_frame() is None


def test_a_message_that_is_not_of_the_wire_has_no_frame() -> None:
    class Stranger(msgspec.Struct):
        name: str

    with pytest.raises(KeyError):
        _wire.encode(Stranger("x"))


def test_the_kinds_of_both_directions_are_apart() -> None:
    front = {Kind.ENVELOPE, Kind.BODY, Kind.BODY_END}
    assert all((kind < 16) == (kind in front) for kind in Kind)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=[kind.name for kind in DECODERS])
@given(data=st.binary(max_size=60))
def test_garbage_is_refused_with_an_error_of_msgspec(decode: Decode, data: bytes) -> None:
    try:
        decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass


@pytest.mark.parametrize("decode", DECODERS.values(), ids=[kind.name for kind in DECODERS])
@given(
    data=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | TEXT
        | st.binary(max_size=9),
        lambda inner: st.lists(inner, max_size=9) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=12,
    )
)
def test_messagepack_that_is_no_such_message_is_refused_with_an_error_of_msgspec(
    decode: Decode, data: object
) -> None:
    try:
        decode(msgspec.msgpack.encode(data))
    except msgspec.MsgspecError:
        pass


@given(ENVELOPES, st.data())
def test_a_damaged_envelope_is_refused_or_is_another_envelope(
    envelope: Envelope, data: st.DataObject
) -> None:
    payload = bytearray(one_frame(Decoder(), _wire.encode(envelope))[1])
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert isinstance(_wire.decode_envelope(bytes(payload)), Envelope)
    # Text that is no UTF-8 is an error of Python's.
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", msgspec.DecodeError),
        (msgspec.msgpack.encode([1, 0.0, 0.0, 0.0, 1, {}, b""]), msgspec.ValidationError),
        (msgspec.msgpack.encode(["1", 0.0, 0.0, 0.0, 1, {}, b"", False]), msgspec.ValidationError),
        (msgspec.msgpack.encode([1, 0.0, 0.0, 0.0, 1, {"A": 1}, b"", False]), msgspec.ValidationError),
        (msgspec.msgpack.encode([1, 0.0, 0.0, 0.0, 1, {"A": "b"}, b"", None]), msgspec.ValidationError),
        (msgspec.msgpack.encode([1, 0.0, 0.0, 0.0, 1, {"A": "b"}, b"", False]) + b"x", msgspec.DecodeError),
    ],
)
def test_an_envelope_with_anything_wrong_is_refused(payload: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        _wire.decode_envelope(payload)


def test_a_message_that_was_cut_is_refused() -> None:
    payload = one_frame(Decoder(), _wire.encode(Go(1, 2, 3.0)))[1]
    for size in range(len(payload)):
        with pytest.raises(msgspec.DecodeError):
            _wire.decode_go(payload[:size])
