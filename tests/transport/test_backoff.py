"""When a full backlog is tried again."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, strategies as st

from gatekeep.transport._backoff import LONG_PAUSE, SHORT_PAUSE, SHORT_TOTAL, connect_pauses


def attempts(budget: float) -> list[float]:
    """The instants of the attempts, the first one included."""
    return list(accumulate(connect_pauses(budget), initial=0.0))


def test_fifteen_seconds_are_seventeen_quick_attempts_and_then_one_a_second() -> None:
    quick = [number * 0.125 for number in range(17)]
    assert quick[-1] == 2.0
    assert attempts(15.0) == [*quick, *map(float, range(3, 16))]


def test_three_seconds_are_the_quick_attempts_and_one_more() -> None:
    assert attempts(3.0) == [*(number * 0.125 for number in range(17)), 3.0]


def test_zero_is_one_attempt() -> None:
    assert attempts(0.0) == [0.0]


@pytest.mark.parametrize(
    ("budget", "instants"),
    [
        (0.1, [0.0, 0.1]),
        (0.125, [0.0, 0.125]),
        (0.3, [0.0, 0.125, 0.25, 0.3]),
        (2.5, [*(number * 0.125 for number in range(17)), 2.5]),
        (4.25, [*(number * 0.125 for number in range(17)), 3.0, 4.0, 4.25]),
    ],
)
def test_the_last_pause_is_cut_to_fit(budget: float, instants: list[float]) -> None:
    assert attempts(budget) == instants


@given(st.floats(0, 3600))
def test_the_pauses_add_up_to_the_budget_exactly(budget: float) -> None:
    assert attempts(budget)[-1] == budget


@given(st.floats(0, 3600))
def test_pauses_are_short_for_two_seconds_and_long_after_and_never_nothing(budget: float) -> None:
    waited = 0.0
    pauses = list(connect_pauses(budget))
    for number, pause in enumerate(pauses, 1):
        usual = SHORT_PAUSE if waited < SHORT_TOTAL else LONG_PAUSE
        assert 0 < pause <= usual
        assert pause == usual or number == len(pauses)
        waited += pause
