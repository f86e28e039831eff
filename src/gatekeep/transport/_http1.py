"""A client's HTTP/1 connection: requests in, responses out, one after the other. The codec decides, this module does the I/O."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

import anyio

from gatekeep._channel import Channel
from gatekeep._errors import BodyLost, ClientGone, Refused
from gatekeep._events import Record
from gatekeep._host import Peer
from gatekeep.transport import _environ
from gatekeep.transport._codec import Codec, Framing, Head
from gatekeep.transport._wire import SMALL_BODY

DISCARD_TIME = 2.0
DISCARD_BYTES = 8 << 20
"""How long (seconds) and how much (bytes) of what a client still sends is discarded before its connection is closed.

A close with unread data is a reset, and a reset takes with it what is still on its way: an 8 MB POST saw its 413 in 0 of 40 runs
on a plain close, in 40 of 40 when the rest was discarded; and the line end that old clients send behind a body cut a response of
3 MB after 100 KB.
"""


class Site(Protocol):
    """What a connection asks of the front that it belongs to."""

    def begin_request(self, connection: Http1Connection) -> Record: ...
    async def handle(self, exchange: Http1Exchange) -> None: ...
    def answered(self, record: Record) -> None: ...
    def refused(self, record: Record, refusal: Refused) -> None: ...
    def now(self) -> float: ...
    def http_date(self) -> str: ...

    server_header: str


class Http1Connection:
    """One client's connection. `serve` runs until it ends; `stop` asks it to end soon."""

    def __init__(self, site: Site, channel: Channel, codec: Codec, peer: Peer) -> None:
        self.site = site
        self.channel = channel
        self.codec = codec
        self.peer = peer
        self.client = address_of(peer)
        self.stopping = False
        self._busy = False
        self._began = 0.0
        self._environ: tuple[Head | None, dict[str, str]] = (None, {})

    async def serve(self) -> None:
        """Serve requests until the connection ends, then close it.

        Raises nothing but cancellation for anything the client does.
        """
        try:
            while await self._serve_one():
                self.codec.next_cycle()
        except OSError:
            pass  # it is gone between two requests: nobody misses anything
        finally:
            self._close()

    def _close(self) -> None:
        codec = self.codec
        if codec.response_started and not codec.response_complete and codec.delimited_by_close:
            self.channel.abort()  # an orderly end would say that this is all
        else:
            self.channel.close()

    def stop(self) -> None:
        """End after the request that is being served, if any; one whose first byte has arrived is one."""
        self.stopping = True
        if not self._busy:
            self.channel.interrupt()

    async def _serve_one(self) -> bool:
        """Serve the next request. False when the connection has come to its end."""
        self._busy = not self.codec.idle
        if self.stopping and not self._busy:
            self.channel.interrupt()
        self._began = self.site.now() if self._busy else 0.0
        record = None
        try:
            head = await self._next_head()
            if head is None:
                return False
            record = self.site.begin_request(self)
            exchange = Http1Exchange(self, head, record)
        except Refused as refusal:
            await self._refuse(record or self.site.begin_request(self), refusal)
            return False
        await self.site.handle(exchange)
        return await exchange.close()

    async def _next_head(self) -> Head | None:
        codec = self.codec
        while (head := codec.next_request()) is None:
            data = await (self.channel.receive() if self._busy else self.channel.receive_next())
            codec.receive(data)
            if not self._busy and data:
                self._busy = True
                self._began = self.site.now()
            elif not data:
                if codec.idle:
                    return None
                raise Refused(HTTPStatus.BAD_REQUEST, "the connection ended inside a request's head")
        return head

    @property
    def began(self) -> float:
        """When the first byte of the present request was there."""
        return self._began or self.site.now()

    async def _refuse(self, record: Record, refusal: Refused) -> None:
        record.status = refusal.status
        head = self.codec.head
        if head is not None:
            record.describe(head.method, head.path, head.version)
        body = error_body(refusal.status)
        record.body_out = len(body)
        self.site.refused(record, refusal)
        answer = self.codec.error_response(
            refusal.status,
            body,
            date=self.site.http_date(),
            server=self.site.server_header,
        )
        try:
            await self.channel.send(answer)
        except OSError:
            return
        await self.discard()

    def environ_of(self, head: Head) -> dict[str, str]:
        """The environ of a head, made once where the codec gives out the same head again."""
        known, environ = self._environ
        if head is not known:
            environ = _environ.build(head, scheme="http", client=self.peer.client, server=self.peer.server)
            self._environ = head, environ
        return environ

    async def discard(self) -> None:
        """Let the client read the answer: shut our side and throw away what still comes, for a bounded while, unparsed."""
        self.channel.stop_writing()
        left = DISCARD_BYTES
        try:
            with anyio.move_on_after(DISCARD_TIME):
                while left > 0 and (data := await self.channel.receive()):
                    left -= len(data)
        except OSError:
            pass


def address_of(peer: Peer) -> str:
    """The client's address for the log."""
    if peer.client is None:
        return "unix"
    host, port = peer.client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def error_body(status: int) -> bytes:
    """What a client reads when the application has no answer for it."""
    return f"{status} {HTTPStatus(status).phrase}\n".encode()


class Http1Exchange:
    """One request on a connection, and its response: see `_relay.Exchange` and `_dispatch.Request` for what each method means."""

    __slots__ = ("_connection", "_early", "_invited", "_out", "delivered", "head", "record")

    def __init__(self, connection: Http1Connection, head: Head, record: Record) -> None:
        self.head = head
        self.record = record
        self._connection = connection
        self._out: list[bytes | memoryview] = []
        self.delivered = False
        self._early = b"" if head.framing is Framing.NONE else connection.codec.read_body()
        record.body_in = len(self._early)
        # Whoever has begun to send the body does not wait to be invited (RFC 9110 section 10.1.1).
        self._invited = not head.expect_continue or bool(self._early) or connection.codec.body_complete

    # --- the request

    def environ(self) -> dict[str, str]:
        """The CGI part of the WSGI environ. Not to be changed: a client that repeats itself gets the same one."""
        return self._connection.environ_of(self.head)

    def small_body(self) -> bytes | None:
        """The whole body where it is small and has come with the head."""
        if not self._connection.codec.body_complete or len(self._early) > SMALL_BODY:
            return None
        body, self._early = self._early, b""
        return body

    @property
    def body_complete(self) -> bool:
        """Whether all of the body has been taken."""
        return self._connection.codec.body_complete and not self._early

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
        codec = self._connection.codec
        try:
            while not (piece := codec.read_body()) and not codec.body_complete:
                codec.receive(await self._connection.channel.receive())
        except OSError as error:
            raise BodyLost(f"the client's connection ended inside the request's body: {error}") from error
        self.record.body_in += len(piece)
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
        connection.site.answered(self.record)
        self._out.append(
            connection.codec.start_response(
                status,
                reason,
                fields,
                date=connection.site.http_date(),
                server=connection.site.server_header,
                # A response that overtakes the request's body ends the connection: the rest of the body may never come.
                close=connection.stopping or not self.body_complete,
            )
        )

    def write(self, data: bytes) -> None:
        """A piece of the response's body."""
        self.record.body_out += len(data)
        self._out.extend(self._connection.codec.encode(data))

    def finish(self) -> None:
        """The response's body is complete."""
        end = self._connection.codec.finish()
        if end:
            self._out.append(end)

    async def flush(self) -> None:
        """Send what was collected."""
        if not self._out:
            return
        parts, self._out = self._out, []
        try:
            await self._connection.channel.send_parts(parts)
        except OSError as error:
            raise ClientGone(f"the client's connection broke: {error}") from error
        self.delivered = self._connection.codec.response_complete

    def part(self) -> None:
        """The client has all of the response, the worker is not done: let the client go if it is not to send another request."""
        if not self._connection.codec.reusable:
            self._connection.channel.stop_writing()

    async def answer(self, status: int, fields: Sequence[tuple[str, str]] = ()) -> None:
        """Answer in the application's place and let the connection end.

        Raises:
            ClientGone: nobody is there.
        """
        connection = self._connection
        body = error_body(status)
        self.record.body_out = len(body)
        self._out.append(
            connection.codec.error_response(
                status,
                body,
                date=connection.site.http_date(),
                server=connection.site.server_header,
                fields=fields,
            )
        )
        await self.flush()

    async def close(self) -> bool:
        """Finish with the request. Whether the connection can carry another one; if not, it is ready to be closed."""
        connection, codec = self._connection, self._connection.codec
        if codec.reusable and self.delivered:
            return True
        if codec.response_started and not codec.response_complete:
            await self._truncate()
        else:
            await connection.discard()
        return False

    async def _truncate(self) -> None:
        """End the connection so that the client cannot take what it has for the whole.

        A missing final chunk, or a missing rest of the declared length, says so by itself; where only the close would mark the
        end, a reset must.
        """
        if self._connection.codec.delimited_by_close:
            self._connection.channel.abort()
        else:
            await self._connection.discard()
