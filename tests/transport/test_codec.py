"""Both codecs as the front uses them: requests, responses, and what becomes of the connection."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from http import HTTPStatus

import h11
import pytest
from hypothesis import given, settings, strategies as st

from gatekeep._errors import BodyLost, Refused
from gatekeep.transport import _codec
from gatekeep.transport._codec import Codec, Framing, Limits, WrongUse
from gatekeep.transport._codec_h11 import H11Codec
from gatekeep.transport._codec_strict import StrictCodec

Fields = Sequence[tuple[str, str]]

LIMITS = Limits()
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
OLD_HEAD = b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"

both = pytest.mark.parametrize("make", [StrictCodec, H11Codec])


def after(make: type[Codec], received: bytes, limits: Limits = LIMITS) -> Codec:
    """A codec whose first request has been taken from `received`."""
    codec = make(limits)
    codec.receive(received)
    assert codec.next_request() is not None
    return codec


def start(
    codec: Codec, status: int = 200, fields: Fields = (), *, reason: str = "OK", close: bool = False
) -> bytes:
    return codec.start_response(status, reason, fields, date=DATE, server="gatekeep", close=close)


def lines(head: bytes) -> list[str]:
    assert head.endswith(b"\r\n\r\n")
    return head.decode("latin-1")[:-4].split("\r\n")


def wire(parts: Sequence[bytes | memoryview]) -> bytes:
    return b"".join(parts)


# --- the head of a response

CL = ("Content-Length", "3")
STANDARD = [f"Date: {DATE}", "Server: gatekeep"]

FRAMED: dict[str, tuple[bytes, int, Fields, bool, list[str]]] = {
    "a length": (GET, 200, [CL], False, ["Content-Length: 3", *STANDARD]),
    "no length": (GET, 200, [], False, [*STANDARD, "Transfer-Encoding: chunked"]),
    "close": (GET, 200, [CL], True, ["Content-Length: 3", *STANDARD, "Connection: close"]),
    "a client that closes": (CLOSE, 200, [CL], False, ["Content-Length: 3", *STANDARD, "Connection: close"]),
    "an application that closes": (
        GET,
        200,
        [("Connection", "x, Close"), CL],
        False,
        ["Content-Length: 3", *STANDARD, "Connection: close"],
    ),
    "an application that keeps": (
        GET,
        200,
        [("connection", "keep-alive"), CL],
        False,
        ["Content-Length: 3", *STANDARD],
    ),
    "two Connections": (
        GET,
        200,
        [("connection", "close"), ("Connection", "a"), CL],
        False,
        ["Content-Length: 3", *STANDARD, "Connection: close"],
    ),
    "1.0": (OLD, 200, [CL], False, ["Content-Length: 3", *STANDARD, "Connection: close"]),
    "1.0 without a length": (OLD, 200, [], False, [*STANDARD, "Connection: close"]),
    "1.0 kept": (OLD_KEPT, 200, [CL], False, ["Content-Length: 3", *STANDARD, "Connection: keep-alive"]),
    "1.0 kept, close": (OLD_KEPT, 200, [CL], True, ["Content-Length: 3", *STANDARD, "Connection: close"]),
    "1.0 kept, no length": (OLD_KEPT, 200, [], False, [*STANDARD, "Connection: close"]),
    "HEAD": (HEAD, 200, [CL], False, ["Content-Length: 3", *STANDARD]),
    "HEAD without a length": (HEAD, 200, [], False, STANDARD),
    "HEAD in 1.0": (OLD_HEAD, 200, [], False, [*STANDARD, "Connection: keep-alive"]),
    "204": (GET, 204, [], False, STANDARD),
    "204 with a length": (GET, 204, [("CONTENT-length", "0"), ("A", "b")], False, ["A: b", *STANDARD]),
    "304": (GET, 304, [], False, STANDARD),
    "304 with a length": (GET, 304, [CL], False, ["Content-Length: 3", *STANDARD]),
    "Date and Server of its own": (
        GET,
        200,
        [("date", "x"), ("SERVER", "y"), CL],
        False,
        ["date: x", "SERVER: y", "Content-Length: 3"],
    ),
    "hop-by-hop fields": (
        GET,
        200,
        [
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("TE", "trailers"),
            ("Trailer", "A"),
            ("transfer-encoding", "gzip, chunked"),
            ("Upgrade", "websocket"),
            CL,
        ],
        False,
        ["Content-Length: 3", *STANDARD],
    ),
    "spelling, order and repetition are kept": (
        GET,
        599,
        [("x-B", " \t1 "), ("Set-Cookie", "a"), CL, ("X-a", ""), ("Set-Cookie", "b\xe9 c")],
        False,
        ["x-B: 1", "Set-Cookie: a", "Content-Length: 3", "X-a: ", "Set-Cookie: b\xe9 c", *STANDARD],
    ),
}


@both
@pytest.mark.parametrize(
    ("request_bytes", "status", "fields", "close", "expected"), FRAMED.values(), ids=FRAMED
)
def test_a_response_is_framed_by_request_status_and_fields(
    make: type[Codec], request_bytes: bytes, status: int, fields: Fields, close: bool, expected: list[str]
) -> None:
    head = start(after(make, request_bytes), status, fields, close=close)
    assert sorted(lines(head)) == sorted([f"HTTP/1.1 {status} OK", *expected])
    if make is StrictCodec:
        assert lines(head) == [f"HTTP/1.1 {status} OK", *expected]


@both
def test_an_empty_date_and_server_are_left_out(make: type[Codec]) -> None:
    head = after(make, GET).start_response(200, "", [CL], date="", server="", close=False)
    assert head == b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n"


BAD_RESPONSES: dict[str, tuple[int, str, Fields]] = {
    "an interim status": (100, "Continue", []),
    "a switch of protocols": (101, "Switching Protocols", []),
    "a status of two digits": (99, "", []),
    "a status of four digits": (1000, "", []),
    "CRLF in a value": (200, "OK", [("A", "b\r\nC: d")]),
    "LF in a value": (200, "OK", [("A", "b\nC: d")]),
    "CR in a value": (200, "OK", [("A", "b\rC")]),
    "NUL in a value": (200, "OK", [("A", "b\0")]),
    "another control in a value": (200, "OK", [("A", "b\x0bc")]),
    "CRLF in the reason": (200, "OK\r\nA: b", []),
    "NUL in the reason": (200, "O\0K", []),
    "a value beyond latin-1": (200, "OK", [("A", "\u20ac")]),
    "a reason beyond latin-1": (200, "\u20ac", []),
    "CRLF in a name": (200, "OK", [("A\r\nB", "c")]),
    "a colon in a name": (200, "OK", [("A:", "b")]),
    "a space in a name": (200, "OK", [("A ", "b")]),
    "an empty name": (200, "OK", [("", "b")]),
    "a name beyond ASCII": (200, "OK", [("\xe9", "b")]),
    "two lengths": (200, "OK", [CL, CL]),
    "a length that is none": (200, "OK", [("Content-Length", "3, 3")]),
    "a negative length": (200, "OK", [("Content-Length", "-3")]),
    "an empty length": (200, "OK", [("Content-Length", "")]),
}


@both
@pytest.mark.parametrize(("status", "reason", "fields"), BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_what_is_no_response_is_never_written(
    make: type[Codec], status: int, reason: str, fields: Fields
) -> None:
    codec = after(make, GET)
    with pytest.raises(WrongUse):
        start(codec, status, fields, reason=reason)
    assert not codec.response_started
    assert codec.error_response(500, b"x", date=DATE, server="").startswith(b"HTTP/1.1 500 ")


def test_applications_cannot_grow_what_is_remembered_of_names() -> None:
    for number in range(3000):
        start(after(StrictCodec, GET), 200, [(f"X-{number}", ""), (f"X-{number}" + "a" * 100, "")])
    assert len(_codec._meanings) <= 1000
    assert not any(len(name) > 64 for name in _codec._meanings)
    assert lines(start(after(StrictCodec, GET), 200, [("KEEP-alive", "x"), CL]))[1:] == [
        "Content-Length: 3",
        *STANDARD,
    ]


# --- its body


@both
def test_a_body_of_a_length_is_complete_when_the_length_is_reached(make: type[Codec]) -> None:
    codec = after(make, GET)
    start(codec, 200, [CL])
    assert wire(codec.encode(b"ab")) == b"ab"
    assert not codec.response_complete
    assert not codec.reusable
    assert wire(codec.encode(b"c")) == b"c"
    assert codec.response_complete
    assert codec.reusable
    assert codec.encode(b"") == []
    assert codec.finish() == b""
    assert codec.reusable


@both
def test_more_than_the_declared_length_is_never_sent(make: type[Codec]) -> None:
    codec = after(make, GET)
    start(codec, 200, [CL])
    with pytest.raises(WrongUse):
        codec.encode(b"abcd")
    assert wire(codec.encode(b"abc")) == b"abc"
    with pytest.raises(WrongUse):
        codec.encode(b"d")


@both
def test_less_than_the_declared_length_cannot_be_finished(make: type[Codec]) -> None:
    codec = after(make, GET)
    start(codec, 200, [CL])
    codec.encode(b"ab")
    with pytest.raises(WrongUse):
        codec.finish()
    assert not codec.response_complete
    assert not codec.reusable
    assert not codec.delimited_by_close


@both
def test_a_body_without_a_length_is_sent_in_chunks(make: type[Codec]) -> None:
    codec = after(make, GET)
    start(codec)
    assert wire(codec.encode(b"hello, hello, hello")) == b"13\r\nhello, hello, hello\r\n"
    assert codec.encode(b"") == []
    assert not codec.response_complete
    assert codec.finish() == b"0\r\n\r\n"
    assert codec.response_complete
    assert codec.reusable
    assert codec.finish() == b""
    with pytest.raises(WrongUse):
        codec.encode(b"x")


@both
def test_http_1_0_gets_a_body_that_ends_with_the_connection(make: type[Codec]) -> None:
    codec = after(make, OLD_KEPT)
    start(codec)
    assert codec.delimited_by_close
    assert wire(codec.encode(b"hello")) == b"hello"
    assert not codec.response_complete
    assert codec.finish() == b""
    assert codec.response_complete
    assert not codec.reusable


@both
@pytest.mark.parametrize(
    ("request_bytes", "status", "fields"),
    [(HEAD, 200, [CL]), (HEAD, 200, []), (OLD_HEAD, 200, []), (GET, 204, []), (GET, 304, [CL])],
)
def test_head_204_and_304_have_no_body(
    make: type[Codec], request_bytes: bytes, status: int, fields: Fields
) -> None:
    codec = after(make, request_bytes)
    start(codec, status, fields)
    assert codec.response_complete
    assert codec.reusable
    assert codec.encode(b"whatever the application says") == []
    assert codec.finish() == b""
    assert codec.reusable


@both
def test_a_length_of_nothing_is_complete_at_once(make: type[Codec]) -> None:
    codec = after(make, GET)
    start(codec, 200, [("Content-Length", "0")])
    assert codec.response_complete
    assert codec.encode(b"") == []
    with pytest.raises(WrongUse):
        codec.encode(b"a")


@both
@pytest.mark.parametrize("fields", [[("Content-Length", "1000000")], []])
def test_a_big_piece_is_passed_on_uncopied(make: type[Codec], fields: Fields) -> None:
    codec = after(make, GET)
    start(codec, 200, fields)
    whole = bytes(1_000_000)
    piece = memoryview(whole)
    assert any(part is piece for part in codec.encode(piece))


# --- in which order


@both
def test_a_response_answers_a_request(make: type[Codec]) -> None:
    codec = make(Limits())
    with pytest.raises(WrongUse):
        start(codec)
    with pytest.raises(WrongUse):
        codec.encode(b"a")
    with pytest.raises(WrongUse):
        codec.finish()
    with pytest.raises(WrongUse):
        codec.informational(100)
    with pytest.raises(WrongUse):
        codec.next_cycle()
    with pytest.raises(WrongUse):
        codec.read_body()


@both
def test_a_request_has_one_response(make: type[Codec]) -> None:
    codec = after(make, GET)
    start(codec, 200, [CL])
    with pytest.raises(WrongUse):
        start(codec)
    with pytest.raises(WrongUse):
        codec.informational(100)
    with pytest.raises(WrongUse):
        codec.error_response(500, b"", date=DATE, server="")
    with pytest.raises(WrongUse):
        codec.next_request()
    with pytest.raises(WrongUse):
        codec.next_cycle()


@both
def test_the_client_is_invited_and_then_answered(make: type[Codec]) -> None:
    codec = make(Limits())
    codec.receive(EXPECT)
    head = codec.next_request()
    assert head is not None
    assert head.expect_continue
    assert codec.read_body() == b""
    assert codec.informational(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not codec.response_started
    codec.receive(b"hello")
    assert codec.read_body() == b"hello"
    start(codec, 200, [("Content-Length", "0")])
    assert codec.reusable


@both
@pytest.mark.parametrize("status", [99, 101, 199, 200, 404])
def test_an_interim_response_has_a_status_of_its_own(make: type[Codec], status: int) -> None:
    with pytest.raises(WrongUse):
        after(make, EXPECT).informational(status)


@both
def test_http_1_0_gets_no_interim_response(make: type[Codec]) -> None:
    with pytest.raises(WrongUse):
        after(make, OLD_KEPT).informational(100)


@both
def test_a_response_may_overtake_the_request_body(make: type[Codec]) -> None:
    codec = after(make, POST + b"he")
    start(codec, 200, [CL])
    codec.encode(b"abc")
    assert codec.response_complete
    assert not codec.reusable
    codec.receive(b"llo" + GET)
    assert codec.read_body() == b"hello"
    assert codec.reusable
    codec.next_cycle()
    assert codec.next_request() is not None


@both
@pytest.mark.parametrize(("received", "close"), [(GET, True), (CLOSE, False), (OLD, False)])
def test_a_connection_that_closes_carries_no_other_request(
    make: type[Codec], received: bytes, close: bool
) -> None:
    codec = after(make, received + GET)
    start(codec, 200, [("Content-Length", "0")], close=close)
    assert codec.response_complete
    assert not codec.reusable
    with pytest.raises(WrongUse):
        codec.next_cycle()
    with pytest.raises(WrongUse):
        codec.next_request()


@both
def test_http_1_0_is_kept_alive_when_both_wish_it(make: type[Codec]) -> None:
    codec = after(make, OLD_KEPT + OLD_KEPT)
    for _ in range(2):
        start(codec, 200, [CL])
        codec.encode(b"abc")
        assert codec.finish() == b""
        assert codec.reusable
        codec.next_cycle()
        codec.next_request()


# --- what was received


@both
def test_pipelined_requests_are_served_one_after_the_other(make: type[Codec]) -> None:
    paths = [b"/%d" % number for number in range(20)]
    codec = make(Limits())
    codec.receive(b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n" % path for path in paths))
    for path in paths:
        head = codec.next_request()
        assert head is not None
        assert head.path.encode() == path
        assert codec.body_complete
        start(codec, 200, [("Content-Length", "0")])
        codec.next_cycle()
    assert codec.next_request() is None
    assert codec.idle


@both
def test_idle_means_that_no_byte_of_a_request_has_come(make: type[Codec]) -> None:
    codec = make(Limits())
    assert codec.idle
    codec.receive(b"G")
    assert not codec.idle
    codec.receive(GET[1:])
    assert codec.next_request() is not None
    assert not codec.idle
    start(codec, 200, [("Content-Length", "0")])
    codec.next_cycle()
    assert codec.idle
    codec.receive(b"")
    assert codec.idle
    assert codec.next_request() is None


@both
def test_the_empty_line_before_a_request_is_no_byte_of_it(make: type[Codec]) -> None:
    codec = make(Limits())
    codec.receive(b"\r")
    assert codec.next_request() is None
    assert not codec.idle
    codec.receive(b"\n")
    assert codec.idle
    assert codec.next_request() is None
    assert codec.idle
    codec.receive(b"\r\n")
    assert not codec.idle
    with pytest.raises(Refused):
        codec.next_request()


@both
def test_an_old_client_may_send_an_empty_line_behind_each_body(make: type[Codec]) -> None:
    codec = after(make, (POST + b"hello\r\n") * 3)
    for _ in range(2):
        assert codec.read_body() == b"hello"
        start(codec, 200, [("Content-Length", "0")])
        codec.next_cycle()
        assert codec.next_request() is not None


@both
def test_buffered_counts_what_nobody_has_taken(make: type[Codec]) -> None:
    codec = make(Limits())
    codec.receive(POST[:10])
    assert codec.buffered == 10
    codec.receive(POST[10:] + b"he")
    assert codec.next_request() is not None
    assert codec.buffered == 2
    codec.receive(b"llo" + GET)
    assert codec.buffered == 5 + len(GET)
    assert codec.read_body() == b"hello"
    assert codec.buffered == len(GET)
    codec.receive(GET)
    assert codec.buffered == 2 * len(GET)


@both
def test_a_body_is_given_out_before_its_end_is_missed(make: type[Codec]) -> None:
    codec = after(make, POST + b"hell")
    codec.receive(b"")
    assert codec.read_body() == b"hell"
    assert not codec.body_complete
    for _ in range(2):
        with pytest.raises(BodyLost):
            codec.read_body()
        with pytest.raises(BodyLost):
            codec.next_request()
    # The client may have shut its sending side only.
    assert codec.error_response(400, b"x", date="", server="").startswith(b"HTTP/1.1 400 ")


@both
def test_the_end_of_the_stream_behind_a_body_cuts_nothing(make: type[Codec]) -> None:
    codec = after(make, POST + b"hello")
    codec.receive(b"")
    assert codec.read_body() == b"hello"
    assert codec.body_complete
    assert codec.read_body() == b""


@both
def test_a_body_refused_after_the_response_was_started_ends_the_connection(make: type[Codec]) -> None:
    codec = after(make, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    start(codec, 200, [CL])
    codec.receive(b"x\r\n")
    with pytest.raises(Refused):
        codec.read_body()
    assert wire(codec.encode(b"abc")) == b"abc"
    assert codec.response_complete
    assert not codec.reusable


@both
def test_a_response_to_a_condemned_request_says_close(make: type[Codec]) -> None:
    codec = after(make, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
    with pytest.raises(Refused):
        codec.read_body()
    assert "Connection: close" in lines(start(codec, 200, [CL]))


@pytest.mark.parametrize("framing", list(Framing))
def test_a_head_tells_how_its_body_is_framed(framing: Framing) -> None:
    field = {
        Framing.NONE: b"",
        Framing.LENGTH: b"Content-Length: 1\r\n",
        Framing.CHUNKED: b"Transfer-Encoding: chunked\r\n",
    }
    codec = StrictCodec(Limits())
    codec.receive(GET[:-2] + field[framing] + b"\r\n")
    head = codec.next_request()
    assert head is not None
    assert head.framing is framing
    assert framing.name in repr(head)
    assert codec.body_complete is (framing is Framing.NONE)


# --- the gateway's own answers

ERROR = {"date": DATE, "server": "gatekeep"}


@both
@pytest.mark.parametrize(
    "received",
    [b"", b"GET / HT", b"\x16\x03", GET, GET[:-2] + b"Host: b\r\n\r\n", POST + b"he", b"GET / HTTP/9.9\r\n"],
    ids=["nothing", "half a head", "garbage", "a request", "a bad head", "half a body", "a bad version"],
)
def test_an_error_can_be_answered_in_any_state(make: type[Codec], received: bytes) -> None:
    codec = make(Limits())
    if received:
        codec.receive(received)
    with contextlib.suppress(Refused):
        codec.next_request()
    answer = codec.error_response(408, b"408 Request Timeout\n", **ERROR)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"408 Request Timeout\n"
    assert head.decode().split("\r\n") == [
        "HTTP/1.1 408 Request Timeout",
        *STANDARD,
        "Content-Type: text/plain; charset=utf-8",
        "Content-Length: 20",
        "Connection: close",
    ]
    assert codec.response_started
    assert codec.response_complete
    assert not codec.reusable
    assert not codec.delimited_by_close
    with pytest.raises(WrongUse):
        codec.error_response(408, b"", **ERROR)


@both
def test_an_error_may_follow_an_interim_response(make: type[Codec]) -> None:
    codec = after(make, EXPECT)
    codec.informational(100)
    assert codec.error_response(504, b"", **ERROR).startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")


@both
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    "received",
    [
        HEAD,
        HEAD[:-2] + b"Host: b\r\n\r\n",
        HEAD[:-2] + b"b\n",
        b"HEAD / HTTP/2.0\r\n\r\n",
        b"HEAD /#a HTTP/1.1\r\n\r\n",
        b"\r\nHEAD  / HTTP/1.1\r\n\r\n",
        b"HEAD /" + b"a" * 9000,
    ],
    ids=["good", "two Hosts", "no field", "version", "target", "line", "too long"],
)
def test_an_error_for_head_has_no_body(make: type[Codec], received: bytes, cut: bool) -> None:
    codec = make(Limits())
    with contextlib.suppress(Refused):
        for piece in [received[i : i + 1] for i in range(len(received))] if cut else [received]:
            codec.receive(piece)
            codec.next_request()
    answer = codec.error_response(503, b"busy", fields=[("Retry-After", "1")], **ERROR)
    assert answer.endswith(b"Content-Length: 4\r\nConnection: close\r\n\r\n")
    assert b"\r\nRetry-After: 1\r\n" in answer


@both
def test_an_error_for_what_follows_head_has_a_body(make: type[Codec]) -> None:
    codec = after(make, HEAD)
    start(codec, 200, [])
    codec.next_cycle()
    codec.receive(b"GET /#a HTTP/1.1\r\n\r\n")
    with pytest.raises(Refused):
        codec.next_request()
    assert codec.error_response(400, b"bad", **ERROR).endswith(b"\r\n\r\nbad")


@both
def test_405_names_what_is_allowed(make: type[Codec]) -> None:
    codec = make(Limits())
    codec.receive(b"TRACE / HTTP/1.1\r\n")
    with pytest.raises(Refused):
        codec.next_request()
    assert b"\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" in codec.error_response(
        405, b"", **ERROR
    )


@both
def test_fields_of_an_error_replace_its_own(make: type[Codec]) -> None:
    fields = [("content-type", "text/html"), ("Allow", "GET"), ("date", "x")]
    answer = make(Limits()).error_response(405, b"", fields=fields, **ERROR)
    assert lines(answer) == [
        "HTTP/1.1 405 Method Not Allowed",
        "content-type: text/html",
        "Allow: GET",
        "date: x",
        "Server: gatekeep",
        "Content-Length: 0",
        "Connection: close",
    ]


@both
@pytest.mark.parametrize("status", [99, 100, 200, 304, 399, 600])
def test_an_error_has_the_status_of_one(make: type[Codec], status: int) -> None:
    with pytest.raises(WrongUse):
        make(Limits()).error_response(status, b"", **ERROR)


@both
def test_an_error_without_a_phrase_is_written_without_one(make: type[Codec]) -> None:
    assert make(Limits()).error_response(599, b"", date="", server="").startswith(b"HTTP/1.1 599 \r\n")


# --- what we write, read by another

name = st.text("abcXYZ019-!#", min_size=1, max_size=8).map(lambda text: f"X-{text}")
value = st.text([*map(chr, range(0x20, 0x7F)), "\t", "\xe9", "\xff"], max_size=12)
special = st.sampled_from(
    [
        ("Connection", "close"),
        ("connection", "keep-alive"),
        ("Date", "x"),
        ("SERVER", "y"),
        ("TE", "z"),
        ("Upgrade", "u"),
    ]
)
body = st.lists(st.binary(max_size=30), max_size=5)


def respond(
    codec: Codec, status: int, reason: str, fields: Fields, pieces: list[bytes], close: bool
) -> bytes:
    head = start(codec, status, fields, reason=reason, close=close)
    parts = [part for piece in pieces for part in codec.encode(piece)]
    return head + wire(parts) + codec.finish()


def sorted_head(written: bytes) -> tuple[list[bytes], bytes]:
    head, _, data = written.partition(b"\r\n\r\n")
    return sorted(head.split(b"\r\n")), data


def read(written: bytes, method: bytes) -> tuple[h11.Response, bytes, bool]:
    """What h11 as a client makes of it: the head, the body, and whether another request may follow."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(written)
    head = client.next_event()
    assert type(head) is h11.Response
    data = b""
    event = client.next_event()
    if event is h11.NEED_DATA:
        client.receive_data(b"")
        event = client.next_event()
    while type(event) is h11.Data:
        data += event.data
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(b"")
            event = client.next_event()
    assert type(event) is h11.EndOfMessage
    assert client.trailing_data[0] == b""
    return head, data, client.their_state is h11.DONE


@settings(max_examples=250)
@given(
    request_bytes=st.sampled_from([GET, HEAD, CLOSE, OLD, OLD_KEPT, OLD_HEAD]),
    status=st.sampled_from([200, 201, 204, 302, 304, 404, 500, 799]),
    reason=st.text([*map(chr, range(0x20, 0x7F)), "\xe9"], max_size=8),
    fields=st.lists(st.tuples(name, value) | special, max_size=6, unique_by=lambda field: field[0].lower()),
    pieces=body,
    with_length=st.booleans(),
    close=st.booleans(),
)
def test_what_is_written_reads_back_the_same_with_either_codec(
    request_bytes: bytes,
    status: int,
    reason: str,
    fields: Fields,
    pieces: list[bytes],
    with_length: bool,
    close: bool,
) -> None:
    if with_length:
        fields = [*fields, ("Content-Length", str(sum(map(len, pieces))))]
    strict, other = after(StrictCodec, request_bytes), after(H11Codec, request_bytes)
    written = respond(strict, status, reason, fields, pieces, close)
    # The order of the gateway's own fields is the codec's.
    assert sorted_head(written) == sorted_head(respond(other, status, reason, fields, pieces, close))
    assert strict.reusable is other.reusable
    assert strict.delimited_by_close is other.delimited_by_close

    head, data, kept = read(written, b"HEAD" if b"HEAD" in request_bytes else b"GET")
    without_body = b"HEAD" in request_bytes or status in (204, 304)
    assert head.status_code == status
    assert head.reason == reason.encode("latin-1").strip() or head.reason == reason.encode("latin-1")
    assert data == (b"" if without_body else b"".join(pieces))
    assert kept == strict.reusable
    ordinary = [(n.encode(), v.strip(" \t").encode("latin-1")) for n, v in fields if n.startswith("X-")]
    assert [field for field in head.headers.raw_items() if field[0].startswith(b"X-")] == ordinary


def test_every_status_of_the_standard_library_can_be_written() -> None:
    for status in HTTPStatus:
        if status >= 200:
            assert start(after(StrictCodec, GET), status, reason=status.phrase).startswith(
                b"HTTP/1.1 %d " % status
            )


# --- what it costs


def test_bytes_that_wait_unread_are_not_copied_again_and_again() -> None:
    def appended(count: int) -> int:
        """How often the buffer moved while bytes came one by one."""
        codec = after(StrictCodec, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n")
        buffers = set()
        for _ in range(count):
            codec.receive(b"x")
            buffers.add(id(codec._data))
        assert codec.buffered == count
        return len(buffers)

    assert appended(1000) == appended(10_000) <= 2
