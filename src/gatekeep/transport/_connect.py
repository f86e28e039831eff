"""The admit and connect stages: into the group's backlog, in turn, within connect-timeout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import anyio

from gatekeep._alarms import Alarm
from gatekeep._channel import Channel
from gatekeep._errors import ConnectExpired, ConnectFailed, Overloaded
from gatekeep._group import Group
from gatekeep._host import OVERLOAD, Clock, HopNet
from gatekeep.transport._admission import NEWEST, Admission
from gatekeep.transport._backoff import connect_pauses

ROUNDING = 1e-6
"""Seconds; far more than sums of floats are wrong, far less than anybody waits."""


class Waiting(Protocol):
    """What is asked of a request that waits.

    Attributes:
        number: in the order of arrival.
        since: when it first asked for a worker, in seconds of the shared clock.
        alarm: bounds its waits.
    """

    number: int
    since: float
    alarm: Alarm

    def patience_ends(self) -> float:
        """When waiting has no sense any more, in seconds of the shared clock."""

    def check_patience(self, now: float) -> None:
        """Raise the reason if it has none."""


class Ticket:
    """A request's place among those that wait, and its schedule.

    Attributes:
        next_try: when it tries again by itself, whatever it hears.
    """

    def __init__(self, number: int, since: float, now: float, budget: float) -> None:
        self.number = number
        self.since = since
        self.next_try = now
        self.ends = now + budget
        self.turn = anyio.Event()
        self._pauses = connect_pauses(budget)
        self.tried(now)

    def tried(self, now: float) -> None:
        """A try at this time, or before, has failed: find the time of the next; `math.inf` when that was the last."""
        while self.next_try <= now:
            pause = next(self._pauses, math.inf)
            self.next_try += pause
            if abs(self.next_try - self.ends) < ROUNDING:
                self.next_try = self.ends  # the pauses add up to the budget, and so must the sum


class Entrance:
    """The way into one group's backlog.

    Args:
        few: requests for each process that may stand in the backlog while the wait is too long.
        most: requests that may wait for a place in it.
        timeout: connect-timeout in seconds.
        relieve: called when we are out of descriptors: closes what can be spared.
    """

    def __init__(
        self,
        net: HopNet,
        clock: Clock,
        group: Group,
        *,
        few: int,
        most: int,
        timeout: float,
        send_timeout: float,
        relieve: Callable[[], None],
    ) -> None:
        self.admission = Admission(few * group.processes, most)
        self._few = few
        self._net = net
        self._clock = clock
        self._group = group
        self._timeout = timeout
        self._send_timeout = send_timeout
        self._relieve = relieve
        group.on_failing, group.on_resized = self._tell_all, self._resized
        self._obstacle = ""  # what stood in the way last, where it was not the full backlog

    def is_full(self) -> bool:
        """Whether a request that came now would be turned away."""
        return self.admission.is_full() and not self.admission.may_pass(len(self._group.standing))

    def check_room(self) -> None:
        """Raise `Overloaded` if a request that came now would be turned away."""
        if self.is_full():
            raise Overloaded(f"{len(self.admission.waiting)} requests wait already")

    def enter_nowait(self, now: float, alarm: Alarm, number: int = NEWEST) -> Channel | None:
        """A connection for the request of that number, if there is one at once and it is nobody else's turn.

        Raises:
            ConnectFailed: the listener cannot be reached at all; trying again would not help.
        """
        if self.admission.waiting or self.admission.late or len(self._group.standing) > self.admission.few:
            self._judge(now)
            if not self.admission.may_pass(len(self._group.standing), number):
                return None
        return self._connect(alarm)

    async def enter_in_turn(self, request: Waiting, now: float) -> Channel:
        """A connection when it is the request's turn and the backlog has room; `now` is when it first tried.

        Whoever is next tries whenever a request leaves the backlog, and by the schedule of `_backoff` anyway.

        Raises:
            Overloaded: too many wait already.
            ConnectExpired: connect-timeout is over.
            ConnectFailed: as `enter_nowait`.
            RequestFailed: whatever `check_patience` raises.
        """
        if not self._timeout:
            raise self._expired()
        if self.admission.is_full():
            raise Overloaded(f"{len(self.admission.waiting)} requests wait already")
        ticket = Ticket(request.number, request.since, now, self._timeout)
        self.admission.enter(ticket)
        try:
            while True:
                channel = await self._wait_and_try(ticket, request)
                if channel is not None:
                    return channel
        finally:
            self.admission.leave(ticket)
            self.place_freed()

    async def _wait_and_try(self, ticket: Ticket, request: Waiting) -> Channel | None:
        is_next = self._next() is ticket
        request.alarm.ring = ticket.turn.set
        request.alarm.set(min(ticket.next_try if is_next else ticket.ends, request.patience_ends()))
        await ticket.turn.wait()
        ticket.turn = anyio.Event()
        now = self._clock.now()
        request.check_patience(now)
        self._judge(now, ticket)
        if self._next() is ticket:
            channel = self._connect(request.alarm)
            if channel is not None:
                return channel
        ticket.tried(now)
        if now >= ticket.ends:
            raise self._expired()
        return None

    def _expired(self) -> ConnectExpired:
        if self._obstacle:
            return ConnectExpired(f"no connection could be made for {self._timeout:g} s: {self._obstacle}")
        return ConnectExpired(
            f"the listen-backlog of group {self._group.name} stayed full for {self._timeout:g} s"
        )

    def place_freed(self) -> None:
        """A request has left the backlog, or the queue for it: whoever is next may try."""
        ticket = self._next()
        if ticket is not None:
            ticket.turn.set()

    def _resized(self) -> None:
        self.admission.few = self._few * self._group.processes
        self.place_freed()

    def _tell_all(self) -> None:
        """Those who wait shall look again whether that has any sense."""
        for ticket in self.admission.waiting:
            ticket.turn.set()  # type: ignore[attr-defined]

    def client_left(self) -> None:
        """A client left while its request waited."""
        was_late = self.admission.late
        self.admission.client_left(len(self._group.standing))
        if self.admission.late and not was_late:
            self._take_back()

    def _next(self) -> Ticket | None:
        return self.admission.next(len(self._group.standing))  # type: ignore[return-value]

    def _judge(self, now: float, asking: Ticket | None = None) -> None:
        """Is the wait too long? If that is news, most of what stands in the backlog is taken back."""
        group, admission = self._group, self.admission
        if not group.is_ready():
            return  # a process starts: there is no order in which anybody would be served
        was_late = admission.late
        admission.judge(now, len(group.standing), group.oldest_offer(now))
        if admission.late and not was_late:
            self._take_back()
            ticket = self._next()  # it may be another's turn now
            if ticket is not None and ticket is not asking:
                ticket.turn.set()

    def _take_back(self) -> None:
        """The kernel's queue cannot be reordered: most of what stands there, and no worker has read, waits with the others."""
        for hop in tuple(self._group.standing)[self.admission.few :]:
            hop.give_up_unread()

    def _connect(self, alarm: Alarm) -> Channel | None:
        try:
            socket = self._net.connect(self._group.address)
            try:
                return Channel(self._net, socket, alarm, self._send_timeout)
            except OSError:  # the event loop's resources are limited, too
                socket.close()
                raise
        except (BlockingIOError, ConnectionRefusedError):
            # EAGAIN is the full backlog of a non-blocking connect; mod_wsgi retries a refusal likewise. (anyio's `connect_unix`
            # hides it: trio returns a stream that breaks later, asyncio and uvloop hang until the deadline.)
            self._obstacle = ""
            return None
        except OSError as error:
            if error.errno in OVERLOAD:
                self._obstacle = str(error)
                self._relieve()
                return None
            place = self._net.describe(self._group.address)
            raise ConnectFailed(f"cannot connect to {place}: {error}") from error
