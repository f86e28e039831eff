"""The runtime itself: virtual time, replayable scheduling."""

from __future__ import annotations

import time as real_time

import anyio
import pytest

from .runtime import BACKENDS, VirtualTime, run

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def test_an_hour_passes_at_once_and_deadlines_are_met_exactly(backend: str) -> None:
    async def main(time: VirtualTime) -> None:
        await anyio.sleep(3600.1)
        assert anyio.current_time() == time.now == 3600.1
        with anyio.move_on_at(4000.3) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert time.now == 4000.3

    began = real_time.monotonic()
    run(main, backend, 0)
    assert real_time.monotonic() - began < 5


def _order(backend: str, seed: int) -> list[int]:
    order: list[int] = []

    async def step(number: int) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            order.append(number)

    async def main(_: VirtualTime) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(step, number)

    run(main, backend, seed)
    return order


def test_the_same_seed_runs_tasks_in_the_same_order_and_others_do_not(backend: str) -> None:
    orders = [_order(backend, seed) for seed in range(10)]
    assert orders == [_order(backend, seed) for seed in range(10)]
    assert len(set(map(tuple, orders))) > 5


def test_a_program_that_waits_for_nothing_is_stuck_at_the_horizon(backend: str) -> None:
    async def main(_: VirtualTime) -> None:
        await anyio.Event().wait()

    with pytest.raises(TimeoutError):
        run(main, backend, 0)


def test_a_fault_of_the_world_ends_the_program_and_is_raised(backend: str) -> None:
    def idle(time: VirtualTime, deadline: float) -> None:
        raise ZeroDivisionError

    async def main(_: VirtualTime) -> None:
        await anyio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        run(main, backend, 0, idle)
