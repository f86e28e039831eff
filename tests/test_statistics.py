"""The counters, and the snapshot that is frozen."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from hypothesis import given, strategies as st

from gatekeep import Outcome, Stage, Statistics
from gatekeep._events import Record
from gatekeep._statistics import Counters


def ended(stage: Stage, outcome: Outcome) -> Record:
    record = Record(1, "unix", 0.0)
    record.stage, record.outcome = stage, outcome
    return record


def counted(*pairs: tuple[Stage, Outcome]) -> Counters:
    counters = Counters()
    for stage, outcome in pairs:
        counters.count(ended(stage, outcome))
    return counters


@given(st.lists(st.tuples(st.sampled_from(Stage), st.sampled_from(Outcome)), max_size=30))
def test_requests_are_counted_by_stage_and_outcome(pairs: list[tuple[Stage, Outcome]]) -> None:
    statistics = counted(*pairs).snapshot(standing=0, processes=())
    assert statistics.requests == Counter(pairs)
    assert statistics.by_outcome() == Counter(outcome for _, outcome in pairs)
    assert 0 not in statistics.requests.values()


def test_a_snapshot_has_all_of_the_numbers() -> None:
    counters = counted((Stage.RESPOND, Outcome.SERVED))
    names = ["in_flight", "connections", "retries", "dropped_fields", "dropped_log_records", "process_starts"]
    for number, name in enumerate([*names, "process_ends"], 1):
        setattr(counters, name, number)
    assert attrs.asdict(counters.snapshot(standing=8, processes=(9, 10))) == {
        "requests": {(Stage.RESPOND, Outcome.SERVED): 1},
        "in_flight": 1,
        "connections": 2,
        "retries": 3,
        "dropped_fields": 4,
        "dropped_log_records": 5,
        "process_starts": 6,
        "process_ends": 7,
        "standing": 8,
        "processes": (9, 10),
    }


def test_nothing_has_happened_at_first() -> None:
    statistics = Counters().snapshot(standing=0, processes=())
    assert (statistics.requests, statistics.by_outcome()) == ({}, {})
    assert {getattr(statistics, field.name) for field in attrs.fields(Statistics)[1:-1]} == {0}


def test_a_snapshot_does_not_change_and_cannot_be_changed() -> None:
    counters = counted((Stage.RESPOND, Outcome.SERVED))
    statistics = counters.snapshot(standing=0, processes=())
    counters.count(ended(Stage.RESPOND, Outcome.SERVED))
    counters.in_flight = 5
    assert statistics.requests == {(Stage.RESPOND, Outcome.SERVED): 1}
    assert statistics.in_flight == 0
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        statistics.in_flight = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        statistics.requests[Stage.RUN, Outcome.LOST] = 1  # type: ignore[index]


def test_a_request_that_has_no_outcome_cannot_be_counted() -> None:
    with pytest.raises(AssertionError):
        Counters().count(Record(1, "unix", 0.0))
