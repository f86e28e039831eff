"""Looks after a group's processes from outside: signs of life, deadlines, what they use.

The clocks are fair: whatever a process has said is read before it is judged, and when the gateway itself was stopped for a while
(Ctrl-Z, a paused container, a program around it that blocked the loop) that while counts for nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from gatekeep._deadlines import lateness
from gatekeep._events import Logger
from gatekeep._group import Group
from gatekeep._host import Clock
from gatekeep._statistics import Counters
from gatekeep.lifecycle import _postmortem
from gatekeep.lifecycle._child import Child, Ears
from gatekeep.lifecycle._control import BEAT_INTERVAL, Failed
from gatekeep.lifecycle._drain import Order
from gatekeep.lifecycle._liveness import SUSPECT_AFTER, Action, State as LivenessState
from gatekeep.lifecycle._process_state import ACCEPTING
from gatekeep.lifecycle._triggers import Trigger

DEADLOCK = "deadlock-timeout"

START_EXPIRED = "the process was not ready within startup-timeout"


class Carer(Ears, Protocol):
    """Who does what is found to be due."""

    def obey(self, child: Child, orders: list[Order]) -> None:
        """A deadline is over."""

    def drain(self, child: Child, trigger: Trigger, reason: str) -> None:
        """It has lived long enough."""

    def describe(self, child: Child) -> dict[str, Any]:
        """Its fields in the log."""


class Heartbeat:
    """Looks after the processes of one group.

    Args:
        children: those that live; asked for each time.
        judges: whether they give signs of life.
    """

    def __init__(
        self,
        clock: Clock,
        group: Group,
        carer: Carer,
        children: Callable[[], Collection[Child]],
        counters: Counters,
        log: Logger,
        *,
        judges: bool,
    ) -> None:
        self._clock = clock
        self._group = group
        self._carer = carer
        self._children = children
        self._counters = counters
        self._log = log
        self._judges = judges
        self._news = anyio.Event()

    def look_again(self) -> None:
        """A deadline was set."""
        self._news.set()

    async def run(self) -> None:
        """Look, until cancelled."""
        planned = self._clock.now()
        async with anyio.create_task_group() as dumps:
            while True:
                now = self._clock.now()
                missed = lateness(planned, now)
                for child in tuple(self._children()):
                    child.read_control(self._carer)
                    if missed:
                        child.late(missed, now)
                    self._look(child, now, dumps)
                self._news = anyio.Event()
                planned = max(now, min(map(self._next_look, self._children()), default=math.inf))
                planned = min(planned, now + SUSPECT_AFTER)
                with anyio.move_on_after(planned - now):
                    await self._news.wait()

    def _next_look(self, child: Child) -> float:
        looks = child.life.next_look()
        if self._is_judged(child):
            looks = min(looks, child.liveness.next_look())
        if child.recycle is not None and child.is_serving:
            looks = min(looks, child.recycle.next_look())
        return looks

    def _is_judged(self, child: Child) -> bool:
        return self._judges and child.life.state in ACCEPTING

    def _look(self, child: Child, now: float, dumps: TaskGroup) -> None:
        orders = child.life.tick(now)
        if Order.RESTART in orders:
            dumps.start_soon(self._start_over, child)
        else:
            self._carer.obey(child, orders)
        if self._is_judged(child):
            self._act(child, child.liveness.tick(now), dumps)
        if child.recycle is not None and child.is_serving:
            due = child.recycle.tick(now, child.process.usage)
            if due is not None:
                self._carer.drain(child, *due)

    async def _start_over(self, child: Child) -> None:
        """It hangs, or fails slowly: a fresh process may do better, and this one tells where it was."""
        stacks = await self.dump(child)
        if child.ready_at is None and not child.life.is_over:
            child.failure = Failed(START_EXPIRED, stacks)
            self._log.error(
                "process.start_expired",
                **self._carer.describe(child),
                timer="startup-timeout",
                age=round(self._clock.now() - child.started, 3),
                stacks=stacks,
                reason=START_EXPIRED,
            )
            child.process.kill()

    def _act(self, child: Child, actions: list[Action], dumps: TaskGroup) -> None:
        silent = round(self._clock.now() - child.liveness.last_beat, 3)
        for action in actions:
            match action:
                case Action.SUSPECT:
                    self._log.warning(
                        "process.suspect",
                        **self._carer.describe(child),
                        silent=silent,
                        reason="no sign of life",
                    )
                    # What it accepted, it had accepted before the first beat that it missed.
                    self._group.process_suspected(child.pid, child.liveness.last_beat + BEAT_INTERVAL)
                case Action.DUMP_STACKS:
                    dumps.start_soon(self._write_stacks, child, silent, dumps)
                case Action.KILL:
                    self._log.error("process.killed", **self._carer.describe(child), reason=DEADLOCK)
                    child.process.kill()

    async def _write_stacks(self, child: Child, silent: float, dumps: TaskGroup) -> None:
        stacks = await self.dump(child)
        if child.liveness.state in (LivenessState.DUMPING, LivenessState.KILLED):
            self._counters.deadlocks += 1
            self._log.error(
                "process.deadlocked",
                **self._carer.describe(child),
                timer=DEADLOCK,
                silent=silent,
                stacks=stacks,
                reason="no sign of life for deadlock-timeout" + ("" if stacks else "; it wrote no stacks"),
            )
        self._act(child, child.liveness.dumped(), dumps)

    def beat(self, child: Child) -> None:
        """A sign of life."""
        if child.liveness.beat(self._clock.now()):
            self._log.info("process.alive", **self._carer.describe(child))
            self._group.process_trusted(child.pid)

    async def dump(self, child: Child) -> str:
        """The stacks of its threads, as it writes them at a signal; empty if it does not."""
        async with child.dumping:  # there is one file for it
            return await _postmortem.dump(child.process)
