"""When a process that is well has lived long enough: by its age, its CPU time, its memory. Pure.

maximum-requests and inactivity are counted in the process itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from gatekeep._host import Usage
from gatekeep.lifecycle._triggers import CPU_TIME_LIMIT, MEMORY_LIMIT, RESTART_INTERVAL, Trigger
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._spec import never_if_zero

SAMPLE_INTERVAL = 1.0
"""Seconds between looks at what a process uses."""

MEMORY_SAMPLES = 3
"""Looks in a row that must find it above memory-limit: a peak that passes is no leak (granian's `--rss-samples`)."""


@attrs.frozen
class Limits:
    """What a process may have, `math.inf` for as much as it likes.

    Attributes:
        interval: seconds that it serves.
        cpu_time: seconds of CPU.
        memory: bytes of resident memory.
    """

    interval: float = math.inf
    cpu_time: float = math.inf
    memory: float = math.inf

    def need_samples(self) -> bool:
        """Whether what it uses must be looked at."""
        return self.cpu_time < math.inf or self.memory < math.inf


def draw_limits(group: GroupSettings, chance: float) -> Limits:
    """What one process of a group may have.

    Args:
        chance: a number from 0 to 1: how much of the jitter it gets, so that processes of one age do not end together.
    """
    return Limits(
        interval=never_if_zero(group.restart_interval + group.restart_interval_jitter_or_default * chance),
        cpu_time=never_if_zero(group.cpu_time_limit),
        memory=never_if_zero(group.memory_limit),
    )


def draw_maximum(group: GroupSettings, chance: float) -> int:
    """After how many requests one process of a group is replaced; 0 for never. `chance` as above."""
    if not group.maximum_requests:
        return 0
    return group.maximum_requests + int(group.maximum_requests_jitter_or_default * chance)


class Recycle:
    """One process, from the moment when it is ready."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._ends = now + limits.interval
        self._next_sample = now if limits.need_samples() else math.inf
        self._above = 0
        self._is_due = False

    def tick(self, now: float, usage: Callable[[], Usage | None]) -> tuple[Trigger, str] | None:
        """What it has exceeded, and a sentence about it; once only.

        Args:
            usage: looks what it uses.
        """
        if self._is_due:
            return None
        found = None
        if now >= self._ends:
            found = RESTART_INTERVAL, f"it has served for {self._limits.interval:.3g} s"
        elif now >= self._next_sample:
            self._next_sample = now + SAMPLE_INTERVAL
            found = self._judge(usage())
        self._is_due = found is not None
        return found

    def _judge(self, used: Usage | None) -> tuple[Trigger, str] | None:
        if used is None:
            return None
        if used.cpu_time >= self._limits.cpu_time:
            return CPU_TIME_LIMIT, f"it has used {used.cpu_time:.3g} s of CPU time"
        self._above = self._above + 1 if used.memory > self._limits.memory else 0
        if self._above >= MEMORY_SAMPLES:
            return MEMORY_LIMIT, f"it has {used.memory} bytes in memory"
        return None

    def late(self, missed: float) -> None:
        """Whoever ticks was stopped itself for so many seconds: they do not count."""
        self._ends += missed

    def next_look(self) -> float:
        """When to tick again at the latest."""
        return math.inf if self._is_due else min(self._ends, self._next_sample)
