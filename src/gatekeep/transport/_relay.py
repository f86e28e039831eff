"""The run and respond stages: the worker's frames become the client's response, and the client's body goes to the worker.

Both directions move at the same time, so an application that writes much before it reads its input cannot deadlock with us. And
the worker is ahead of its client: what a slow client has not read yet lies in a spool, and the worker is free.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Protocol

import anyio

from gatekeep._alarms import Alarm
from gatekeep._channel import WaitExpired
from gatekeep._errors import (
    ApplicationFailed,
    ClientGone,
    HopExpired,
    Interrupted,
    ProcessLost,
    RequestFailed,
    Truncated,
)
from gatekeep._events import Record
from gatekeep._host import Clock
from gatekeep.transport import _wire
from gatekeep.transport._hop import Hop
from gatekeep.transport._spool import Spool
from gatekeep.transport._wire import Kind

# Plain numbers: a look into an enumeration costs as much as a comparison, for every frame (until Python 3.12).
_HEAD, _DATA, _END, _FAIL, _LAST = map(int, (Kind.HEAD, Kind.DATA, Kind.END, Kind.FAIL, Kind.LAST))


EVENTS = "text/event-stream"
"""The media type of responses that last until somebody ends them; their clients come again by themselves (EventSource)."""


class Exchange(Protocol):
    """What the relay asks of a client's request: HTTP/1 here, ASGI where the gateway is mounted.

    `start`, `write` and `finish` only collect; `flush` sends.
    """

    alarm: Alarm
    record: Record

    @property
    def body_complete(self) -> bool:
        """Whether all of the request's body has been taken."""

    @property
    def broken(self) -> bool:
        """Whether nobody can be there to be answered."""

    @property
    def response_started(self) -> bool:
        """Whether the final head has been handed over."""

    @property
    def response_complete(self) -> bool:
        """Whether HTTP's framing says that the client has, or will have, all of the response."""

    async def invite_body(self) -> None:
        """Send 100 Continue if the client waits for it.

        Raises:
            ClientGone: nobody is there.
        """

    async def read_body(self) -> bytes:
        """The next piece of the body; empty when it is complete.

        Raises:
            Refused: it is malformed, or too large.
            BodyLost: the connection ended inside it.
            BodyExpired: it did not come in time.
        """

    def start(self, status: int, reason: str, fields: list[tuple[str, str]]) -> None:
        """Begin the response."""

    def write(self, data: bytes) -> None:
        """A piece of the response's body."""

    def finish(self) -> None:
        """The response's body is complete."""

    def part(self) -> None:
        """The response is complete and sent, the worker is not done with it: let the client go if it is not to stay."""

    def flush_nowait(self) -> bool:
        """Send as much of what was collected as goes at once. Whether that was all.

        Raises:
            ClientGone: nobody is there.
        """

    async def flush(self) -> None:
        """Send what was collected.

        Raises:
            ClientGone: nobody is there.
        """

    def take_output(self) -> list[bytes | memoryview]:
        """What was collected and not sent; whoever takes it sends it."""

    def lose_output(self) -> None:
        """What was taken cannot be sent."""

    async def send(self, data: bytes | memoryview) -> None:
        """Send what was taken.

        Raises:
            ClientGone: nobody is there.
        """

    def open_spool(self) -> Spool:
        """A spool for what the client is too slow to read."""

    def disk_failed(self, error: OSError) -> None:
        """The spool's file could not grow, so that the worker had to wait for the client."""


class Keeper(Protocol):
    """Who keeps the hops that are claimed."""

    def release(self, hop: Hop) -> None:
        """The hop is not needed any more; called once or more often."""

    def streaming(self, hop: Hop) -> None:
        """Its response is a stream of events, which does not end by itself."""


def relay(
    exchange: Exchange, hop: Hop, clock: Clock, socket_timeout: float, keeper: Keeper
) -> Awaitable[None]:
    """Carry the whole of a claimed request both ways.

    Args:
        socket_timeout: seconds in which something must come from the worker, or be taken by it.

    Raises:
        RequestFailed: it came to no good end; the exchange tells whether a response was started.
    """
    response = _Response(exchange, hop, clock, socket_timeout, keeper)
    return response.receive() if response.is_alone else _relay_both_ways(exchange, hop, response)


async def _relay_both_ways(exchange: Exchange, hop: Hop, response: _Response) -> None:
    body = _Body(exchange, hop, response)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body.send)
        try:
            await response.receive()
        except RequestFailed as error:
            response.failure = error
        tasks.cancel_scope.cancel()
    if exchange.response_complete and response.failure is None:
        return
    # A body that could not be had is the cause, what the application made of it the consequence.
    failure = body.failure or response.failure
    if failure is not None:
        raise failure


class _Body:
    """The request's body on its way to the worker."""

    def __init__(self, exchange: Exchange, hop: Hop, response: _Response) -> None:
        self._exchange = exchange
        self._hop = hop
        self._response = response
        self.failure: RequestFailed | None = None

    async def send(self) -> None:
        try:
            await self._exchange.invite_body()
            await self._send_pieces()
        except RequestFailed as failure:
            self.failure = failure
            # The worker must not take what it has for the whole body; and the response to it is no longer wanted.
            self._hop.abandon()
        self._response.is_alone = True

    async def _send_pieces(self) -> None:
        while piece := await self._exchange.read_body():
            if not await self._hop.send_body(piece):
                return  # the worker wants no more: its response may be complete nevertheless
            self._response.progress()
        await self._hop.send_body_end()


class _Response:
    """The worker's frames on their way to the client."""

    __slots__ = (
        "_clock",
        "_deadline",
        "_exchange",
        "_hop",
        "_keeper",
        "_socket_timeout",
        "failure",
        "is_alone",
    )

    def __init__(
        self,
        exchange: Exchange,
        hop: Hop,
        clock: Clock,
        socket_timeout: float,
        keeper: Keeper,
    ) -> None:
        self._exchange = exchange
        self._hop = hop
        self._clock = clock
        self._socket_timeout = socket_timeout
        self._keeper = keeper
        self.is_alone = exchange.body_complete  # nobody is sending the body over the hop
        self._deadline = math.inf
        self.failure: RequestFailed | None = None

    async def receive(self) -> None:
        """Pass on all that comes until END, or until the client has all that HTTP's framing promised.

        What was produced is flushed before a truncation is reported: the client may have it, it just must not look whole.
        """
        exchange = self._exchange
        try:
            while not self._pass_on():
                if not exchange.flush_nowait():
                    await self._receive_ahead()
                    return
                if exchange.response_complete:
                    if exchange.body_complete:
                        return  # nothing that the worker says now concerns the client, and END would be one wake-up more
                    exchange.part()
                if not await self._read_more():
                    return
            if not exchange.flush_nowait():
                self._let_worker_go()
                await exchange.flush()
        except Truncated:
            await exchange.flush()
            raise

    def _let_worker_go(self) -> None:
        """The worker has nothing to say any more: what is left is between us and the client."""
        if self.is_alone:
            self._keeper.release(self._hop)

    async def _read_more(self) -> bool:
        """Read what comes next from the worker. False when nothing will, and the client has all."""
        if await self._read_in_time():
            return True
        if self._exchange.response_complete:
            return False  # HTTP's framing decides what is complete, whatever the worker does then
        if self._hop.stream_ended:
            return True  # we have ended it ourselves, in order
        raise self._ended_early("its process ended, or closed the connection")

    async def _read_in_time(self) -> bool:
        self.progress()
        while True:
            if self._exchange.broken:
                self._hop.abandon()
                if self._exchange.response_complete:
                    return False  # it has what it came for, and has closed its side, too
                raise ClientGone("the client's connection was reset while the application ran")
            try:
                return await self._hop.read_more()
            except WaitExpired:
                if self._clock.now() >= self._deadline:
                    self._hop.abandon()
                    self._expired()
                    return False
                self._exchange.alarm.set(self._deadline)

    def progress(self) -> None:
        """Something has passed between us and the worker: its time begins anew."""
        self._deadline = self._clock.now() + self._socket_timeout
        self._exchange.alarm.set(self._deadline)

    def _expired(self) -> None:
        if self._exchange.response_complete:
            return
        reason = f"nothing came from the worker for {self._socket_timeout:g} s"
        if self._exchange.response_started:
            raise Truncated(reason, timer=HopExpired.timer)
        raise HopExpired(reason)

    # --- ahead of the client

    async def _receive_ahead(self) -> None:
        """The client reads more slowly than the worker writes: take what comes, while it reads what there is."""
        spool = self._exchange.open_spool()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send_from, spool, tasks.cancel_scope)
                try:
                    await self._receive_into(spool)
                except RequestFailed as error:
                    self.failure = error
                spool.end()
                self._let_worker_go()
        finally:
            await spool.aclose()
            if spool.disk_error is not None:
                self._exchange.disk_failed(spool.disk_error)
        if self.failure is not None:
            raise self.failure
        await self._exchange.flush()  # nothing is left, but the end itself may have to be said

    async def _receive_into(self, spool: Spool) -> None:
        exchange, ended = self._exchange, False
        while True:
            for part in exchange.take_output():
                await spool.put(part)
            if ended or (exchange.response_complete and exchange.body_complete):
                return
            if not await self._read_more():
                return
            ended = self._pass_on()

    async def _send_from(self, spool: Spool, everything: anyio.CancelScope) -> None:
        """Send what lies in the spool until its end; if the client has gone, all is over."""
        try:
            while await spool.wait_filled():
                await self._exchange.send(await spool.take())
        except ClientGone as error:
            self.failure = error
            everything.cancel()
        except OSError as error:
            self._exchange.lose_output()
            self.failure = Truncated(f"the temporary file could not be read: {error}")
            everything.cancel()

    # --- frames

    def _pass_on(self) -> bool:
        """Hand the frames that are there to the exchange. True at the end of the response."""
        next_frame = self._hop.next_frame
        while (item := next_frame()) is not None:
            kind, payload = item
            if kind == _DATA:
                self._exchange.write(payload)
            elif kind == _HEAD:
                self._start(payload)
            elif kind == _LAST:
                if payload:
                    self._exchange.write(payload)
                self._exchange.finish()
                return True
            elif kind == _END:
                self._exchange.record.memory_growth += _wire.decode_end(payload).grown
                self._exchange.finish()
                return True
            elif kind == _FAIL:
                self._failed(_wire.decode_fail(payload))
                return True
            else:
                raise self._ended_early(f"an unexpected frame of kind {kind}")
        if self._hop.stream_ended and self._exchange.response_started:
            self._exchange.record.reason = "the stream of events was ended, since its process ends"
            self._exchange.finish()
            return True
        return False

    def _start(self, payload: bytes) -> None:
        head, is_endless = _decode_head(payload)
        self._exchange.record.memory_growth = head.grown
        self._exchange.start(head.status, head.reason, head.fields)
        if is_endless:
            self._keeper.streaming(self._hop)

    def _failed(self, fail: _wire.Fail) -> None:
        if self._exchange.response_complete:
            return  # the application's later trouble is in the log
        if self._exchange.response_started:
            raise Truncated(fail.message, timer=fail.timer)
        if fail.timer:
            raise Interrupted(fail.message)
        raise ApplicationFailed(fail.message)

    def _ended_early(self, reason: str) -> RequestFailed:
        return Truncated(reason) if self._exchange.response_started else ProcessLost(reason)


# Applications repeat themselves, so the last head is remembered: in one tuple, since there may be gateways in several threads.
_last_head: tuple[bytes, _wire.Head | None, bool] = b"", None, False


def _decode_head(payload: bytes) -> tuple[_wire.Head, bool]:
    """A response's head, and whether the response is a stream of events."""
    global _last_head
    known, head, is_endless = _last_head
    if head is None or payload != known:
        head = _wire.decode_head(payload)
        is_endless = _is_endless(head.fields)
        _last_head = payload, head, is_endless
    return head, is_endless


def _is_endless(fields: list[tuple[str, str]]) -> bool:
    """Whether a response is a stream of events without a declared length."""
    for name, value in fields:
        if value.startswith(EVENTS) and name.lower() == "content-type":
            return all(name.lower() != "content-length" for name, _ in fields)
    return False
