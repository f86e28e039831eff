"""When a process leaves new requests to others."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from gatekeep.pool._patience import (
    LOOK,
    SATURATED,
    SATURATED_SHARE,
    WORTHWHILE,
    pause_before_wait,
)

LONG, SHORT = 0.001, 0.0001
BUSY, LAZY = 1.0, 0.1


@pytest.mark.parametrize(
    ("since_accept", "usual_wait", "cpu_share", "pause"),
    [
        # Requests that wait for something else: another thread takes over at once.
        (0.0, LONG, LAZY, 0.0),
        (1.0, LONG, LAZY, 0.0),
        # They compute, or are over at once: whoever accepted is back in a moment.
        (0.0, SHORT, LAZY, LOOK),
        (0.002, SHORT, LAZY, LOOK - 0.002),
        (LOOK, SHORT, LAZY, 0.0),
        (1.0, SHORT, LAZY, LOOK - 1.0),
        # A saturated GIL: one more thread would only take turns.
        (0.0, LONG, BUSY, SATURATED),
        (0.004, LONG, BUSY, SATURATED - 0.004),
        (0.0, SHORT, BUSY, SATURATED),
        (SATURATED, LONG, BUSY, 0.0),
        (1.0, LONG, BUSY, SATURATED - 1.0),
        # The borders.
        (0.0, WORTHWHILE, LAZY, 0.0),
        (0.0, LONG, SATURATED_SHARE, SATURATED),
        (0.0, LONG, SATURATED_SHARE - 0.01, 0.0),
    ],
)
def test_how_long_another_thread_waits(
    since_accept: float, usual_wait: float, cpu_share: float, pause: float
) -> None:
    assert pause_before_wait(since_accept, usual_wait, cpu_share) == pytest.approx(pause)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 64))
def test_no_request_is_held_back_longer_than_a_saturated_gil_is_waited_for(
    since_accept: float, usual_wait: float, cpu_share: float
) -> None:
    assert pause_before_wait(since_accept, usual_wait, cpu_share) <= max(SATURATED, LOOK)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 64), st.floats(0, 1))
def test_patience_only_ever_runs_out(since: float, usual_wait: float, share: float, later: float) -> None:
    assert pause_before_wait(since + later, usual_wait, share) <= pause_before_wait(since, usual_wait, share)
