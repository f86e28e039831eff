"""The claim's table: a request that may have started is never sent again, one that has not is never given up for lost."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, strategies as st

from gatekeep.transport._claim import SETTLED, TRANSITIONS, Attempts, ClaimError, Event, State, after

WORKERS_WORDS = {Event.GO, Event.REJECT, Event.EXPIRED}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_is_in_the_table_or_is_refused_with_both_names(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ClaimError, match=f"^{event.name} while {state.name}$"):
            after(state, event)


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_a_worker_speaks_once_and_everything_else_may_come_at_any_time(state: State, event: Event) -> None:
    refused = state in SETTLED and event in WORKERS_WORDS
    assert ((state, event) not in TRANSITIONS) == refused


@pytest.mark.parametrize("state", [State.STANDING, State.GIVING_UP])
@pytest.mark.parametrize(
    ("event", "settled"),
    [
        (Event.GO, State.STARTED),
        (Event.REJECT, State.UNSTARTED),
        (Event.EXPIRED, State.EXPIRED),
        (Event.END_OF_STREAM, State.UNSTARTED),
    ],
)
def test_what_is_queued_decides_also_after_we_have_given_up(
    state: State, event: Event, settled: State
) -> None:
    assert after(state, event) is settled


def test_giving_up_alone_settles_nothing() -> None:
    assert after(State.STANDING, Event.GIVE_UP) is State.GIVING_UP
    assert after(State.GIVING_UP, Event.GIVE_UP) is State.GIVING_UP


@given(st.lists(st.sampled_from(Event), max_size=12))
def test_started_unstarted_and_expired_are_for_ever(events: list[Event]) -> None:
    state, settled, word = State.STANDING, None, None
    for event in events:
        try:
            state = after(state, event)
        except ClaimError:
            continue
        if settled is None and state in SETTLED:
            settled, word = state, event
        assert settled is None or state is settled
    assert (settled is State.STARTED) == (word is Event.GO)
    assert (settled is State.EXPIRED) == (word is Event.EXPIRED)


@given(st.integers(1, 60))
def test_a_request_is_offered_two_times_the_processes_plus_one_times(processes: int) -> None:
    attempts = Attempts(processes)
    numbers = []
    while not attempts.is_exhausted():
        numbers.append(attempts.begin())
        attempts.failed()
    assert numbers == list(range(1, 2 * processes + 2))
    assert attempts.made == 2 * processes + 1


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=40))
def test_an_attempt_that_was_taken_back_says_nothing_against_the_request(
    processes: int, ways: list[bool]
) -> None:
    attempts = Attempts(processes)
    for number, taken_back in enumerate(ways, 1):
        assert attempts.begin() == attempts.made == number
        attempts.failed(taken_back=taken_back)
        assert attempts.is_exhausted() == (ways[:number].count(False) >= 2 * processes + 1)
