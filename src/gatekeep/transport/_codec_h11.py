"""The second codec: h11 behind ours, and both must agree. Pure.

h11 alone is not strict enough (it takes two equal Content-Lengths, folded lines, bare LFs, extensions of any length). So head
scan, policy and body decoder run first, and h11 sees only what they let through: the head, without an empty line before it,
and then the body as it was sent. What h11 makes of it must be what they made of it. Where it is not, one of two parsers is
wrong, a proxy before us may side with either, and the request is refused.

Responses are written as in the strict codec: h11 would keep no HTTP/1.0 connection open and gives HEAD the Transfer-Encoding of
GET, so two of their heads would be ours anyway. A new `h11.Connection` reads each request, because this one has no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus

import h11

from gatekeep._errors import Refused
from gatekeep.transport._codec import Framing, Head, Limits
from gatekeep.transport._codec_strict import StrictCodec
from gatekeep.transport._http_body import SIZE_LINE, TRAILER_BYTES
from gatekeep.transport._http_policy import is_dropped

_NO_BODY = Framing.NONE


class H11Codec(StrictCodec):
    """See `_codec.Codec`."""

    __slots__ = ("_agreed", "_h11", "_is_used")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._h11 = self._new_connection()
        self._is_used = False
        # A client that repeats itself gets the same head again: the same bytes, the same agreement.
        self._agreed: Head | None = None

    def _new_connection(self) -> h11.Connection:
        # h11 limits what it holds and cannot use yet. That limit must never be the one which decides.
        most = self._limits.head_size + TRAILER_BYTES + SIZE_LINE.size
        return h11.Connection(h11.SERVER, max_incomplete_event_size=most)

    def next_cycle(self) -> None:
        """See `Codec`."""
        super().next_cycle()
        if self._is_used:
            self._h11, self._is_used = self._new_connection(), False

    # --- the request

    def next_request(self) -> Head | None:
        """See `Codec`."""
        start = self._start
        head = super().next_request()
        if head is not None and head is not self._agreed:
            raw = bytes(self._data[start : self._start])
            self._agree_on_head(head, self._events(raw.removeprefix(b"\r\n")))
            if head.framing is _NO_BODY:  # else the body must be read by both, too
                self._agreed = head
        return head

    def _agree_on_head(self, head: Head, events: Sequence[h11.Event]) -> None:
        request = events[0] if events else None
        self._insist(isinstance(request, h11.Request) and _tell(request) == _tell_ours(head))
        self._insist(_ends(events) == self.body_complete)

    def read_body(self) -> bytes:
        """See `Codec`."""
        data, start = self._data, self._start
        body = super().read_body()
        if self._start == start:
            return body
        events = self._events(bytes(data[start : self._start]))
        self._insist(b"".join(event.data for event in events if isinstance(event, h11.Data)) == body)
        self._insist(_ends(events) == self.body_complete)
        return body

    def _events(self, raw: bytes) -> list[h11.Event]:
        """What h11 makes of more bytes of the request."""
        self._is_used = True
        events: list[h11.Event] = []
        self._h11.receive_data(raw)
        try:
            while isinstance(event := self._h11.next_event(), h11.Event):
                events.append(event)
        except h11.RemoteProtocolError:
            self._insist(False)
        return events

    def _insist(self, agreed: bool) -> None:
        if not agreed:
            refusal = partial(Refused, HTTPStatus.BAD_REQUEST, "two parsers disagree about the request")
            self._condemn(refusal)
            raise refusal()


def _ends(events: Sequence[h11.Event]) -> bool:
    return any(isinstance(event, h11.EndOfMessage) for event in events)


_Story = tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]], int]


def _tell(request: h11.Request) -> _Story:
    """A request as h11 read it, with what we drop dropped."""
    fields = request.headers.raw_items()
    kept = [field for field in fields if not is_dropped(field[0].decode())]
    return request.method, request.target, request.http_version, kept, len(fields) - len(kept)


def _tell_ours(head: Head) -> _Story:
    fields = [(name.encode(), _value(name, value).encode("latin-1")) for name, value in head.fields]
    version = head.version.removeprefix("HTTP/").encode()
    return head.method.encode(), head.target.encode(), version, fields, head.dropped


def _value(name: str, value: str) -> str:
    # The one value that h11 changes.
    return value.lower() if name.lower() == "transfer-encoding" else value
