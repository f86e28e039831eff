"""The run and respond stages: the worker's frames become the client's response, and the client's body goes to the worker.

Both directions move at the same time, so an application that writes much before it reads its input cannot deadlock with us.
"""

from __future__ import annotations

from typing import Protocol

import anyio

from gatekeep._errors import ApplicationFailed, ProcessLost, RequestFailed, Truncated
from gatekeep.transport import _wire
from gatekeep.transport._hop import Hop
from gatekeep.transport._wire import Kind

# Plain numbers: a look into an enumeration costs as much as a comparison, for every frame (until Python 3.12).
_HEAD, _DATA, _END, _FAIL = map(int, (Kind.HEAD, Kind.DATA, Kind.END, Kind.FAIL))


class Exchange(Protocol):
    """What the relay asks of a client's request: HTTP/1 here, ASGI where the gateway is mounted.

    `start`, `write` and `finish` only collect; `flush` sends.
    """

    @property
    def body_complete(self) -> bool:
        """Whether all of the request's body has been taken."""

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
        """

    def start(self, status: int, reason: str, fields: list[tuple[str, str]]) -> None:
        """Begin the response."""

    def write(self, data: bytes) -> None:
        """A piece of the response's body."""

    def finish(self) -> None:
        """The response's body is complete."""

    def part(self) -> None:
        """The response is complete and sent, the worker is not done with it: let the client go if it is not to stay."""

    async def flush(self) -> None:
        """Send what was collected.

        Raises:
            ClientGone: nobody is there.
        """


async def relay(exchange: Exchange, hop: Hop) -> None:
    """Carry the whole of a claimed request both ways.

    Raises:
        RequestFailed: it came to no good end; the exchange tells whether a response was started.
    """
    response = _Response(exchange, hop)
    if exchange.body_complete:
        await response.receive()
        return
    body = _Body(exchange, hop)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(body.send)
        try:
            await response.receive()
        except RequestFailed as error:
            response.failure = error
        tasks.cancel_scope.cancel()
    if exchange.response_complete:
        return
    # A body that could not be had is the cause, what the application made of it the consequence.
    failure = body.failure or response.failure
    if failure is not None:
        raise failure


class _Body:
    """The request's body on its way to the worker."""

    def __init__(self, exchange: Exchange, hop: Hop) -> None:
        self._exchange = exchange
        self._hop = hop
        self.failure: RequestFailed | None = None

    async def send(self) -> None:
        try:
            await self._exchange.invite_body()
            await self._send_pieces()
        except RequestFailed as failure:
            self.failure = failure
            # The worker must not take what it has for the whole body; and the response to it is no longer wanted.
            self._hop.abandon()

    async def _send_pieces(self) -> None:
        while piece := await self._exchange.read_body():
            if not await self._hop.send_body(piece):
                return  # the worker wants no more: its response may be complete nevertheless
        await self._hop.send_body_end()


class _Response:
    """The worker's frames on their way to the client."""

    def __init__(self, exchange: Exchange, hop: Hop) -> None:
        self._exchange = exchange
        self._hop = hop
        self.failure: RequestFailed | None = None

    async def receive(self) -> None:
        """Pass on all that comes until END, or until the client has all that HTTP's framing promised.

        What was produced is flushed before a truncation is reported: the client may have it, it just must not look whole.
        """
        exchange = self._exchange
        try:
            while not self._pass_on():
                await exchange.flush()
                if exchange.response_complete:
                    if exchange.body_complete:
                        return  # nothing that the worker says now concerns the client, and END would be one wake-up more
                    exchange.part()
                if not await self._hop.read_more():
                    if exchange.response_complete:
                        return  # HTTP's framing decides what is complete, whatever the worker does then
                    raise self._ended_early("its process ended, or closed the connection")
            await exchange.flush()
        except Truncated:
            await exchange.flush()
            raise

    def _pass_on(self) -> bool:
        """Hand the frames that are there to the exchange. True at the end of the response."""
        while (item := self._hop.next_frame()) is not None:
            kind, payload = item
            if kind == _DATA:
                self._exchange.write(payload)
            elif kind == _HEAD:
                self._start(_wire.decode_head(payload))
            elif kind == _END:
                self._exchange.finish()
                return True
            elif kind == _FAIL:
                self._failed(_wire.decode_fail(payload))
                return True
            else:
                raise self._ended_early(f"an unexpected frame of kind {kind}")
        return False

    def _start(self, head: _wire.Head) -> None:
        self._exchange.start(head.status, head.reason, head.fields)

    def _failed(self, fail: _wire.Fail) -> None:
        if self._exchange.response_complete:
            return  # the application's later trouble is in the log
        if self._exchange.response_started:
            raise Truncated(fail.message)
        raise ApplicationFailed(fail.message)

    def _ended_early(self, reason: str) -> RequestFailed:
        return Truncated(reason) if self._exchange.response_started else ProcessLost(reason)
