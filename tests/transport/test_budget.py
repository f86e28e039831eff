"""How long a client may keep us waiting: a bucket of seconds that arriving bytes fill, never above what it began with."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from gatekeep.transport._budget import Budget


def patience(budget: Budget, now: float = 0.0) -> float:
    """How long the client may keep us waiting from now on."""
    return budget.wait_from(now) - now


def waited(budget: Budget, seconds: float, count: int, now: float = 0.0) -> None:
    """We waited so long, and so many bytes came."""
    budget.wait_from(now)
    budget.received(count, now + seconds)


def test_at_first_there_is_all_of_the_timeout() -> None:
    assert Budget(15.0, 500.0).wait_from(100.0) == 115.0


@pytest.mark.parametrize(
    ("seconds", "count", "left"),
    [
        (4.0, 0, 11.0),
        (4.0, 500, 12.0),
        (4.0, 1000, 13.0),
        (4.0, 2000, 15.0),
        (4.0, 10**9, 15.0),  # never more than it began with
        (0.0, 10**9, 15.0),
        (15.0, 500, 1.0),
        (15.0, 0, 0.0),
        (16.0, 0, -1.0),  # a look that comes late
        (16.0, 500, 0.0),
    ],
)
def test_waiting_spends_it_and_bytes_restore_it(seconds: float, count: int, left: float) -> None:
    budget = Budget(15.0, 500.0)
    waited(budget, seconds, count)
    assert patience(budget) == left


def test_where_the_rate_is_zero_no_byte_restores_anything() -> None:
    budget = Budget(15.0, 0)
    waited(budget, 4.0, 10**9)
    assert patience(budget) == 11.0


def test_where_there_is_no_timeout_only_the_most_ends_it() -> None:
    budget = Budget(math.inf, 500.0)
    waited(budget, 1e9, 0)
    assert budget.wait_from(5.0) == math.inf
    budget = Budget(math.inf, 500.0, most=40.0)
    waited(budget, 30.0, 10**6)
    assert patience(budget) == 10.0
    assert patience(Budget(math.inf, 0, math.inf)) == math.inf


def test_no_byte_restores_the_most() -> None:
    budget = Budget(15.0, 500.0, most=40.0)
    for left in (30.0, 20.0, 10.0, 0.0):
        waited(budget, 10.0, 10**6)
        assert patience(budget) == min(15.0, left)


# Binary fractions, so that every sum is exact.
SECONDS = st.integers(0, 40 * 64).map(lambda number: number / 64)
BYTES = st.integers(0, 1 << 14)
STORY = st.lists(st.tuples(SECONDS, SECONDS, BYTES), max_size=30)


@given(
    st.integers(1, 60), st.sampled_from([0, 64, 512, 4096]), st.integers(1, 200) | st.just(math.inf), STORY
)
def test_it_is_a_bucket(timeout: int, rate: int, most: float, story: list[tuple[float, float, int]]) -> None:
    budget = Budget(float(timeout), float(rate), float(most))
    left, rest, now = float(timeout), float(most), 1000.0
    for elsewhere, waiting, count in story:
        now += elsewhere
        assert budget.wait_from(now) == now + min(left, rest)
        assert patience(budget, now) <= timeout
        now += waiting
        budget.received(count, now)
        rest -= waiting
        left = min(timeout, left - waiting + (count / rate if rate else 0))


@given(STORY, st.integers(1, 60))
def test_time_in_which_nobody_waits_costs_nothing(
    story: list[tuple[float, float, int]], timeout: int
) -> None:
    without, with_gaps = Budget(timeout, 512.0, 100.0), Budget(timeout, 512.0, 100.0)
    now = 0.0
    for elsewhere, waiting, count in story:
        waited(without, waiting, count)
        now += elsewhere
        waited(with_gaps, waiting, count, now)
        now += waiting
        assert patience(with_gaps) == patience(without)


def dribbled(budget: Budget, pause: float, count: int, rounds: int) -> float:
    """A client that sends so many bytes every so often: after how long it is cut, `math.inf` if it never is."""
    now = 0.0
    for _ in range(rounds):
        ends = budget.wait_from(now)
        now += pause
        if now >= ends:
            return ends
        budget.received(count, now)
    return math.inf


@given(st.floats(0.01, 10), st.floats(0.01, 0.95))
def test_a_client_that_dribbles_below_the_rate_is_cut(pause: float, share: float) -> None:
    count = max(1, int(500 * pause * share))
    if count >= 500 * pause:
        return  # a single byte is more than that rate
    lost = pause - count / 500
    cut = dribbled(Budget(15.0, 500.0), pause, count, 10 + int(15 / lost))
    assert 15.0 <= cut <= 16.0 + 15.0 * pause / lost


@given(st.floats(0.01, 14), st.floats(1.01, 50))
def test_a_client_above_the_rate_is_never_cut(pause: float, more: float) -> None:
    count = math.ceil(500 * pause * more)
    assert dribbled(Budget(15.0, 500.0), pause, count, 2000) == math.inf


@given(st.floats(0.01, 14), st.floats(1.01, 50), st.floats(15, 100))
def test_above_the_rate_only_the_most_cuts_it(pause: float, more: float, most: float) -> None:
    count = math.ceil(500 * pause * more)
    rounds = 2 + int(most / pause)
    assert dribbled(Budget(15.0, 500.0, most), pause, count, rounds) == pytest.approx(most)


def test_one_byte_a_minute_does_not_hold_a_connection() -> None:
    assert dribbled(Budget(15.0, 500.0), 60.0, 1, 10) == 15.0
