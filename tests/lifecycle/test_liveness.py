"""The judgement of a process by its heartbeats."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
from hypothesis import given, strategies as st

from gatekeep.lifecycle._liveness import (
    DUMP_WAIT,
    SUSPECT_AFTER,
    Action,
    Event,
    Liveness,
    LivenessError,
    State,
    after,
)

TABLE: dict[tuple[State, Event], tuple[State, Action | None] | None] = {
    (State.STARTING, Event.READY): (State.ALIVE, None),
    (State.STARTING, Event.BEAT): (State.STARTING, None),
    (State.STARTING, Event.SILENCE): None,
    (State.STARTING, Event.DUMPED): None,
    (State.ALIVE, Event.READY): None,
    (State.ALIVE, Event.BEAT): (State.ALIVE, None),
    (State.ALIVE, Event.SILENCE): (State.SUSPECT, Action.SUSPECT),
    (State.ALIVE, Event.DUMPED): (State.ALIVE, None),
    (State.SUSPECT, Event.READY): None,
    (State.SUSPECT, Event.BEAT): (State.ALIVE, Action.ALIVE),
    (State.SUSPECT, Event.SILENCE): (State.DUMPING, Action.DUMP_STACKS),
    (State.SUSPECT, Event.DUMPED): (State.SUSPECT, None),
    (State.DUMPING, Event.READY): None,
    (State.DUMPING, Event.BEAT): (State.ALIVE, Action.ALIVE),
    (State.DUMPING, Event.SILENCE): (State.KILLED, Action.KILL),
    (State.DUMPING, Event.DUMPED): (State.KILLED, Action.KILL),
    (State.KILLED, Event.READY): None,
    (State.KILLED, Event.BEAT): (State.KILLED, None),
    (State.KILLED, Event.SILENCE): None,
    (State.KILLED, Event.DUMPED): (State.KILLED, None),
}

FATAL = [Action.SUSPECT, Action.DUMP_STACKS, Action.KILL]


def ready(deadlock_timeout: float = 60.0, now: float = 100.0) -> Liveness:
    liveness = Liveness(deadlock_timeout)
    liveness.ready(now)
    return liveness


def test_these_are_all_pairs() -> None:
    assert set(TABLE) == set(product(State, Event))


@pytest.mark.parametrize(("state", "event"), list(TABLE))
def test_every_pair_leads_somewhere_or_is_refused_with_both_names(state: State, event: Event) -> None:
    expected = TABLE[state, event]
    if expected is not None:
        assert after(state, event) == expected
        return
    with pytest.raises(LivenessError, match=f"^{event.name} while {state.name}$"):
        after(state, event)


def test_a_process_that_is_not_ready_is_not_judged() -> None:
    liveness = Liveness(60.0)
    assert liveness.next_look() == math.inf
    assert liveness.beat(1.0) == []
    assert liveness.tick(1e6) == []
    liveness.ready(1e6)
    assert liveness.tick(1e6 + 1) == []


def test_silence_is_suspected_then_has_its_stacks_written_then_is_killed() -> None:
    liveness = ready()
    assert liveness.next_look() == 102.5
    assert liveness.tick(102.4) == []
    assert liveness.tick(102.5) == [Action.SUSPECT]
    assert liveness.next_look() == 160.0
    assert liveness.tick(159.9) == []
    assert liveness.tick(160.0) == [Action.DUMP_STACKS]
    assert liveness.next_look() == 161.0
    assert liveness.tick(160.9) == []
    assert liveness.tick(161.0) == [Action.KILL]
    assert liveness.next_look() == math.inf
    assert liveness.tick(1e6) == []


def test_stacks_that_are_written_are_not_waited_for_longer() -> None:
    liveness = ready()
    assert liveness.tick(160.0) == [Action.SUSPECT, Action.DUMP_STACKS]
    assert liveness.dumped() == [Action.KILL]
    assert liveness.dumped() == []
    assert liveness.tick(170.0) == []


def test_the_wait_for_the_stacks_begins_when_they_are_asked_for() -> None:
    liveness = ready()
    assert Action.KILL not in liveness.tick(500.0)
    assert liveness.next_look() == 500.0 + DUMP_WAIT


@pytest.mark.parametrize("silent_until", [102.5, 160.0])
def test_a_beat_after_suspicion_makes_it_alive_again(silent_until: float) -> None:
    liveness = ready()
    assert liveness.tick(silent_until)
    assert liveness.beat(silent_until + 0.5) == [Action.ALIVE]
    assert liveness.dumped() == []
    assert liveness.tick(silent_until + 2.9) == []
    assert liveness.tick(silent_until + 3.0) == [Action.SUSPECT]


def test_a_beat_after_the_kill_means_nothing() -> None:
    liveness = ready()
    liveness.tick(160.0)
    liveness.tick(161.0)
    assert liveness.beat(161.1) == []
    assert liveness.tick(300.0) == []


def test_stacks_written_for_somebody_else_kill_nobody() -> None:
    liveness = ready()
    assert liveness.dumped() == []
    liveness.tick(102.5)
    assert liveness.dumped() == []
    assert liveness.tick(159.0) == []


def test_without_a_deadlock_timeout_a_process_is_suspected_and_never_killed() -> None:
    liveness = ready(math.inf)
    assert liveness.tick(102.5) == [Action.SUSPECT]
    assert liveness.next_look() == math.inf
    assert liveness.tick(1e9) == []
    assert liveness.beat(1e9) == [Action.ALIVE]


@pytest.mark.parametrize("deadlock_timeout", [0.1, 1.0, SUSPECT_AFTER])
def test_a_deadlock_timeout_shorter_than_two_beats_is_as_long(deadlock_timeout: float) -> None:
    liveness = ready(deadlock_timeout)
    assert liveness.tick(102.4) == []
    assert liveness.tick(102.5) == [Action.SUSPECT, Action.DUMP_STACKS]


@pytest.mark.parametrize(
    ("until", "so_far", "next_look"),
    [
        (101.0, [], 1000.0 + SUSPECT_AFTER),
        (103.0, [Action.SUSPECT], 1060.0),
        (160.0, [Action.SUSPECT, Action.DUMP_STACKS], 1000.0 + DUMP_WAIT),
    ],
)
def test_after_a_late_tick_every_clock_restarts(until: float, so_far: list[Action], next_look: float) -> None:
    liveness = ready()
    assert liveness.tick(until) == so_far
    liveness.late(1000.0)
    assert liveness.tick(1000.0) == []
    assert liveness.next_look() == next_look


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["beat", "tick", "late", "dumped"]), st.floats(0, 100)), max_size=40
)


def perform(liveness: Liveness, word: str, now: float) -> list[Action]:
    if word == "beat":
        return liveness.beat(now)
    if word == "tick":
        return liveness.tick(now)
    if word == "dumped":
        return liveness.dumped()
    liveness.late(now)
    return []


@given(ACTIONS, st.floats(0.1, 300))
def test_each_action_comes_once_a_silence_and_in_its_order(
    steps: list[tuple[str, float]], deadlock_timeout: float
) -> None:
    liveness, now, silence = ready(deadlock_timeout), 100.0, list[Action]()
    for word, pause in steps:
        now += pause
        actions = perform(liveness, word, now)
        if word == "beat":
            alive = silence and Action.KILL not in silence
            assert actions == ([Action.ALIVE] if alive else [])
            silence = [] if alive else silence
            continue
        silence += actions
        assert silence == FATAL[: len(silence)]


@given(st.lists(st.floats(0, SUSPECT_AFTER - 0.01), min_size=1, max_size=60), st.floats(0.1, 300))
def test_a_process_whose_beats_come_a_second_and_a_jitter_apart_is_never_suspected(
    gaps: list[float], deadlock_timeout: float
) -> None:
    liveness, now = ready(deadlock_timeout), 100.0
    for gap in gaps:
        assert liveness.tick(now + gap) == []
        now += gap
        assert liveness.beat(now) == []


@given(
    st.lists(st.floats(0, 2.4), max_size=10),
    st.floats(0.1, 300),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=5),
)
def test_a_silent_process_is_killed_within_deadlock_timeout_a_tick_and_a_second(
    beats: list[float], deadlock_timeout: float, ticks: list[float]
) -> None:
    liveness, now = ready(deadlock_timeout), 100.0
    for gap in beats:
        now += gap
        liveness.beat(now)
    silent, actions, turn = now, list[Action](), 0
    while Action.KILL not in actions:
        now = (
            max(now, liveness.next_look()) + ticks[turn % len(ticks)] / 2
        )  # each look is late by half a tick
        turn += 1
        actions += liveness.tick(now)
    assert actions == FATAL
    assert now - silent <= max(deadlock_timeout, SUSPECT_AFTER) + 1.0 + DUMP_WAIT + 1e-6


@given(ACTIONS)
def test_a_look_that_comes_in_time_never_has_to_come_again_at_once(steps: list[tuple[str, float]]) -> None:
    liveness, now = ready(), 100.0
    for word, pause in steps:
        now += pause
        perform(liveness, word, now)
        liveness.tick(now)
        assert liveness.next_look() > now


def test_the_actions_of_one_silence_are_apart() -> None:
    """So that evidence exists: the kill never comes with the look that asks for the stacks."""
    liveness = ready()
    looks = [liveness.tick(now) for now in (102.5, 160.0, 161.0)]
    assert [actions for actions in looks if len(actions) > 1] == []
    assert [first[0].value < second[0].value for first, second in pairwise(looks)]
