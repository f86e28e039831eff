"""One daemon process's life with its deadlines: what to tell it, and when. The one drain routine, for all triggers. Pure.

    drain     planned: nothing yet, the window opens when its replacement is ready. Else the window opens now.
    succeed   accept no more; what runs has the rest of the window
    window over, or shut down: what still runs has shutdown-timeout; then it is killed

A process whose window is open and that is not needed leaves as soon as it is idle ("it is just hoping to reach an idle state").
Each deadline is set once: more triggers, or a second replacement, change nothing.
"""

from __future__ import annotations

import math
from enum import Enum, auto

import attrs

from gatekeep.lifecycle._process_state import ProcessEvent, ProcessState, after
from gatekeep.lifecycle._triggers import SHUTDOWN, Trigger
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._spec import never_if_zero

LAST_WORDS = 1.0
"""Seconds beyond shutdown-timeout for `atexit` functions of a process whose requests do not end."""


class Order(Enum):
    """What a process is told, or what is done to it."""

    HOPE = auto()
    """Leave as soon as you are idle; accept on meanwhile."""
    FINISH = auto()
    """Accept no more, and leave when nothing runs."""
    STOP = auto()
    """The same, and leave after shutdown-timeout whatever runs."""
    RESTART = auto()
    """Its start takes too long: look where it stands, and kill it."""
    KILL = auto()
    """End it by force."""


@attrs.frozen
class Timers:
    """Seconds, `math.inf` for never.

    Attributes:
        startup: from exec to ready.
        graceful, eviction: the windows.
        shutdown: what a process has that must end.
    """

    startup: float
    graceful: float
    eviction: float
    shutdown: float

    def window(self, trigger: Trigger) -> float:
        """How long what runs may take, before shutdown-timeout begins."""
        if trigger is SHUTDOWN:
            return 0.0
        return self.eviction if trigger.evicts else self.graceful


def timers_of(group: GroupSettings) -> Timers:
    """A group's timers; eviction-timeout falls back to graceful-timeout."""
    return Timers(
        startup=never_if_zero(group.startup_timeout),
        graceful=group.graceful_timeout,
        eviction=group.eviction_timeout_or_default,
        shutdown=group.shutdown_timeout,
    )


class Life:
    """The state of one process and its deadlines.

    Attributes:
        trigger: what first asked for its end; None while nothing has.
    """

    def __init__(self, timers: Timers, now: float) -> None:
        self.state = ProcessState.STARTING
        self.trigger: Trigger | None = None
        self._timers = timers
        self._deadline = now + timers.startup
        self._is_window_open = False
        self._hopes = False

    @property
    def stays(self) -> bool:
        """Whether it takes requests until its replacement is ready, so that others need not."""
        return self.state is ProcessState.SERVING or (self.state is ProcessState.DRAINING and not self._hopes)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state is ProcessState.EXITED

    @property
    def gets_successor(self) -> bool:
        """Whether its place is to be filled again."""
        return self.trigger is None or self.trigger.succeeded

    def ready(self) -> None:
        """It has loaded the application."""
        self._happened(ProcessEvent.READY)
        if self.state is ProcessState.SERVING:
            self._deadline = math.inf

    def drain(self, trigger: Trigger, now: float, *, is_needed: bool) -> list[Order]:
        """Something asks for its end.

        Args:
            is_needed: whether no other one stays: it stays, idle or not, until its replacement is ready.
        """
        if self.state is ProcessState.STARTING or trigger is SHUTDOWN:
            self.trigger = self.trigger or trigger
            return self.stop(now)
        before = self.state
        self._happened(ProcessEvent.DRAIN)
        if self.state is not ProcessState.DRAINING:
            return []
        if before is ProcessState.DRAINING and not trigger.succeeded:
            return []  # that it is idle is no reason to go before its replacement is there
        if self.trigger is None or (self.trigger.planned and not trigger.planned):
            self.trigger = trigger
        if trigger.at_once:
            return self.succeed(now)
        if trigger.planned or self._is_window_open:
            return []
        self._open_window(now)
        self._hopes = not is_needed
        return self._if_not_over(now, [Order.HOPE] if self._hopes else [])

    def succeed(self, now: float) -> list[Order]:
        """Its replacement is ready, or there is none."""
        before = self.state
        self._happened(ProcessEvent.SUCCEED)
        if self.state is before:
            return []
        self._open_window(now)
        return self._if_not_over(now, [Order.FINISH])

    def stop(self, now: float) -> list[Order]:
        """It must end."""
        before = self.state
        self._happened(ProcessEvent.STOP)
        if self.state is before:
            return []
        self._deadline = now + self._timers.shutdown + LAST_WORDS
        return [Order.STOP]

    def exited(self) -> None:
        """It has ended."""
        self._happened(ProcessEvent.EXIT)
        self._deadline = math.inf

    def late(self, missed: float) -> None:
        """Whoever ticks was stopped itself for so many seconds: they do not count."""
        self._deadline += missed

    def tick(self, now: float) -> list[Order]:
        """What its deadlines ask for."""
        if now < self._deadline:
            return []
        if self.state is ProcessState.STARTING:
            self._deadline = math.inf
            return [Order.RESTART]
        if self.state is ProcessState.STOPPING:
            self._deadline = math.inf
            return [Order.KILL]
        return self.stop(now)

    def next_look(self) -> float:
        """When to tick again at the latest; `math.inf` where only an event brings news."""
        return self._deadline

    def _open_window(self, now: float) -> None:
        if not self._is_window_open and self.trigger is not None:
            self._is_window_open = True
            self._deadline = now + self._timers.window(self.trigger)

    def _if_not_over(self, now: float, orders: list[Order]) -> list[Order]:
        return orders if now < self._deadline else self.stop(now)

    def _happened(self, event: ProcessEvent) -> None:
        self.state = after(self.state, event)
