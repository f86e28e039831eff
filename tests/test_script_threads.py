"""Threads for scripts: none is waited for beyond its time, few hang, and all of them end."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from conftest import wait_until
from gatekeep import _script_threads
from gatekeep._script_threads import FIRST_TRIAL, SIZE, Expired, NoThread, Raised, ScriptPools, ScriptThreads

LONG = 30.0
SHORT = 0.1
TIME_TO_BEGIN = 4.0
"""Seconds: what may pass between a job's begin and the function's."""


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    return lambda function: anyio.run(function, backend=request.param)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What scripts of a test hang at."""
    event = threading.Event()
    yield event
    event.set()
    wait_until(lambda: not ours())


@pytest.fixture(autouse=True)
def no_late_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's time begins when its thread has begun with it: a busy machine may need longer than `SHORT` for that."""
    start = ScriptThreads._start

    def start_and_wait(self: ScriptThreads, job: Any) -> None:
        start(self, job)
        wait_until(lambda: job.thread != 0)

    monkeypatch.setattr(ScriptThreads, "_start", start_and_wait)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Tells when those that hang are tried again."""
    clock = Clock()
    monkeypatch.setattr(anyio, "current_time", lambda: clock.now)
    return clock


class Clock:
    """Turned by hand."""

    now = 1000.0


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gatekeep-script"]


Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def test_it_returns_what_the_function_returns_and_a_thread_serves_on(run: Run, gate: threading.Event) -> None:
    async def main() -> None:
        threads = ScriptThreads()
        idents = {await threads.run(threading.get_ident, LONG) for _ in range(20)}
        assert len(idents) == 1
        assert threading.get_ident() not in idents
        assert await threads.run(lambda: None, math.inf) is None
        threads.close()

    run(main)


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(7)]
)
def test_whatever_it_raises_ends_nothing_else(run: Run, gate: threading.Event, error: BaseException) -> None:
    def fail() -> None:
        secret = "of the frames"  # noqa: F841
        raise error

    async def main() -> None:
        threads = ScriptThreads()
        with pytest.raises(Raised) as raised:
            await threads.run(fail, LONG)
        assert raised.value.error is error
        assert error.__traceback__ is None, "what the frames know is not kept"
        assert "in fail" in raised.value.details
        assert await threads.run(lambda: 7, LONG) == 7
        threads.close()

    run(main)


def test_an_error_that_cannot_be_shown_is_raised_nevertheless(run: Run, gate: threading.Event) -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            sys.exit("shown")

    def fail() -> None:
        raise Hostile

    async def main() -> None:
        threads = ScriptThreads()
        with pytest.raises(Raised, match="Hostile"):
            await threads.run(fail, LONG)
        assert await threads.run(lambda: 7, LONG) == 7
        threads.close()

    run(main)


def test_one_that_hangs_is_given_up_with_its_stack_and_others_work_on(
    run: Run, gate: threading.Event
) -> None:
    def hang_here() -> None:
        gate.wait(LONG)

    async def main() -> None:
        threads = ScriptThreads(2)
        with pytest.raises(Expired) as expired:
            await threads.run(hang_here, TIME_TO_BEGIN)
        assert "in hang_here" in expired.value.stack
        assert await threads.run(lambda: 7, LONG) == 7
        threads.close()

    run(main)


def test_when_all_hang_others_are_turned_away_at_once_until_they_come_back(
    run: Run, gate: threading.Event
) -> None:
    async def main() -> None:
        threads = ScriptThreads(2)
        for _ in range(2):
            with pytest.raises(Expired):
                await threads.run(lambda: gate.wait(LONG), SHORT)
        with anyio.fail_after(LONG / 2):
            with pytest.raises(NoThread, match="2 threads for scripts hang"):
                await threads.run(lambda: 7, LONG)
        gate.set()
        while True:
            try:
                assert await threads.run(lambda: 7, LONG) == 7
                break
            except NoThread:
                await anyio.sleep(0.01)
        threads.close()

    run(main)


def test_one_scripts_hanging_threads_are_not_anothers(run: Run, gate: threading.Event) -> None:
    async def main() -> None:
        pools = ScriptPools()
        assert pools.of("a.py") is pools.of("a.py")

        async def hang() -> None:
            with pytest.raises(Expired):
                await pools.of("a.py").run(lambda: gate.wait(LONG), SHORT)

        async with anyio.create_task_group() as crowd:
            for _ in range(SIZE):
                crowd.start_soon(hang)
            await anyio.sleep(SHORT / 2)
            assert await pools.of("b.py").run(lambda: 7, LONG) == 7
        with pytest.raises(NoThread):
            await pools.of("a.py").run(lambda: 7, LONG)
        assert await pools.of("b.py").run(lambda: 7, LONG) == 7
        pools.close()

    run(main)


async def hang_all(threads: ScriptThreads, size: int, gate: threading.Event) -> None:
    async def hang() -> None:
        with pytest.raises((Expired, NoThread)):  # the latter where others hang already
            await threads.run(lambda: gate.wait(LONG), SHORT)

    async with anyio.create_task_group() as crowd:
        for _ in range(size):
            crowd.start_soon(hang)


async def first_that_is_let_through(
    threads: ScriptThreads, function: Callable[[], Any], timeout: float
) -> Any:
    while True:
        try:
            return await threads.run(function, timeout)
        except NoThread:
            await anyio.sleep(0.01)


def test_when_those_that_hang_never_come_back_others_find_out_that_it_is_over(
    run: Run, gate: threading.Event, clock: Clock
) -> None:
    async def main() -> None:
        threads = ScriptThreads(2)
        await hang_all(threads, 2, gate)
        clock.now += FIRST_TRIAL - 1
        with pytest.raises(NoThread):
            await threads.run(lambda: 7, LONG)
        clock.now += 1
        with pytest.raises(Expired):
            await threads.run(lambda: gate.wait(LONG), SHORT)
        clock.now += 2 * FIRST_TRIAL - 1
        with pytest.raises(NoThread):
            await threads.run(lambda: 7, LONG)
        clock.now += 1
        assert await threads.run(lambda: 7, LONG) == 7
        assert [await threads.run(lambda: 7, LONG) for _ in range(5)] == [7] * 5
        await hang_all(threads, 2, gate)
        clock.now += FIRST_TRIAL - 1
        with pytest.raises(NoThread):
            await threads.run(lambda: 7, LONG)
        clock.now += 1
        assert await threads.run(lambda: 7, LONG) == 7
        gate.set()
        # Of those that came back only as many are kept as may work at once.
        await anyio.to_thread.run_sync(wait_until, lambda: len(ours()) == 2)
        threads.close()

    run(main)


def test_those_that_never_come_back_do_not_become_more_and_more(
    run: Run, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_script_threads, "FIRST_TRIAL", 0.0)
    monkeypatch.setattr(_script_threads, "MOST", 6)

    async def main() -> None:
        threads = ScriptThreads(2)
        for _ in range(10):
            await hang_all(threads, 2, gate)
            with contextlib.suppress(NoThread):
                await threads.run(lambda: 7, LONG)
        assert len(ours()) <= 6 + 2
        with pytest.raises(NoThread):
            await threads.run(lambda: 7, LONG)
        gate.set()
        assert await first_that_is_let_through(threads, lambda: 7, LONG) == 7
        threads.close()

    run(main)


def test_a_crowd_that_hangs_makes_no_more_threads_than_a_few(run: Run, gate: threading.Event) -> None:
    async def main() -> None:
        threads = ScriptThreads(3)
        outcomes: list[str] = []

        async def ask(number: int) -> None:
            try:
                await threads.run(lambda: gate.wait(LONG), 0.2 + number * 0.01)
            except (Expired, NoThread) as error:
                outcomes.append(type(error).__name__)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(ask, number)
        assert len(outcomes) == 100
        assert len(ours()) < 6
        threads.close()

    run(main)


def test_who_gets_no_thread_in_time_is_told_so_and_is_not_asked(run: Run, gate: threading.Event) -> None:
    asked: list[int] = []

    async def main() -> None:
        threads = ScriptThreads(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, lambda: gate.wait(LONG), math.inf)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(NoThread, match="free in time"):
                await threads.run(lambda: asked.append(1), SHORT)
            gate.set()
        threads.close()

    run(main)
    assert asked == []


def test_the_wait_for_a_thread_is_no_part_of_the_time(run: Run, gate: threading.Event) -> None:
    def take_more_than_half() -> int:
        time.sleep(4.5)
        return 7

    async def main() -> None:
        threads = ScriptThreads(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, lambda: gate.wait(LONG), LONG)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(release_later, 4.5)
            assert await threads.run(take_more_than_half, 8) == 7
        threads.close()

    async def release_later(seconds: float) -> None:
        await anyio.sleep(seconds)
        gate.set()

    run(main)


def test_whoever_asks_may_be_cancelled(run: Run, gate: threading.Event) -> None:
    async def main() -> None:
        threads = ScriptThreads(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, lambda: gate.wait(LONG), math.inf)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        with pytest.raises(NoThread):
            await threads.run(lambda: 7, LONG)
        gate.set()
        while True:
            try:
                await threads.run(lambda: 7, LONG)
                break
            except NoThread:
                await anyio.sleep(0.01)
        threads.close()

    run(main)


def test_one_that_comes_back_when_the_event_loop_is_gone_ends(run: Run, gate: threading.Event) -> None:
    async def main() -> None:
        threads = ScriptThreads()
        with pytest.raises(Expired):
            await threads.run(lambda: gate.wait(LONG), SHORT)
        threads.close()

    run(main)
    assert len(ours()) == 1
    gate.set()
    wait_until(lambda: not ours())


def test_one_that_comes_back_while_the_event_loop_ends_is_not_left_waiting_for_it(
    run: Run, gate: threading.Event
) -> None:
    async def main() -> None:
        threads = ScriptThreads()
        with pytest.raises(Expired):
            await threads.run(lambda: gate.wait(LONG), SHORT)
        threads.close()
        gate.set()
        time.sleep(SHORT)  # in the event loop: it has no turn before its end

    run(main)
    wait_until(lambda: not ours())


def test_idle_threads_end_with_the_pool(run: Run, gate: threading.Event) -> None:
    async def main() -> None:
        threads = ScriptThreads()
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(threads.run, lambda: time.sleep(0.05), LONG)
        assert 1 <= len(ours()) <= 4
        threads.close()

    run(main)
    wait_until(lambda: not ours())


def test_where_the_system_has_no_more_threads_it_is_said(
    run: Run, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        threads = ScriptThreads()

        def fail(self: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(NoThread, match="can't start new thread"):
                await threads.run(lambda: 7, LONG)
        assert await threads.run(lambda: 7, LONG) == 7
        threads.close()

    run(main)
