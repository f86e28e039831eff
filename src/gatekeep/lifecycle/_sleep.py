"""Seats that stay empty because nobody wanted their processes, and when they are filled again.

"The intent is to reclaim memory from infrequently-used daemon process groups."
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from gatekeep._group import Group
from gatekeep._host import Clock
from gatekeep.lifecycle._child import Child

CROWDED = 0.1
"""Seconds that a request may wait for a worker, though there is a process, before another one that sleeps is woken for it."""


class Sleep:
    """The empty seats of one group, by the processes that had them.

    Args:
        is_starting: whether some process is on its way, so that no other need be woken.
    """

    def __init__(self, group: Group, clock: Clock, is_starting: Callable[[], bool]) -> None:
        self._group = group
        self._clock = clock
        self._is_starting = is_starting
        self._sleepers: list[Child] = []
        self._is_waking = self._is_watching = False
        self._ready_at = -math.inf

    def lie_down(self, child: Child, tasks: TaskGroup) -> int:
        """The process goes, and its seat stays empty until a request wants it. Returns how many are empty.

        Args:
            tasks: lives for as long as the group.
        """
        self._sleepers.append(child)
        self._group.wake = lambda: self._wake(tasks)
        if self._group.standing:
            self._wake(tasks)  # it was offered when this process was still there to take it
        return len(self._sleepers)

    def holds(self, child: Child) -> bool:
        """Whether its seat is to stay empty."""
        return child in self._sleepers

    def dismiss(self, seats: int) -> None:
        """The group has only so many seats from now on."""
        for child in [child for child in self._sleepers if child.seat >= seats]:
            self._sleepers.remove(child)
            child.vacates.set()
        if not self._sleepers:
            self._group.wake = None

    def started(self) -> None:
        """The process that was woken is on its way, or could not be started."""
        self._is_waking = False

    def ready(self) -> None:
        """A process takes requests from now on: for how long they have waited for it is no sign that there are many."""
        self._ready_at = self._clock.now()

    def end(self) -> None:
        """The group stops: nobody sleeps on."""
        for child in self._sleepers:
            child.vacates.set()
        self._sleepers.clear()
        self._group.wake = None

    def _wake(self, tasks: TaskGroup) -> None:
        """A request was offered, or waits: one seat is filled if no process is ready, or the wait is long."""
        now = self._clock.now()
        is_crowded = now - max(self._group.oldest_offer(now), self._ready_at) > CROWDED
        if (self._group.is_ready() and not is_crowded) or self._is_waking or self._is_starting():
            if not self._is_watching:
                self._is_watching = True
                tasks.start_soon(self._look_again, tasks)
            return
        self._is_waking = True
        self._wake_one()

    def rouse(self) -> None:
        """One is needed, if none is on its way."""
        if self._sleepers and not self._is_waking and not self._is_starting():
            self._is_waking = True
            self._wake_one()

    def _wake_one(self) -> None:
        self._sleepers.pop().vacates.set()
        if not self._sleepers:
            self._group.wake = None

    async def _look_again(self, tasks: TaskGroup) -> None:
        """It is served in a moment, usually."""
        await anyio.sleep(CROWDED)
        self._is_watching = False
        if self._sleepers and self._group.standing:
            self._wake(tasks)
