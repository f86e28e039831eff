"""The life of a daemon process."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gatekeep.lifecycle._process_state import (
    TRANSITIONS,
    ProcessEvent as Event,
    ProcessState as State,
    ProcessStateError,
    after,
    table,
)

_NEXT = {
    State.STARTING: {"READY": State.SERVING, "DRAIN": State.STOPPING, "STOP": State.STOPPING, "EXIT": State.EXITED},
    State.SERVING: {"DRAIN": State.DRAINING, "STOP": State.STOPPING, "EXIT": State.EXITED},
    State.DRAINING: {
        "DRAIN": State.DRAINING, "SUCCEED": State.FINISHING, "STOP": State.STOPPING, "EXIT": State.EXITED
    },
    State.FINISHING: {
        "DRAIN": State.FINISHING, "SUCCEED": State.FINISHING, "STOP": State.STOPPING, "EXIT": State.EXITED
    },
    State.STOPPING: {
        "READY": State.STOPPING, "DRAIN": State.STOPPING, "SUCCEED": State.STOPPING, "STOP": State.STOPPING,
        "EXIT": State.EXITED,
    },
    State.EXITED: {},
}  # fmt: skip

TABLE = {(state, event): _NEXT[state].get(event.name) for state, event in product(State, Event)}


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


def test_the_documentation_shows_this_table() -> None:
    assert table() in (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
