"""Simulated clients: each a generator on one connection, well behaved or not. What they read is parsed by h11, not by us."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import h11

from gatekeep._host import SHUT_WR

from .actors import Steps, Wait
from .plans import Plan, Seen
from .sockets import SimSocket, port_of

if TYPE_CHECKING:
    from .world import World

MANNERS = ("resets", "leaves", "half-closes", "trickles", "stops reading")
"""What a client may do beside asking and listening; each is also the name of a fault."""

IMPATIENCE = 1.0
"""Seconds after which a client sends a body that it was not invited to send (RFC 9110 §10.1.1)."""


class Client:
    """One connection and the requests on it, one after the other, or all at once.

    Attributes:
        plans: those requests.
        over: whether it has gone.
    """

    def __init__(
        self, world: World, plans: Sequence[Plan], *, start: float = 0.0, pipelined: bool = False
    ) -> None:
        self._world = world
        self.plans = plans
        self._start = start
        self._pipelined = pipelined
        self._manners = {manner for manner in MANNERS if world.strikes(manner)}
        self._leave_at = inf
        self._read_from = 0.0
        self._sent = self._read = self._head_size = 0
        self._countdown = world.random.choice((1, 2, world.random.randrange(3, 12)))
        self._out = bytearray()
        self._withheld = b""
        self._kept = b""
        self._was_reset = False
        self.over = False
        if self._manners & {"resets", "leaves", "stops reading"}:
            for plan in plans:
                plan.well_behaved = False
        self.name = f"c{plans[0].path}"
        world.add(self.name, self._live())

    def _live(self) -> Steps:
        try:
            yield Wait(until=self._start)
            yield from self._visit()
        finally:
            self.over = True

    def _visit(self) -> Steps:
        try:
            sock = self._world.net.doors[0].connect(self.name)
        except OSError:
            return
        self._world.plans_of_port[port_of(sock)] = self.plans
        for plan in self.plans:
            plan.connected = self._world.time.now
        yield from self._use(sock)
        if not sock.closed:
            sock.close()

    def _use(self, sock: SimSocket) -> Steps:
        if self._pipelined:
            for plan in self.plans:
                self._out += b"".join(plan.request())
                plan.sent = True
        for plan in self.plans:
            if not self._pipelined:
                self._ask(plan)
            parser = _Parser(plan, self._kept)
            yield from self._exchange(sock, parser, plan)
            if not plan.seen.whole:
                return
            if not parser.keeps_open:
                yield from self._await_end(sock, parser)
                return
            self._kept = parser.rest()
            idle = plan.habits.idle
            if idle is None:
                idle = self._world.random.choice((0.0, 0.0, 0.5))
            yield Wait(until=self._world.time.now + idle)

    def _ask(self, plan: Plan) -> None:
        head, body = plan.request()
        plan.sent = True
        self._sent, self._head_size = 0, len(head)
        self._leave_at = self._world.time.now + plan.habits.patience
        self._out += head
        if plan.expect:
            self._withheld = body
        else:
            self._out += body

    # --- one exchange

    def _exchange(self, sock: SimSocket, parser: _Parser, plan: Plan) -> Steps:
        """Send and receive, in any order, until the response is whole or will never be."""
        time = self._world.time
        impatient = time.now + IMPATIENCE if self._withheld else inf
        next_send = 0.0
        readable, writable = sock.end.readable, sock.end.writable
        while not (plan.seen.whole or plan.seen.end):
            if parser.invited or time.now >= impatient:
                self._out += self._withheld
                self._withheld, impatient = b"", inf
            due = next_send

            def can_send(due: float = due) -> bool:
                return bool(self._out) and time.now >= due and writable()

            def can_read() -> bool:
                return time.now >= self._read_from and readable()

            def can_act(due: float = due) -> bool:  # either of them, in one call: it is asked most often
                now = time.now
                return (now >= self._read_from and readable()) or (
                    now >= due and bool(self._out) and writable()
                )

            later = due if self._out and due > time.now else inf
            reading = self._read_from if self._read_from > time.now else inf
            yield Wait(can_act, min(later, reading, impatient, self._leave_at))
            yield from self._misbehave(sock, plan)
            if time.now >= self._leave_at:
                self._lose_patience(sock, plan)
            if sock.closed:
                return
            if can_send() and (not can_read() or self._world.random.random() < 0.5):
                next_send = self._send(sock, plan)
            elif can_read():
                self._receive(sock, parser)
            if plan.seen.whole:
                plan.whole_at = time.now
        if self._withheld:
            parser.keeps_open = False  # it was answered uninvited: the rest is never sent

    def _lose_patience(self, sock: SimSocket, plan: Plan) -> None:
        self._leave_at = inf
        way = plan.habits.way
        self._world.fired[f"impatient: {way}"] += 1
        if way == "half-closes":
            self._out.clear()
            self._half_close(sock, plan)
            return
        plan.well_behaved = False
        plan.seen.end = "left"
        self._goes(with_reset=way == "resets")
        if way == "resets":
            sock.abort()
        else:
            sock.close()

    def _goes(self, *, with_reset: bool) -> None:
        for plan in self.plans:
            if not plan.seen.whole:
                plan.left = self._world.time.now
                plan.reset_at = plan.left if with_reset else inf

    def _pace(self, plan: Plan) -> tuple[int, float]:
        """How much of the request is sent now, and how long it takes until more is."""
        habits, sent = plan.habits, self._sent
        in_head = sent < self._head_size
        pace = habits.head_pace if in_head else habits.body_pace
        size, pause = pace or (65536, 0.0)
        if habits.head_pace and in_head:
            size = min(size, self._head_size - sent)
        elif habits.body_pace and in_head:
            size = self._head_size - sent
        for limit in (habits.silence and habits.silence[0], habits.ends_at):
            if limit is not None and sent < limit:
                size = min(size, limit - sent)
        return size, pause

    def _send(self, sock: SimSocket, plan: Plan) -> float:
        """Send a piece; the time of the next."""
        size, pause = (65536, 0.0) if self._pipelined else self._pace(plan)
        if "trickles" in self._manners:
            random = self._world.random
            size, pause = random.randrange(1, random.choice((20, 400))), random.choice((0.0, 0.0, 0.01))
        try:
            count = sock.send(bytes(self._out[:size]))
            del self._out[:count]
            self._sent += count
            plan.went.append((self._world.time.now, count))
        except BlockingIOError:
            pass
        except OSError as error:
            self._out.clear()  # what was answered is still read
            self._was_reset |= error.errno == errno.ECONNRESET
            return 0.0
        habits = plan.habits
        if self._sent == habits.ends_at:
            self._world.fired["ends inside its request"] += 1
            self._out.clear()
            self._withheld = b""
            self._half_close(sock, plan)
        elif not self._out and not self._withheld and "half-closes" in self._manners and self._is_last():
            self._half_close(sock, plan)
        if habits.silence and self._sent == habits.silence[0]:
            pause = habits.silence[1]
        return self._world.time.now + pause

    def _half_close(self, sock: SimSocket, plan: Plan) -> None:
        plan.half_closed = min(plan.half_closed, self._world.time.now)
        if self._pipelined:
            for other in self.plans:
                other.half_closed = plan.half_closed
        try:
            sock.shutdown(SHUT_WR)
        except OSError:
            pass  # it was reset meanwhile

    def _is_last(self) -> bool:
        return self._pipelined or self.plans[-1].sent

    def _receive(self, sock: SimSocket, parser: _Parser) -> None:
        habits, now = parser.plan.habits, self._world.time.now
        size, pause = habits.read_pace or (self._world.random.choice((500, 65536)), 0.0)
        if habits.deaf and self._read < habits.deaf[0]:
            size = min(size, habits.deaf[0] - self._read)
        try:
            data = sock.recv(size)
        except BlockingIOError:
            pass
        except OSError:
            parser.seen.end = "reset"
        else:
            self._read += len(data)
            parser.plan.read_at = now
            if habits.deaf and self._read == habits.deaf[0]:
                pause = habits.deaf[1]
                self._world.fired["deaf"] += 1
            parser.feed(data)
            if not data and self._was_reset:
                parser.seen.whole, parser.seen.end = False, "reset"
        self._read_from = now + pause

    def _misbehave(self, sock: SimSocket, plan: Plan) -> Steps:
        self._countdown -= 1
        if self._countdown:
            return
        world = self._world
        if "stops reading" in self._manners:
            for one in self.plans:
                one.paused = True
            yield Wait(until=world.time.now + world.random.uniform(0, 20))
        if "resets" in self._manners:
            self._goes(with_reset=True)
            plan.seen.end = "left"
            sock.abort()
        elif "leaves" in self._manners:
            self._goes(with_reset=False)
            plan.seen.end = "left"
            sock.close()

    def _await_end(self, sock: SimSocket, parser: _Parser) -> Steps:
        """The response said that the connection ends with it: nothing may follow."""
        if self._out or self._withheld or self._world.random.random() < 0.5:
            return
        rest = parser.rest()
        while True:
            yield Wait(sock.readable)
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                break
            if not data:
                break
            rest += data
        if rest:
            self._world.violation(f"{self.name}: bytes after the last response: {rest[:80]!r}")


class _Parser:
    """Reads one response as any client would: h11 decides when it is whole."""

    def __init__(self, plan: Plan, kept: bytes) -> None:
        self.plan = plan
        self.seen = plan.seen
        self.keeps_open = False
        self.invited = False
        self._connection = h11.Connection(h11.CLIENT)
        self._connection.send(h11.Request(method=plan.method, target="/", headers=[("Host", "x")]))
        self._connection.send(h11.EndOfMessage())
        self._body: list[bytes] = []
        self._told_end = False
        if kept:
            self.feed(kept)

    def feed(self, data: bytes) -> None:
        """What came; nothing at the end of the stream."""
        self._told_end = not data
        self._connection.receive_data(data)
        try:
            while not self.seen.whole and self._take(self._connection.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self.seen.end = "eof" if self._told_end else f"nonsense: {error}"
        self.seen.body = b"".join(self._body)

    def _take(self, event: object) -> bool:
        if isinstance(event, h11.InformationalResponse):
            self.invited = True
        elif isinstance(event, h11.Response):
            self.seen.status = event.status_code
            self.seen.retry_after = dict(event.headers).get(b"retry-after", b"").decode()
        elif isinstance(event, h11.Data):
            self._body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self.seen.whole = True
            self.keeps_open = self._connection.their_state is h11.DONE
        elif isinstance(event, h11.ConnectionClosed):
            self.seen.end = "eof"
            return False
        else:
            return False
        return True

    def rest(self) -> bytes:
        """What came after the response."""
        return bytes(self._connection.trailing_data[0])


__all__ = ["MANNERS", "Client", "Seen"]
