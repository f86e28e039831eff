"""One process's life and its deadlines: whatever comes in whatever order, it ends in order, and in time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from gatekeep.lifecycle._drain import LAST_WORDS, Life, Order, Timers
from gatekeep.lifecycle._process_state import ACCEPTING, ProcessState as State
from gatekeep.lifecycle._triggers import (
    CPU_TIME_LIMIT,
    EVICTION,
    INACTIVITY,
    MAXIMUM_REQUESTS,
    MEMORY_LIMIT,
    RELOAD,
    REQUEST_TIMEOUT,
    RESTART_INTERVAL,
    SCRIPT_CHANGED,
    SCRIPT_REJECTED,
    SHUTDOWN,
    TRIGGERS,
    Trigger,
)

TIMERS = Timers(startup=60.0, graceful=15.0, eviction=7.0, shutdown=5.0)
STARTED = 1000.0
LAST = TIMERS.shutdown + LAST_WORDS

RANK = {Order.HOPE: 1, Order.FINISH: 2, Order.STOP: 3, Order.KILL: 4}

PLANNED = [
    MAXIMUM_REQUESTS,
    RESTART_INTERVAL,
    CPU_TIME_LIMIT,
    MEMORY_LIMIT,
    SCRIPT_CHANGED,
    RELOAD,
]


def starting(timers: Timers = TIMERS) -> Life:
    return Life(timers, STARTED)


def serving(timers: Timers = TIMERS) -> Life:
    life = starting(timers)
    life.ready()
    return life


def draining(trigger: Trigger = RELOAD, timers: Timers = TIMERS, now: float = STARTED) -> Life:
    life = serving(timers)
    life.drain(trigger, now, is_needed=True)
    return life


# --- a start


def test_a_start_that_takes_too_long_is_ended_once_and_by_force() -> None:
    life = starting()
    assert life.next_look() == STARTED + 60.0
    assert life.tick(STARTED + 59.9) == []
    assert life.tick(STARTED + 60.0) == [Order.RESTART]
    assert life.tick(STARTED + 1e6) == []
    assert life.next_look() == math.inf


def test_a_process_that_serves_has_no_deadline() -> None:
    life = serving()
    assert life.next_look() == math.inf
    assert life.tick(1e12) == []
    assert life.state is State.SERVING


def test_startup_timeout_off_is_for_ever() -> None:
    life = starting(Timers(math.inf, 15.0, 7.0, 5.0))
    assert life.tick(1e12) == []


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=lambda trigger: trigger.name)
def test_a_process_that_has_not_begun_is_stopped_at_once_whatever_the_reason(trigger: Trigger) -> None:
    life = starting()
    assert life.drain(trigger, 1001.0, is_needed=True) == [Order.STOP]
    assert life.trigger is trigger
    assert life.next_look() == 1001.0 + LAST


def test_one_that_was_told_to_stop_while_it_loaded_is_not_asked_again_when_it_is_ready() -> None:
    life = starting()
    life.stop(1001.0)
    life.ready()
    assert (life.state, life.next_look()) == (State.STOPPING, 1001.0 + LAST)


# --- planned


@pytest.mark.parametrize("trigger", PLANNED, ids=lambda trigger: trigger.name)
@pytest.mark.parametrize("is_needed", [True, False])
def test_a_planned_change_waits_for_its_replacement_however_long_and_then_has_its_whole_window(
    trigger: Trigger, is_needed: bool
) -> None:
    life = serving()
    assert life.drain(trigger, 1010.0, is_needed=is_needed) == []
    assert (life.state, life.next_look()) == (State.DRAINING, math.inf)
    assert life.tick(5000.0) == []
    assert life.succeed(5000.0) == [Order.FINISH]
    assert life.next_look() == 5000.0 + 15.0
    assert life.tick(5014.9) == []
    assert life.tick(5015.0) == [Order.STOP]
    assert life.next_look() == 5015.0 + LAST
    assert life.tick(5015.0 + LAST) == [Order.KILL]
    assert life.tick(1e12) == []


# --- not planned


def test_where_others_serve_an_unhealthy_process_hopes_for_a_moment_without_work_from_now_on() -> None:
    life = serving()
    assert life.drain(REQUEST_TIMEOUT, 1010.0, is_needed=False) == [Order.HOPE]
    assert life.next_look() == 1010.0 + 15.0
    assert life.succeed(1012.0) == [Order.FINISH]
    assert life.next_look() == 1010.0 + 15.0, "its replacement gives it no more time"
    assert life.tick(1025.0) == [Order.STOP]


def test_the_only_one_that_serves_stays_idle_or_not_and_its_window_runs() -> None:
    life = serving()
    assert life.drain(REQUEST_TIMEOUT, 1010.0, is_needed=True) == []
    assert life.state is State.DRAINING
    assert life.next_look() == 1010.0 + 15.0


@pytest.mark.parametrize("eviction", [0.5, 7.0, 600.0])
def test_an_eviction_has_a_window_of_its_own(eviction: float) -> None:
    life = serving(Timers(60.0, 15.0, eviction, 5.0))
    life.drain(EVICTION, 1010.0, is_needed=False)
    assert life.next_look() == 1010.0 + eviction


@pytest.mark.parametrize("trigger", PLANNED, ids=lambda trigger: trigger.name)
def test_an_eviction_does_not_wait_for_what_a_planned_change_waits_for(trigger: Trigger) -> None:
    life = draining(trigger)
    assert life.drain(EVICTION, 1010.0, is_needed=False) == [Order.HOPE]
    assert (life.trigger, life.next_look()) == (EVICTION, 1010.0 + 7.0)


def test_what_is_not_planned_keeps_its_reason() -> None:
    life = draining(REQUEST_TIMEOUT)
    life.drain(EVICTION, 1003.0, is_needed=True)
    life.drain(RELOAD, 1004.0, is_needed=True)
    assert (life.trigger, life.next_look()) == (REQUEST_TIMEOUT, STARTED + 15.0)


# --- at once


def test_outdated_code_accepts_no_more_from_the_first_moment_on() -> None:
    life = serving()
    assert life.drain(SCRIPT_REJECTED, 1010.0, is_needed=True) == [Order.FINISH]
    assert (life.state, life.gets_successor, life.next_look()) == (State.FINISHING, True, 1010.0 + 15.0)


def test_an_idle_process_ends_and_nobody_comes_in_its_place() -> None:
    life = serving()
    assert life.drain(INACTIVITY, 1010.0, is_needed=True) == [Order.FINISH]
    assert (life.state, life.gets_successor) == (State.FINISHING, False)


@pytest.mark.parametrize(
    "trigger", [each for each in TRIGGERS.values() if each is not INACTIVITY], ids=lambda each: each.name
)
def test_everyone_else_gets_a_successor(trigger: Trigger) -> None:
    assert draining(trigger).gets_successor


def test_one_that_dies_without_a_reason_gets_a_successor_too() -> None:
    life = serving()
    life.exited()
    assert life.gets_successor
    assert life.is_over


def test_who_is_idle_while_its_replacement_starts_waits_for_it_all_the_same() -> None:
    life = draining(RELOAD)
    assert life.drain(INACTIVITY, 1010.0, is_needed=True) == []
    assert (life.state, life.gets_successor) == (State.DRAINING, True)


# --- who stays


def test_a_process_stays_until_its_replacement_is_ready_unless_it_was_told_to_leave_when_idle() -> None:
    assert serving().stays
    assert draining(RELOAD).stays
    assert draining(EVICTION).stays, "nobody else did"
    life = serving()
    life.drain(EVICTION, 1010.0, is_needed=False)
    assert not life.stays


def test_who_has_not_begun_or_accepts_no_more_does_not_stay() -> None:
    assert not starting().stays
    assert not draining(SCRIPT_REJECTED).stays
    assert not draining(SHUTDOWN).stays


@pytest.mark.parametrize(
    "life",
    [starting, serving, draining, lambda: draining(EVICTION), lambda: draining(SCRIPT_REJECTED)],
    ids=["starting", "serving", "draining", "hoping", "finishing"],
)
def test_a_shutdown_has_no_window(life: Callable[[], Life]) -> None:
    process = life()
    assert process.drain(SHUTDOWN, 1010.0, is_needed=True) == [Order.STOP]
    assert process.next_look() == 1010.0 + LAST


# --- windows of no time


@pytest.mark.parametrize("trigger", [REQUEST_TIMEOUT, EVICTION, SCRIPT_REJECTED, INACTIVITY])
@pytest.mark.parametrize("is_needed", [True, False])
def test_a_window_of_0_is_over_at_once(trigger: Trigger, is_needed: bool) -> None:
    life = serving(Timers(60.0, 0.0, 0.0, 5.0))
    assert life.drain(trigger, 1010.0, is_needed=is_needed) == [Order.STOP]
    assert life.next_look() == 1010.0 + LAST


@pytest.mark.parametrize("trigger", PLANNED, ids=lambda trigger: trigger.name)
def test_even_then_a_planned_change_waits_for_its_replacement(trigger: Trigger) -> None:
    life = serving(Timers(60.0, 0.0, 0.0, 5.0))
    assert life.drain(trigger, 1010.0, is_needed=False) == []
    assert life.succeed(1200.0) == [Order.STOP]


def test_a_shutdown_timeout_of_0_leaves_the_last_words() -> None:
    life = serving(Timers(60.0, 15.0, 7.0, 0.0))
    life.stop(1010.0)
    assert life.next_look() == 1010.0 + LAST_WORDS


# --- the gateway was stopped itself


def test_what_the_gateway_missed_does_not_count() -> None:
    life = draining(EVICTION, now=1010.0)
    life.late(100.0)
    assert life.next_look() == 1010.0 + 7.0 + 100.0
    assert life.tick(1116.9) == []
    assert life.tick(1117.0) == [Order.STOP]


def test_where_there_is_no_deadline_nothing_is_missed() -> None:
    life = draining(RELOAD)
    life.late(100.0)
    assert life.next_look() == math.inf


# --- whatever comes


SECONDS = st.sampled_from([0.0, 0.1, 1.0, 5.0, 6.0, 7.0, 15.0, 60.0])
TIMERS_OF_ANY_KIND = st.builds(
    Timers,
    startup=st.sampled_from([0.5, 60.0, math.inf]),
    graceful=st.sampled_from([0.0, 0.5, 15.0]),
    eviction=st.sampled_from([0.0, 7.0, 600.0]),
    shutdown=st.sampled_from([0.0, 5.0]),
)
HAPPENS = st.one_of(
    st.tuples(st.just("drain"), st.sampled_from(list(TRIGGERS.values())), st.booleans()),
    st.tuples(st.sampled_from(["ready", "succeed", "stop", "tick", "look", "exited"])),
    st.tuples(st.just("late"), st.sampled_from([0.5, 30.0])),
)
STORY = st.lists(st.tuples(SECONDS, HAPPENS), max_size=25)


class Told:
    """A life to which things happen as its supervisor would have them, and all that was ordered."""

    def __init__(self, timers: Timers) -> None:
        self.life = Life(timers, STARTED)
        self.timers = timers
        self.now = STARTED
        self.orders: list[Order] = []

    def happens(self, pause: float, what: tuple) -> None:
        """One thing, after some seconds; what cannot be in this state does not happen."""
        self.now += pause
        life, (name, *arguments) = self.life, what
        if life.is_over:
            return
        if name == "drain":
            trigger, is_needed = arguments
            self.orders += life.drain(trigger, self.now, is_needed=is_needed)
        elif name == "ready":
            if life.state in (State.STARTING, State.STOPPING):
                life.ready()
        elif name == "succeed":
            if life.state not in (State.STARTING, State.SERVING):
                self.orders += life.succeed(self.now)
        elif name == "look":
            self.look()
        elif name == "late":
            life.late(*arguments)
        elif name == "exited":
            life.exited()
        else:
            self.orders += life.tick(self.now) if name == "tick" else life.stop(self.now)

    def look(self) -> None:
        """Wait until something is due, and see what."""
        if self.life.next_look() < math.inf:
            self.now = max(self.now, self.life.next_look())
            self.orders += self.life.tick(self.now)


@given(TIMERS_OF_ANY_KIND, STORY)
def test_orders_never_go_back_and_none_is_given_twice(timers: Timers, story: list) -> None:
    told = Told(timers)
    for each in story:
        told.happens(*each)
    ranks = [RANK[order] for order in told.orders if order is not Order.RESTART]
    assert ranks == sorted(set(ranks))
    assert told.orders.count(Order.RESTART) <= 1


@given(TIMERS_OF_ANY_KIND, STORY)
def test_after_finish_or_stop_it_is_never_said_to_accept_again(timers: Timers, story: list) -> None:
    told = Told(timers)
    for each in story:
        told.happens(*each)
        if Order.FINISH in told.orders or Order.STOP in told.orders:
            assert told.life.state not in ACCEPTING


@given(TIMERS_OF_ANY_KIND, STORY)
def test_a_state_is_never_left_backwards(timers: Timers, story: list) -> None:
    told, order = Told(timers), list(State)
    before = told.life.state
    for each in story:
        told.happens(*each)
        assert order.index(told.life.state) >= order.index(before)
        before = told.life.state


@given(TIMERS_OF_ANY_KIND, STORY)
def test_who_is_told_nothing_has_a_state_that_says_so(timers: Timers, story: list) -> None:
    """What the daemon knows (its orders) and what the gateway believes (the state) never differ."""
    told = Told(timers)
    for each in story:
        told.happens(*each)
        if told.life.is_over:
            return
        if told.life.state is State.FINISHING:
            assert Order.FINISH in told.orders
        if told.life.state is State.STOPPING:
            assert Order.STOP in told.orders


@given(TIMERS_OF_ANY_KIND, STORY)
def test_left_alone_it_ends_in_time_unless_it_serves_or_waits_for_its_replacement(
    timers: Timers, story: list
) -> None:
    told = Told(timers)
    for each in story:
        told.happens(*each)
    life, began, missed = told.life, told.now, sum(w[1] for _, w in story if w[0] == "late")
    state_before = life.state
    for _ in range(4):
        told.look()
    took = told.now - began - missed
    if state_before is State.EXITED or state_before is State.SERVING:
        assert life.state is state_before
    elif state_before is State.STARTING:
        assert Order.RESTART in told.orders or timers.startup == math.inf
        assert took <= timers.startup
    elif life.state is State.DRAINING:
        assert life.trigger is not None
        assert life.trigger.planned, "only a planned change may wait for ever"
    else:
        assert (life.state, told.orders[-2:]) == (State.STOPPING, [Order.STOP, Order.KILL])
        assert took <= max(timers.graceful, timers.eviction) + timers.shutdown + LAST_WORDS + 1e-6


@given(
    TIMERS_OF_ANY_KIND,
    st.sampled_from(list(TRIGGERS.values())),
    st.lists(st.tuples(SECONDS, st.sampled_from(list(TRIGGERS.values())), st.booleans()), max_size=10),
)
def test_more_reasons_never_give_more_time(timers: Timers, first: Trigger, more: list) -> None:
    """Nor does a stop: it comes when the window is over, or before."""
    life, now = serving(timers), STARTED
    life.drain(first, now, is_needed=True)
    for pause, trigger, is_needed in more:
        deadline, state = life.next_look(), life.state
        now += pause
        if now >= deadline:
            return
        life.drain(trigger, now, is_needed=is_needed)
        if life.state is state:
            assert life.next_look() <= deadline
        elif life.state is State.STOPPING:
            assert life.next_look() == now + timers.shutdown + LAST_WORDS
        else:
            assert life.next_look() <= min(deadline, now + max(timers.graceful, timers.eviction))


@given(TIMERS_OF_ANY_KIND, st.lists(SECONDS, max_size=5))
def test_a_second_replacement_or_a_second_stop_changes_nothing(timers: Timers, pauses: list[float]) -> None:
    life = draining(RELOAD, timers)
    life.succeed(STARTED)
    deadline = life.next_look()
    now = STARTED
    for pause in pauses:
        now += pause
        assert life.succeed(now) == []
        assert life.next_look() == deadline
    life.stop(now)
    deadline = life.next_look()
    for pause in pauses:
        assert life.stop(now + pause) == []
        assert life.next_look() == deadline
