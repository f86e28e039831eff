"""Alarms: they ring when it is time, never before, once for each time they were set; with numbers for time, and on every loop."""

from __future__ import annotations

import gc
import math
import random
import time
import weakref
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from conftest import LOOPS
from gatekeep._alarms import Alarm, Alarms


class Bell:
    """An alarm that notes when it rang, by a clock that the test turns."""

    def __init__(self, alarms: Alarms, clock: list[float]) -> None:
        self.alarm = Alarm(alarms)
        self.alarm.ring = lambda: self.rung.append(clock[0])
        self.rung: list[float] = []


class Tower:
    """Alarms and a clock that is turned by hand; it rings as `Alarms.run` would: whenever a look is due."""

    def __init__(self) -> None:
        self.alarms = Alarms()
        self.clock = [0.0]

    def bell(self) -> Bell:
        return Bell(self.alarms, self.clock)

    def advance(self, to: float) -> None:
        while (look := self.alarms.next_look()) <= to:
            self.clock[0] = max(self.clock[0], look)
            self.alarms.ring_due(self.clock[0])
        self.clock[0] = max(self.clock[0], to)


@pytest.fixture
def tower() -> Tower:
    return Tower()


# --- one alarm


def test_an_alarm_that_was_never_set_never_rings(tower: Tower) -> None:
    bell = tower.bell()
    assert bell.alarm.at == math.inf
    assert tower.alarms.next_look() == math.inf
    tower.advance(1e9)
    assert (bell.rung, bell.alarm.rang) == ([], False)


def test_it_rings_when_its_time_comes_and_once(tower: Tower) -> None:
    bell = tower.bell()
    bell.alarm.set(5.0)
    tower.advance(4.999)
    assert (bell.rung, bell.alarm.rang) == ([], False)
    tower.advance(5.0)
    assert (bell.rung, bell.alarm.rang) == ([5.0], True)
    tower.advance(100.0)
    assert bell.rung == [5.0]


def test_one_that_was_moved_back_rings_at_its_new_time_only(tower: Tower) -> None:
    bell = tower.bell()
    bell.alarm.set(5.0)
    bell.alarm.set(9.0)
    tower.advance(8.0)
    assert bell.rung == []
    tower.advance(20.0)
    assert bell.rung == [9.0]


def test_one_that_was_moved_forward_rings_at_its_new_time_only(tower: Tower) -> None:
    bell = tower.bell()
    bell.alarm.set(9.0)
    bell.alarm.set(5.0)
    tower.advance(20.0)
    assert bell.rung == [5.0]


def test_one_that_is_off_does_not_ring_and_can_be_set_again(tower: Tower) -> None:
    bell = tower.bell()
    bell.alarm.set(5.0)
    bell.alarm.off()
    tower.advance(7.0)
    assert bell.rung == []
    bell.alarm.set(8.0)
    tower.advance(20.0)
    assert bell.rung == [8.0]


def test_one_that_was_set_into_the_past_rings_at_the_next_look(tower: Tower) -> None:
    bell = tower.bell()
    tower.advance(10.0)
    bell.alarm.set(3.0)
    tower.advance(10.0)
    assert bell.rung == [10.0]


def test_one_that_never_comes_rings_never(tower: Tower) -> None:
    bell = tower.bell()
    bell.alarm.set(math.inf)
    assert tower.alarms.next_look() == math.inf
    bell.alarm.set(5.0)
    bell.alarm.set(math.inf)
    tower.advance(1e9)
    assert bell.rung == []


def test_ring_now_rings_whatever_the_time_and_instead_of_the_time_that_was_set(tower: Tower) -> None:
    bell = tower.bell()
    bell.alarm.set(5.0)
    bell.alarm.ring_now()
    assert (bell.rung, bell.alarm.rang) == ([0.0], True)
    tower.advance(20.0)
    assert bell.rung == [0.0]


@pytest.mark.parametrize("again", [lambda alarm: alarm.set(30.0), Alarm.off])
def test_setting_it_again_forgets_that_it_rang(tower: Tower, again: Callable[[Alarm], None]) -> None:
    bell = tower.bell()
    bell.alarm.ring_now()
    again(bell.alarm)
    assert not bell.alarm.rang


def test_one_that_is_closed_never_rings_again(tower: Tower) -> None:
    bell = tower.bell()
    bell.alarm.set(5.0)
    bell.alarm.close()
    assert tower.alarms.next_look() == math.inf or bell.alarm.at == math.inf
    tower.advance(20.0)
    bell.alarm.ring_now()
    assert bell.rung == []


def test_one_that_is_closed_holds_on_to_nothing(tower: Tower) -> None:
    class Owner:
        def rang(self) -> None: ...

    owner = Owner()
    alarm = Alarm(tower.alarms)
    alarm.ring = owner.rang
    alarm.set(5.0)
    gone = weakref.ref(owner)
    alarm.close()
    del owner
    gc.collect()
    assert gone() is None


def test_an_alarm_that_rings_may_set_itself_and_others_and_close_them(tower: Tower) -> None:
    first, second, third = tower.bell(), tower.bell(), tower.bell()

    def ring() -> None:
        first.rung.append(tower.clock[0])
        first.alarm.set(tower.clock[0] + 1.0)
        second.alarm.set(tower.clock[0] + 0.25)
        third.alarm.close()

    first.alarm.ring = ring
    for bell in (first, third):
        bell.alarm.set(1.0)
    third.alarm.set(1.5)
    tower.advance(3.0)
    assert (first.rung, second.rung, third.rung) == ([1.0, 2.0, 3.0], [1.25, 2.25], [])


# --- many alarms, against a model

TIMES = st.integers(0, 60).map(lambda number: number / 4)
WHICH = st.integers(0, 4)
STEPS = st.one_of(
    st.tuples(st.just("set"), WHICH, TIMES | st.just(math.inf)),
    st.tuples(st.sampled_from(["off", "close", "ring_now"]), WHICH, st.none()),
    st.tuples(st.just("advance"), st.none(), TIMES),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=60))
def test_they_ring_as_a_list_that_is_searched_every_time_would(steps: list[tuple[str, int, float]]) -> None:
    tower = Tower()
    bells = [tower.bell() for _ in range(5)]
    due: dict[int, float] = {}
    closed: set[int] = set()
    expected: list[list[float]] = [[] for _ in bells]

    def advance(to: float) -> None:
        for number, at in list(due.items()):
            if at <= to:
                expected[number].append(max(at, tower.clock[0]))
                del due[number]
        tower.advance(to)

    for what, which, value in steps:
        if what == "advance":
            advance(max(value, tower.clock[0]))
        elif which in closed:
            continue
        elif what == "set":
            bells[which].alarm.set(value)
            due[which] = value
        else:
            getattr(bells[which].alarm, what)()
            due.pop(which, None)
            if what == "ring_now":
                expected[which].append(tower.clock[0])
            elif what == "close":
                closed.add(which)
        assert tower.alarms.next_look() <= min(due.values(), default=math.inf), "a look comes in time"
        assert [bell.rung for bell in bells] == expected
    advance(100.0)
    assert [bell.rung for bell in bells] == expected


@settings(max_examples=100)
@given(st.lists(st.lists(TIMES, min_size=1, max_size=8), max_size=8), st.lists(TIMES))
def test_after_a_look_nothing_is_due_and_none_rang_early(
    moves: list[list[float]], looks: list[float]
) -> None:
    tower = Tower()
    early: list[float] = []
    for times in moves:
        bell = tower.bell()
        for at in times:
            bell.alarm.set(at)
        bell.alarm.ring = lambda at=times[-1]: early.append(at) if at > tower.clock[0] else None  # type: ignore[misc]
    for now in sorted(looks):
        tower.clock[0] = now
        tower.alarms.ring_due(now)
        assert tower.alarms.next_look() > now
    assert early == []


def test_what_was_closed_takes_no_room() -> None:
    alarms = Alarms()
    chance = random.Random(1)
    living: list[Alarm] = []
    for number in range(100_000):
        alarm = Alarm(alarms)
        alarm.set(1000.0 + chance.random())
        living.append(alarm)
        if len(living) > 100:
            living.pop(chance.randrange(len(living))).close()
        assert len(alarms._heap) < 400, f"after {number}"
    rung: list[Alarm] = []
    for alarm in living:
        alarm.ring = lambda alarm=alarm: rung.append(alarm)  # type: ignore[misc]
    alarms.ring_due(2000.0)
    assert set(rung) == set(living)
    assert len(rung) == len(living)
    assert alarms.next_look() == math.inf


def test_an_alarm_that_is_moved_a_hundred_thousand_times_takes_no_room() -> None:
    alarms = Alarms()
    alarm = Alarm(alarms)
    for number in range(100_000):
        alarm.set(1000.0 + number)
        alarm.set(900.0 - number / 1000)
        assert len(alarms._heap) < 200


# --- on the event loops


class Monotonic:
    """The system's clock, as the host has it."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


def run(main: Callable[[], object], loop: str) -> None:
    backend, options = LOOPS[loop]
    anyio.run(main, backend=backend, backend_options=options)  # type: ignore[arg-type]


class Ringing:
    """An alarm that is rung by `Alarms.run`, to be waited for."""

    def __init__(self, alarms: Alarms) -> None:
        self.alarm = Alarm(alarms)
        self.alarm.ring = self._ring
        self.early: list[float] = []
        self.event = anyio.Event()
        self.at = math.inf

    def set(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self.alarm.set(self.at)

    def _ring(self) -> None:
        now = time.monotonic()
        if now < self.at:
            self.early.append(self.at - now)
        self.event.set()


def test_run_rings_all_that_is_set_while_it_waits_and_none_early(loop: str) -> None:
    chance = random.Random(2)

    async def main() -> None:
        alarms = Alarms()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alarms.run, Monotonic())
            far = Ringing(alarms)
            far.set(3600)
            await anyio.sleep(0.01)
            many = [Ringing(alarms) for _ in range(300)]
            for ringing in many:
                ringing.set(chance.random() / 2)
                if chance.random() < 0.5:
                    ringing.set(chance.random() / 2)
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(30):
                for ringing in many:
                    await ringing.event.wait()
            assert [ringing.early for ringing in many] == [[]] * len(many)
            assert not far.event.is_set()
            tasks.cancel_scope.cancel()

    run(main, loop)


def test_run_hears_of_an_earlier_alarm_while_it_sleeps_for_a_later_one(loop: str) -> None:
    async def main() -> None:
        alarms = Alarms()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alarms.run, Monotonic())
            far, near = Ringing(alarms), Ringing(alarms)
            far.set(3600)
            await anyio.sleep(0.05)
            near.set(0.05)
            with anyio.fail_after(30):
                await near.event.wait()
            assert near.early == []
            near.event, near.at = anyio.Event(), math.inf
            far.set(0.05)  # itself moved forward
            with anyio.fail_after(30):
                await far.event.wait()
            assert far.early == []
            assert not near.event.is_set(), "each rings once"
            tasks.cancel_scope.cancel()

    run(main, loop)


def test_run_never_returns_and_can_be_run_again_after_a_cancellation(loop: str) -> None:
    async def main() -> None:
        alarms = Alarms()
        ringing = Ringing(alarms)
        with anyio.move_on_after(0.01) as scope:
            await alarms.run(Monotonic())
        assert scope.cancelled_caught
        ringing.set(0.05)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alarms.run, Monotonic())
            with anyio.fail_after(30):
                await ringing.event.wait()
            tasks.cancel_scope.cancel()
        assert ringing.early == []

    run(main, loop)
