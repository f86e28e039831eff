"""What must be true of the lives of daemon processes. Looked at whenever nobody can do anything before time passes, and at each
start, each accept, and each end of accepting."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import attrs

from gatekeep._gateway import Gateway
from gatekeep.lifecycle._child import Child
from gatekeep.lifecycle._process_state import ACCEPTING, ProcessState
from gatekeep.lifecycle._supervisor import SPAWN_PAUSE, Supervisor
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._settings import Settings
from gatekeep.transport._claim import State
from gatekeep.transport._hop import Hop

from .daemons import SimDaemon
from .world import CLOCK_OFFSET, TICK, World

FINISHES = (ProcessState.DRAINING, ProcessState.FINISHING)


@attrs.define
class Story:
    """What was seen of one process.

    Attributes:
        told: since when it should accept nothing.
        window, end: its deadlines, as they were seen first.
        killed: since when it should be dead.
    """

    told: float = inf
    window: float = inf
    end: float = inf
    killed: float = inf


class Lives:
    """Watches the processes of one run.

    Args:
        always_accepts: whether there is always a process that takes requests, once there was one and while they are not idle.
        spare: how many more processes may live at a time than the group has.

    Attributes:
        supervisor: theirs.
        reloaded: when all processes were to be replaced last.
        lasting: those that were there when all changes were over.
    """

    def __init__(
        self, world: World, settings: Settings, gateway: Gateway, *, always_accepts: bool, spare: float
    ) -> None:
        self._world = world
        self._group: GroupSettings = settings.groups[0]
        self._gateway = gateway
        self._always_accepts = always_accepts
        self._most = self._group.processes + spare
        self._stories: dict[int, Story] = {}
        self._was_ready: set[int] = set()
        self._start_failed = False
        self._spawn_failed = -inf
        self.supervisor: Supervisor | None = None
        self.reloaded = -inf
        self.lasting: list[SimDaemon] = []
        world.when_it_accepts = self._accepts
        world.when_it_accepts_no_more = self._accepts_no_more
        world.when_born = self._born

    def watch(self, supervisor: Supervisor) -> Supervisor:
        """Look at this one."""
        self.supervisor = supervisor
        succeed = supervisor._succeed

        def succeed_rightly(incumbent: Child) -> None:
            others = [child for child in self._children() if child is not incumbent]
            goes = incumbent.life.state in ACCEPTING
            if goes and not any(child.life.state in ACCEPTING for child in others):
                self._wrong(f"{incumbent.pid} goes, and nobody takes its place")
            succeed(incumbent)

        supervisor._succeed = succeed_rightly  # type: ignore[method-assign]
        return supervisor

    def _wrong(self, text: str) -> None:
        if text not in self._world.violations:  # what is wrong may stay so
            self._world.violation(text)

    def _children(self) -> list[Child]:
        return list(self.supervisor._children.values()) if self.supervisor else []

    def _somebody_accepts(self) -> bool:
        """As far as the supervisor can know."""
        return any(child.life.state in ACCEPTING for child in self._children())

    # --- what is logged

    def hear(self, event: str, fields: dict[str, Any]) -> None:
        """An event was logged."""
        hear: Callable[[dict[str, Any]], None] | None = getattr(self, "_" + event.replace(".", "_"), None)
        if hear is not None:
            hear(fields)

    def _process_ready(self, fields: dict[str, Any]) -> None:
        self._was_ready.add(fields["pid"])
        self._start_failed = False

    def _process_spawn_failed(self, fields: dict[str, Any]) -> None:
        self._start_failed = True
        self._spawn_failed = self._world.time.now

    def _process_exited(self, fields: dict[str, Any]) -> None:
        if fields["pid"] not in self._was_ready and not fields["planned"]:
            self._start_failed = True

    def _process_start_expired(self, fields: dict[str, Any]) -> None:
        self._world.fired["startup-timeout"] += 1

    def _group_sleeping(self, fields: dict[str, Any]) -> None:
        self._world.fired["group sleeps"] += 1

    def _drain_started(self, fields: dict[str, Any]) -> None:
        self._world.fired[f"drain: {fields['trigger']}"] += 1

    def _admit_no_process(self, fields: dict[str, Any]) -> None:
        if self._somebody_accepts():
            self._wrong(f"{fields['path']}: {fields['reason']}, but a process takes requests")
        if not self._start_failed:
            self._wrong(f"{fields['path']}: {fields['reason']}, but the last start did not fail")

    # --- what processes do

    def _born(self, daemon: SimDaemon) -> None:
        living = len(self._world.processes.living())
        if living > self._most:
            self._wrong(f"{living} processes live, where {self._most} may")

    def _accepts(self, daemon: SimDaemon) -> None:
        story = self._stories.get(daemon.pid, Story())
        if self._world.time.now > max(story.told, daemon.deaf_until) + TICK:
            self._wrong(f"{daemon.owner} has accepted a request, and should accept none since {story.told}")

    def _accepts_no_more(self, daemon: SimDaemon) -> None:
        if not self._always_accepts or self.supervisor is None or self.supervisor._stopping:
            return
        child = self.supervisor._children.get(daemon.pid)
        if child is not None and not child.life.gets_successor:
            return  # it has had nothing to do for long
        if not any(other.accepts() for other in self._world.processes.living()):
            self._wrong(f"{daemon.owner} takes requests no more, and nobody else does")

    # --- what stands still

    def idle(self) -> None:
        """Nobody can do anything before time passes."""
        if self.supervisor is None:
            return
        for child in self._children():
            self._look_at(child, self._stories.setdefault(child.pid, Story()))
        if not self.supervisor._stopping and self._somebody_waits() and not self._somebody_accepts():
            self._they_wait_for_something()

    def _look_at(self, child: Child, story: Story) -> None:
        state, deadline, now = child.life.state, child.life.next_look() - CLOCK_OFFSET, self._world.time.now
        if state not in ACCEPTING and state is not ProcessState.STARTING:
            story.told = min(story.told, now)
        if deadline < now - TICK:
            self._wrong(f"{state.name} of {child.pid} should have ended at {deadline}")
        if state in FINISHES and deadline < inf:
            story.window = self._the_same(child, story.window, deadline)
        if state is ProcessState.STOPPING and deadline < inf:
            story.end = self._the_same(child, story.end, deadline)
        if state is ProcessState.STOPPING and deadline == inf:
            story.killed = min(story.killed, now)
            if now > story.killed + TICK:
                self._wrong(f"{child.pid} was killed at {story.killed}, and lives")

    def _the_same(self, child: Child, before: float, deadline: float) -> float:
        if before < inf and abs(before - deadline) > TICK:
            self._wrong(f"{child.pid}: the deadline was {before}, and now is {deadline}")
        return deadline

    def _somebody_waits(self) -> bool:
        """For a worker, or a place in the backlog; those who are told so are out of it as soon as their envelope is written."""
        if not self._gateway._groups:
            return False
        dispatch, group = self._gateway._groups[0].dispatch, self._gateway._groups[0].group
        if dispatch.entrance.admission.waiting:
            return True
        return any(isinstance(hop, Hop) and hop.state is State.STANDING for hop in group.standing)

    def _they_wait_for_something(self) -> None:
        """They wait and no process takes requests: one starts, or will after a pause that no failed start made."""
        assert self.supervisor is not None
        now, states = self._world.time.now, [child.life.state for child in self._children()]
        if self._start_failed:
            self._wrong("requests wait, no process takes any, and the last start has failed")
        elif (
            ProcessState.STARTING not in states
            and not self._world.processes.being_born
            and now + CLOCK_OFFSET > self.supervisor._starts._respawn.next_start + TICK
            and now > self._spawn_failed + SPAWN_PAUSE + TICK
            and self.supervisor._starts._rows
        ):
            self._wrong(f"requests wait, and no process starts; there are {states}")

    # --- the end

    def settled(self) -> None:
        """All changes should be over by now."""
        assert self.supervisor is not None
        self.lasting = self._world.processes.living()
        states = [child.life.state for child in self._children()]
        asleep = len(self.supervisor._sleep._sleepers)
        if states != [ProcessState.SERVING] * (self.supervisor._group.processes - asleep):
            self._wrong(f"all is quiet, and the processes are {states}")
        for daemon in self.lasting:
            if daemon.born < self.reloaded:
                self._wrong(f"{daemon.owner} has survived the reload at {self.reloaded}")
        if self.supervisor._turns.holder is not None:
            self._wrong(f"{self.supervisor._turns.holder.pid} has the turn, and does not use it")
        if asleep and self._gateway._groups[0].group.wake is None:
            self._wrong("nobody would wake the processes that sleep")

    def at_rest(self) -> None:
        """All processes have ended."""
        assert self.supervisor is not None
        if len(self.supervisor._starts._rows) != self.supervisor._board.rows:
            self._wrong("a row of the scoreboard is still somebody's")
        if self._world.processes.home is not None and any(
            self._world.processes.home.memory[8:]
        ):  # but for its reach
            self._wrong("something is left on the scoreboard")
