"""The default codec: head scan, policy and body decoder are the parser, and the response is written directly. Pure.

Two sides, each with its state. The rules:

* HEAD: a request is awaited, or its head is coming. BODY: its head was given out. COMPLETE: its body, too.
* CONDEMNED is for ever: what was refused, or cut inside a body, is followed by nothing. The bytes behind it are thrown away,
  and with them the request that a smuggler hides there (waitress CVE-2024-49768).
* AWAITED: no final response was started; interim ones may be. SENDING: its head was made, and its body is not complete. SENT.
* Only from COMPLETE and SENT, and if both sides wish to go on, `next_cycle` leads back to HEAD and AWAITED.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from http import HTTPStatus
from typing import NoReturn

from gatekeep._errors import BodyLost, Refused, RequestFailed
from gatekeep.transport._codec import (
    Delimiter,
    Framing,
    Head,
    Limits,
    Response,
    WrongUse,
    frame_response,
    render,
    render_error,
)
from gatekeep.transport._http_body import Decoder, decoder_for
from gatekeep.transport._http_head import Buffer, HeadScanner


class _Request(Enum):
    HEAD = auto()
    BODY = auto()
    COMPLETE = auto()
    CONDEMNED = auto()


class _Answer(Enum):
    AWAITED = auto()
    SENDING = auto()
    SENT = auto()


# Looking a member up in its class costs a tenth of a microsecond in Python 3.11.
_HEAD, _BODY, _COMPLETE, _CONDEMNED = _Request
_AWAITED, _SENDING, _SENT = _Answer
_NO_BODY = Framing.NONE
_NOTHING, _LENGTH, _CHUNKED, _CLOSE = Delimiter


_NOT_STARTED = "the body of a response that was not started"


class StrictCodec:
    """See `_codec.Codec`."""

    __slots__ = (
        "_answer",
        "_asks_for_head",
        "_closed",
        "_data",
        "_decoder",
        "_empty_line_taken",
        "_failure",
        "_head",
        "_last_answer",
        "_last_asked",
        "_left",
        "_limits",
        "_request",
        "_response",
        "_scanner",
        "_start",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._scanner = HeadScanner(limits)
        # What was received; from `_start` on nobody has taken it.
        self._data: Buffer = b""
        self._start = 0
        self._closed = False
        self._last_asked: tuple[object, ...] = ()
        self._last_answer: tuple[Response, bytes]
        self._failure: Callable[[], RequestFailed] | None = None
        self._request = _HEAD
        self._head: Head | None = None
        self._asks_for_head = False
        self._decoder: Decoder | None = None
        self._empty_line_taken = False
        self._answer = _AWAITED
        self._response: Response | None = None
        self._left = 0

    # --- what was received

    @property
    def idle(self) -> bool:
        """See `Codec`. The empty line that may precede a request (see `next_request`) is no byte of it."""
        if self._request is not _HEAD:
            return False
        rest = len(self._data) - self._start
        return rest == 0 or (rest == 2 and not self._empty_line_taken and self._data.endswith(b"\r\n"))

    @property
    def buffered(self) -> int:
        """See `Codec`."""
        return len(self._data) - self._start

    def receive(self, data: bytes) -> None:
        """See `Codec`."""
        if not data:
            self._closed = True
        elif self._request is _CONDEMNED:
            pass
        elif self._start == len(self._data):
            # A large body passes through here uncopied.
            self._data = data
            self._start = 0
        else:
            self._append(data)

    def _append(self, data: bytes) -> None:
        # Adding to a bytearray, and deleting from its beginning, costs no copy of what it holds.
        if isinstance(self._data, bytearray):
            del self._data[: self._start]
        else:
            self._data = bytearray(self._data[self._start :])
        self._data += data
        self._start = 0

    # --- the request

    @property
    def head(self) -> Head | None:
        """See `Codec`."""
        return self._head or self._scanner.head

    def next_request(self) -> Head | None:
        """See `Codec`."""
        if self._request is not _HEAD:
            self._fail("the request before was not left behind")
        if not self._empty_line_taken and self._data.startswith(b"\r\n", self._start):
            # RFC 9112 §2.2: one, for clients of old that end a body with a line end which they do not count.
            self._start += 2
            self._empty_line_taken = True
        if self._start == len(self._data):
            return None  # a kept connection is asked before its next request has come
        try:
            head = self._scanner.scan(self._data, self._start)
        except Refused as refusal:
            # Its request line may be what is refused, so that no head tells.
            self._asks_for_head = self._data.startswith(b"HEAD ", self._start)
            self._condemn(partial(Refused, refusal.status, refusal.reason))
            raise
        if head is None:
            return None
        self._head = head
        self._start = self._scanner.end
        self._request = _COMPLETE
        if head.framing is not _NO_BODY:
            self._decoder = decoder_for(head, self._limits)
            self._request = _COMPLETE if self._decoder.complete else _BODY
        return head

    @property
    def body_complete(self) -> bool:
        """See `Codec`."""
        return self._request is _COMPLETE

    def read_body(self) -> bytes:
        """See `Codec`."""
        if self._request is not _BODY:
            if self._request is not _COMPLETE:
                self._fail("no request has come")
            return b""
        assert self._decoder is not None
        try:
            body, self._start = self._decoder.decode(self._data, self._start)
        except Refused as refusal:
            self._condemn(partial(Refused, refusal.status, refusal.reason))
            raise
        if self._decoder.complete:
            self._request = _COMPLETE
        elif self._closed and not body:
            cut = partial(BodyLost, "the client's stream ended inside the request's body")
            self._condemn(cut)
            raise cut()
        return body

    def _condemn(self, failure: Callable[[], RequestFailed]) -> None:
        # Not the exception itself: its traceback would hold this object, and this object it.
        self._failure = failure
        self._request = _CONDEMNED
        self._data = b""
        self._start = 0

    def _fail(self, misuse: str) -> NoReturn:
        if self._failure is not None:
            raise self._failure()
        raise WrongUse(misuse)

    # --- the response

    @property
    def response_started(self) -> bool:
        """See `Codec`."""
        return self._answer is not _AWAITED

    @property
    def response_complete(self) -> bool:
        """See `Codec`."""
        return self._answer is _SENT

    @property
    def delimited_by_close(self) -> bool:
        """See `Codec`."""
        return self._response is not None and self._response.delimiter is _CLOSE

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
        """See `Codec`."""
        if self._head is None or self._answer is not _AWAITED:
            raise WrongUse("a response that answers no request")
        close = close or self._request is _CONDEMNED
        asked = (self._head, status, reason, tuple(fields), date, server, close)
        if asked != self._last_asked:
            # Otherwise a client has repeated itself within the second, and so does the application.
            response = frame_response(
                self._head, status, reason, fields, date=date, server=server, close=close
            )
            self._last_answer = response, render(response.status, response.reason, response.fields)
            self._last_asked = asked
        response, head = self._last_answer
        self._response = response
        self._left = response.length
        without_body = response.delimiter is _NOTHING or (response.delimiter is _LENGTH and not self._left)
        self._answer = _SENT if without_body else _SENDING
        return head

    def encode(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        """See `Codec`."""
        if self._response is None:
            raise WrongUse(_NOT_STARTED)
        delimiter = self._response.delimiter
        size = len(data)
        if not size or delimiter is _NOTHING:
            return []
        if delimiter is _LENGTH:
            if size > self._left:
                raise WrongUse(
                    f"{size} bytes of response where {self._left} were left of the declared length"
                )
            self._left -= size
            if not self._left:
                self._answer = _SENT
            return [data]
        if self._answer is _SENT:
            raise WrongUse("more of a response that is finished")
        if delimiter is _CHUNKED:
            return [b"%x\r\n" % size, data, b"\r\n"]
        return [data]

    def finish(self) -> bytes:
        """See `Codec`."""
        if self._response is None:
            raise WrongUse(_NOT_STARTED)
        delimiter = self._response.delimiter
        if delimiter is _LENGTH and self._left:
            raise WrongUse(f"the end of a response where {self._left} bytes were left of the declared length")
        unfinished = self._answer is _SENDING
        self._answer = _SENT
        return b"0\r\n\r\n" if unfinished and delimiter is _CHUNKED else b""

    def informational(self, status: int) -> bytes:
        """See `Codec`."""
        if self._head is None or self._answer is not _AWAITED or self._head.version == "HTTP/1.0":
            raise WrongUse("an interim response that nobody awaits")
        if status not in (HTTPStatus.CONTINUE, HTTPStatus.PROCESSING, HTTPStatus.EARLY_HINTS):
            raise WrongUse(f"{status} is not the status of an interim response")
        return render(status, HTTPStatus(status).phrase, ())

    def error_response(
        self, status: int, body: bytes, *, date: str, server: str, fields: Sequence[tuple[str, str]] = ()
    ) -> bytes:
        """See `Codec`."""
        if self._answer is not _AWAITED:
            raise WrongUse("an error in the place of a response that was started")
        head = self.head
        with_body = not self._asks_for_head and (head is None or head.method != "HEAD")
        answer = render_error(status, body, date=date, server=server, fields=fields, with_body=with_body)
        self._answer = _SENT
        return answer

    # --- from one request to the next

    @property
    def reusable(self) -> bool:
        """See `Codec`."""
        return (
            self._request is _COMPLETE
            and self._answer is _SENT
            and self._response is not None
            and self._response.persistent
        )

    def next_cycle(self) -> None:
        """See `Codec`."""
        if not self.reusable:
            raise WrongUse("another request on a connection that has ended")
        self._scanner.reset()
        self._head = self._decoder = self._response = None
        self._request = _HEAD
        self._answer = _AWAITED
        self._empty_line_taken = False
