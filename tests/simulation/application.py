"""The simulated application, in a worker thread: it does with a request what the request's plan says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekeep._frames import Decoder, frame
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind

from .actors import NOW, Steps, Wait
from .sockets import SimSocket

if TYPE_CHECKING:
    from .daemons import SimDaemon
    from .plans import Plan


class _Lost(Exception):
    """The front's end of the hop is gone."""


class _BodyCut(Exception):
    """The request's body will never be complete."""


class Application:
    """One call of it."""

    def __init__(
        self, daemon: SimDaemon, plan: Plan, hop: SimSocket, envelope: _wire.Envelope, decoder: Decoder
    ) -> None:
        self._daemon = daemon
        self._world = daemon.world
        self._plan = plan
        self._hop = hop
        self._decoder = decoder
        self._envelope = envelope
        self._out = bytearray()
        self._body = bytearray()

    def run(self) -> Steps:
        """From the call to the last frame."""
        plan = self._plan
        plan.entered(self._daemon.pid)
        try:
            yield from self._pause(plan.run_time)
            yield from getattr(self, f"_{plan.app.replace(' ', '_')}")()
            yield from self._flush()
            plan.answered = True
            plan.ended_at = self._world.time.now
        except _BodyCut as error:
            plan.body_cut = True
            yield from self._fail(str(error))
        except _Lost:
            pass

    # --- what applications do

    def _plain(self) -> Steps:
        yield from self._head()
        if self._world.random.random() < 0.5 and not self._plan.pause:
            yield from self._frame(frame(Kind.LAST, self._plan.expected()))
        else:
            yield from self._pieces()
            yield from self._end()

    def _read(self) -> Steps:
        """Reads the body first."""
        while piece := (yield from self._read_piece()):
            self._body += piece
        self._took_whole_body()
        yield from self._plain()

    def _slow_read(self) -> Steps:
        """Reads the body first, and takes its time with it."""
        while piece := (yield from self._read_piece()):
            self._body += piece
            yield from self._pause(self._plan.pause)
        self._took_whole_body()
        yield from self._plain()

    def _echo(self) -> Steps:
        """Sends the body back as it comes."""
        yield from self._head()
        while piece := (yield from self._read_piece()):
            self._body += piece
            yield from self._data(piece)
            yield from self._flush()
        self._took_whole_body()
        yield from self._end()

    def _raise(self) -> Steps:
        yield from self._fail("RuntimeError: planned")

    def _raise_late(self) -> Steps:
        yield from self._head()
        yield from self._pieces()
        yield from self._fail("RuntimeError: planned, after the body")

    # --- the request's body

    def _read_piece(self):
        if not self._envelope.streamed:
            body, self._envelope.body = self._envelope.body, b""
            return body
        while True:
            while (item := self._decoder.next_frame()) is None:
                yield Wait(self._hop.readable, self._world.time.now + self._daemon.socket_timeout)
                self._receive()
            if item[0] == Kind.BODY_END:
                return b""
            assert item[0] == Kind.BODY
            if item[1]:
                return item[1]

    def _receive(self) -> None:
        try:
            data = self._hop.recv(self._world.random.choice((100, 65536)))
        except OSError as error:
            raise _BodyCut(f"the body ended early: {error}") from error
        if not data:
            raise _BodyCut("the body ended early")
        self._decoder.feed(data)

    def _took_whole_body(self) -> None:
        if self._body != self._plan.body:
            self._world.violation(f"{self._plan.path}: a cut body of {len(self._body)} bytes looked whole")

    # --- the response

    def _head(self) -> Steps:
        fields = [("X-Plan", self._plan.path)]
        if self._plan.declared:
            fields.append(("Content-Length", str(len(self._plan.expected()))))
        yield from self._frame(_wire.encode(_wire.Head(200, "OK", fields)))

    def _pieces(self) -> Steps:
        expected, start = self._plan.expected(), 0
        for size in self._plan.pieces:
            yield from self._data(expected[start : start + size])
            start += size
            yield from self._pause(self._plan.pause)

    def _data(self, data: bytes) -> Steps:
        yield from self._frame(frame(Kind.DATA, data))

    def _end(self) -> Steps:
        if self._world.strikes("before END"):
            yield from self._flush()
            yield from self._die()
        yield from self._frame(_wire.encode(_wire.End(self._world.time.now)))

    def _fail(self, message: str) -> Steps:
        try:
            yield from self._frame(_wire.encode(_wire.Fail(message, self._world.time.now)))
            yield from self._flush()
        except _Lost:
            pass

    def _frame(self, data: bytes) -> Steps:
        """Several frames may go out in one write, or each by itself."""
        self._out += data
        if self._world.random.random() < 0.5:
            yield from self._flush()

    def _flush(self) -> Steps:
        while self._out:
            patience = self._world.time.now + self._daemon.socket_timeout
            yield Wait(self._hop.blocks_no_more, patience)
            if self._world.strikes("mid data"):
                self._send(self._out[: self._world.random.randrange(len(self._out))])
                yield from self._die()
            sent = self._send(self._out)
            if not sent and self._world.time.now >= patience:
                raise _Lost
            del self._out[:sent]

    def _send(self, data: bytearray) -> int:
        try:
            return self._hop.send(bytes(data))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _Lost from error

    def _pause(self, seconds: float) -> Steps:
        if seconds:
            yield from self._flush()
            yield Wait(until=self._world.time.now + seconds)

    def _die(self) -> Steps:
        self._daemon.die("killed by SIGKILL")
        yield NOW  # and never comes back
