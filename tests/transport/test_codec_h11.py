"""The second codec: h11 sees what ours let through, and must agree."""

from __future__ import annotations

import h11
import pytest

from gatekeep._errors import Refused
from gatekeep.transport._codec import Limits
from gatekeep.transport._codec_h11 import H11Codec

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nX_Y: z\r\n\r\n"


class Lying(h11.Connection):
    """An h11 that reads something else."""

    def __init__(self, *events: object) -> None:
        super().__init__(h11.SERVER)
        self._events = list(events)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = self._events.pop(0) if self._events else h11.NEED_DATA
        if isinstance(event, Exception):
            raise event
        return event  # type: ignore[return-value]


def request(**other: object) -> h11.Request:
    fields = [(b"Host", b"a"), (b"Transfer-Encoding", b"chunked"), (b"X_Y", b"z")]
    parts = {"method": b"POST", "target": b"/", "headers": fields, "http_version": b"1.1", **other}
    return h11.Request(**parts)  # type: ignore[arg-type]


def codec(*events: object) -> H11Codec:
    lied_to = H11Codec(Limits())
    lied_to._h11 = Lying(*events)
    return lied_to


def test_where_both_agree_the_head_is_accepted() -> None:
    agreed = codec(request())
    agreed.receive(HEAD)
    assert agreed.next_request() is not None


FIELDS = [(b"Host", b"a"), (b"Transfer-Encoding", b"chunked")]
HEADS: dict[str, list[object]] = {
    "another method": [request(method=b"GET")],
    "another target": [request(target=b"/x")],
    "another version": [request(http_version=b"1.0")],
    "one field less": [request(headers=FIELDS)],
    "one field more": [request(headers=[*FIELDS, (b"X_Y", b"z"), (b"A", b"b")])],
    "another value": [request(headers=[(b"Host", b"b"), FIELDS[1], (b"X_Y", b"z")])],
    "a request without a body": [request(), h11.EndOfMessage()],
    "no request": [],
    "something else": [h11.ConnectionClosed()],
    "nonsense": [h11.RemoteProtocolError("no")],
}


@pytest.mark.parametrize("events", HEADS.values(), ids=HEADS)
def test_where_they_disagree_about_a_head_it_is_refused(events: list[object]) -> None:
    torn = codec(*events)
    torn.receive(HEAD)
    with pytest.raises(Refused) as refused:
        torn.next_request()
    assert refused.value.status == 400
    with pytest.raises(Refused):
        torn.next_request()
    assert torn.buffered == 0


BODIES: dict[str, list[object]] = {
    "another body": [h11.Data(data=b"hellO")],
    "less of it": [h11.Data(data=b"hell")],
    "its end": [h11.Data(data=b"hello"), h11.EndOfMessage()],
    "nonsense": [h11.RemoteProtocolError("no")],
}


@pytest.mark.parametrize("events", BODIES.values(), ids=BODIES)
def test_where_they_disagree_about_a_body_it_is_refused(events: list[object]) -> None:
    torn = codec(request())
    torn.receive(HEAD)
    assert torn.next_request() is not None
    torn._h11 = Lying(*events)
    torn.receive(b"5\r\nhello\r\n")
    with pytest.raises(Refused) as refused:
        torn.read_body()
    assert refused.value.status == 400
    with pytest.raises(Refused):
        torn.next_request()


@pytest.mark.parametrize("head_size", [300, 65536])
def test_h11_never_decides_about_size(head_size: int) -> None:
    largest = H11Codec(Limits(head_size=head_size, fields=1000))
    head = HEAD[:-2] + (b"a: " + b"b" * 100 + b"\r\n") * ((head_size - len(HEAD)) // 105)
    trailers = [b"a:" + b"b" * 76 + b"\r\n"] * 99 + [b"c:" + b"d" * 266 + b"\r\n"]
    assert sum(map(len, trailers)) == 8190
    for piece in [head[:99], head[99:], b"\r\n"]:
        largest.receive(piece)
        taken = largest.next_request()
    assert taken is not None
    for piece in [b"0\r\n", *trailers, b"\r\n"]:
        largest.receive(piece)
        assert largest.read_body() == b""
    assert largest.body_complete


def h11s_that_serve(*requests: bytes) -> int:
    """How many h11 connections read these requests."""
    served = H11Codec(Limits())
    seen = set()
    for request in requests:
        served.receive(request)
        assert served.next_request() is not None
        served.read_body()
        assert served.body_complete
        seen.add(served._h11)
        served.start_response(204, "No Content", [], date="", server="", close=False)
        served.next_cycle()
    return len(seen)


def test_each_request_has_an_h11_of_its_own() -> None:
    targets = (b"/1", b"/2", b"/1")
    assert (
        h11s_that_serve(*(b"GET %b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % path for path in targets))
        == 3
    )


def test_a_head_that_is_repeated_byte_for_byte_is_not_judged_again() -> None:
    assert h11s_that_serve(*[b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] * 4) == 2


def test_a_repeated_head_with_a_body_is_judged_again_with_its_body() -> None:
    assert h11s_that_serve(*[b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"] * 3) == 3
