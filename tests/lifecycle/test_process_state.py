"""The life of a daemon process."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, strategies as st

from gatekeep.lifecycle._process_state import (
    TRANSITIONS,
    ProcessEvent as Event,
    ProcessState as State,
    ProcessStateError,
    after,
)

TABLE = {
    (State.STARTING, Event.READY): State.SERVING,
    (State.STARTING, Event.STOP): State.STOPPING,
    (State.STARTING, Event.EXIT): State.EXITED,
    (State.SERVING, Event.READY): None,
    (State.SERVING, Event.STOP): State.STOPPING,
    (State.SERVING, Event.EXIT): State.EXITED,
    (State.STOPPING, Event.READY): State.STOPPING,
    (State.STOPPING, Event.STOP): State.STOPPING,
    (State.STOPPING, Event.EXIT): State.EXITED,
    (State.EXITED, Event.READY): None,
    (State.EXITED, Event.STOP): None,
    (State.EXITED, Event.EXIT): None,
}


def test_these_are_all_pairs() -> None:
    assert set(TABLE) == set(product(State, Event))
    assert set(TRANSITIONS) == {pair for pair, state in TABLE.items() if state is not None}


@pytest.mark.parametrize(("state", "event"), list(TABLE))
def test_every_pair_leads_somewhere_or_is_refused_with_both_names(state: State, event: Event) -> None:
    expected = TABLE[state, event]
    if expected is not None:
        assert after(state, event) is expected
        return
    with pytest.raises(ProcessStateError, match=f"^{event.name} while {state.name}$"):
        after(state, event)


@given(st.lists(st.sampled_from(Event), max_size=10))
def test_stopping_never_goes_back_and_exited_is_the_end(events: list[Event]) -> None:
    state = State.STARTING
    order = list(State)
    for event in events:
        try:
            new = after(state, event)
        except ProcessStateError:
            continue
        assert state is not State.EXITED
        assert order.index(new) >= order.index(state)
        state = new


@pytest.mark.parametrize("state", [State.STARTING, State.SERVING, State.STOPPING])
def test_a_process_may_exit_in_any_state(state: State) -> None:
    assert after(state, Event.EXIT) is State.EXITED
