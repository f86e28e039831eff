"""A client's HTTP/1 connection: requests in, responses out, one after the other. The codec decides, this module does the I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

import anyio
import attrs

from gatekeep._alarms import Alarm, Alarms
from gatekeep._channel import Channel, WaitExpired
from gatekeep._errors import BodyExpired, HeadExpired, Refused
from gatekeep._events import Record
from gatekeep._host import Ended, Host, Peer
from gatekeep.settings._http import HttpSettings
from gatekeep.settings._spec import never_if_zero
from gatekeep.transport import _environ
from gatekeep.transport._accept import Room
from gatekeep.transport._budget import Budget
from gatekeep.transport._codec import Codec, Head
from gatekeep.transport._exchange import Http1Exchange, error_body
from gatekeep.transport._forwarding import Forwarding
from gatekeep.transport._introduction import Introductions, introduce
from gatekeep.transport._proxies import Origin, shown
from gatekeep.transport._proxy_protocol import NotIntroduced, ProxyHeader

DISCARD_TIME = 2.0
DISCARD_BYTES = 8 << 20
"""How long (seconds) and how much (bytes) of what a client still sends is discarded before its connection is closed.

A close with unread data is a reset, and a reset takes with it what is still on its way: an 8 MB POST saw its 413 in 0 of 40 runs
on a plain close, in 40 of 40 when the rest was discarded; and the line end that old clients send behind a body cut a response of
3 MB after 100 KB.
"""


READ_TIME = 0.2
"""Seconds of `DISCARD_TIME` that a client has in any case; after them its place may be given to others."""

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
    forwarding: Forwarding
    introductions: Introductions

    def begin_request(self, connection: Http1Connection) -> Record: ...
    async def handle(self, exchange: Http1Exchange) -> None: ...
    def answered(self, record: Record, fields: Sequence[tuple[str, str]]) -> None: ...
    def refused(self, record: Record, refusal: Refused, head: Head | None) -> None: ...
    def idle_closed(self) -> None: ...
    def disk_failed(self, record: Record, error: OSError) -> None: ...
    def now(self) -> float: ...
    def http_date(self) -> str: ...


class Http1Connection:
    """One client's connection. `serve` runs until it ends; `stop` asks it to end soon.

    Args:
        header: reads the PROXY header that the connection begins with, where it is to have one.

    Attributes:
        address: the client's, for the log.
        via: that of the proxy which has introduced the client by the PROXY protocol; None where none has.
        keep_alive: seconds for which it may be idle; 0 if it must end after each response.
        left: when the client's sending side ended, in seconds of the host's clock; `math.inf` if it has not.
        hop_alarm: bounds what the present request waits for, apart from its client.
    """

    def __init__(self, site: Site, peer: Peer, codec: Codec, header: ProxyHeader | None = None) -> None:
        self.site = site
        self.codec = codec
        self.peer = peer
        self.address = shown(peer.client)
        self.via: str | None = None
        self._header = header
        self._direct = Origin(peer.client, peer.server, "http")
        self.stopping = False
        self.keep_alive = site.patience.keep_alive
        self.left = math.inf
        self.hop_alarm = Alarm(site.alarms)
        self._alarm = Alarm(site.alarms)
        self.channel = Channel(site.host.net, peer.socket, self._alarm, site.patience.response_socket_timeout)
        self.channel.when_ended(self._client_ended)
        self._busy = self._discarding = self._patient = False
        self._spared_from = math.inf
        self._cut = False
        self._began = 0.0
        self._environ: tuple[Head | None, dict[str, str]] = (None, {})
        self._origin: tuple[Head | None, Origin] = (None, self._direct)

    async def serve(self) -> None:
        """Serve requests until the connection ends, then close it.

        Raises nothing but cancellation for anything the client does.
        """
        try:
            # A client that connects and says nothing is a slow head; the next requests are a matter of keep-alive.
            now = self.site.now()
            self._alarm.set(self.site.patience.for_head().wait_from(now))
            self._spared_from = now + FIRST_REQUEST
            if self._header is not None and not await self._be_introduced(self._header):
                return
            while await self._serve_one():
                self.codec.next_cycle()
                self._spared_from = now = self.site.now()
                self._alarm.set(now + self.keep_alive)
                if self.must_end and not self._patient and self.codec.idle:
                    self.channel.interrupt()
        except OSError:
            pass  # it is gone between two requests: nobody misses anything
        finally:
            self._alarm.close()
            self.hop_alarm.close()
            self._close()

    async def _be_introduced(self, header: ProxyHeader) -> bool:
        """Receive the PROXY header. False when there is none that we accept, and then nobody is answered."""
        patience = self.site.patience
        try:
            told = await introduce(self.channel, header, self._alarm, patience.for_head(), self.site.now)
        except NotIntroduced as failure:
            if not self.stopping:  # else it may be our end that has cut it
                self.site.introductions.failed(self.peer, str(failure))
            return False
        if told is None:
            self.site.idle_closed()
            return False
        self.via = self.address
        if told.client is not None and told.server is not None:
            self.peer = attrs.evolve(self.peer, client=told.client, server=told.server)
            self.address = shown(told.client)
        self._direct = Origin(self.peer.client, self.peer.server, "https" if told.is_tls else "http")
        if header.rest:
            self.codec.receive(header.rest)
        self._alarm.set(patience.for_head().wait_from(self.site.now()))
        return True

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
        """Whether it waits for a request and not a byte of one has come; a new client gets a moment to send its first.

        So can one that has its last answer and has had a moment to read it.
        """
        return (not self._busy or self._discarding) and now >= self._spared_from

    def _close(self) -> None:
        if self._cut:
            self.channel.abort()  # an orderly end would say that this is all
        else:
            self.channel.close()

    def stop(self, *, patient: bool = False) -> None:
        """End after the request that is being served, if any; one whose first byte has arrived is one.

        Args:
            patient: whether the next request is waited for, where its client was not told that the connection ends: to close it
                may cross what that client sends.
        """
        self.stopping, self._patient = True, patient
        if not self._busy and not patient:
            self.channel.interrupt()

    async def _serve_one(self) -> bool:
        """Serve the next request. False when the connection has come to its end."""
        self._busy = not self.codec.idle
        if self.stopping and not self._patient and not self._busy:
            self.channel.interrupt()
        self._began = self.site.now() if self._busy else 0.0
        record = None
        try:
            head = await self._next_head()
            self._alarm.off()
            if head is None:
                return False
            record = self.site.begin_request(self)
            if head.is_forwarded:
                self._name_client(head, record)
            exchange = Http1Exchange(self, head, record)
        except Refused as refusal:
            self._alarm.off()
            await self._refuse(record or self.site.begin_request(self), refusal)
            return False
        try:
            await self.site.handle(exchange)
            if exchange.delivered and self.codec.reusable:
                return True
            await exchange.close()
            return False
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
            if not self._busy and not codec.idle:
                self._busy = True
                self._began = self.site.now()
            if not data:
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
        """Close it to make room: it is idle, or only lingers."""
        self.site.idle_closed()
        self.stop()
        if self._discarding:
            self.channel.interrupt()

    @property
    def began(self) -> float:
        """When the first byte of the present request was there."""
        return self._began or self.site.now()

    async def _refuse(self, record: Record, refusal: Refused) -> None:
        record.status = refusal.status
        body = error_body(refusal.status)
        record.body_out = len(body)
        self.site.refused(record, refusal, self.codec.head)
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
            origin = self._origin_of(head) if head.is_forwarded else self._direct
            environ = _environ.build(
                head, scheme=origin.scheme, client=origin.client, server=origin.server, prefix=origin.script_name,
                host=origin.host, fields=origin.fields,
            )  # fmt: skip
            self._environ = head, environ
        return environ

    def _origin_of(self, head: Head) -> Origin:
        """Where a request comes from in which a proxy, or somebody who would be one, tells that."""
        known, origin = self._origin
        if head is not known:
            origin = self.site.forwarding.origin(self._direct, head, self.via)
            self._origin = head, origin
        return origin

    def _name_client(self, head: Head, record: Record) -> None:
        client = shown(self._origin_of(head).client)
        if client != record.client:
            record.client, record.peer = client, record.peer or record.client

    async def discard(self) -> None:
        """Let the client read the answer: shut our side and throw away what still comes, for a bounded while, unparsed."""
        self.channel.stop_writing()
        self._discarding, self._spared_from = True, self.site.now() + READ_TIME
        left = DISCARD_BYTES
        try:
            with anyio.move_on_after(DISCARD_TIME):
                while left > 0 and (data := await self.channel.receive()):
                    left -= len(data)
        except OSError:
            pass
