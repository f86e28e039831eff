"""What is told of a group's processes to people who ask: at once and without asking them, or in depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import anyio
import attrs

from gatekeep._group import Group
from gatekeep._host import Clock
from gatekeep._processes import ProcessReport
from gatekeep._status import ProcessStatus
from gatekeep.lifecycle import _postmortem
from gatekeep.lifecycle._child import Child
from gatekeep.lifecycle._heartbeat import Heartbeat
from gatekeep.lifecycle._slots import Board


class Reports:
    """Tells of the processes of one group.

    Args:
        children: those that live; asked for each time.
    """

    def __init__(
        self,
        group: Group,
        board: Board,
        children: Callable[[], Collection[Child]],
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        self._group = group
        self._board = board
        self._children = children
        self._heartbeat = heartbeat
        self._clock = clock

    def status(self) -> tuple[ProcessStatus, ...]:
        """What is known of all without asking them: they may be wedged."""
        found = map(self._status_of, self._children())
        return tuple(sorted(found, key=lambda status: (status.seat, -status.uptime)))

    def _status_of(self, child: Child) -> ProcessStatus:
        usage = child.process.usage()
        return ProcessStatus(
            pid=child.pid,
            seat=child.seat,
            state=child.describe_state(),
            uptime=self._clock.now() - child.started,
            running=sum(1 for _ in child.row.running()),
            threads=self._board.threads,
            memory=usage.memory if usage else 0,
            trigger=child.life.trigger.name if child.life.trigger else "",
        )

    def occupied_since(self) -> float:
        """Since when no thread of the processes that can be trusted has begun another request; `math.inf` where one is free."""
        if not self._children():
            return math.inf  # the scoreboard may be gone with the last of them
        return self._board.occupied_since(self._group.trusted())

    async def stacks(self) -> list[ProcessReport]:
        """What all do at this moment: asked of each, or found out where one does not answer."""
        reports: dict[int, ProcessReport] = {}

        async def ask(child: Child) -> None:
            reports[child.pid] = await self._stacks_of(child)

        async with anyio.create_task_group() as tasks:
            for child in tuple(self._children()):
                tasks.start_soon(ask, child)
        return sorted(reports.values(), key=lambda report: (report.seat, -report.uptime))

    async def _stacks_of(self, child: Child) -> ProcessReport:
        now = self._clock.now()
        report = ProcessReport(
            self._group.name,
            child.pid,
            child.seat,
            child.describe_state(),
            now - child.started,
            _postmortem.threads_of_row(child.row, self._group, now),
        )
        answer = await child.ask() if child.ready_at is not None else None
        if answer is not None:
            return attrs.evolve(report, threads=_postmortem.threads_of_answer(answer))
        dump = await self._heartbeat.dump(child)
        note = "it did not answer; this is what it wrote at a signal" if dump else "it did not answer"
        return attrs.evolve(report, dump=dump, note=note)
