"""The admit, connect, queue and pickup stages: offer the request to the group until a worker has claimed it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from gatekeep._alarms import Alarm
from gatekeep._channel import Channel, WaitExpired
from gatekeep._errors import ClientLeft, NeverClaimed, QueueExpired, QueueOverdue, StartsFail
from gatekeep._events import DEBUG, Logger, Record, request_name, says
from gatekeep._group import Group
from gatekeep._host import Clock, HopNet
from gatekeep._stages import Stage
from gatekeep._statistics import Counters
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._spec import never_if_zero
from gatekeep.transport import _wire
from gatekeep.transport._claim import SETTLED, Attempts, State
from gatekeep.transport._connect import Entrance
from gatekeep.transport._hop import Hop

# Looking a member up in its class costs a tenth of a microsecond in Python 3.11.
_CONNECT, _QUEUE, _RUN, _STARTED = Stage.CONNECT, Stage.QUEUE, Stage.RUN, State.STARTED


class Client(Protocol):
    """What a dispatch asks of a request's client.

    Attributes:
        left: when its sending side ended, in seconds of the shared clock; `math.inf` if it has not.
        broken: whether nobody can be there any more.
    """

    left: float

    @property
    def broken(self) -> bool: ...


class Request(Protocol):
    """What a dispatch asks of an exchange.

    Attributes:
        alarm: the deadline of whatever it waits for; it also rings when its client ends its side.
    """

    record: Record
    alarm: Alarm

    @property
    def client(self) -> Client: ...

    def small_body(self) -> bytes | None:
        """The whole body, where it is small and has come; None where it must be streamed."""


class HopDispatch:
    """Hands requests to the daemon processes of one group.

    Args:
        relieve: called when we are out of descriptors.
    """

    def __init__(
        self,
        net: HopNet,
        clock: Clock,
        group: Group,
        settings: GroupSettings,
        counters: Counters,
        log: Logger,
        *,
        relieve: Callable[[], None],
    ) -> None:
        self.group = group
        self.processes = settings.processes
        self.buffers_requests = settings.request_buffering
        self.socket_timeout = socket_timeout = settings.socket_timeout_or_default
        self.entrance = Entrance(
            net,
            clock,
            group,
            few=max(2, settings.threads // 2),
            most=settings.max_waiting,
            timeout=settings.connect_timeout,
            send_timeout=socket_timeout,
            relieve=relieve,
        )
        self.gone_delay = settings.client_gone_delay
        self.queue_timeout = (
            never_if_zero(settings.queue_timeout) if settings.queue_shed == "deadline" else math.inf
        )
        self.clock = clock
        self.counters = counters
        self.log = log
        self.says_debug = says(log, DEBUG)

    def check_room(self) -> None:
        """Raise the reason if a request that came now would be turned away: before its body is received."""
        self.group.check_up(self.clock.now())
        self.entrance.check_room()

    def claim(self, request: Request, environ: dict[str, str], app: str = "") -> Awaitable[Hop]:
        """Find a worker for the request: the hop that is returned is claimed, and entered in the group until `release`.

        Args:
            environ: the CGI part of the WSGI environ. Not changed.
            app: which of the group's applications shall have it, as `str` of its target; empty for the group's own.

        A hop that ends before the claim is followed by another, to whichever process accepts next, up to 2 * processes + 1
        attempts; the client notices nothing.

        Raises:
            Overloaded, ConnectExpired, ConnectFailed: the group could not be reached.
            StartsFail: it has no process, and will have none soon.
            QueueExpired: it waited longer than queue-timeout.
            ClientLeft: nobody waits for it any more.
            NeverClaimed: no attempt led to a claim.
        """
        return _Claim(self, request, environ, app).run()

    def oldest_wait(self) -> float:
        """For how many seconds the oldest request has waited that nobody has claimed."""
        now = self.clock.now()
        return now - self.oldest_since(now)

    def oldest_since(self, now: float) -> float:
        """Since when that request has waited; `now` where there is none."""
        waiting = self.entrance.admission.oldest()
        return min(self.group.oldest_offer(now), waiting.since if waiting else now)

    def streaming(self, hop: Hop) -> None:
        """Its response does not end by itself: it is ended when its process goes, or the gateway."""
        self.group.streaming(hop)

    def end_streams(self) -> None:
        """The gateway stops: streams of events end now, and those that begin yet."""
        self.group.end_streams()

    def release(self, hop: Hop) -> None:
        """The hop is done with, whatever came of it."""
        self.group.leave(hop)
        hop.close()


class Target(NamedTuple):
    """Where a request goes: to a group, and to one of its applications (see `HopDispatch.claim`)."""

    dispatch: HopDispatch
    app: str = ""


Decide = Callable[[dict[str, str], str], Awaitable[tuple[Target, dict[str, str]]]]
"""Decides about a request, of which it is given the environ, and what a proxy has taken from its path: where it goes, and the
environ that goes along."""


class Mounted(NamedTuple):
    """Where a mount leads, and what its scripts have to say about each request."""

    target: Target
    decide: Decide | None = None


class _Claim:
    """One request on its way to a worker."""

    __slots__ = (
        "_attempts",
        "_client",
        "_clock",
        "_dispatch",
        "_envelope",
        "_is_offered",
        "_queue_ends",
        "_record",
        "alarm",
        "number",
        "since",
    )

    def __init__(self, dispatch: HopDispatch, request: Request, environ: dict[str, str], app: str) -> None:
        self._dispatch = dispatch
        self._clock = dispatch.clock
        self._client = request.client
        self._record = record = request.record
        record.group = dispatch.group.name
        self.number = record.number
        self.alarm = request.alarm
        # The group may have grown since the start, or shrunk.
        self._attempts = Attempts(max(dispatch.group.processes, dispatch.processes))
        self._envelope = _envelope(request, environ, app)
        self._is_offered = False
        self._queue_ends = math.inf
        self.since = 0.0

    # --- patience

    def patience_ends(self) -> float:
        """When waiting has no sense any more, as far as is known now."""
        if self._client.left == math.inf:
            return self._queue_ends
        return min(self._queue_ends, self._client_ends())

    def _client_ends(self) -> float:
        """When a client that has ended its side is taken for gone: one that only half-closed may get its answer until then."""
        if self._client.broken:
            return self.since
        return max(self._client.left, self.since) + self._dispatch.gone_delay

    def check_patience(self, now: float) -> None:
        """Raise the reason if waiting has no sense any more."""
        if now >= self._client_ends():
            self._dispatch.entrance.client_left()
            raise ClientLeft("the client left while its request waited", self._record.stage)
        if now >= self._queue_ends:
            raise QueueOverdue(f"no worker took it within queue-timeout ({self._dispatch.queue_timeout:g} s)")
        self._dispatch.group.check_up(now)

    # --- the way

    async def run(self) -> Hop:
        """As `HopDispatch.claim`."""
        entrance, record = self._dispatch.entrance, self._record
        self.since = now = self._clock.now()
        while True:
            record.stage = _CONNECT
            self._dispatch.group.check_up(now)
            record.attempts = self._envelope.attempt = self._attempts.begin()
            # Before the connection, which wakes a worker: it shall find the envelope.
            envelope = self._seal(now)
            channel = entrance.enter_nowait(now, self.alarm, self.number)
            if channel is None:
                channel = await entrance.enter_in_turn(self, now)
                now = self._clock.now()
                envelope = self._seal(now)
            hop = await self._offer(channel, envelope, now)
            if hop.state is _STARTED:
                return hop
            if hop.state is State.EXPIRED:
                raise QueueExpired(
                    f"waited longer than queue-timeout; discarded at attempt {record.attempts}"
                )
            self._count_failure(hop)
            now = self._clock.now()

    def _seal(self, now: float) -> bytes:
        """The envelope as it is written at this time. Its stamp is that of the first that was written."""
        if not self._is_offered:
            self._envelope.stamp, self._envelope.wall = now, self._clock.wall()
        return _wire.encode(self._envelope)

    async def _offer(self, channel: Channel, envelope: bytes, now: float) -> Hop:
        """Offer it over this connection: the hop that is returned is settled."""
        dispatch, record = self._dispatch, self._record
        if not self._is_offered:
            self._is_offered = True
            self._queue_ends = now + dispatch.queue_timeout
        hop = Hop(channel, self._envelope.stamp, record)
        dispatch.group.enter(hop)
        record.written = now
        record.stage = _QUEUE
        if dispatch.says_debug:
            dispatch.log.debug(
                "connect.finished", request_id=request_name(self.number), attempt=record.attempts
            )
        self.alarm.set(self.patience_ends())
        try:
            rest = hop.offer_nowait(envelope)
            if rest:
                await hop.offer_rest(rest)
            while hop.state not in SETTLED:
                try:
                    hop.receive_claim(await channel.receive_next())
                except WaitExpired:
                    self._lose_patience(hop)
                except OSError as error:
                    hop.broke(error)
        except BaseException:
            # Giving the hop up tells whether the application has the request; either way nobody waits for it.
            hop.settle_nowait()
            self._settled(hop)
            dispatch.release(hop)
            raise
        self._settled(hop)
        return hop

    def _lose_patience(self, hop: Hop) -> None:
        """Raise the reason if waiting has no sense any more, unless a claim came in that moment; else wait on."""
        try:
            self.check_patience(self._clock.now())
        except (ClientLeft, QueueExpired, StartsFail):
            if hop.settle_nowait() is not State.STARTED:
                raise
        self.alarm.set(self.patience_ends())

    def _settled(self, hop: Hop) -> None:
        dispatch, record = self._dispatch, self._record
        if hop.go is not None:
            record.pid, record.thread, stamp = hop.pid, hop.go.thread, hop.go.stamp
            record.claimed = stamp if stamp > record.written else record.written
            record.stage = _RUN
            dispatch.group.claimed(hop)
            if dispatch.says_debug:
                dispatch.log.debug("pickup.claimed", request_id=request_name(record.number), pid=hop.pid)
        else:
            dispatch.release(hop)
        if dispatch.entrance.admission.waiting:
            dispatch.entrance.place_freed()

    def _count_failure(self, hop: Hop) -> None:
        dispatch, attempts = self._dispatch, self._attempts
        attempts.failed(taken_back=hop.taken_back)
        dispatch.counters.retries += 1
        if attempts.is_exhausted():
            raise NeverClaimed(f"{attempts.made} attempts ended before a worker claimed it: {hop.reason}")
        dispatch.log.info(
            "queue.retried",
            request_id=request_name(self.number),
            attempt=attempts.made,
            reason=hop.reason,
            taken_back=hop.taken_back,
        )


def _envelope(request: Request, environ: dict[str, str], app: str) -> _wire.Envelope:
    body = request.small_body()
    return _wire.Envelope(
        request=request.record.number,
        began=request.record.began,
        stamp=0.0,
        wall=0.0,
        attempt=0,
        app=app,
        environ=environ,
        body=body or b"",
        streamed=body is None,
    )
