"""What a client's connection speaks: the interface of a codec, and what both codecs share. Pure.

    client's bytes → Codec.receive → next_request → Head → read_body …
    client's bytes ← start_response, encode …, finish ← the application's head and body

There are two codecs behind one interface, and one verdict whatever the codec:

* `_codec_strict.StrictCodec`, the default: `_http_head` finds the head, `_http_policy` judges it, `_http_body` decodes.
* `_codec_h11.H11Codec`: the same three run first, and h11 must agree with what they let through.

Here are the types, and the two decisions about a response that must not differ between codecs: how its body is delimited and
which fields the gateway adds or drops (`frame_response`), and how its head is written (`render`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from http import HTTPStatus
from typing import NamedTuple, Protocol

from gatekeep._errors import GatekeepError

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
"""One character of a token (RFC 9110 §5.6.2), as a regular expression."""


class Limits(NamedTuple):
    """What one request may need, in bytes and counts; the defaults of the three lines are Apache's.

    Line ends count in `head_size` only.
    """

    request_line: int = 8190
    field_size: int = 8190
    fields: int = 100
    head_size: int = 65536
    body: int = 0
    allow_trace: bool = False


class Framing(Enum):
    """How a request's body is delimited."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()


class Head:
    """A request's head that was accepted.

    Attributes:
        method: any token, as sent.
        target: the request-target as sent.
        version: "HTTP/1.1" or "HTTP/1.0".
        fields: names as sent and values without the white space around them, latin-1 text, in the client's order and without
            those that were dropped (`_http_policy`).
        dropped: how many those were.
        path: still percent-encoded; "*" for a request about the server as a whole.
        query: what follows the first "?".
        host: the authority that counts: the target's, where it has one (RFC 9112 §3.2.2), else that of Host; may be empty.
        framing: how the body is delimited.
        length: Content-Length, 0 where there is none.
        keep_alive: the client would like to send another request on this connection.
        is_forwarded: there are fields that a proxy would send (`_trust.is_forwarding`), whoever has sent them.
        expect_continue: the client waits for 100 before it sends a body (never with HTTP/1.0, never where no body follows).
    """

    __slots__ = (
        "dropped",
        "expect_continue",
        "fields",
        "framing",
        "host",
        "is_forwarded",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "target",
        "version",
    )

    fields: list[tuple[str, str]]

    def __init__(self, method: str, target: str, version: str, host: str, path: str, query: str) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.host = host
        self.path = path
        self.query = query
        self.fields = []
        self.dropped = 0
        self.framing = _NO_BODY
        self.length = 0
        self.keep_alive = True
        self.expect_continue = False
        self.is_forwarded = False

    def __repr__(self) -> str:
        return f"<Head {self.method} {self.target} {self.version} {self.framing.name} fields={self.fields}>"


# Looking a member up in its class costs a tenth of a microsecond in Python 3.11, and a head is made for each request.
_NO_BODY = Framing.NONE


class WrongUse(GatekeepError):
    """What a codec was asked to do, or to send, cannot be: a mistake of our side, never of the client's."""


class Codec(Protocol):
    """One client's connection, without the I/O."""

    @property
    def head(self) -> Head | None:
        """The head of the present request, as far as it is known: also one that is refused for what follows its first line."""

    @property
    def idle(self) -> bool:
        """Whether a request is awaited and no byte of it has come, so that a close here is a clean one."""

    @property
    def buffered(self) -> int:
        """How many bytes were received that nobody has taken yet."""

    @property
    def body_complete(self) -> bool:
        """Whether the request's whole body was given out by `read_body`; at once where there is none."""

    @property
    def response_started(self) -> bool:
        """Whether a final head was made."""

    @property
    def response_complete(self) -> bool:
        """Whether the response is whole: the declared length is reached, it has no body, or `finish` was called."""

    @property
    def delimited_by_close(self) -> bool:
        """Whether the client will take the end of the stream for the end of the response."""

    @property
    def reusable(self) -> bool:
        """Whether request and response are complete and another request may follow on this connection."""

    def receive(self, data: bytes) -> None:
        """Take what the client sent; empty for the end of its stream. After a refusal it is thrown away unread."""

    def next_request(self) -> Head | None:
        """The next request's head; None while more bytes are needed.

        Raises:
            Refused: the bytes are not a request that we accept, and nothing after them will be parsed: every later call
                raises the same.
            WrongUse: the request before was not left behind by `next_cycle`.
        """

    def read_body(self) -> bytes:
        """All of the body that is there and was not yet given out, decoded; empty if there is none (yet).

        Raises:
            Refused: the body is malformed or too large.
            BodyLost: the stream ended inside it, and all that came before the end was given out.
        """

    def start_response(
        self,
        status: int,
        reason: str,
        fields: Sequence[tuple[str, str]],
        *,
        date: str,
        server: str,
        close: bool,
    ) -> bytes:
        """The bytes of a final head (see `frame_response`).

        Raises:
            WrongUse: there is no request to answer, or the answer was started before, or it cannot be written.
        """

    def encode(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        """A piece of the response's body as it goes on the wire, not copied; nothing where the response has no body.

        Raises:
            WrongUse: it is more than the declared length, or the response is not under way.
        """

    def finish(self) -> bytes:
        """The bytes that end the response, if any.

        Raises:
            WrongUse: the declared length was not reached, or no response was started.
        """

    def next_cycle(self) -> None:
        """Leave request and response behind; bytes of the next request that are already here are kept.

        Raises:
            WrongUse: the connection is not reusable.
        """

    def informational(self, status: int) -> bytes:
        """An interim response without fields, as 100 (Continue).

        Raises:
            WrongUse: the final response was started, or the client speaks HTTP/1.0, which has none (RFC 9110 §15.2).
        """

    def error_response(
        self, status: int, body: bytes, *, date: str, server: str, fields: Sequence[tuple[str, str]] = ()
    ) -> bytes:
        """A complete answer of the gateway's own, after which the connection must be closed.

        It can be had in any state, also after `Refused`, as long as no response was started. A HEAD request gets no body.

        Raises:
            WrongUse: a response was started before.
        """


# --- Responses ---


class Delimiter(Enum):
    """What tells the client where a response's body ends."""

    NOTHING = auto()
    """There is no body: the answer to HEAD, 204, 304."""
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()


class Response(NamedTuple):
    """A response's head as it will be written, and what follows from it.

    Attributes:
        length: how many bytes of body will follow, where `delimiter` is LENGTH.
        persistent: the connection may stay open after it.
    """

    status: int
    reason: str
    fields: list[tuple[str, str]]
    delimiter: Delimiter
    length: int
    persistent: bool


# What the gateway makes of an application's fields; "" is everything else. Not an Enum: its members hash in Python code, which
# is slow, and every field of every response passes here.
_CONNECTION, _LENGTH, _DATE, _SERVER, _HOP = "connection", "content-length", "date", "server", "hop"
_MEANINGS = {
    "connection": _CONNECTION,
    "content-length": _LENGTH,
    "date": _DATE,
    "server": _SERVER,
    # These are about one hop, and this hop is ours (RFC 9110 §7.6.1; PEP 3333 forbids them to applications).
    "keep-alive": _HOP,
    "proxy-connection": _HOP,
    "te": _HOP,
    "trailer": _HOP,
    "transfer-encoding": _HOP,
    "upgrade": _HOP,
}

_NOTHING, _DECLARED, _CHUNKED, _CLOSE = Delimiter

_is_token = re.compile(rf"{TOKEN}+").fullmatch
_is_length = re.compile(r"[0-9]{1,18}").fullmatch

# By exact spelling. An application may make names from data, so it is bounded.
_meanings: dict[str, str] = {}
_NAMES_KEPT = 1000
_NAME_KEPT = 64


def _learn(name: str) -> str:
    if _is_token(name) is None:
        raise WrongUse(f"a response field named {name!r}")
    meaning = _MEANINGS.get(name.lower(), "")
    if len(_meanings) < _NAMES_KEPT and len(name) <= _NAME_KEPT:
        _meanings[name] = meaning
    return meaning


def frame_response(
    head: Head,
    status: int,
    reason: str,
    fields: Iterable[tuple[str, str]],
    *,
    date: str,
    server: str,
    close: bool,
) -> Response:
    """Decide how the response to `head` is delimited, whether the connection outlives it, and which fields say so.

    `fields` are the application's: those about the connection are dropped (its `Connection: close` is obeyed), Date and
    Server are added where it has none (and `date` and `server` are not empty). The body is delimited as RFC 9112 §6.3 has it:
    none with HEAD, 204 and 304; the application's Content-Length; chunks for HTTP/1.1; else the close.

    Raises:
        WrongUse: the status is not a final one, a name is not a token, a length is not one number.
    """
    if not 200 <= status <= 999:
        raise WrongUse(f"{status} is not the status of a final response")
    kept, special = _sort_fields(fields)
    if date and _DATE not in special:
        kept.append(("Date", date))
    if server and _SERVER not in special:
        kept.append(("Server", server))
    delimiter, length = _delimit(head, status, kept, special.get(_LENGTH))
    persistent = head.keep_alive and not close and delimiter is not _CLOSE
    if persistent and _CONNECTION in special:
        persistent = "close" not in tokens(special[_CONNECTION])
    if not persistent:
        kept.append(("Connection", "close"))
    elif head.version == "HTTP/1.0":
        kept.append(("Connection", "keep-alive"))
    return Response(status, reason, kept, delimiter, length, persistent)


def tokens(value: str) -> list[str]:
    """The members of a comma-separated list, in lower case."""
    return [member.strip(" \t") for member in value.lower().split(",")]


def _sort_fields(fields: Iterable[tuple[str, str]]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The fields that are written, and the values of those that the gateway must look at."""
    kept = []
    special: dict[str, str] = {}
    for name, value in fields:
        meaning = _meanings.get(name)
        if meaning is None:
            meaning = _learn(name)
        value = value.strip(" \t")
        if not meaning:
            kept.append((name, value))
        elif meaning == _CONNECTION:
            special[meaning] = f"{special[meaning]},{value}" if meaning in special else value
        elif meaning != _HOP:
            if meaning == _LENGTH and meaning in special:
                raise WrongUse("Content-Length twice in a response")
            kept.append((name, value))
            special[meaning] = value
    return kept, special


def _delimit(
    head: Head, status: int, kept: list[tuple[str, str]], length: str | None
) -> tuple[Delimiter, int]:
    if length is not None and _is_length(length) is None:
        raise WrongUse(f"Content-Length {length!r} in a response")
    if status == HTTPStatus.NO_CONTENT:
        # RFC 9110 §8.6 forbids a length here; some frameworks add one.
        kept[:] = [field for field in kept if field[0].lower() != "content-length"]
        return _NOTHING, 0
    if head.method == "HEAD" or status == HTTPStatus.NOT_MODIFIED:
        return _NOTHING, 0
    if length is not None:
        return _DECLARED, int(length)
    if head.version == "HTTP/1.0":
        return _CLOSE, 0
    kept.append(("Transfer-Encoding", "chunked"))
    return _CHUNKED, 0


_TEXT = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])


def render(status: int, reason: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """A response's head as bytes. The status line always says HTTP/1.1, the version that we speak (RFC 9112 §2.3).

    Raises:
        WrongUse: a value or the reason has a control character in it, or one beyond latin-1. Whoever calls has checked that;
            it is checked again because a line end in a value would be a second response (uvicorn CVE-2020-7695, puma
            CVE-2020-5247).
    """
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    try:
        block = f"HTTP/1.1 {status} {reason}\r\n{''.join(lines)}\r\n".encode("latin-1")
    except UnicodeEncodeError as error:
        raise WrongUse(f"a response head beyond latin-1: {error}") from None
    # What is left without the text must be the line ends that we wrote, and no others.
    if block.translate(None, _TEXT) != b"\r\n" * (len(lines) + 2):
        raise WrongUse("a control character in a response head")
    return block


# RFC 9110 §15.5.6 wants a list with 405, and only TRACE gets one here: everything else is for the application to judge.
ALLOWED = ("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")


def render_error(
    status: int, body: bytes, *, date: str, server: str, fields: Sequence[tuple[str, str]], with_body: bool
) -> bytes:
    """A complete response of the gateway's own that ends the connection.

    Raises:
        WrongUse: the status is not one of an error.
    """
    if not 400 <= status <= 599:
        raise WrongUse(f"{status} is not the status of an error")
    named = {name.lower() for name, _ in fields}
    own = [("Date", date), ("Server", server), ("Content-Type", "text/plain; charset=utf-8")]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        own.append(ALLOWED)
    own = [field for field in own if field[1] and field[0].lower() not in named]
    own += [("Content-Length", str(len(body))), ("Connection", "close")]
    head = render(status, _phrase(status), [*fields, *own])
    return head + body if with_body else head


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
