"""The connect, queue and pickup stages: offer the request to the group until a worker has claimed it."""

from __future__ import annotations

from typing import Protocol

from gatekeep._channel import Channel
from gatekeep._errors import NeverClaimed, QueueExpired
from gatekeep._events import DEBUG, Logger, Record, request_name, says
from gatekeep._group import Group
from gatekeep._host import Clock, Net
from gatekeep._settings import GroupSettings
from gatekeep._stages import Stage
from gatekeep._statistics import Counters
from gatekeep.transport import _wire
from gatekeep.transport._claim import Attempts, State
from gatekeep.transport._connect import connect_nowait, connect_patiently
from gatekeep.transport._hop import Hop


class Request(Protocol):
    """What a dispatch asks of an exchange."""

    record: Record

    def environ(self) -> dict[str, str]:
        """The CGI part of the WSGI environ."""

    def small_body(self) -> bytes | None:
        """The whole body, where it is small and has come with the head; None where it must be streamed."""


class HopDispatch:
    """Hands requests to the daemon processes of one group."""

    def __init__(
        self, net: Net, clock: Clock, group: Group, settings: GroupSettings, counters: Counters, log: Logger
    ) -> None:
        self.group = group
        self._net = net
        self._clock = clock
        self._settings = settings
        self._counters = counters
        self._log = log
        self._says_debug = says(log, DEBUG)

    async def claim(self, request: Request) -> Hop:
        """Find a worker for the request: the hop that is returned is claimed, and entered in the group until `release`.

        A hop that ends before the claim is followed by another, to whichever process accepts next, up to 2 * processes + 1
        attempts; the client notices nothing.

        Raises:
            ConnectExpired, ConnectFailed: the group could not be reached.
            QueueExpired: a worker found that it had waited too long.
            NeverClaimed: no attempt led to a claim.
        """
        record = request.record
        record.group = self.group.name
        envelope = self._envelope(request)
        attempts = Attempts(self.group.processes)
        while True:
            record.stage = Stage.CONNECT
            record.attempts = envelope.attempt = attempts.begin()
            hop = Hop(connect_nowait(self._net, self.group) or await self._connect_patiently())
            if await self._offer(hop, envelope, record) is State.STARTED:
                return hop
            if hop.state is State.EXPIRED:
                raise QueueExpired(f"waited longer than queue-timeout; discarded at attempt {attempts.made}")
            attempts.failed(taken_back=hop.taken_back)
            self._counters.retries += 1
            if attempts.is_exhausted():
                raise NeverClaimed(f"{attempts.made} attempts ended before a worker claimed it: {hop.reason}")
            self._log.info(
                "queue.retried",
                request_id=request_name(record.number),
                attempt=attempts.made,
                reason=hop.reason,
                taken_back=hop.taken_back,
            )

    async def _connect_patiently(self) -> Channel:
        return await connect_patiently(self._net, self.group, self._settings.connect_timeout)

    def _envelope(self, request: Request) -> _wire.Envelope:
        body = request.small_body()
        return _wire.Envelope(
            request=request.record.number,
            began=request.record.began,
            stamp=self._clock.now(),
            wall=self._clock.wall(),
            attempt=0,
            environ=request.environ(),
            body=body or b"",
            streamed=body is None,
        )

    async def _offer(self, hop: Hop, envelope: _wire.Envelope, record: Record) -> State:
        self.group.enter(hop)
        record.written = self._clock.now()
        record.stage = Stage.QUEUE
        if self._says_debug:
            name = request_name(record.number)
            self._log.debug("connect.finished", request_id=name, attempt=envelope.attempt)
        try:
            await hop.offer(_wire.encode(envelope))
        except BaseException:
            # We are cancelled: giving the hop up tells whether the application has the request; either way nobody waits for it.
            self._settled(hop, hop.settle_nowait(), record)
            self.release(hop)
            raise
        self._settled(hop, hop.state, record)
        return hop.state

    def _settled(self, hop: Hop, state: State, record: Record) -> None:
        if state is not State.STARTED:
            self.release(hop)
            return
        assert hop.go is not None
        record.claimed = max(hop.go.stamp, record.written)
        record.pid, record.thread = hop.go.pid, hop.go.thread
        record.stage = Stage.RUN
        if self._says_debug:
            self._log.debug("pickup.claimed", request_id=request_name(record.number), pid=hop.pid)
        self.group.claimed(hop)

    def release(self, hop: Hop) -> None:
        """The hop is done with, whatever came of it."""
        self.group.leave(hop)
        hop.close()
