"""The head scan: limits that hold byte by byte, refusals at the first wrong byte, linear time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from gatekeep._errors import Refused
from gatekeep.transport import _http_head
from gatekeep.transport._codec import Head, Limits
from gatekeep.transport._http_head import HeadScanner

DEFAULT = Limits()
WIDE = Limits(request_line=1 << 20, field_size=1 << 20, fields=1 << 20, head_size=1 << 20)


def scan(data: bytes, limits: Limits = DEFAULT, step: int = 0) -> Head | None:
    """What the scanner makes of bytes that come in pieces of `step`, 0 for all at once."""
    scanner = HeadScanner(limits)
    for end in [*(range(step, len(data), step) if step else ()), len(data)]:
        head = scanner.scan(data[:end], 0)
        if head is not None:
            return head
    return None


def verdict(data: bytes, limits: Limits = DEFAULT, step: int = 0) -> tuple[int, str] | None:
    """Status and reason of the refusal; None if there is none (yet)."""
    try:
        scan(data, limits, step)
    except Refused as refusal:
        return refusal.status, refusal.reason
    return None


def status(data: bytes, limits: Limits = DEFAULT, step: int = 0) -> int | None:
    refused = verdict(data, limits, step)
    return refused and refused[0]


# --- as soon as it is seen

AT_ONCE = {
    "a TLS hello": (b"\x16", 400),
    "a NUL": (b"GET /\0", 400),
    "a byte above 0x7f in the target": (b"GET /\xc3", 400),
    "a bare LF": (b"GET / HTTP/1.1\r\nHost: a\n", 400),
    "a bare CR": (b"GET / HTTP/1.1\r\nHost: a\rb", 400),
    "a bare CR at the very beginning": (b"\rG", 400),
    "a tab in the request line": (b"GET\t", 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "a malformed version": (b"GET / HTTP/1.10\r\n", 400),
    "another version": (b"GET / HTTP/1.2\r\n", 505),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\n", 501),
    "TRACE": (b"TRACE / HTTP/1.1\r\n", 405),
    "a fragment": (b"GET /#a HTTP/1.1\r\n", 400),
    "a line without a colon": (b"GET / HTTP/1.1\r\nHost\r\n", 400),
    "a folded line": (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n", 400),
    "white space before a colon": (b"GET / HTTP/1.1\r\nHost : a\r\n", 400),
    "an empty line": (b"\r\n", 400),
    "a request line that is too long": (b"G" * 8191, 414),
    "a field that is too long": (b"GET / HTTP/1.1\r\n" + b"a" * 8191, 431),
    "too many fields": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101, 431),
    "a head that is too large": (b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 1000 + b"\r\n") * 66, 431),
}


@pytest.mark.parametrize(("data", "expected"), AT_ONCE.values(), ids=AT_ONCE)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_what_can_be_no_head_any_more_is_refused_before_it_ends(
    data: bytes, expected: int, step: int
) -> None:
    assert status(data, step=step) == expected


@pytest.mark.parametrize(
    ("data", "expected"), [case for case in AT_ONCE.values() if case[1] == 400], ids=lambda x: ""
)
def test_and_not_a_byte_earlier(data: bytes, expected: int) -> None:
    assert status(data[:-1]) is None


# --- limits

LINE = b"GET /%b HTTP/1.1\r\n"
LIMITS = Limits(request_line=30, field_size=20, fields=3, head_size=68)
HOST = b"Host: a\r\n"

AT_THE_LIMIT = {
    "the longest request line": (LINE % (b"a" * 16) + HOST + b"\r\n", None),
    "one byte more": (LINE % (b"a" * 17) + HOST + b"\r\n", 414),
    "the longest field": (LINE % b"" + b"Host: " + b"a" * 14 + b"\r\n\r\n", None),
    "one byte more of it": (LINE % b"" + b"Host: " + b"a" * 15 + b"\r\n\r\n", 431),
    "the most fields": (LINE % b"" + HOST + b"a: b\r\n" * 2 + b"\r\n", None),
    "one field more": (LINE % b"" + HOST + b"a: b\r\n" * 3 + b"\r\n", 431),
    "the largest head": (
        LINE % b"" + HOST + b"a: " + b"b" * 15 + b"\r\n" + b"c: " + b"d" * 16 + b"\r\n\r\n",
        None,
    ),
    "one byte more of a head": (
        LINE % b"" + HOST + b"a: " + b"b" * 15 + b"\r\n" + b"c: " + b"d" * 17 + b"\r\n\r\n",
        431,
    ),
}


@pytest.mark.parametrize(("data", "expected"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
@pytest.mark.parametrize("step", [0, 1])
def test_a_limit_is_exact(data: bytes, expected: int | None, step: int) -> None:
    assert status(data, LIMITS, step) == expected
    if expected is None:
        assert scan(data, LIMITS, step) is not None


@pytest.mark.parametrize(
    ("prefix", "filler", "size", "expected"),
    [
        (b"", b"G", 8191, 414),
        (b"GET ", b"/", 8187, 414),
        (b"GET / HTTP/1.", b"1", 8178, 414),
        (b"GET / HTTP/1.1\r\n", b"n", 8191, 431),
        (b"GET / HTTP/1.1\r\nHost:", b" ", 8186, 431),
        (b"GET / HTTP/1.1\r\nHost: a", b"\t", 8184, 431),
        (b"GET / HTTP/1.1\r\nHost: ", b"v", 8185, 431),
    ],
    ids=["method", "target", "version", "name", "space before a value", "space behind a value", "value"],
)
def test_an_endless_element_is_refused_at_its_limit_however_slowly_it_comes(
    prefix: bytes, filler: bytes, size: int, expected: int
) -> None:
    scanner = HeadScanner(Limits())
    data = bytearray(prefix)
    scanner.scan(data, 0)
    for _ in range(size - 1):
        data += filler
        assert scanner.scan(data, 0) is None
    with pytest.raises(Refused) as refused:
        scanner.scan(data + filler, 0)
    assert refused.value.status == expected


def test_a_reduced_head_size_bounds_the_request_line_too() -> None:
    limits = Limits(head_size=100)
    assert verdict(b"G" * 101, limits) == verdict(b"G" * 9000, limits) == verdict(b"G" * 101, limits, step=1)
    assert status(b"G" * 101, limits) == 414


# --- the same verdict whatever the split

WRONG_TWICE = {
    "a NUL, then too long": b"GET / HTTP/1.1\r\nA: \0" + b"a" * 9000 + b"\r\n\r\n",
    "too long, then a NUL": b"GET / HTTP/1.1\r\nA: " + b"a" * 9000 + b"\0\r\n\r\n",
    "a bad method, too long": b"(" * 9000 + b" / HTTP/1.1\r\n\r\n",
    "a bad field, then a bad byte": b"GET / HTTP/1.1\r\nA\r\nB: \0\r\n\r\n",
    "too many fields, then a bad one": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"c\r\n\r\n",
    "a bad field as the one too many": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100 + b"c\r\n\r\n",
    "a version above, then a bad field": b"GET / HTTP/2.0\r\n:\r\n\r\n",
    "two Hosts, then a bare LF": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nC: d\n\r\n",
    "two Hosts and two lengths": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("data", WRONG_TWICE.values(), ids=WRONG_TWICE)
def test_where_two_things_are_wrong_the_same_one_decides_however_it_comes(data: bytes) -> None:
    whole = verdict(data)
    assert whole is not None
    assert {verdict(data, step=step) for step in (1, 2, 5, 4096)} == {whole}


def test_the_verdict_is_that_of_the_shortest_beginning_that_is_wrong() -> None:
    chance = random.Random(9112)
    pieces = [
        b"GET ",
        b"/",
        b" HTTP/1.",
        b"1",
        b"\r\n",
        b"\r",
        b"\n",
        b"A",
        b":",
        b" ",
        b"b",
        b"\t",
        b"\0",
        b"\xff",
    ]
    pieces += [b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"A" * 15, b"Content-Length: 1\r\n", b"\r\n\r\n"]
    refused = 0
    for _ in range(4000):
        data = b"GET / HTTP/1.1\r\n" * chance.randrange(2) + b"".join(
            chance.choices(pieces, k=chance.randrange(12))
        )
        whole = verdict(data, LIMITS)
        assert verdict(data, LIMITS, step=1) == whole
        assert verdict(data, LIMITS, step=chance.randrange(2, 9)) == whole
        refused += whole is not None
    assert refused > 1000


# --- linear time


class Counted(bytearray):
    """Bytes that count how many of them are looked at by searching and slicing."""

    looked_at = 0

    def find(self, what: bytes, start: int = 0, end: int = 1 << 30) -> int:  # type: ignore[override]
        self.looked_at += min(end, len(self)) - start
        return super().find(what, start, end)

    def __getitem__(self, index: slice) -> bytearray:  # type: ignore[override]
        part = super().__getitem__(index)
        self.looked_at += len(part)
        return part


@pytest.fixture
def matched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes each match of the line expressions looked at."""
    spans: list[int] = []

    def counting(match: _http_head.LineMatch) -> _http_head.LineMatch:
        def count(data: _http_head.Buffer, start: int) -> object:
            found = match(data, start)
            spans.append((found.end() if found else len(data)) - start + 1)
            return found

        return count  # type: ignore[return-value]

    for name in ("REQUEST_LINE_BYTES", "LINE_BYTES", "_name"):
        monkeypatch.setattr(_http_head, name, counting(getattr(_http_head, name)))
    return spans


SLOW = {
    "method": (b"", b"G", b""),
    "target": (b"GET ", b"/", b""),
    "name": (b"GET / HTTP/1.1\r\n", b"n", b": \r\nHost: a\r\n\r\n"),
    "white space": (b"GET / HTTP/1.1\r\nHost: a\r\nA:", b" ", b"\r\n\r\n"),
    "words": (b"GET / HTTP/1.1\r\nHost: a\r\nA:", b" b", b"\r\n\r\n"),
    "fields": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"A:\r\n", b"\r\n"),
}


@pytest.mark.parametrize(("prefix", "filler", "rest"), SLOW.values(), ids=SLOW)
def test_64_kib_of_one_element_byte_by_byte_are_looked_at_a_bounded_number_of_times(
    matched: list[int], prefix: bytes, filler: bytes, rest: bytes
) -> None:
    scanner = HeadScanner(WIDE)
    data = Counted()
    sent = prefix + filler * (65536 // len(filler)) + rest
    for position in range(len(sent)):
        data += sent[position : position + 1]
        head = scanner.scan(data, 0)
    assert (head is not None) == bool(rest)
    # Each byte comes with one look at it, and with its successor another; then lines are checked, and the head parsed.
    assert sum(matched) + data.looked_at < 8 * len(sent)


@pytest.mark.parametrize("step", [0, 1, 1000])
def test_a_head_is_the_same_whole_and_in_pieces(step: int) -> None:
    data = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-A:  b c \t\r\nX-B:\r\nX-C: \t \r\nX_D: e\r\n\r\nmore"
    scanner = HeadScanner(Limits())
    ends = [*(range(step, len(data), step) if step else ()), len(data)]
    head = next(head for end in ends if (head := scanner.scan(data[:end], 0)) is not None)
    assert data[scanner.end :] == b"more"
    assert (head.method, head.target, head.path, head.query, head.version) == (
        "GET",
        "/a?b",
        "/a",
        "b",
        "HTTP/1.1",
    )
    assert head.fields == [("Host", "a"), ("X-A", "b c"), ("X-B", ""), ("X-C", "")]
    assert head.dropped == 1


def test_a_head_larger_than_a_line_may_be_is_accepted_whole() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"a: " + b"b" * 1000 + b"\r\n") * 60 + b"\r\n"
    head = scan(data)
    assert head is not None
    assert len(head.fields) == 61


def test_a_head_that_begins_like_the_last_one_is_read_anew() -> None:
    scanner = HeadScanner(DEFAULT)
    first = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    longer = first[:-2] + b"A: b\r\n\r\n"
    for block, fields in ((first, 1), (first, 1), (longer, 2), (longer, 2), (first, 1)):
        head = scanner.scan(b"x" + block + first, 1)
        assert head is not None
        assert (len(head.fields), scanner.end) == (fields, 1 + len(block))
        scanner.reset()


def test_a_scanner_takes_one_head_after_the_other() -> None:
    one = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    two = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    scanner = HeadScanner(Limits())
    head = scanner.scan(one + two, 0)
    assert head is not None
    assert head.path == "/1"
    scanner.reset()
    head = scanner.scan(one + two, scanner.end)
    assert head is not None
    assert head.path == "/2"
