"""The front: every stage of a request in order, and what is counted and said of it."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from gatekeep._alarms import Alarms
from gatekeep._errors import ClientGone, NotMounted, Refused, RequestFailed, StartsFail, Stopped
from gatekeep._events import DEBUG, INFO, Action, Logger, Outcome, Record, request_name, says
from gatekeep._host import Host, Peer
from gatekeep._stages import Stage
from gatekeep._statistics import Counters
from gatekeep.settings._bind import Bind
from gatekeep.settings._http import HttpSettings
from gatekeep.transport import _environ
from gatekeep.transport._accept import Room
from gatekeep.transport._codec import Codec, Head, Limits
from gatekeep.transport._codec_strict import StrictCodec
from gatekeep.transport._date import HttpDate
from gatekeep.transport._dispatch import HopDispatch, Mounted, Request
from gatekeep.transport._error_page import FIELDS, error_page
from gatekeep.transport._exchange import error_body
from gatekeep.transport._forwarding import Forwarding
from gatekeep.transport._guests import Guests
from gatekeep.transport._http1 import Http1Connection, Patience
from gatekeep.transport._introduction import Introductions
from gatekeep.transport._notes import notes_of, text_of
from gatekeep.transport._probes import Health, Probe, not_found
from gatekeep.transport._proxy_protocol import ProxyHeader
from gatekeep.transport._relay import Exchange as Relayed, relay
from gatekeep.transport._route import Routes

# Looking a member up in its class costs a tenth of a microsecond in Python 3.11.
_ROUTE, _RESPOND, _SERVED = Stage.ROUTE, Stage.RESPOND, Outcome.SERVED

_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


def limits_of(settings: HttpSettings) -> Limits:
    """What the codecs are to enforce."""
    return Limits(
        request_line=settings.limit_request_line,
        field_size=settings.limit_request_field_size,
        fields=settings.limit_request_fields,
        head_size=settings.limit_request_head,
        body=settings.limit_request_body,
        allow_trace=settings.allow_trace,
    )


class Caller(Protocol):
    """What a record begins with.

    Attributes:
        address: the client's, for the log.
        via: that of a proxy which has introduced it; None where none has.
        began: when the first byte of its request was there.
    """

    address: str
    via: str | None

    @property
    def began(self) -> float: ...


class Exchange(Relayed, Request, Protocol):
    """A request and its response as the front sees them: HTTP/1 on a connection of ours, or ASGI.

    Attributes:
        delivered: whether the whole response has been handed to the kernel, or the server around us.
    """

    head: Head
    delivered: bool

    @property
    def scheme(self) -> str:
        """By which the client has come, http or https."""

    @property
    def body_arrived(self) -> bool:
        """Whether all of the body is here, taken or not."""

    def environ(self) -> dict[str, str]:
        """The CGI part of the WSGI environ. Not to be changed."""

    async def buffer_body(self) -> None:
        """Receive all of the body before anybody asks for it."""

    async def answer_in_order(self, status: int, fields: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer in the application's place with a whole response like any other."""

    async def answer(self, status: int, fields: Sequence[tuple[str, str]]) -> None:
        """Answer an error in the application's place, after which the connection may end."""

    def answer_nowait(self, status: int, fields: Sequence[tuple[str, str]]) -> None:
        """The same, as far as it goes at once."""


class Front:
    """Serves the clients' connections, and requests that another server hands in (`guests`).

    `host`'s clock stamps, `routes` leads requests to workers, `counters` and `log` are told what became of them.

    Args:
        only_health: whether it answers health probes and nothing else.
    """

    def __init__(
        self,
        host: Host,
        settings: HttpSettings,
        routes: Routes[Mounted],
        dispatches: Sequence[HopDispatch],
        alarms: Alarms,
        counters: Counters,
        log: Logger,
        *,
        room: Room,
        response_socket_timeout: float,
        health: Health,
        only_health: bool = False,
    ) -> None:
        self.host = host
        self.alarms = alarms
        self.settings = settings
        self.room = room
        self.patience = Patience(settings, response_socket_timeout)
        self.forwarding = Forwarding(settings, log)
        self.introductions = Introductions(settings, counters, log)
        # Whoever probes health does so in person.
        self._proxy_protocol = "off" if only_health else settings.proxy_protocol
        self.limits = limits_of(settings)
        self._routes = routes
        self._dispatches = dispatches
        self._counters = counters
        self._log = log
        self._says_debug, self._says_info = says(log, DEBUG), says(log, INFO)
        self._notes = notes_of(settings) if self._says_info else None
        self._date = HttpDate()
        # Numbers are unique among gateways and restarts for the log's sake, and in order within one.
        self._next_number = host.chance.bits(63) & ~0xFFFFFFFF
        self._connections: dict[Http1Connection, None] = {}
        self.guests = Guests()
        self._stopping = self._patient = False
        self._health = health
        self._probe_at = _probes(health, settings, only_health=only_health)
        self.now, self._wall = host.clock.now, host.clock.wall

    # --- connections

    def handler(self, bind: Bind) -> Callable[[Peer], Coroutine[Any, Any, None]]:
        """What serves a connection to that address."""
        version = bind.proxy_protocol or self._proxy_protocol
        if version == "off":
            return self.serve_connection
        return functools.partial(self._serve_introduced, version=version)

    async def _serve_introduced(self, peer: Peer, *, version: str) -> None:
        """The same for a connection that begins with a PROXY header."""
        if self.introductions.may_connect(peer):
            await self.serve_connection(peer, ProxyHeader(version))
        else:
            peer.socket.close()

    async def serve_connection(self, peer: Peer, header: ProxyHeader | None = None) -> None:
        """Serve one client's connection to its end. A fault of ours ends that connection and is logged, nothing else.

        Args:
            header: reads the PROXY header that the connection begins with, where it is to have one.
        """
        try:
            connection = Http1Connection(self, peer, self._codec(), header)
        except OSError as error:  # the event loop's resources are limited, too
            self._log.warning("accept.failed", reason=str(error))
            peer.socket.close()
            return
        self._connections[connection] = None
        self._counters.connections += 1
        if self._says_debug:
            self._log.debug("accept.finished", client=connection.address)
        if self._stopping:
            connection.stop(patient=self._patient)
        try:
            await connection.serve()
        except Exception:
            self._log.error("front.failed", traceback=traceback.format_exc(), client=connection.address)
        finally:
            self._counters.connections -= 1
            del self._connections[connection]

    def _codec(self) -> Codec:
        if self.settings.http == "h11":
            from gatekeep.transport._codec_h11 import H11Codec

            return H11Codec(self.limits)
        return StrictCodec(self.limits)

    def announce_stop(self) -> None:
        """Let the readiness probe say that we stop, and serve on as before."""
        self._health.is_stopping = True

    def stop(self, *, patient: bool = False) -> None:
        """Let every connection end after the request that it is serving. Streams of events end now.

        Args:
            patient: whether idle connections may have one more request, since another gateway serves in our place; otherwise
                they end now, and the readiness probe says so.
        """
        if not patient:
            self.announce_stop()
        self._stopping, self._patient = True, patient
        self.guests.stop()
        for dispatch in self._dispatches:
            dispatch.end_streams()
        for connection in tuple(self._connections):
            connection.stop(patient=patient)

    def relieve(self) -> None:
        """We are out of descriptors, or have as many connections as we may: close the oldest that is idle."""
        now = self.now()
        for connection in self._connections:
            if connection.can_be_spared(now) and not connection.stopping:
                connection.close_idle()
                return

    def idle_closed(self) -> None:
        """A connection is closed between two requests."""
        self._counters.idle_closed += 1

    # --- requests

    async def handle(self, exchange: Exchange) -> None:
        """One request, from its head to its end: receive its body, claim it for a worker, carry it both ways, account for it."""
        record = exchange.record
        self._describe(exchange)
        probe = self._probe_at(exchange.head.path)
        try:
            if probe is not None:
                await self._answer_probe(exchange, probe)
            else:
                await self._pass_on(exchange)
            record.outcome = _SERVED
        except RequestFailed as failure:
            await self._fail(exchange, failure)
        except Exception:
            # A fault of ours costs this request, never the others.
            self._log.error(
                "front.failed", request_id=request_name(record.number), traceback=traceback.format_exc()
            )
            await self._fail(exchange, _Fault("a fault of the gateway"))
        except BaseException:  # cancelled, or Ctrl-C, which trio may raise anywhere
            self._stop_request(exchange)
            raise
        finally:
            self._finish(record, is_probe=probe is not None)

    async def turn_away(self, exchange: Exchange, failure: RequestFailed) -> None:
        """Answer a request that gets no further than its head."""
        self._describe(exchange)
        try:
            await self._fail(exchange, failure)
        finally:
            self._finish(exchange.record)

    async def _answer_probe(self, exchange: Exchange, probe: Probe) -> None:
        """Answer for ourselves: no worker is asked, and nobody who waits for one is waited for."""
        status, fields, body = probe(exchange.head.method)
        await exchange.answer_in_order(status, [*fields, *_retry_after(status)], body)

    async def _pass_on(self, exchange: Exchange) -> None:
        environ = exchange.environ()
        prefix = environ["SCRIPT_NAME"]
        mounted = self._routes.sole
        if mounted is None:
            mounted, environ = self._route(environ)
        target = mounted.target
        if mounted.decide is not None:
            target, environ = await mounted.decide(environ, prefix)
            if user := environ.get("REMOTE_USER"):
                exchange.record.note({"user": text_of(user)})
        dispatch = target.dispatch
        if dispatch.buffers_requests:
            if not exchange.body_arrived:
                await self._receive_body(exchange, dispatch)
            if exchange.record.body_in and "CONTENT_LENGTH" not in environ:
                environ = _environ.with_length(environ, exchange.record.body_in)
        hop = await dispatch.claim(exchange, environ, target.app)
        try:
            await relay(exchange, hop, self.host.clock, dispatch.socket_timeout, dispatch)
        finally:
            dispatch.release(hop)
        self._counters.streams_ended += hop.stream_ended

    def _route(self, environ: dict[str, str]) -> tuple[Mounted, dict[str, str]]:
        """Where the request goes, and the environ with its path split there."""
        host, path = environ.get("HTTP_HOST", ""), environ["PATH_INFO"]
        place = self._routes.find(host, path)
        if place is None:
            raise NotMounted(f"nothing is mounted at {path}" + (f" for host {host}" if host else ""))
        script_name = environ["SCRIPT_NAME"] + place.script_name
        return place.target, {**environ, "SCRIPT_NAME": script_name, "PATH_INFO": place.path_info}

    async def _receive_body(self, exchange: Exchange, dispatch: HopDispatch) -> None:
        """A slow upload holds no worker. What would be turned away is turned away before its body is received."""
        dispatch.check_room()
        exchange.record.stage = Stage.BODY
        await exchange.buffer_body()
        exchange.record.buffered = self.now()
        if self._says_debug:
            name = request_name(exchange.record.number)
            self._log.debug("body.received", request_id=name, bytes_in=exchange.record.body_in)

    def begin_request(self, connection: Caller) -> Record:
        """A request's head, or what should have been one, was read."""
        self._next_number += 1
        self._counters.in_flight += 1
        record = Record(self._next_number, connection.address, connection.began)
        record.received = self.now()
        if connection.via is not None and connection.via != connection.address:
            record.peer = connection.via
        return record

    def _describe(self, exchange: Exchange) -> None:
        record, head = exchange.record, exchange.head
        record.method, record.path, record.protocol = head.method, head.path, head.version
        record.stage = _ROUTE
        if self._notes is not None:
            record.note(self._notes.of_request(head, exchange.scheme))
        self._counters.dropped_fields += head.dropped
        if self._says_debug:
            name = request_name(record.number)
            self._log.debug("parse.finished", request_id=name, method=head.method, path=head.path)

    def answered(self, record: Record, fields: Sequence[tuple[str, str]]) -> None:
        """The application's head has come."""
        record.answered = self.now()
        record.stage = _RESPOND
        if self._notes is not None:
            record.note(self._notes.of_response(fields))
        if self._says_debug:
            self._log.debug("run.answered", request_id=request_name(record.number), status=record.status)

    def disk_failed(self, record: Record, error: OSError) -> None:
        """A response's temporary file could not grow: its worker had to wait for the client."""
        self._log.warning(
            "respond.no_space",
            request_id=request_name(record.number),
            path=record.path,
            stage=Stage.RESPOND,
            reason=str(error),
        )

    async def _fail(self, exchange: Exchange, failure: RequestFailed) -> None:
        record = exchange.record
        answers = bool(failure.status) and not exchange.response_started
        self._failed(record, failure, answers=answers)
        if answers:
            record.status = failure.status
            try:
                if isinstance(failure, StartsFail) and failure.details:
                    await exchange.answer_in_order(
                        failure.status, FIELDS, error_page(str(failure), failure.details)
                    )
                elif failure.stage is _ROUTE and not isinstance(failure, _Fault):
                    # Nothing is wrong with the connection: who is asked for a password answers on it.
                    fields = [*_TEXT, *_fields_for(failure)]
                    await exchange.answer_in_order(failure.status, fields, error_body(failure.status))
                else:
                    await exchange.answer(failure.status, _fields_for(failure))
            except ClientGone:
                record.action = Action.DROPPED  # what went wrong before stays the outcome

    def _failed(self, record: Record, failure: RequestFailed, *, answers: bool) -> None:
        """Take down what became of a request, and say it where something happened."""
        record.stage = failure.stage
        action = Action.ANSWERED if answers else Action.DROPPED
        if not answers and record.status and failure.outcome != Outcome.CLIENT_GONE:
            action = Action.CLOSED  # its response had begun
        record.failed(Outcome(failure.outcome), str(failure), failure.timer, action, self.now())
        if failure.event:
            self._log.warning(
                failure.event,
                request_id=request_name(record.number),
                method=record.method,
                path=record.path,
                pid=record.pid,
                attempts=record.attempts,
                stage=failure.stage,
                timer=failure.timer,
                age=round(record.age, 6),
                action=action,
                status=failure.status if answers else record.status,
                reason=record.reason,
            )

    def refused(self, record: Record, refusal: Refused, head: Head | None) -> None:
        """A connection was refused for what it sent; the head is there as far as it was understood."""
        if head is not None:
            record.describe(head.method, head.path, head.version)
            if self._notes is not None:
                record.note(self._notes.of_request(head))
        self._failed(record, refusal, answers=True)
        self._finish(record)

    def _stop_request(self, exchange: Exchange) -> None:
        """The gateway's grace is over: whoever has no answer yet gets one, as far as it goes at once."""
        record = exchange.record
        if exchange.delivered:
            record.outcome = Outcome.SERVED  # the stop came after the client had it all
            return
        failure = Stopped(record.stage, started=bool(record.pid))
        answers = not exchange.response_started
        self._failed(record, failure, answers=answers)
        if answers:
            record.status = failure.status
            exchange.answer_nowait(failure.status, _fields_for(failure))

    def _finish(self, record: Record, *, is_probe: bool = False) -> None:
        record.ended = self.now()
        if self._says_debug:
            name = request_name(record.number)
            self._log.debug("respond.finished", request_id=name, bytes_out=record.body_out)
        self._counters.count(record)
        # Another thread may ask: what is not in flight any more has been counted.
        self._counters.in_flight -= 1
        if is_probe:  # they come every few seconds for ever
            if self._says_debug:
                self._log.debug("request.finished", **record.fields())
        elif self._says_info:
            self._log.info("request.finished", **record.fields())

    def in_flight(self) -> int:
        """How many requests have not ended."""
        return self._counters.in_flight

    def http_date(self) -> str:
        """The Date field's value now."""
        return self._date.at(self._wall())


class _Fault(RequestFailed):
    """Ours."""

    stage = Stage.ROUTE
    outcome = "lost"
    status = 500


def _probes(health: Health, settings: HttpSettings, *, only_health: bool) -> Callable[[str], Probe | None]:
    """Finds the probe at a path; None is for the application."""
    if not only_health:
        return health.probes(settings.livez_path, settings.readyz_path).get
    probes = health.probes(*settings.health_paths)
    return lambda path: probes.get(path, not_found)


def _fields_for(failure: RequestFailed) -> list[tuple[str, str]]:
    return [*_retry_after(failure.status, failure.retry_after), *failure.fields]


def _retry_after(status: int, seconds: int = RequestFailed.retry_after) -> list[tuple[str, str]]:
    return [("Retry-After", str(seconds))] if status == 503 else []
