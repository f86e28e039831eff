"""The body decoders: any body in any chunks in any packets, strictly, in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings, strategies as st

from gatekeep._errors import Refused
from gatekeep.transport import _http_body, _http_head
from gatekeep.transport._codec import Limits
from gatekeep.transport._codec_strict import StrictCodec
from gatekeep.transport._http_body import ChunkedDecoder, Decoder, LengthDecoder

quick = settings(max_examples=150)


def decode(decoder: Decoder, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """The body in bytes that come in pieces, and what was not used of them."""
    body, held = b"", b""
    for piece in pieces:
        held += piece
        while True:
            more, used = decoder.decode(held, 0)
            body, held = body + more, held[used:]
            if not used:
                break
    return body, held


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """`data` in pieces that end at the positions `at`, taken round the end."""
    ends = sorted({position % (len(data) + 1) for position in at} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def status(sent: bytes, limit: int = 0) -> int:
    with pytest.raises(Refused) as whole:
        decode(ChunkedDecoder(limit), [sent])
    with pytest.raises(Refused) as by_byte:
        decode(ChunkedDecoder(limit), [sent[i : i + 1] for i in range(len(sent))])
    assert (whole.value.status, whole.value.reason) == (by_byte.value.status, by_byte.value.reason)
    return whole.value.status


# --- bodies

token = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
quoted = st.binary(max_size=8).map(
    lambda b: b'"' + re.sub(rb'([^\t\x20-\x7e\x80-\xff]|["\\])', rb"\\a", b) + b'"'
)
extension = st.one_of(
    st.builds(lambda name: b";" + name, token),
    st.builds(lambda name, value: b";" + name + b"=" + value, token, st.one_of(token, quoted)),
)
chunk = st.tuples(
    st.binary(min_size=1, max_size=40),
    st.sampled_from([b"%x", b"%X", b"%016x", b"%04X"]),
    st.lists(extension, max_size=3),
)
trailer = st.builds(
    lambda name, value: b"X-" + name + b":" + value + b"\r\n", token, st.just(b" \xe9 ") | token
)
cuts = st.lists(st.integers(0, 1 << 16), max_size=12)


def in_chunks(chunks: list[tuple[bytes, bytes, list[bytes]]], trailers: list[bytes]) -> bytes:
    parts = [size % len(data) + b"".join(ext) + b"\r\n" + data + b"\r\n" for data, size, ext in chunks]
    return b"".join([*parts, b"0\r\n", *trailers, b"\r\n"])


@quick
@given(st.lists(chunk, max_size=6), st.lists(trailer, max_size=3), cuts, st.binary(max_size=4))
def test_any_body_in_any_chunks_and_any_packets_comes_out_whole(
    chunks: list[tuple[bytes, bytes, list[bytes]]], trailers: list[bytes], at: list[int], behind: bytes
) -> None:
    sent = in_chunks(chunks, trailers)
    decoder = ChunkedDecoder(0)
    body, held = decode(decoder, cut(sent + behind, at))
    assert body == b"".join(data for data, _, _ in chunks)
    assert held == behind
    assert decoder.complete


@quick
@given(st.lists(chunk, max_size=4), st.lists(trailer, max_size=2), st.integers(0, 1 << 16))
def test_a_chunked_body_that_is_cut_anywhere_is_never_complete(
    chunks: list[tuple[bytes, bytes, list[bytes]]], trailers: list[bytes], end: int
) -> None:
    sent = in_chunks(chunks, trailers)
    decoder = ChunkedDecoder(0)
    body, _ = decode(decoder, [sent[: end % len(sent)]])
    assert not decoder.complete
    assert b"".join(data for data, _, _ in chunks).startswith(body)


@quick
@given(st.binary(max_size=300), cuts, st.binary(max_size=9))
def test_a_body_of_a_length_comes_out_whole(sent: bytes, at: list[int], behind: bytes) -> None:
    decoder = LengthDecoder(len(sent))
    assert decode(decoder, cut(sent + behind, at)) == (sent, behind)
    assert decoder.complete


@quick
@given(st.binary(max_size=60).map(lambda b: b"5\r\nhello\r\n" + b), cuts)
def test_noise_is_refused_or_awaited_and_never_raises_anything_else(sent: bytes, at: list[int]) -> None:
    answer = None
    try:
        body, _ = decode(ChunkedDecoder(1 << 20), cut(sent, at))
    except Refused as refusal:
        answer = refusal.status
    else:
        assert body.startswith(b"hello")
    assert answer in (None, 400, 413, 431)


# --- strictness

MALFORMED = {
    "no size": b"\r\n",
    "a sign": b"+1\r\n",
    "a prefix": b"0x1\r\n",
    "an underscore": b"1_0\r\n",
    "digits of another script": b"\xb2\r\n",
    "white space before": b" 1\r\n",
    "white space behind": b"1 \r\n",
    "a tab": b"1\t\r\n",
    "white space before an extension": b"1 ;a\r\n",
    "white space in an extension": b"1; a\r\n",
    "white space around the equals sign": b"1;a =b\r\n",
    "an extension without a name": b"1;\r\n",
    "an extension without a value": b"1;a=\r\n",
    "an open quotation": b'1;a="b\r\n',
    "something behind a quotation": b'1;a="b"c\r\n',
    "a backslash at the end of a quotation": b'1;a="b\\"\r\n',
    "seventeen digits": b"0" * 17 + b"\r\n",
    "a bare LF": b"1\n",
    "a bare CR": b"1\r1",
    "a NUL": b"1\0",
    "a NUL in an extension": b"1;a\0",
    "a control in an extension": b'1;a="\x01',
    "a DEL in an extension": b'1;a="\x7f',
    "something else behind a chunk": b"1\r\naa",
    "a CR alone behind a chunk": b"1\r\na\ra",
    "an LF behind a chunk": b"1\r\na\n",
    "a trailer without a colon": b"0\r\na\r\n",
    "a trailer without a name": b"0\r\n: a\r\n",
    "white space before a trailer": b"0\r\n a: b\r\n",
    "white space before its colon": b"0\r\na : b\r\n",
    "a control in a trailer": b"0\r\na: \x01",
    "a bare LF in the trailers": b"0\r\na: b\n",
    "a bare LF at the end": b"0\r\n\n",
    "Content-Length as a trailer": b"0\r\ncontent-LENGTH: 1\r\n",
    "Transfer-Encoding as a trailer": b"0\r\nTransfer-Encoding:\r\n",
    "Host as a trailer": b"0\r\nhost: a\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_body_is_refused_as_soon_as_it_is_seen(sent: bytes) -> None:
    assert status(sent) == 400
    assert status(b"1\r\na\r\n" + sent) == 400


ENDLESS = {
    "size digits": (b"", b"0", 257, 400),
    "an extension": (b"1;", b"a", 255, 400),
    "an extension's value": (b'1;a="', b" ", 252, 400),
    "extensions": (b"1", b";a", 128, 400),
    "a trailer's name": (b"0\r\n", b"a", 8193, 431),
    "a trailer's value": (b"0\r\na:", b" ", 8191, 431),
    "trailers": (b"0\r\n", b"a:\r\n", 101, 431),
    "trailers of some size": (b"0\r\n", b"a:" + b"b" * 96 + b"\r\n", 82, 431),
}


@pytest.mark.parametrize(("start", "filler", "count", "expected"), ENDLESS.values(), ids=ENDLESS)
def test_what_could_go_on_for_ever_is_refused_at_its_limit(
    start: bytes, filler: bytes, count: int, expected: int
) -> None:
    assert status(start + filler * count) == expected
    decoder = ChunkedDecoder(0)
    decode(decoder, [start, filler * (count - 1)])
    assert not decoder.complete


def test_a_body_limit_counts_what_is_declared() -> None:
    assert status(b"B\r\n", limit=10) == 413
    assert status(b"5\r\nhello\r\n6\r\n", limit=10) == 413
    assert status(b"ffffffffffffffff\r\n", limit=10) == 413
    assert decode(ChunkedDecoder(10), [b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"]) == (b"helloworld", b"")


# --- what it costs


@pytest.fixture
def matched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes each match looked at."""
    spans: list[int] = []

    def counting(match: _http_head.LineMatch) -> _http_head.LineMatch:
        def count(data: _http_head.Buffer, start: int) -> object:
            found = match(data, start)
            # A size line that does not match was looked at for less than its limit.
            spans.append(found.end() - start + 1 if found else min(len(data) - start, 260))
            return found

        return count  # type: ignore[return-value]

    for name in ("_size_line", "_plain_size_line", "LINE_BYTES"):
        monkeypatch.setattr(_http_body, name, counting(getattr(_http_body, name)))
    monkeypatch.setattr(_http_head, "_name", counting(_http_head._name))
    return spans


@pytest.mark.parametrize(
    ("unit", "count"),
    [
        (b"1\r\na\r\n", 10_000),
        (b"1;" + b"a" * 250 + b"\r\na\r\n", 250),
        (b"10\r\n" + b"a" * 16 + b"\r\n", 3000),
    ],
    ids=["chunks of a byte", "long extensions", "small chunks"],
)
def test_64_kib_byte_by_byte_are_looked_at_a_bounded_number_of_times(
    matched: list[int], unit: bytes, count: int
) -> None:
    sent = unit * count + b"0\r\n" + b"a:\r\n" * 100 + b"\r\n"
    decoder = ChunkedDecoder(0)
    decode(decoder, [sent[i : i + 1] for i in range(len(sent))])
    assert decoder.complete
    assert sum(matched) < 8 * len(sent)


def test_a_large_body_takes_a_handful_of_steps_a_packet(matched: list[int]) -> None:
    packet = b"\0" * 65536
    codec = StrictCodec(Limits())
    codec.receive(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (100 * len(packet))
    )
    codec.next_request()
    assert codec.read_body() == b""
    for _ in range(100):
        codec.receive(packet)
        # It is handed on as it came: not copied, so certainly not looked at.
        assert codec.read_body() is packet
    assert len(matched) < 10
    assert codec.buffered == 0


def test_a_large_body_of_a_length_is_not_copied() -> None:
    packet = b"\0" * 65536
    codec = StrictCodec(Limits())
    codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (100 * len(packet)))
    codec.next_request()
    for _ in range(100):
        codec.receive(packet)
        assert codec.read_body() is packet
    assert codec.body_complete
