"""When to start a process again after one has ended. Pure.

* A process that was well and dies is replaced at once: requests wait for the new one.
* One that dies again and again as soon as it is ready costs its machine much: a short pause comes before the next, and requests
  wait still, for a start that succeeded may be followed by another.
* One that fails to start will do so again at once: the pauses double, up to a cap, and vary a little, so that many groups do not
  try in step. While no process is ready, requests are answered 503 at once.
* Where no process ever became ready, a few failures are taken for a fault that will not mend itself. Those of processes that were
  started together have one cause, such as a database that is not up yet, and are one failure: each seat has its own count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

FIRST_TRIES = 3
"""So many failed starts of each of a group's processes before one was ever ready, and the gateway gives up (exit status 3)."""

YOUNG = 1.0
"""Seconds for which a process was ready: a death before is an early one."""

FORGIVEN = 5
"""Early deaths in a row that are followed by a start at once: they may be the doing of a few bad requests."""

FIRST_PAUSE, LONGEST_PAUSE, LONGEST_AFTER_READY = 0.25, 30.0, 2.0
"""Seconds."""


class Respawn:
    """What the ends of a group's processes say about the next start.

    Args:
        chance: gives a number from 0 to 1.

    Attributes:
        seats: how many processes the group has.
        failing: whether the last start failed, so that the next one is expected to.
        next_start: when the next process may be started, in seconds of the caller's clock.
    """

    def __init__(self, chance: Callable[[], float], seats: int = 1) -> None:
        self._chance = chance
        self.seats = seats
        self._was_ready = False
        self._tries: Counter[int] = Counter()
        self._failed_starts: Counter[int] = Counter()
        self._early_deaths = 0
        self.failing = False
        self.next_start = 0.0

    def ready(self) -> None:
        """A process has loaded the application: it can be done."""
        self._was_ready = True
        self._failed_starts.clear()
        self.failing = False

    def failed(self, now: float, seat: int = 0) -> None:
        """A process of a seat has ended that was never ready, or could not be started."""
        self._tries[seat] += 1
        self._failed_starts[seat] += 1
        self.failing = True
        self._pause(now, max(self._failed_starts.values()), LONGEST_PAUSE)

    def died(self, now: float, age: float) -> None:
        """A process has ended that nobody had told to, `age` seconds after it was ready."""
        self._early_deaths = self._early_deaths + 1 if age < YOUNG else 0
        if self._early_deaths > FORGIVEN:
            self._pause(now, self._early_deaths - FORGIVEN, LONGEST_AFTER_READY)

    def _pause(self, now: float, failures: int, longest: float) -> None:
        pause = min(longest, FIRST_PAUSE * 2.0 ** min(failures - 1, 16))
        self.next_start = now + pause * (0.75 + 0.25 * self._chance())

    def forgive(self) -> None:
        """The cause may be gone: the next start needs no pause."""
        self.next_start = 0.0
        self._failed_starts.clear()

    def is_hopeless(self) -> bool:
        """Whether to give up."""
        return not self._was_ready and all(self._tries[seat] >= FIRST_TRIES for seat in range(self.seats))
