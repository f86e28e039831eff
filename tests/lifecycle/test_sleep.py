"""Seats that nobody wants, at the end of their group."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from gatekeep._group import Group
from gatekeep.lifecycle._sleep import CROWDED, Sleep


class Offer:
    """A hop that has stood for a second."""

    since = 0.0
    pid = 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_request_that_has_waited_for_a_start_wakes_no_second_process_once_there_is_one(
    backend: str,
) -> None:
    async def story() -> None:
        now = 10.0
        group = Group("default", 2, "")
        sleep = Sleep(group, SimpleNamespace(now=lambda: now), lambda: False)  # type: ignore[arg-type]
        children: list[Any] = [SimpleNamespace(vacates=anyio.Event()) for _ in range(2)]
        async with anyio.create_task_group() as tasks:
            for child in children:
                sleep.lie_down(child, tasks)
            group.enter(Offer())  # type: ignore[arg-type]
            assert [child.vacates.is_set() for child in children] == [False, True]
            sleep.started()
            sleep.ready()
            group.process_ready(1)
            group.enter(Offer())  # type: ignore[arg-type]
            assert not children[0].vacates.is_set(), "nobody has waited since there is somebody to serve"
            now += CROWDED + 0.01
            group.enter(Offer())  # type: ignore[arg-type]
            assert children[0].vacates.is_set()

    anyio.run(story, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_request_that_is_offered_while_the_group_stops_wakes_nobody(backend: str) -> None:
    async def story() -> None:
        group, child = Group("default", 1, ""), SimpleNamespace(vacates=anyio.Event())
        sleep = Sleep(group, SimpleNamespace(now=lambda: 1.0), lambda: False)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            assert sleep.lie_down(child, tasks) == 1  # type: ignore[arg-type]
            sleep.end()
            assert child.vacates.is_set(), "its seat's task shall end"
            assert not sleep.holds(child)  # type: ignore[arg-type]
            group.enter(Offer())  # type: ignore[arg-type]

    anyio.run(story, backend=backend)
