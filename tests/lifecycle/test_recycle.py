"""When a process that is well has lived long enough."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from gatekeep._host import Usage
from gatekeep.lifecycle._recycle import MEMORY_SAMPLES, SAMPLE_INTERVAL, Limits, Recycle
from gatekeep.lifecycle._triggers import CPU_TIME_LIMIT, MEMORY_LIMIT, RESTART_INTERVAL, Trigger

READY = 100.0
MIB = 1 << 20


def memories(limit: int, *found: int) -> list[Trigger | None]:
    """What each look in turn finds due, a second apart, where the process has so many bytes."""
    recycle = Recycle(Limits(memory=limit), READY)
    results = [
        recycle.tick(READY + number * SAMPLE_INTERVAL, lambda memory=memory: Usage(0.0, memory))
        for number, memory in enumerate(found)
    ]
    return [result[0] if result else None for result in results]


def unlooked() -> Usage:
    raise AssertionError("nobody needed to look")


# --- without limits


def test_without_limits_nothing_is_ever_due_and_nobody_looks() -> None:
    recycle = Recycle(Limits(), READY)
    assert recycle.next_look() == math.inf
    assert recycle.tick(1e12, unlooked) is None


@pytest.mark.parametrize(
    ("limits", "needed"),
    [
        (Limits(), False),
        (Limits(interval=5.0), False),
        (Limits(cpu_time=5.0), True),
        (Limits(memory=1), True),
    ],
)
def test_only_what_must_be_sampled_is(limits: Limits, needed: bool) -> None:
    assert limits.need_samples() is needed


# --- its age


def test_its_age_counts_from_when_it_was_ready() -> None:
    recycle = Recycle(Limits(interval=60.0), READY)
    assert recycle.next_look() == READY + 60.0
    assert recycle.tick(READY + 59.9, unlooked) is None
    due = recycle.tick(READY + 60.0, unlooked)
    assert due == (RESTART_INTERVAL, "it has served for 60 s")


def test_what_is_due_is_said_once() -> None:
    recycle = Recycle(Limits(interval=60.0), READY)
    recycle.tick(READY + 60.0, unlooked)
    assert recycle.tick(READY + 61.0, unlooked) is None
    assert recycle.next_look() == math.inf


def test_the_time_for_which_the_gateway_was_stopped_does_not_count() -> None:
    recycle = Recycle(Limits(interval=60.0), READY)
    recycle.late(1000.0)
    assert recycle.tick(READY + 1059.9, unlooked) is None
    assert recycle.tick(READY + 1060.0, unlooked) is not None


# --- its CPU time


def test_its_cpu_time_is_looked_at_once_a_second() -> None:
    recycle = Recycle(Limits(cpu_time=10.0), READY)
    looks = []

    def usage() -> Usage:
        looks.append(1)
        return Usage(9.9, 0)

    for tenth in range(31):
        recycle.tick(READY + tenth / 10, usage)
    assert 3 <= len(looks) <= 4
    assert recycle.next_look() <= READY + 3.0 + SAMPLE_INTERVAL


def test_cpu_time_at_its_limit_is_due() -> None:
    recycle = Recycle(Limits(cpu_time=10.0), READY)
    assert recycle.tick(READY, lambda: Usage(9.99, 0)) is None
    due = recycle.tick(READY + 1, lambda: Usage(10.0, 0))
    assert due == (CPU_TIME_LIMIT, "it has used 10 s of CPU time")


# --- its memory


def test_memory_that_stays_above_its_limit_for_three_looks_is_due() -> None:
    assert memories(100, 101, 102, 500) == [None, None, MEMORY_LIMIT]


def test_memory_at_its_limit_is_allowed() -> None:
    assert memories(100, *[100] * 10) == [None] * 10


def test_a_peak_that_passes_is_no_leak() -> None:
    assert memories(100, 101, 101, 99, 101, 101, 100, 101, 101, 101) == [None] * 8 + [MEMORY_LIMIT]


def test_the_reason_has_the_number() -> None:
    recycle = Recycle(Limits(memory=MIB), READY)
    for number in range(MEMORY_SAMPLES):
        due = recycle.tick(READY + number, lambda: Usage(0.0, 3 * MIB))
    assert due == (MEMORY_LIMIT, f"it has {3 * MIB} bytes in memory")


@given(st.lists(st.integers(0, 200), max_size=30))
def test_memory_is_due_exactly_when_the_last_three_looks_were_above(found: list[int]) -> None:
    results = memories(100, *found)
    expected = next(
        (
            end
            for end in range(MEMORY_SAMPLES, len(found) + 1)
            if all(memory > 100 for memory in found[end - MEMORY_SAMPLES : end])
        ),
        None,
    )
    due = [number + 1 for number, result in enumerate(results) if result]
    assert due == ([] if expected is None else [expected])


# --- together


def test_where_the_system_tells_nothing_its_age_still_counts() -> None:
    recycle = Recycle(Limits(interval=5.0, cpu_time=1.0, memory=1), READY)
    for second in range(5):
        assert recycle.tick(READY + second, lambda: None) is None
    due = recycle.tick(READY + 5, lambda: None)
    assert due is not None
    assert due[0] is RESTART_INTERVAL


@given(
    st.floats(0.1, 1e4),
    st.floats(0.1, 1e4),
    st.integers(0, 1 << 40),
    st.lists(st.floats(0, 100), max_size=20),
)
def test_it_wants_to_be_asked_when_it_says_so_and_never_in_the_past(
    interval: float, cpu_time: float, memory: int, pauses: list[float]
) -> None:
    recycle, now = Recycle(Limits(interval, cpu_time, memory), READY), READY
    for pause in pauses:
        now += pause
        if recycle.tick(now, lambda: Usage(0.0, 0)) is not None:
            assert recycle.next_look() == math.inf
            return
        assert now < recycle.next_look() <= now + SAMPLE_INTERVAL
