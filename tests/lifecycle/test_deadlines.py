"""When a request counts as wedged, and when a look came late."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from gatekeep._deadlines import LATE, describe_fire, fire_after, is_stale, lateness

TIMEOUTS = st.floats(1e-3, 1e6)


@pytest.mark.parametrize(
    ("threads", "seconds"), [(1, 60.0), (2, 101.6), (5, 156.6), (10, 198.2), (15, 222.5), (25, 253.1)]
)
def test_t_fire_is_request_timeout_times_one_plus_the_natural_logarithm_of_threads(
    threads: int, seconds: float
) -> None:
    assert fire_after(60, threads) == pytest.approx(seconds, abs=0.05)
    assert fire_after(30, threads) == pytest.approx(seconds / 2, abs=0.05)


@pytest.mark.parametrize(("threads", "factor"), [(1, 1.0), (10, 3.3), (25, 4.2)])
def test_the_factors_are_those_of_the_specification(threads: int, factor: float) -> None:
    assert fire_after(1, threads) == pytest.approx(factor, abs=0.05)


@pytest.mark.parametrize(
    ("timeout", "threads", "words"),
    [
        (60, 5, "a request on these 5 threads is interrupted after 156.6 s"),
        (60, 1, "a request on this thread is interrupted after 60.0 s"),
        (0, 5, "a request on these 5 threads is never interrupted"),
    ],
)
def test_it_is_told_in_words(timeout: float, threads: int, words: str) -> None:
    assert describe_fire(timeout, threads) == words


@pytest.mark.parametrize("off", [0, 0.0, math.inf])
@pytest.mark.parametrize("threads", [1, 25])
def test_a_request_timeout_of_0_or_infinity_never_fires(off: float, threads: int) -> None:
    assert fire_after(off, threads) == math.inf


@given(TIMEOUTS, st.integers(1, 1000))
def test_more_threads_have_more_patience_but_less_than_in_proportion(
    request_timeout: float, threads: int
) -> None:
    one, more = fire_after(request_timeout, threads), fire_after(request_timeout, threads + 1)
    assert one < more <= one * (threads + 1) / threads


@pytest.mark.parametrize(
    ("elapsed", "fire", "interrupt_timeout", "stale"),
    [
        (71.0, 156.6, 10.0, False),  # healthy, though beyond the unscaled sum of 60 and 10
        (160.0, 156.6, 10.0, False),  # it has its grace
        (167.0, 156.6, 10.0, True),
        (156.0, 156.6, 0.0, False),
        (156.7, 156.6, 0.0, True),
        (1e9, math.inf, 10.0, False),
        (1e9, 156.6, math.inf, False),
    ],
)
def test_a_request_is_stale_when_t_fire_and_its_grace_are_over(
    elapsed: float, fire: float, interrupt_timeout: float, stale: bool
) -> None:
    assert is_stale(elapsed, fire, interrupt_timeout) is stale


@pytest.mark.parametrize(
    ("planned", "now", "late"),
    [(10.0, 9.0, 0.0), (10.0, 10.0, 0.0), (10.0, 10.0 + LATE, 0.0), (10.0, 15.0, 5.0), (math.inf, 10.0, 0.0)],
)
def test_a_look_is_late_beyond_what_a_busy_machine_explains(planned: float, now: float, late: float) -> None:
    assert lateness(planned, now) == late
