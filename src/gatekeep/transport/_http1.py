"""A client's HTTP/1 connection: requests in, responses out, one after the other. The codec decides, this module does the I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

import anyio

from gatekeep._alarms import Alarm, Alarms
from gatekeep._channel import Channel, WaitExpired
from gatekeep._errors import BodyExpired, BodyLost, ClientGone, ClientStalled, HeadExpired, NoSpace, Refused
from gatekeep._events import Record
from gatekeep._host import Ended, Host, Peer
from gatekeep._settings import HttpSettings, never_if_zero
from gatekeep.transport import _environ
from gatekeep.transport._accept import Room
from gatekeep.transport._budget import Budget
from gatekeep.transport._codec import Codec, Framing, Head
from gatekeep.transport._spool import Spool
from gatekeep.transport._wire import SMALL_BODY

DISCARD_TIME = 2.0
DISCARD_BYTES = 8 << 20
"""How long (seconds) and how much (bytes) of what a client still sends is discarded before its connection is closed.

A close with unread data is a reset, and a reset takes with it what is still on its way: an 8 MB POST saw its 413 in 0 of 40 runs
on a plain close, in 40 of 40 when the rest was discarded; and the line end that old clients send behind a body cut a response of
3 MB after 100 KB.
"""


FIRST_REQUEST = 1.0
"""Seconds that a new client has for the first byte of its first request before it may be closed to make room."""


class Patience:
    """How long clients may take, in seconds: the settings, with `math.inf` for never."""

    def __init__(self, settings: HttpSettings, response_socket_timeout: float) -> None:
        self.keep_alive = settings.keep_alive_timeout
        self.response_socket_timeout = response_socket_timeout
        self._header = never_if_zero(settings.header_timeout)
        self._header_most = never_if_zero(settings.header_max_timeout)
        self._header_rate = settings.header_min_rate
        self._body = never_if_zero(settings.body_timeout)
        self._body_most = never_if_zero(settings.body_max_timeout)
        self._body_rate = settings.body_min_rate

    def for_head(self) -> Budget:
        """A new budget for a request's head."""
        return Budget(self._header, self._header_rate, self._header_most)

    def for_body(self) -> Budget:
        """A new budget for a request's body."""
        return Budget(self._body, self._body_rate, self._body_most)


class Site(Protocol):
    """What a connection asks of the front that it belongs to."""

    host: Host
    alarms: Alarms
    patience: Patience
    settings: HttpSettings
    room: Room

    def begin_request(self, connection: Http1Connection) -> Record: ...
    async def handle(self, exchange: Http1Exchange) -> None: ...
    def answered(self, record: Record) -> None: ...
    def refused(self, record: Record, refusal: Refused) -> None: ...
    def idle_closed(self) -> None: ...
    def disk_failed(self, record: Record, error: OSError) -> None: ...
    def now(self) -> float: ...
    def http_date(self) -> str: ...


class Http1Connection:
    """One client's connection. `serve` runs until it ends; `stop` asks it to end soon.

    Attributes:
        address: the client's, for the log.
        keep_alive: seconds for which it may be idle; 0 if it must end after each response.
        left: when the client's sending side ended, in seconds of the host's clock; `math.inf` if it has not.
        hop_alarm: bounds what the present request waits for, apart from its client.
    """

    def __init__(self, site: Site, peer: Peer, codec: Codec) -> None:
        self.site = site
        self.codec = codec
        self.peer = peer
        self.address = address_of(peer)
        self.stopping = False
        self.keep_alive = site.patience.keep_alive
        self.left = math.inf
        self.hop_alarm = Alarm(site.alarms)
        self._alarm = Alarm(site.alarms)
        self.channel = Channel(site.host.net, peer.socket, self._alarm, site.patience.response_socket_timeout)
        self.channel.when_ended(self._client_ended)
        self._busy = False
        self._spared_from = math.inf
        self._cut = False
        self._began = 0.0
        self._environ: tuple[Head | None, dict[str, str]] = (None, {})

    async def serve(self) -> None:
        """Serve requests until the connection ends, then close it.

        Raises nothing but cancellation for anything the client does.
        """
        try:
            # A client that connects and says nothing is a slow head; the next requests are a matter of keep-alive.
            now = self.site.now()
            self._alarm.set(self.site.patience.for_head().wait_from(now))
            self._spared_from = now + FIRST_REQUEST
            while await self._serve_one():
                self.codec.next_cycle()
                self._spared_from = now = self.site.now()
                self._alarm.set(now + self.keep_alive)
                if self.must_end:
                    self.channel.interrupt()
        except OSError:
            pass  # it is gone between two requests: nobody misses anything
        finally:
            self._alarm.close()
            self.hop_alarm.close()
            self._close()

    def _client_ended(self) -> None:
        """The client has ended its side, or all: whatever its request waits for will want to know."""
        if self.left == math.inf:
            self.left = self.site.now()
        self.hop_alarm.ring_now()

    @property
    def broken(self) -> bool:
        """Whether nobody can be there any more."""
        return self.channel.ended is Ended.BROKEN

    def can_be_spared(self, now: float) -> bool:
        """Whether it waits for a request and not a byte of one has come; a new client gets a moment to send its first."""
        return not self._busy and now >= self._spared_from

    def _close(self) -> None:
        if self._cut:
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
            self._alarm.off()
            if head is None:
                return False
            record = self.site.begin_request(self)
            exchange = Http1Exchange(self, head, record)
        except Refused as refusal:
            self._alarm.off()
            await self._refuse(record or self.site.begin_request(self), refusal)
            return False
        try:
            await self.site.handle(exchange)
            return await exchange.close()
        finally:
            if not exchange.delivered:
                self._cut = exchange.looks_whole_but_is_not
            if exchange.spool is not None:
                await exchange.spool.aclose()

    async def _next_head(self) -> Head | None:
        """The next request's head; None when there will be none.

        Raises:
            Refused: what came is none, or did not come in time.
        """
        codec = self.codec
        budget = None
        while (head := codec.next_request()) is None:
            if self._busy:
                budget = budget or self.site.patience.for_head()
                self._alarm.set(budget.wait_from(self.site.now()))
            try:
                data = await (self.channel.receive() if self._busy else self.channel.receive_next())
            except WaitExpired:
                if not self._busy:
                    self.site.idle_closed()
                    return None
                raise HeadExpired("the request's head did not come in time") from None
            codec.receive(data)
            if budget is not None:
                budget.received(len(data), self.site.now())
            if not self._busy and data:
                self._busy = True
                self._began = self.site.now()
            elif not data:
                if codec.idle:
                    return None
                raise Refused(HTTPStatus.BAD_REQUEST, "the connection ended inside a request's head")
        return head

    async def receive_body(self, budget: Budget) -> bytes:
        """What comes next of a request's body; empty at the end of the stream.

        Raises:
            BodyExpired: the budget is used up.
            OSError: as the socket does.
        """
        self._alarm.set(budget.wait_from(self.site.now()))
        try:
            data = await self.channel.receive()
        except WaitExpired:
            raise BodyExpired("the request's body did not come in time") from None
        finally:
            self._alarm.off()
        budget.received(len(data), self.site.now())
        return data

    @property
    def must_end(self) -> bool:
        """Whether it is to end after the present request, whatever the client would like."""
        return self.stopping or not self.keep_alive or self.site.room.crowded

    def close_idle(self) -> None:
        """Close it to make room: it is idle."""
        self.site.idle_closed()
        self.stop()

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
            server=self.site.settings.server_header,
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
    """One request on a connection, and its response: see `_relay.Exchange` and `_dispatch.Request` for what each method means.

    Attributes:
        delivered: whether the whole response has been handed to the kernel.
        spool: what was received of a longer body before anybody asked for it.
    """

    __slots__ = (
        "_budget",
        "_connection",
        "_early",
        "_invited",
        "_out",
        "alarm",
        "delivered",
        "head",
        "record",
        "spool",
    )

    def __init__(self, connection: Http1Connection, head: Head, record: Record) -> None:
        self.head = head
        self.record = record
        self._connection = connection
        self.alarm = connection.hop_alarm
        self._out: list[bytes | memoryview] = []
        self.delivered = False
        self._budget: Budget | None = None
        self.spool: Spool | None = None
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
        if self.spool is not None or not self.body_arrived or len(self._early) > SMALL_BODY:
            return None
        body, self._early = self._early, b""
        return body

    @property
    def body_complete(self) -> bool:
        """Whether all of the body has been taken."""
        if self._early or (self.spool is not None and self.spool.size):
            return False
        return self._connection.codec.body_complete

    @property
    def body_arrived(self) -> bool:
        """Whether all of the body is here, taken or not."""
        return self._connection.codec.body_complete

    @property
    def client(self) -> Http1Connection:
        """Whose request it is."""
        return self._connection

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
            await spool.put(start)
            while piece := await self.read_body():
                await spool.put(piece)
        except OSError as error:
            raise NoSpace(f"no room for the request's body: {error}") from error
        finally:
            spool.end()
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
            return await spool.take()
        except OSError as error:
            raise NoSpace(f"the temporary file could not be read: {error}") from error

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
                server=connection.site.settings.server_header,
                # A response that overtakes the request's body ends the connection: the rest of the body may never come.
                close=connection.stopping
                or not connection.site.patience.keep_alive
                or not self.body_complete,
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
        self.delivered = not self._out and self._connection.codec.response_complete
        return not self._out

    async def flush(self) -> None:
        """Send what was collected."""
        while not self.flush_nowait():
            await self.send(self._out.pop(0))

    def take_output(self) -> list[bytes | memoryview]:
        """What was collected and not sent; whoever takes it sends it."""
        parts, self._out = self._out, []
        return parts

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

    async def close(self) -> bool:
        """Finish with the request. Whether the connection can carry another one; if not, it is ready to be closed."""
        connection, codec = self._connection, self._connection.codec
        if codec.reusable and self.delivered:
            return True
        if not self.looks_whole_but_is_not:
            await connection.discard()
        return False

    @property
    def looks_whole_but_is_not(self) -> bool:
        """Whether the client would take what it has for the whole response, if the connection ended in order.

        A missing final chunk, or a missing rest of the declared length, says by itself that something is missing.
        """
        codec = self._connection.codec
        return codec.response_started and codec.delimited_by_close and not self.delivered
