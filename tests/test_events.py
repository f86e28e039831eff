"""What is said of a request: every field is there, and the stages' times are the whole of it."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gatekeep import Outcome, Stage
from gatekeep._events import DEBUG, INFO, Action, Record, SilentLogger, request_name, says

MARKS = {
    "received": Stage.PARSE,
    "buffered": Stage.BODY,
    "written": Stage.CONNECT,
    "claimed": Stage.QUEUE,
    "answered": Stage.RUN,
}
ENTERED = [*MARKS.values(), Stage.RESPOND]

STEPS = st.floats(1e-6, 100)


def record(began: float, steps: list[float], rest: float) -> Record:
    """A request that passed so many marks, at these distances, and ended that much later."""
    made = Record(7, "127.0.0.1:1", began)
    stamps = list(accumulate(steps, initial=began))
    for name, stamp in zip(MARKS, stamps[1:], strict=False):
        setattr(made, name, stamp)
    made.stage = ENTERED[len(steps)]
    made.ended = stamps[-1] + rest
    return made


@given(st.floats(1, 1e6), st.lists(STEPS, max_size=len(MARKS)), STEPS)
def test_the_stages_that_were_entered_add_up_to_the_duration(
    began: float, steps: list[float], rest: float
) -> None:
    made = record(began, steps, rest)
    times = made.stage_times()
    assert list(times) == ENTERED[: len(steps) + 1]
    assert sum(times.values()) == pytest.approx(made.fields()["duration"], abs=1e-5)
    assert list(times.values()) == pytest.approx([*steps, rest], abs=1e-5)


@given(st.lists(STEPS, max_size=len(MARKS) - 1), STEPS, st.sampled_from(Stage))
def test_what_came_after_the_last_mark_was_spent_where_it_ended(
    steps: list[float], rest: float, stage: Stage
) -> None:
    made = record(1.0, steps, 0.0)
    before = made.stage_times()
    made.stage = stage
    made.ended += rest
    times = made.stage_times()
    assert times[stage] == pytest.approx(before.get(stage, 0.0) + rest, abs=1e-5)
    assert sum(times.values()) == pytest.approx(made.fields()["duration"], abs=1e-5)


def test_a_request_that_is_not_over_tells_what_it_has_passed() -> None:
    made = record(1.0, [0.25, 0.5], 0)
    made.ended = 0.0
    assert made.stage_times() == {"parse": 0.25, "body": 0.5}


def test_a_body_that_was_not_kept_is_no_stage_of_its_own() -> None:
    made = record(1.0, [0.25, 0.125, 0.5, 1.0, 2.0], 4.0)
    made.buffered = 0.0
    assert made.stage_times() == {"parse": 0.25, "connect": 0.625, "queue": 1.0, "run": 2.0, "respond": 4.0}


def test_a_stage_that_took_no_time_is_there() -> None:
    times = record(1.0, [0.0, 0.0, 0.0, 0.0, 0.0], 0.5).stage_times()
    assert list(times) == ["parse", "body", "connect", "queue", "run", "respond"]
    assert list(times.values()) == [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]


def test_a_stage_that_was_entered_and_left_at_once_may_be_absent_at_the_end() -> None:
    assert record(1.0, [0.25], 0.0).stage_times() == {"parse": 0.25}


def test_times_are_told_to_the_microsecond() -> None:
    made = record(1.0, [0.123456789], 0.1)
    assert made.stage_times() == {"parse": 0.123457, "body": 0.1}


def test_the_canonical_event_has_every_field_from_the_first_moment() -> None:
    assert Record(255, "unix", 1.0).fields() == {
        "request_id": "00000000000000ff",
        "client": "unix",
        "method": "",
        "path": "",
        "protocol": "",
        "group": "",
        "status": 0,
        "outcome": None,
        "stage": "parse",
        "reason": "",
        "pid": 0,
        "thread": -1,
        "attempts": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "duration": -1.0,
        "stages": {},
    }


@pytest.mark.parametrize("name", Record.__slots__)
def test_every_attribute_of_a_failed_record_is_told(name: str) -> None:
    made = record(1.0, [1.0, 2.0, 3.0, 4.0, 5.0], 6.0)
    made.failed(Outcome.SHED, "the backlog stayed full", "connect-timeout", Action.ANSWERED, 2.25)
    before = made.fields()
    value: Any = getattr(made, name)
    others = {str: "other", int: 4711, float: 1.5, Outcome: Outcome.LOST, Stage: Stage.RUN}
    other: Any = {"user": "ada"} if name == "more" else others.get(type(value), Action.DROPPED)
    setattr(made, name, other)
    assert made.fields() != before


@pytest.mark.parametrize("action", Action)
def test_a_request_that_came_to_no_good_end_tells_the_timer_its_age_and_what_was_done(action: Action) -> None:
    good = record(1.0, [0.25, 0.5], 0.25)
    bad = record(1.0, [0.25, 0.5], 0.25)
    bad.failed(Outcome.SHED, "the backlog stayed full", "connect-timeout", action, 1.9876543)
    assert bad.fields() == good.fields() | {
        "outcome": "shed",
        "reason": "the backlog stayed full",
        "timer": "connect-timeout",
        "age": 0.987654,
        "action": str(action),
    }


def test_a_request_that_came_to_a_good_end_has_no_timer_age_or_action() -> None:
    assert record(1.0, [0.25, 0.5], 0.25).fields().keys().isdisjoint({"timer", "age", "action"})


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "0" * 16), (1, "0" * 15 + "1"), (2**63 - 1, "7" + "f" * 15), (0xABC, "0" * 13 + "abc")],
)
def test_a_request_is_named_by_sixteen_digits(number: int, name: str) -> None:
    assert request_name(number) == name
    assert int(name, 16) == number


def test_the_outcomes_are_a_closed_list() -> None:
    assert [str(outcome) for outcome in Outcome] == [
        *[
            "served",
            "app_error",
            "shed",
            "queue_timeout",
            "refused",
            "interrupted",
            "lost",
            "client_gone",
            "truncated",
        ]
    ]
    with pytest.raises(ValueError):
        Outcome("anything else")


def test_the_actions_are_a_closed_list() -> None:
    assert [str(action) for action in Action] == ["answered", "closed", "dropped"]


def test_a_silent_logger_says_nothing_at_any_level(capfd: pytest.CaptureFixture[str]) -> None:
    silent = SilentLogger()
    for say in (silent.debug, silent.info, silent.warning, silent.error):
        assert say("request.finished", status=200) is None
    assert not says(silent, DEBUG)
    assert not says(silent, INFO)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("threshold", "debug", "info"), [(10, True, True), (20, False, True), (30, False, False)]
)
def test_what_a_logger_filters_need_not_be_put_together(threshold: int, debug: bool, info: bool) -> None:
    class Filtering(SilentLogger):
        def is_enabled_for(self, level: int) -> bool:
            return level >= threshold

    assert (says(Filtering(), DEBUG), says(Filtering(), INFO)) == (debug, info)


def test_a_logger_that_cannot_be_asked_is_told_everything() -> None:
    class Plain:
        debug = info = warning = error = print

    assert says(Plain(), DEBUG)
