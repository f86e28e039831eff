"""When a group's next process may start, and when the group has started."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from gatekeep._events import SilentLogger
from gatekeep._group import Group
from gatekeep.lifecycle._control import Failed
from gatekeep.lifecycle._respawn import FIRST_TRIES
from gatekeep.lifecycle._slots import Board, FreeRows, Row, board_size
from gatekeep.lifecycle._starts import Starts

FAULT = Failed("it does not import", "Traceback …")
ROWS = 1

Story = Callable[[], Awaitable[None]]


def told(story: Story, backend: str) -> None:
    async def in_time() -> None:
        with anyio.fail_after(60):
            await story()

    anyio.run(in_time, backend=backend)


class Site:
    """A group of two seats whose clock is set by hand."""

    def __init__(self, *, develops: bool = False, gives_up: bool = True) -> None:
        self.now = 100.0
        self.group = Group("default", 2, "")
        board = Board(memoryview(bytearray(board_size(ROWS, 1))), ROWS, 1)
        clock: Any = SimpleNamespace(now=lambda: self.now)
        self.starts = Starts(
            2,
            FreeRows(board),
            self.group,
            clock,
            lambda: 1.0,
            SilentLogger(),
            develops=develops,
            gives_up=gives_up,
        )

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            for seat in range(2):
                self.starts.failed(seat, FAULT, 0)

    async def row(self) -> Row | None:
        return await self.starts.wait_for_row(lambda: True)

    async def has_started(self, *, whole: bool = False) -> bool:
        """Whether nobody has to wait for that any more."""
        started = False

        async def wait() -> None:
            nonlocal started
            await self.starts.wait_started(whole=whole)
            started = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        return started


backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@backends
def test_a_start_waits_for_the_pause_after_a_failure_unless_that_is_forgiven(backend: str) -> None:
    async def story() -> None:
        site = Site()
        site.starts.failed(0, FAULT, 0)
        with anyio.move_on_after(0.02):
            pytest.fail(f"{await site.row()} was given out at once")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(site.row)
            await anyio.wait_all_tasks_blocked()
            site.starts.forgive()

    told(story, backend)


@backends
def test_whoever_waits_for_a_pause_and_is_wanted_no_more_gets_no_row(backend: str) -> None:
    async def story() -> None:
        site, wanted, got = Site(), [True], []
        site.starts.failed(0, FAULT, 0)

        async def wait() -> None:
            got.append(await site.starts.wait_for_row(lambda: wanted[0]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            wanted[0] = False
            site.starts.look_again()
        assert got == [None]

    told(story, backend)


@backends
def test_a_start_waits_until_a_row_of_the_scoreboard_is_free(backend: str) -> None:
    async def story() -> None:
        site = Site()
        row = await site.row()
        assert row is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(site.row)
            await anyio.wait_all_tasks_blocked()
            site.starts.give_back(row)

    told(story, backend)


@backends
def test_a_group_has_started_with_its_first_process_and_whole_when_each_seat_was_tried(backend: str) -> None:
    async def story() -> None:
        site = Site()
        assert not await site.has_started()
        site.starts.ready()
        site.starts.tried(0)
        assert await site.has_started()
        assert not await site.has_started(whole=True)
        site.starts.tried(1)
        assert await site.has_started(whole=True)

    told(story, backend)


@backends
def test_a_group_that_fails_ends_the_gateway_or_has_started_or_is_waited_for_by_a_developer(
    backend: str,
) -> None:
    async def story() -> None:
        needed, one_of_several, developed = Site(), Site(gives_up=False), Site(develops=True)
        developed.fail()
        assert await developed.has_started()
        for site in (needed, one_of_several, developed):
            site.fail(FIRST_TRIES)
        assert needed.starts.is_hopeless()
        assert not await needed.has_started()
        assert not one_of_several.starts.is_hopeless()
        assert await one_of_several.has_started()
        assert not developed.starts.is_hopeless()

    told(story, backend)


def test_the_same_failure_once_more_is_no_news_until_one_was_ready_or_forgiven() -> None:
    async def story() -> None:
        starts = Site().starts
        assert [starts.failed(0, FAULT, 0), starts.failed(1, FAULT, 0)] == [True, False]
        assert starts.failures.reason(0) == FAULT.reason
        assert starts.failures.reason(1) == "", "a reload was asked for since"
        starts.forgive()
        assert starts.failed(0, FAULT, 0)
        starts.ready()
        assert starts.failures.reason(0) == ""
        assert starts.failed(0, FAULT, 0)

    anyio.run(story)
