"""Who is next where more requests want a worker than the group's backlog takes. Pure.

The rules:

* First come, first served, while the wait is bearable.
* Newest first while it is not: the oldest waits longer than `LATE`, or a client has left while it waited, which is what too long
  means. Under overload in order of arrival every request is served just when its client gives up; newest first, most of those
  that are served are still wanted. (Facebook's adaptive LIFO, "Fail at Scale", ACM Queue 2015.)
* The kernel's backlog is a queue too, and first in, first out: ten threads of one second behind a backlog of 101 hold ten seconds
  of stale work. So while it is late only a `few` requests may stand there, and what stands there beyond is taken back.
* It is late until nobody waits: half-way back the queue would be as old as before.
* No more than `most` wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Protocol

LATE = 1.0
"""Seconds of waiting that are too long where nobody has left yet; people notice a delay of one second (Nielsen, 1993)."""


NEWEST = 1 << 64
"""Larger than the number of any request."""


class Ticket(Protocol):
    """A request that waits.

    Attributes:
        number: in the order of arrival.
        since: when it began to wait, in seconds.
    """

    number: int
    since: float


class Admission:
    """The requests that wait for a place in the backlog of one group.

    Attributes:
        waiting: those requests, oldest first.
        late: whether the newest is next.
    """

    def __init__(self, few: int, most: int) -> None:
        self.few = few
        self.late = False
        self._most = most
        self.waiting: list[Ticket] = []

    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return len(self.waiting) >= self._most

    def oldest(self) -> Ticket | None:
        """Who has waited longest."""
        return self.waiting[0] if self.waiting else None

    def enter(self, ticket: Ticket) -> None:
        """The request waits from now on, in its place by age: one that was offered before may be older than others."""
        insort(self.waiting, ticket, key=_number)

    def leave(self, ticket: Ticket) -> None:
        """It waits no more."""
        index = bisect_left(self.waiting, ticket.number, key=_number)
        assert self.waiting[index] is ticket
        del self.waiting[index]

    def client_left(self, standing: int) -> None:
        """A client left before a worker had its request: it waited too long."""
        self.late = bool(self.waiting) or standing > self.few

    def judge(self, now: float, standing: int, oldest_offer: float) -> None:
        """Find out whether it is late.

        Args:
            standing: requests that stand in the backlog.
            oldest_offer: since when the oldest of them stands there; `now` where there is none.
        """
        if not self.waiting and standing <= self.few:
            self.late = False
        elif now - min(oldest_offer, self.waiting[0].since if self.waiting else now) > LATE:
            self.late = True

    def may_pass(self, standing: int, number: int = NEWEST) -> bool:
        """Whether a request may try at once: ahead of the others when it is late, else only where nobody waits who is older.

        One that was offered before is older than newcomers that wait: it must not take the turn of the one that was woken.
        """
        if self.late:
            return standing < self.few
        return not self.waiting or number < self.waiting[0].number

    def next(self, standing: int) -> Ticket | None:
        """Whose turn it is to try; None where nobody waits or the backlog holds enough."""
        if not self.waiting or (self.late and standing >= self.few):
            return None
        return self.waiting[-1] if self.late else self.waiting[0]


def _number(ticket: Ticket) -> int:
    return ticket.number
