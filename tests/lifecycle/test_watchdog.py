"""What is done about requests that do not end, told by numbers for time."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, product

import attrs
import pytest
from hypothesis import given, strategies as st

from gatekeep._deadlines import fire_after, is_stale
from gatekeep.lifecycle._watchdog import (
    LOOK,
    MOMENT,
    REACH_AGAIN,
    TRANSITIONS,
    Action,
    Escalate,
    Event,
    Fate,
    Interrupt,
    Reach,
    Recovered,
    State,
    Watchdog,
    WatchdogError,
    Watched,
    after,
)

FIRE, GRACE = 60.0, 10.0
PENDING, UNWINDING, SWALLOWED = Fate


@attrs.define
class Wedge:
    """A request of a test: it begins, perhaps it ends; `fate` is told the seconds since it was interrupted."""

    thread: int
    request: int
    begins: float = 0.0
    ends: float = math.inf
    fate: Callable[[float], Fate] = lambda since: PENDING


def play(
    wedges: list[Wedge],
    until: float,
    *,
    fire: float = FIRE,
    grace: float = GRACE,
    stopped: tuple[float, float] | None = None,
) -> list[tuple[float, Action]]:
    """Look when the watchdog wants to, except while the process is `stopped` (from, to); what it did, and when."""
    watchdog, now, seen = Watchdog(fire, grace, 0.0), 0.0, list[tuple[float, Action]]()
    interrupted: dict[int, float] = {}
    while (now := watchdog.next_look()) <= until:
        if stopped is not None and stopped[0] <= now < stopped[1]:
            now = stopped[1]
        running = [
            Watched(
                one.thread, one.request, now - one.begins, one.fate(now - interrupted.get(one.request, now))
            )
            for one in wedges
            if one.begins <= now < one.ends
        ]
        for action in watchdog.tick(now, running):
            seen.append((now, action))
            if isinstance(action, Interrupt):
                interrupted.setdefault(action.request, now)
        assert watchdog.next_look() > now
    return seen


def kinds(seen: list[tuple[float, Action]]) -> list[type]:
    return [type(action) for _, action in seen]


def times(seen: list[tuple[float, Action]], kind: type) -> list[float]:
    return [round(now, 3) for now, action in seen if isinstance(action, kind)]


def cleaning(seconds: float) -> Callable[[float], Fate]:
    """Unwinding from the first moment, for so long; then gone."""
    return lambda since: UNWINDING if since < seconds else SWALLOWED


# --- the table


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_leads_somewhere_or_is_refused_with_both_names(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(WatchdogError, match=f"^{event.name} while {state.name}$"):
        after(state, event)


@pytest.mark.parametrize("state", [State.RUNNING, State.INTERRUPTED, State.ESCALATED])
def test_a_request_may_end_in_every_state_and_recovers_only_from_an_interrupt(state: State) -> None:
    assert (after(state, Event.END) is State.RECOVERED) == (state is State.INTERRUPTED)


# --- T_fire


@pytest.mark.parametrize("threads", [1, 2, 5, 10, 15, 25])
def test_a_request_is_interrupted_at_t_fire(threads: int) -> None:
    fire = fire_after(60, threads)
    seen = play([Wedge(0, 1)], fire + 1, fire=fire)
    assert times(seen, Interrupt) == [pytest.approx(fire, abs=0.01)]


def test_a_request_that_ends_before_t_fire_is_never_touched() -> None:
    assert play([Wedge(0, 1, ends=59.9), Wedge(1, 2, ends=59.9)], 200) == []


def test_each_thread_is_judged_alone() -> None:
    wedges = [Wedge(number, 10 + number, begins=number * 7.0) for number in range(5)]
    seen = play(wedges, 200)
    first = {action.request: now for now, action in seen if isinstance(action, Interrupt)}
    last = {action.request: now for now, action in seen if isinstance(action, Escalate)}
    for wedge in wedges:
        assert first[wedge.request] == pytest.approx(wedge.begins + FIRE, abs=0.01)
        assert last[wedge.request] == pytest.approx(wedge.begins + FIRE + GRACE, abs=0.02)
    assert kinds(seen).count(Escalate) == 5


@pytest.mark.parametrize("grace", [0.0, GRACE])
def test_without_a_request_timeout_nothing_ever_happens(grace: float) -> None:
    watchdog = Watchdog(math.inf, grace, 0.0)
    for now in (1.0, 1e3, 1e9):
        assert watchdog.tick(now, [Watched(0, 1, now)]) == []
        assert watchdog.next_look() == math.inf


def test_the_clock_stands_while_a_slow_client_is_waited_for() -> None:
    watchdog = Watchdog(FIRE, GRACE, 0.0)
    for now in range(1, 1000):
        assert watchdog.tick(now, [Watched(0, 1, min(now, 59.0))]) == []
        assert now < watchdog.next_look() <= now + LOOK
    assert watchdog.tick(1000, [Watched(0, 1, 60.0)]) == [Interrupt(0, 1)]


@pytest.mark.parametrize("fire", [0.05, 0.3, 2.0])
def test_a_request_that_begins_just_after_a_look_is_still_met_at_t_fire(fire: float) -> None:
    seen = play([Wedge(0, 1, begins=10.001)], 15, fire=fire, grace=1)
    assert times(seen, Interrupt) == [pytest.approx(10.001 + fire, abs=0.01)]


# --- interrupt-timeout = 0


def test_without_a_grace_a_request_is_escalated_at_once_and_once() -> None:
    ((now, action),) = play([Wedge(3, 7)], 200, grace=0)
    assert action == Escalate(3, 7)
    assert now == pytest.approx(FIRE, abs=0.01)


def test_without_a_grace_each_wedge_is_escalated_by_itself() -> None:
    seen = play([Wedge(0, 1), Wedge(1, 2, begins=5)], 200, grace=0)
    assert times(seen, Escalate) == [pytest.approx(60, abs=0.01), pytest.approx(65, abs=0.01)]


# --- the grace


def test_a_request_that_unwinds_at_once_has_recovered() -> None:
    seen = play([Wedge(0, 1, ends=60.05)], 100)
    assert kinds(seen) == [Interrupt, Recovered]
    (_, recovered) = seen[1]
    assert isinstance(recovered, Recovered)
    assert (recovered.thread, recovered.request) == (0, 1)
    assert 0.05 <= recovered.after <= MOMENT + 0.01


def test_a_finally_that_takes_its_time_is_left_alone() -> None:
    seen = play([Wedge(0, 1, ends=68, fate=cleaning(8))], 100)
    assert kinds(seen) == [Interrupt, Recovered]


def test_a_finally_that_takes_longer_than_the_grace_is_escalated_without_being_disturbed() -> None:
    seen = play([Wedge(0, 1, fate=cleaning(1000))], 200)
    assert kinds(seen) == [Interrupt, Escalate]
    assert times(seen, Escalate) == [pytest.approx(FIRE + GRACE, abs=0.01)]


def test_a_thread_that_is_blocked_is_reached_after_a_moment_and_every_second() -> None:
    seen = play([Wedge(0, 1)], 200)
    assert kinds(seen)[0] is Interrupt
    assert kinds(seen)[-1] is Escalate
    reached = times(seen, Reach)
    assert reached == [
        pytest.approx(FIRE + MOMENT + number * REACH_AGAIN, abs=0.05) for number in range(len(reached))
    ]
    assert len(reached) == 10
    assert len(seen) == 12


def test_a_thread_that_swallowed_it_is_interrupted_again_and_reached_only_if_it_blocks_then() -> None:
    swallowing = play([Wedge(0, 1, fate=lambda since: SWALLOWED)], 200)
    assert set(kinds(swallowing)) == {Interrupt, Escalate}
    assert [action.again for _, action in swallowing if isinstance(action, Interrupt)][:3] == [
        False,
        True,
        True,
    ]

    blocking = play([Wedge(0, 1, fate=lambda since: SWALLOWED if since < 0.6 else PENDING)], 63)
    assert kinds(blocking)[:3] == [Interrupt, Interrupt, Reach]
    (again, reach) = blocking[1][0], blocking[2][0]
    assert reach - again >= MOMENT - 1e-6


def test_an_exception_swallowed_after_a_long_cleaning_is_sent_again_but_the_grace_is_the_first_ones() -> None:
    seen = play([Wedge(0, 1, fate=cleaning(5))], 200)
    assert times(seen, Interrupt)[:2] == [pytest.approx(60, abs=0.01), pytest.approx(65, abs=MOMENT + 0.01)]
    assert times(seen, Escalate) == [pytest.approx(FIRE + GRACE, abs=0.01)]


def test_an_escalated_request_may_still_unwind_and_nothing_more_is_said_about_it() -> None:
    seen = play([Wedge(0, 1, ends=80, fate=cleaning(1000))], 200)
    assert kinds(seen) == [Interrupt, Escalate]


def test_a_sibling_goes_on_with_its_own_grace_after_an_escalation() -> None:
    seen = play([Wedge(0, 1, fate=cleaning(99)), Wedge(1, 2, begins=5, ends=72, fate=cleaning(99))], 200)
    assert kinds(seen) == [Interrupt, Interrupt, Escalate, Recovered]


# --- the next request on that thread


def test_the_next_request_of_a_thread_is_a_new_story() -> None:
    watchdog = Watchdog(FIRE, GRACE, 0.0)
    watchdog.tick(1, [Watched(0, 1, 59.5)])
    assert watchdog.tick(2, [Watched(0, 1, 60.5)]) == [Interrupt(0, 1)]
    assert watchdog.tick(3, [Watched(0, 2, 0.4)]) == [Recovered(0, 1, 1.0)]
    assert watchdog.tick(4, [Watched(0, 2, 1.4, SWALLOWED)]) == []
    assert watchdog.tick(4.5, []) == []
    assert watchdog.tick(5, [Watched(0, 3, 61)]) == [Interrupt(0, 3)]


def test_a_wedge_after_an_escalated_one_on_the_same_thread_is_judged_like_any_other() -> None:
    seen = play([Wedge(0, 1, ends=75, fate=cleaning(99)), Wedge(0, 2, begins=76, fate=cleaning(99))], 200)
    assert [action for _, action in seen] == [
        Interrupt(0, 1),
        Escalate(0, 1),
        Interrupt(0, 2),
        Escalate(0, 2),
    ]
    assert [now for now, _ in seen] == pytest.approx([60, 70, 136, 146], abs=0.02)


# --- fair clocks


def test_a_process_that_was_stopped_gives_its_requests_the_time_back() -> None:
    seen = play([Wedge(0, 1)], 500, stopped=(20.2, 320.2))
    assert times(seen, Interrupt) == [pytest.approx(FIRE + 300, abs=LOOK)]


@pytest.mark.parametrize("grace", [0.0, GRACE])
def test_a_request_that_was_only_stopped_with_its_process_is_not_wedged(grace: float) -> None:
    assert play([Wedge(0, 1, begins=19.9, ends=321)], 500, grace=grace, stopped=(20, 320)) == []


def test_a_stop_in_the_grace_is_given_back_too() -> None:
    seen = play([Wedge(0, 1, fate=cleaning(999))], 500, stopped=(62, 162))
    assert times(seen, Escalate) == [pytest.approx(FIRE + GRACE + 100, abs=LOOK)]


def test_a_stop_before_t_fire_does_not_use_up_what_the_grace_is_given_back() -> None:
    watchdog = Watchdog(FIRE, GRACE, 0.0)
    assert watchdog.tick(1, [Watched(0, 1, 1)]) == []
    assert watchdog.tick(101, [Watched(0, 1, 101)]) == []
    now = 102.0
    while not watchdog.tick(now, [Watched(0, 1, now, UNWINDING)]):
        now = watchdog.next_look()
    assert now == pytest.approx(FIRE + 100, abs=LOOK)
    assert watchdog.tick(now + 100, [Watched(0, 1, now + 100, UNWINDING)]) == []


def test_a_request_that_keeps_the_gil_for_seconds_again_and_again_is_met_all_the_same() -> None:
    watchdog, now = Watchdog(FIRE, GRACE, 0.0), 0.0
    while not (actions := watchdog.tick(now, [Watched(0, 1, now)])):
        now = watchdog.next_look() + 4.7
    assert actions == [Interrupt(0, 1)]
    assert now <= FIRE + 2 * 5.7


def test_a_request_that_began_after_the_stop_has_nothing_to_be_given_back() -> None:
    watchdog = Watchdog(1.0, 5.0, 0.0)
    assert watchdog.tick(300.0, [Watched(0, 1, 0.1)]) == []
    assert watchdog.tick(301.0, [Watched(0, 1, 1.1)]) == [Interrupt(0, 1)]


# --- whatever happens

CROWDS = st.lists(
    st.builds(
        lambda thread, begins, lasts, fates: (thread, begins, lasts, fates),
        st.integers(0, 3),
        st.floats(0, 20),
        st.floats(0.01, 40),
        st.lists(st.sampled_from(Fate), min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def crowd(drawn: list[tuple[int, float, float, list[Fate]]]) -> list[Wedge]:
    """Requests as drawn, each after the one before on its thread."""
    free: dict[int, float] = {}
    wedges = []
    for request, (thread, pause, lasts, fates) in enumerate(drawn, 1):
        begins = free.get(thread, 0.0) + pause
        free[thread] = begins + lasts
        wedges.append(Wedge(thread, request, begins, begins + lasts, _told(fates)))
    return wedges


def _told(fates: list[Fate]) -> Callable[[float], Fate]:
    return lambda since: fates[int(since) % len(fates)]


@given(CROWDS, st.sampled_from([0.5, 2.0, 9.0]), st.sampled_from([0.0, 1.0, 6.0]))
def test_no_request_is_escalated_twice_or_before_it_is_stale_and_none_that_should_be_is_forgotten(
    drawn: list[tuple[int, float, float, list[Fate]]], fire: float, grace: float
) -> None:
    wedges = crowd(drawn)
    seen = play(wedges, 400, fire=fire, grace=grace)
    for wedge in wedges:
        story = [(now, action) for now, action in seen if action.request == wedge.request]
        words = kinds(story)
        lasted = wedge.ends - wedge.begins
        assert words.count(Escalate) <= 1
        assert words.count(Recovered) <= 1
        assert all(action.thread == wedge.thread for _, action in story)
        if Escalate in words:
            (now,) = [now for now, action in story if isinstance(action, Escalate)]
            assert is_stale(now - wedge.begins, fire, grace)
            assert words[-1] is Escalate
        if lasted < fire:
            assert words == []
        if lasted > fire + grace + 0.1:
            assert Escalate in words
        if Interrupt in words:
            assert grace
            assert words[0] is Interrupt
            assert words[-1] in (Escalate, Recovered)


@given(CROWDS, st.sampled_from([0.5, 2.0]), st.sampled_from([1.0, 6.0]))
def test_a_thread_is_left_alone_while_it_unwinds_and_for_a_moment_after_each_try(
    drawn: list[tuple[int, float, float, list[Fate]]], fire: float, grace: float
) -> None:
    wedges = crowd(drawn)
    seen = play(wedges, 400, fire=fire, grace=grace)
    for wedge in wedges:
        tries = [
            (now, action)
            for now, action in seen
            if action.request == wedge.request and isinstance(action, Interrupt | Reach)
        ]
        for (before, _), (now, action) in pairwise(tries):
            fate = wedge.fate(now - tries[0][0])
            assert fate is (SWALLOWED if isinstance(action, Interrupt) else PENDING)
            assert now - before >= MOMENT - 1e-6
