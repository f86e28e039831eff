"""One daemon process, as the supervisor knows it: what is known of it, and the conversation over its two sockets."""

from __future__ import annotations

from typing import Any, Protocol

import anyio
import msgspec

from gatekeep._channel import Channel
from gatekeep._frames import Decoder, FrameError
from gatekeep._host import Net, Process
from gatekeep.lifecycle import _control
from gatekeep.lifecycle._control import Kind
from gatekeep.lifecycle._drain import Life, Order
from gatekeep.lifecycle._liveness import Liveness, State as LivenessState
from gatekeep.lifecycle._postmortem import Question
from gatekeep.lifecycle._process_state import ProcessState, ProcessStateError
from gatekeep.lifecycle._recycle import Recycle
from gatekeep.lifecycle._slots import Row

LOG_PACKET = 1 << 18
"""Bytes that hold any packet of the log socket."""

UNREADABLE = (FrameError, ProcessStateError, msgspec.MsgspecError, ValueError, KeyError, RecursionError)
"""What bytes that are no message of ours end in."""


class Ears(Protocol):
    """Who is told what a process says."""

    def said_ready(self, child: Child, ready: _control.Ready) -> None:
        """It takes requests."""

    def said_wish(self, child: Child, wish: _control.Wish) -> None:
        """It wants to be replaced, or to end."""

    def said_log(self, child: Child, record: _control.LogRecord) -> None:
        """It logs."""

    def beat(self, child: Child) -> None:
        """It gave a sign of life."""

    def misspoke(self, child: Child, error: Exception) -> None:
        """What it said makes no sense."""


class Child:
    """One daemon process.

    Attributes:
        seat: its place in the group, which its successor will have.
        life, liveness, recycle: what is decided about it; `recycle` is None until it is ready.
        settled: set when it is ready, or over.
        vacates: set when its successor may be started.
        failure: why it could not load the application.
        ready_at: since when it takes requests; None if it never did.
        generation: of the reload that it was started after.
        why: what asks for its end, once something does.
    """

    def __init__(
        self, process: Process, seat: int, row: Row, life: Life, liveness: Liveness, now: float
    ) -> None:
        self.process = process
        self.seat = seat
        self.row = row
        self.life = life
        self.liveness = liveness
        self.recycle: Recycle | None = None
        self.started = now
        self.ready_at: float | None = None
        self.generation = 0
        self.why = _control.GATEWAY_STOPS
        self.settled, self.vacates = anyio.Event(), anyio.Event()
        self.failure: _control.Failed | None = None
        self.questions: list[Question] = []
        self.dumping = anyio.Lock()
        self._decoder = Decoder()

    @property
    def pid(self) -> int:
        """The process's."""
        return self.process.pid

    @property
    def is_serving(self) -> bool:
        """Whether it takes requests, and nothing asks for its end."""
        return self.life.state is ProcessState.SERVING

    def describe_state(self) -> str:
        """For people."""
        if self.life.state is ProcessState.SERVING:
            return "ready" if self.liveness.state is LivenessState.ALIVE else "suspect"
        return self.life.state.name.lower()

    def late(self, missed: float, now: float) -> None:
        """The gateway itself was stopped for so many seconds: they do not count."""
        self.life.late(missed)
        self.liveness.late(now)
        if self.recycle is not None:
            self.recycle.late(missed)

    # --- speaking

    def order(self, order: Order) -> None:
        """Tell it; one that has not loaded its application would hear nothing, and gets a signal."""
        if self.ready_at is None:
            self.process.terminate()
        self.send(_control.order_frame(order, self.why))

    def send(self, data: bytes) -> None:
        """Send it a message, if it reads any."""
        try:
            self.process.control.send(data)
        except OSError:
            pass  # it is ending by itself, or reads nothing

    async def ask(self) -> _control.Stacks | None:
        """What its threads do; None when it does not answer."""
        question = Question(lambda: self.send(_control.ASK))
        self.questions.append(question)
        try:
            return await question.wait()
        finally:
            self.questions.remove(question)

    # --- hearing

    async def listen(self, net: Net, ears: Ears, settings: _control.DaemonSettings) -> None:
        """Send the settings, and hear until it says no more."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen_log, net, ears)
            channel = Channel(net, self.process.control)
            try:
                await channel.send(_control.encode(settings))
                while data := await channel.receive():
                    self._hear(data, ears)
            except OSError:
                pass  # its end comes from the system
            finally:
                channel.forget()

    async def _listen_log(self, net: Net, ears: Ears) -> None:
        channel = Channel(net, self.process.log)
        try:
            while packet := await channel.receive(LOG_PACKET):
                self._hear_log(packet, ears)
        except OSError:
            pass
        finally:
            channel.forget()

    def read_control(self, ears: Ears) -> None:
        """Hear what it has said already."""
        for data in _queued(self.process.control):
            self._hear(data, ears)

    def read_rest(self, ears: Ears) -> None:
        """Hear what it said last, and that we had not come to read."""
        for packet in _queued(self.process.log):
            self._hear_log(packet, ears)
        self.read_control(ears)

    def _hear(self, data: bytes, ears: Ears) -> None:
        self._decoder.feed(data)
        try:
            for kind, payload in self._decoder.frames():
                self._heard(kind, payload, ears)
        except UNREADABLE as error:
            ears.misspoke(self, error)

    def _heard(self, kind: int, payload: bytes, ears: Ears) -> None:
        if kind == Kind.BEAT:
            ears.beat(self)
        elif kind == Kind.READY:
            ears.said_ready(self, _control.decode_ready(payload))
        elif kind == Kind.WISH:
            ears.said_wish(self, _control.decode_wish(payload))
        elif kind == Kind.FAILED:
            self.failure = _control.decode_failed(payload)
        elif kind == Kind.STACKS:
            answer = _control.decode_stacks(payload)
            for question in self.questions:
                question.answered(answer)

    def _hear_log(self, packet: bytes, ears: Ears) -> None:
        try:
            record = _control.decode_log(packet)
        except UNREADABLE as error:
            ears.misspoke(self, error)
        else:
            ears.said_log(self, record)


def _queued(socket: Any) -> list[bytes]:
    """What can still be read without waiting."""
    found = []
    try:
        while data := socket.recv(LOG_PACKET):
            found.append(data)
    except OSError:
        pass
    return found
