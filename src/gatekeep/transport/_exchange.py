"""One request of an HTTP/1 connection, and its response: what the dispatch and the relay see of them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from gatekeep._channel import WaitExpired
from gatekeep._errors import BodyLost, ClientGone, ClientStalled, NoSpace
from gatekeep._events import Record
from gatekeep.transport._budget import Budget
from gatekeep.transport._codec import Framing, Head
from gatekeep.transport._spool import Spool, keep_body
from gatekeep.transport._wire import SMALL_BODY

if TYPE_CHECKING:
    from gatekeep.transport._http1 import Http1Connection


_NO_BODY = Framing.NONE  # looking a member up in its class costs a tenth of a microsecond in Python 3.11


def error_body(status: int) -> bytes:
    """What a client reads when the application has no answer for it."""
    return f"{status} {HTTPStatus(status).phrase}\n".encode()


class Http1Exchange:
    """One request on a connection, and its response: see `_relay.Exchange` and `_dispatch.Request` for what each method means.

    Attributes:
        client: whose request it is.
        delivered: whether the whole response has been handed to the kernel.
        spool: what was received of a longer body before anybody asked for it.
    """

    __slots__ = (
        "_budget",
        "_connection",
        "_early",
        "_invited",
        "_is_bodiless",
        "_lost",
        "_out",
        "alarm",
        "client",
        "delivered",
        "head",
        "record",
        "spool",
    )

    def __init__(self, connection: Http1Connection, head: Head, record: Record) -> None:
        self.head = head
        self.record = record
        self._connection = self.client = connection
        self.alarm = connection.hop_alarm
        self._out: list[bytes | memoryview] = []
        self._lost = False
        self.delivered = False
        self._budget: Budget | None = None
        self.spool: Spool | None = None
        self._is_bodiless = head.framing is _NO_BODY
        self._early = b"" if self._is_bodiless else connection.codec.read_body()
        record.body_in = len(self._early)
        # Whoever has begun to send the body does not wait to be invited (RFC 9110 section 10.1.1).
        self._invited = not head.expect_continue or bool(self._early) or connection.codec.body_complete

    # --- the request

    def environ(self) -> dict[str, str]:
        """The CGI part of the WSGI environ. Not to be changed: a client that repeats itself gets the same one."""
        return self._connection.environ_of(self.head)

    @property
    def scheme(self) -> str:
        """By which the client has come, http or https."""
        return self.environ()["wsgi.url_scheme"]

    def small_body(self) -> bytes | None:
        """The whole body where it is small and has come with the head."""
        if self._is_bodiless:
            return b""
        if self.spool is not None or not self.body_arrived or len(self._early) > SMALL_BODY:
            return None
        body, self._early = self._early, b""
        return body

    @property
    def body_complete(self) -> bool:
        """Whether all of the body has been taken."""
        if self._is_bodiless:
            return True
        if self._early or (self.spool is not None and self.spool.size):
            return False
        return self._connection.codec.body_complete

    @property
    def body_arrived(self) -> bool:
        """Whether all of the body is here, taken or not."""
        return self._is_bodiless or self._connection.codec.body_complete

    @property
    def broken(self) -> bool:
        """Whether nobody can be there to be answered."""
        return self._connection.broken

    async def buffer_body(self) -> None:
        """Receive all of the body before anybody asks for it.

        Raises:
            Refused, BodyLost, BodyExpired: as `read_body`.
            NoSpace: it cannot be kept.
            ClientGone: nobody is there.
        """
        await self.invite_body()
        pieces = [await self.read_body()]
        size = len(pieces[0])
        while size <= SMALL_BODY and not self.body_complete:
            pieces.append(await self.read_body())
            size += len(pieces[-1])
        start = b"".join(pieces)
        if self.body_complete and size <= SMALL_BODY:
            self._early = start
            return
        site = self._connection.site
        spool = Spool(site.host, site.settings.spool_dir, site.settings.request_buffer_size)
        try:
            await keep_body(spool, start, self.read_body)
        finally:
            self.spool = spool

    async def invite_body(self) -> None:
        """Send 100 Continue if the client waits for it and has no answer yet."""
        if not self._invited and not self.response_started:
            self._invited = True
            self._out.append(self._connection.codec.informational(100))
            await self.flush()

    async def read_body(self) -> bytes:
        """The next piece of the body; empty when it is complete."""
        if self._early:
            early, self._early = self._early, b""
            return early
        if self.spool is not None:
            return await self._take_from(self.spool)
        codec, budget = self._connection.codec, self._budget
        if budget is None:
            budget = self._budget = self._connection.site.patience.for_body()
        try:
            while not (piece := codec.read_body()) and not codec.body_complete:
                codec.receive(await self._connection.receive_body(budget))
        except OSError as error:
            raise BodyLost(f"the client's connection ended inside the request's body: {error}") from error
        self.record.body_in += len(piece)
        return piece

    async def _take_from(self, spool: Spool) -> bytes:
        try:
            piece = await spool.take()
        except OSError as error:
            raise NoSpace(f"the temporary file could not be read: {error}") from error
        if not spool.size:
            await spool.aclose()
        return piece

    # --- the response

    @property
    def response_started(self) -> bool:
        """Whether the final head has been handed over."""
        return self._connection.codec.response_started

    @property
    def response_complete(self) -> bool:
        """Whether HTTP's framing says that the client has all of the response."""
        return self._connection.codec.response_complete

    def start(self, status: int, reason: str, fields: Sequence[tuple[str, str]]) -> None:
        """Begin the response."""
        connection = self._connection
        self.record.status = status
        connection.site.answered(self.record, fields)
        self._out.append(
            connection.codec.start_response(
                status,
                reason,
                fields,
                date=connection.site.http_date(),
                server=connection.site.settings.server_header,
                close=self._is_last(),
            )
        )

    def _is_last(self) -> bool:
        """Whether the connection ends with this response.

        A response that overtakes the request's body ends it: the rest of the body may never come. What is here and was not taken
        is dropped.
        """
        connection = self._connection
        return connection.stopping or not connection.keep_alive or not self.body_arrived

    def write(self, data: bytes) -> None:
        """A piece of the response's body."""
        self.record.body_out += len(data)
        self._out.extend(self._connection.codec.encode(data))

    def finish(self) -> None:
        """The response's body is complete."""
        end = self._connection.codec.finish()
        if end:
            self._out.append(end)

    def flush_nowait(self) -> bool:
        """Send as much of what was collected as goes at once. Whether that was all.

        Raises:
            ClientGone: nobody is there.
        """
        if self._out:
            try:
                self._out = self._connection.channel.send_parts_nowait(self._out)
            except OSError as error:
                raise ClientGone(f"the client's connection broke: {error}") from error
        self.delivered = not self._out and not self._lost and self._connection.codec.response_complete
        return not self._out

    async def flush(self) -> None:
        """Send what was collected."""
        while not self.flush_nowait():
            await self.send(self._out.pop(0))

    def take_output(self) -> list[bytes | memoryview]:
        """What was collected and not sent; whoever takes it sends it."""
        parts, self._out = self._out, []
        return parts

    def lose_output(self) -> None:
        """What was taken cannot be sent: the response will never be whole."""
        self._lost = True

    async def send(self, data: bytes | memoryview) -> None:
        """Send it, past what is collected.

        Raises:
            ClientStalled: the client took nothing for response-socket-timeout.
            ClientGone: nobody is there.
        """
        try:
            await self._connection.channel.send(data)
        except WaitExpired as error:
            raise ClientStalled(f"the client stopped reading: {error}") from error
        except OSError as error:
            raise ClientGone(f"the client's connection broke: {error}") from error

    def open_spool(self) -> Spool:
        """A spool for a response that the client reads too slowly."""
        site = self._connection.site
        settings = site.settings
        return Spool(
            site.host, settings.spool_dir, settings.response_buffer_size, settings.response_spool_size
        )

    def disk_failed(self, error: OSError) -> None:
        """The spool's file could not grow."""
        self._connection.site.disk_failed(self.record, error)

    def part(self) -> None:
        """The client has all of the response, the worker is not done: let the client go if it is not to send another request."""
        if not self._connection.codec.reusable:
            self._connection.channel.stop_writing()

    async def answer_in_order(self, status: int, fields: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer in the application's place with a whole response like any other: the connection goes on where it can.

        Raises:
            ClientGone, ClientStalled: as `send`.
        """
        site = self._connection.site
        self.record.status = status
        if self.body_arrived:
            self._early = b""  # nobody will take it, and nothing of it is left to come
        self._out.append(
            self._connection.codec.start_response(
                status,
                HTTPStatus(status).phrase,
                [*fields, ("Content-Length", str(len(body)))],
                date=site.http_date(),
                server=site.settings.server_header,
                close=self._is_last(),
            )
        )
        self.write(body)
        self.finish()
        await self.flush()

    async def answer(self, status: int, fields: Sequence[tuple[str, str]] = ()) -> None:
        """Answer in the application's place and let the connection end.

        Raises:
            ClientGone: nobody is there.
        """
        self._put_answer(status, fields)
        await self.flush()

    def answer_nowait(self, status: int, fields: Sequence[tuple[str, str]] = ()) -> None:
        """The same, as far as it goes at once."""
        self._put_answer(status, fields)
        try:
            self.flush_nowait()
        except ClientGone:
            pass

    def _put_answer(self, status: int, fields: Sequence[tuple[str, str]]) -> None:
        connection = self._connection
        body = error_body(status)
        self.record.body_out = len(body)
        self._out.append(
            connection.codec.error_response(
                status,
                body,
                date=connection.site.http_date(),
                server=connection.site.settings.server_header,
                fields=fields,
            )
        )

    async def close(self) -> None:
        """Finish with the last request of its connection, which is ready to be closed then."""
        if not self.looks_whole_but_is_not:
            await self._connection.discard()

    @property
    def looks_whole_but_is_not(self) -> bool:
        """Whether the client would take what it has for the whole response, if the connection ended in order.

        A missing final chunk, or a missing rest of the declared length, says by itself that something is missing.
        """
        codec = self._connection.codec
        return codec.response_started and codec.delimited_by_close and not self.delivered
