"""What becomes of a request at its pickup: queue-timeout as a table."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from gatekeep.pool._verdict import Verdict, judge
from gatekeep.transport._wire import Envelope

TIMES = st.floats(0, 1e9)


def stamped(stamp: float, attempt: int = 1) -> Envelope:
    return Envelope(1, 0.0, stamp, 0.0, attempt, {}, b"", False)


@pytest.mark.parametrize(
    ("stamp", "now", "queue_timeout", "verdict"),
    [
        pytest.param(100.0, 100.0, 45.0, Verdict.RUN, id="at once"),
        pytest.param(100.0, 144.9, 45.0, Verdict.RUN, id="just within"),
        pytest.param(100.0, 145.0, 45.0, Verdict.RUN, id="exactly at the limit"),
        pytest.param(100.0, 145.1, 45.0, Verdict.EXPIRED, id="just beyond"),
        pytest.param(100.0, 1e6, 45.0, Verdict.EXPIRED, id="far beyond"),
        pytest.param(100.0, 99.9, 45.0, Verdict.RUN, id="stamped a moment after the look at the clock"),
        pytest.param(100.0, 1e18, math.inf, Verdict.RUN, id="never"),
        pytest.param(0.0, math.inf, math.inf, Verdict.RUN, id="never, at the end of all times"),
        pytest.param(100.0, 100.001, 0.0005, Verdict.EXPIRED, id="a very short one"),
    ],
)
def test_a_request_that_waited_longer_than_queue_timeout_is_not_run(
    stamp: float, now: float, queue_timeout: float, verdict: Verdict
) -> None:
    assert judge(stamped(stamp), now, queue_timeout) is verdict


@given(stamp=TIMES, now=TIMES, later=TIMES, queue_timeout=TIMES)
def test_what_has_expired_stays_expired(stamp: float, now: float, later: float, queue_timeout: float) -> None:
    if judge(stamped(stamp), now, queue_timeout) is Verdict.EXPIRED:
        assert judge(stamped(stamp), max(now, later), queue_timeout) is Verdict.EXPIRED


def test_another_attempt_gives_no_more_time() -> None:
    assert judge(stamped(100.0, attempt=3), 146.0, 45.0) is Verdict.EXPIRED


@pytest.mark.parametrize(
    ("age", "is_outdated", "verdict"),
    [
        pytest.param(1.0, False, Verdict.RUN, id="in time, and the code is up to date"),
        pytest.param(1.0, True, Verdict.REJECT, id="in time, and the code is outdated"),
        pytest.param(46.0, False, Verdict.EXPIRED, id="too late"),
        pytest.param(46.0, True, Verdict.EXPIRED, id="too late, which another process could not change"),
    ],
)
def test_outdated_code_runs_nothing(age: float, is_outdated: bool, verdict: Verdict) -> None:
    assert judge(stamped(100.0), 100.0 + age, 45.0, is_outdated=is_outdated) is verdict


@given(stamp=TIMES, now=TIMES, queue_timeout=TIMES)
def test_outdated_code_never_runs_a_request_and_never_saves_one_that_expired(
    stamp: float, now: float, queue_timeout: float
) -> None:
    up_to_date = judge(stamped(stamp), now, queue_timeout)
    outdated = judge(stamped(stamp), now, queue_timeout, is_outdated=True)
    assert outdated is (Verdict.REJECT if up_to_date is Verdict.RUN else Verdict.EXPIRED)
