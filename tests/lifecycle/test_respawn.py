"""When a process is started again."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from gatekeep.lifecycle._respawn import (
    FIRST_PAUSE,
    FIRST_TRIES,
    FORGIVEN,
    LONGEST_AFTER_READY,
    LONGEST_PAUSE,
    YOUNG,
    Respawn,
)


def _respawn() -> Respawn:
    return Respawn(lambda: 1.0)


def test_three_failed_starts_before_any_process_was_ready_are_hopeless() -> None:
    respawn = _respawn()
    seen = []
    for _ in range(FIRST_TRIES):
        seen.append(respawn.is_hopeless())
        respawn.failed(0.0)
    assert seen == [False] * FIRST_TRIES
    assert respawn.is_hopeless()


def test_what_processes_that_start_together_fail_for_is_one_failure() -> None:
    respawn = Respawn(lambda: 1.0, seats=4)
    for number in range(FIRST_TRIES):
        assert not respawn.is_hopeless()
        for seat in range(4):
            respawn.failed(0.0, seat)
        assert respawn.next_start == FIRST_PAUSE * 2**number
    assert respawn.is_hopeless()


def test_while_one_process_may_still_become_ready_the_failures_of_others_are_not_hopeless() -> None:
    respawn = Respawn(lambda: 1.0, seats=2)
    for _ in range(10):
        respawn.failed(0.0, 0)
    assert not respawn.is_hopeless()


def test_once_one_was_ready_no_number_of_failures_is() -> None:
    respawn = _respawn()
    respawn.ready()
    for _ in range(50):
        respawn.failed(0.0)
    assert not respawn.is_hopeless()


def test_the_pauses_after_failed_starts_double_up_to_the_cap_and_end_with_the_cause() -> None:
    respawn, pauses = _respawn(), []
    for number in range(12):
        respawn.failed(100.0 * number)
        pauses.append(respawn.next_start - 100.0 * number)
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert respawn.failing
    respawn.ready()
    assert not respawn.failing
    respawn.failed(5000.0)
    assert respawn.next_start == 5000.0 + FIRST_PAUSE


@given(st.floats(0, 1), st.integers(1, 30))
def test_the_pauses_vary_by_a_quarter_and_never_exceed_the_cap(chance: float, failures: int) -> None:
    respawn = Respawn(lambda: chance)
    for _ in range(failures):
        respawn.failed(7.0)
    pause = respawn.next_start - 7.0
    full = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
    assert 0.75 * full - 1e-9 <= pause <= full + 1e-9


def test_a_process_that_was_well_is_replaced_at_once() -> None:
    respawn = _respawn()
    respawn.ready()
    for number in range(20):
        respawn.died(10.0 * number, YOUNG)
        assert respawn.next_start == 0.0
    assert not respawn.failing


@pytest.mark.parametrize("deaths", [FORGIVEN, FORGIVEN + 1, FORGIVEN + 20])
def test_early_deaths_in_a_row_are_followed_by_short_pauses_and_nobody_is_turned_away(deaths: int) -> None:
    respawn = _respawn()
    for _ in range(deaths):
        respawn.ready()
        respawn.died(50.0, 0.1)
    pause = max(0.0, respawn.next_start - 50.0)
    assert pause == (
        0.0 if deaths == FORGIVEN else FIRST_PAUSE if deaths == FORGIVEN + 1 else LONGEST_AFTER_READY
    )
    assert not respawn.failing
