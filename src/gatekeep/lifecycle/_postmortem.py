"""What a process was doing: asked of itself, written by it at a signal, or read from the scoreboard when nothing else is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from gatekeep._events import Outcome, Record, request_name
from gatekeep._group import Group
from gatekeep._host import Process
from gatekeep._processes import ThreadReport
from gatekeep.lifecycle._control import Stacks
from gatekeep.lifecycle._slots import Row, Running

DUMP_LOOK = 0.05
"""Seconds between looks whether a dump grows no more: nothing tells its end."""

DUMP_LOOKS = 16
"""So many at the most, that is less than `_liveness.DUMP_WAIT`: a process that was stopped writes nothing."""


async def dump(process: Process) -> str:
    """The stacks of all its threads as faulthandler writes them, GIL or no GIL; empty where it cannot."""
    written = ""
    if process.ask_dump():
        for _ in range(DUMP_LOOKS):
            await anyio.sleep(DUMP_LOOK)
            found = process.read_dump()
            if found and found == written:
                break
            written = found or written
    return written


def lost(row: Row, group: Group, now: float) -> list[dict[str, Any]]:
    """What its threads were running that nobody will answer any more: the fields of an event for each request."""
    return [
        {
            "thread": report.number,
            "request_id": report.request_id,
            "method": report.method,
            "path": report.path,
            "age": round(report.age, 3),
        }
        for running in row.running()
        if not _is_answered(group.find(running.request))
        for report in (_of_slot(running, group, now),)
    ]


def _is_answered(record: Record | None) -> bool:
    """Whether its client has what it will get: a thread that does not end may have lost its request long ago."""
    return record is not None and record.outcome not in (None, Outcome.LOST, Outcome.TRUNCATED)


def threads_of_row(row: Row, group: Group, now: float) -> tuple[ThreadReport, ...]:
    """The same as reports."""
    return tuple(_of_slot(running, group, now) for running in row.running())


def _of_slot(running: Running, group: Group, now: float) -> ThreadReport:
    record = group.find(running.request)
    return ThreadReport(
        name=f"gatekeep-worker-{running.thread}",
        number=running.thread,
        request_id=request_name(running.request),
        method=record.method if record else "",
        path=record.path if record else "",
        age=now - running.began,
    )


def threads_of_answer(answer: Stacks) -> tuple[ThreadReport, ...]:
    """What the process told itself."""
    return tuple(
        ThreadReport(
            thread.name,
            thread.number,
            request_name(thread.request) if thread.request else "",
            thread.method,
            thread.path,
            thread.age,
            thread.stack,
        )
        for thread in answer.threads
    )


class Question:
    """One question to a process, and the wait for its answer.

    Args:
        ask: sends it.
    """

    PATIENCE = 1.0
    """Seconds to wait for it."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._answered = anyio.Event()
        self._answer: Stacks | None = None

    def answered(self, answer: Stacks) -> None:
        """It has come."""
        self._answer = answer
        self._answered.set()

    async def wait(self) -> Stacks | None:
        """The answer; None when none came in time."""
        self._ask()
        with anyio.move_on_after(self.PATIENCE):
            await self._answered.wait()
        return self._answer
