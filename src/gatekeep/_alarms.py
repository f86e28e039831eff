"""Deadlines of connections, cheap enough to be moved several times a request.

To move a cancel scope's deadline costs a timer of the event loop each time, and a scope that fired stays cancelled. Here a
deadline is an attribute: only one that is earlier than what is scheduled touches the heap, and one that was moved back is found
out when its old time comes. An alarm that rings makes the wait that it belongs to fail like a socket (`_channel.WaitExpired`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import anyio

from gatekeep._host import Clock

_COMPACT_ABOVE = 64
"""Dead entries that are worth no thought."""


class Alarm:
    """One deadline that is moved again and again: a connection has one for its client and one for its hop.

    Attributes:
        at: when it rings, in seconds of the host's clock; `math.inf` for never.
        rang: whether it has rung since it was last set.
        ring: called when it rings.
    """

    __slots__ = ("_alarms", "_entry", "at", "due", "rang", "ring")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._entry: list[object] | None = None
        self.at = self.due = math.inf
        self.rang = False
        self.ring: Callable[[], None] = _nothing

    def set(self, at: float) -> None:
        """Ring at this time, and at no other."""
        self.at = at
        self.rang = False
        if at < self.due:
            self._alarms.schedule(self, at)

    def off(self) -> None:
        """Ring no more."""
        self.at = math.inf
        self.rang = False

    def ring_now(self) -> None:
        """Ring, whatever the time."""
        self.at = math.inf
        self.rang = True
        self.ring()

    def close(self) -> None:
        """Never ring again, and hold on to nothing."""
        self.off()
        self.ring = _nothing
        self._alarms.forget(self)


def _nothing() -> None:
    """What an alarm does that belongs to nobody."""


class Alarms:
    """All alarms of a gateway, earliest first. `run` rings them."""

    def __init__(self) -> None:
        self._heap: list[list[object]] = []
        self._made = 0
        self._dead = 0
        self._earlier: anyio.Event | None = None

    def schedule(self, alarm: Alarm, at: float) -> None:
        """See to it that the alarm is looked at when `at` comes."""
        self.forget(alarm)
        self._made += 1  # no two entries are ever equal, so alarms are never compared
        alarm._entry = [at, self._made, alarm]
        alarm.due = at
        heapq.heappush(self._heap, alarm._entry)
        if self._earlier is not None and self._heap[0] is alarm._entry:
            self._earlier.set()

    def forget(self, alarm: Alarm) -> None:
        """The alarm's entry is void."""
        if alarm._entry is not None:
            alarm._entry[2] = None
            alarm._entry, alarm.due = None, math.inf
            self._dead += 1
            if self._dead > _COMPACT_ABOVE and self._dead * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2] is not None]
                heapq.heapify(self._heap)
                self._dead = 0

    def next_look(self) -> float:
        """When to call `ring_due` next."""
        return self._heap[0][0] if self._heap else math.inf  # type: ignore[return-value]

    def ring_due(self, now: float) -> None:
        """Ring what is due; what was moved back is looked at again at its new time."""
        while self._heap and self._heap[0][0] <= now:  # type: ignore[operator]
            alarm = heapq.heappop(self._heap)[2]
            if not isinstance(alarm, Alarm):
                self._dead -= 1
                continue
            alarm._entry, alarm.due = None, math.inf
            if alarm.at <= now:
                alarm.ring_now()
            elif alarm.at < math.inf:
                self.schedule(alarm, alarm.at)

    async def run(self, clock: Clock) -> None:
        """Ring alarms as their times come. Never returns."""
        while True:
            self._earlier = anyio.Event()
            with anyio.move_on_after(self.next_look() - clock.now()):
                await self._earlier.wait()
            self.ring_due(clock.now())
