"""The counters, and the snapshot that is frozen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from gatekeep import Outcome, Stage
from gatekeep._events import Record
from gatekeep._statistics import Counters

NOW: dict[str, Any] = {"waiting": 0, "standing": 0, "oldest": 0.0, "processes": ()}
"""What a snapshot is told beside the counters."""


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
    statistics = counted(*pairs).snapshot(**NOW)
    assert statistics.requests == Counter(pairs)
    assert statistics.by_outcome() == Counter(outcome for _, outcome in pairs)
    assert 0 not in statistics.requests.values()


@given(st.lists(st.sampled_from(["", "header-timeout", "queue-timeout", "socket-timeout"]), max_size=30))
def test_requests_are_counted_by_the_timer_that_ended_them(timers: list[str]) -> None:
    counters = Counters()
    for timer in timers:
        record = ended(Stage.QUEUE, Outcome.QUEUE_TIMEOUT)
        record.timer = timer
        counters.count(record)
    assert counters.snapshot(**NOW).timers == Counter(filter(None, timers))


def test_a_snapshot_has_all_of_the_numbers() -> None:
    record = ended(Stage.QUEUE, Outcome.QUEUE_TIMEOUT)
    record.timer = "queue-timeout"
    counters = Counters()
    counters.count(record)
    names = ["in_flight", "connections", "idle_closed", "retries", "dropped_fields", "dropped_log_records"]
    counters.streams_ended, counters.not_introduced = 13, 14
    for number, name in enumerate([*names, "process_starts", "process_ends", "deadlocks"], 1):
        setattr(counters, name, number)
    assert attrs.asdict(counters.snapshot(waiting=9, standing=10, oldest=1.5, processes=(11, 12))) == {
        "requests": {(Stage.QUEUE, Outcome.QUEUE_TIMEOUT): 1},
        "timers": {"queue-timeout": 1},
        "streams_ended": 13,
        "not_introduced": 14,
        "in_flight": 1,
        "connections": 2,
        "idle_closed": 3,
        "retries": 4,
        "dropped_fields": 5,
        "dropped_log_records": 6,
        "process_starts": 7,
        "process_ends": 8,
        "deadlocks": 9,
        "waiting": 9,
        "standing": 10,
        "oldest": 1.5,
        "processes": (11, 12),
    }


def test_nothing_has_happened_at_first() -> None:
    statistics = attrs.asdict(Counters().snapshot(**NOW))
    assert [statistics.pop(name) for name in ("requests", "timers", "processes")] == [{}, {}, ()]
    assert set(statistics.values()) == {0}


def test_a_snapshot_does_not_change_and_cannot_be_changed() -> None:
    counters = counted((Stage.RESPOND, Outcome.SERVED))
    statistics = counters.snapshot(**NOW)
    counters.count(ended(Stage.RESPOND, Outcome.SERVED))
    counters.in_flight = 5
    counters.timers["socket-timeout"] = 1
    assert statistics.requests == {(Stage.RESPOND, Outcome.SERVED): 1}
    assert statistics.timers == {}
    assert statistics.in_flight == 0
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        statistics.in_flight = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        statistics.requests[Stage.RUN, Outcome.LOST] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        statistics.timers["socket-timeout"] = 1  # type: ignore[index]


def test_a_request_that_has_no_outcome_cannot_be_counted() -> None:
    with pytest.raises(AssertionError):
        Counters().count(Record(1, "unix", 0.0))
