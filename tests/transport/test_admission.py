"""Who is next: first come, first served, while the wait is bearable; newest first while it is not."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from gatekeep.transport._admission import LATE, Admission

FEW = 3


@attrs.define(eq=False)
class Ticket:
    """A request that waits."""

    number: int
    since: float = 0.0


def admission(*numbers: int, few: int = FEW, most: int = 100, late: bool = False) -> Admission:
    """Requests wait that came at 0.0 s, in the order of their numbers."""
    made = Admission(few, most)
    for number in numbers:
        made.enter(Ticket(number))
    made.late = late
    return made


def served(waiting: Admission, standing: int = 0) -> list[int]:
    """The order in which they get their turn, when each leaves at its turn."""
    order = []
    while (ticket := waiting.next(standing)) is not None:
        order.append(ticket.number)
        waiting.leave(ticket)
    return order


# --- the order


def test_first_come_first_served_while_the_wait_is_bearable() -> None:
    assert served(admission(1, 2, 3)) == [1, 2, 3]


def test_newest_first_while_it_is_late() -> None:
    assert served(admission(1, 2, 3, late=True)) == [3, 2, 1]


@pytest.mark.parametrize(("late", "order"), [(False, [5, 7, 9]), (True, [9, 7, 5])])
@pytest.mark.parametrize("came", [(5, 7, 9), (7, 9, 5), (9, 7, 5), (7, 5, 9)])
def test_one_that_was_offered_before_stands_before_younger_ones(
    came: Sequence[int], late: bool, order: list[int]
) -> None:
    assert served(admission(*came, late=late)) == order


def test_the_oldest_is_known_whatever_the_order_of_service() -> None:
    assert admission().oldest() is None
    for late in (False, True):
        oldest = admission(7, 9, 5, late=late).oldest()
        assert oldest is not None
        assert oldest.number == 5


def test_nobody_is_next_where_nobody_waits() -> None:
    assert admission().next(0) is None
    assert admission(late=True).next(0) is None


def test_one_that_left_is_not_next() -> None:
    waiting = admission(1, 2, 3)
    first, _, third = waiting.waiting
    waiting.leave(third)
    waiting.leave(first)
    assert served(waiting) == [2]


def test_only_one_that_waits_can_leave() -> None:
    waiting = admission(1, 3)
    with pytest.raises((AssertionError, IndexError)):
        waiting.leave(Ticket(3))
    with pytest.raises((AssertionError, IndexError)):
        waiting.leave(Ticket(4))


# --- a few


@pytest.mark.parametrize(("standing", "turn"), [(0, 2), (FEW - 1, 2), (FEW, None), (FEW + 1, None)])
def test_while_it_is_late_only_a_few_may_stand_in_the_backlog(standing: int, turn: int | None) -> None:
    ticket = admission(1, 2, late=True).next(standing)
    assert (ticket and ticket.number) == turn


@pytest.mark.parametrize("standing", [0, FEW, 1000])
def test_while_it_is_not_late_the_kernel_says_how_many_may_stand(standing: int) -> None:
    ticket = admission(1, 2).next(standing)
    assert ticket is not None
    assert ticket.number == 1


@pytest.mark.parametrize(
    ("waiting", "late", "standing", "may"),
    [
        ((), False, 0, True),
        ((), False, 1000, True),
        ((1,), False, 0, False),  # it is that one's turn
        ((), True, FEW - 1, True),
        ((1, 2), True, FEW - 1, True),  # the newest goes first, and that is the newcomer
        ((), True, FEW, False),
        ((1, 2), True, FEW, False),
    ],
)
def test_whether_a_newcomer_may_try_at_once(
    waiting: Sequence[int], late: bool, standing: int, may: bool
) -> None:
    assert admission(*waiting, late=late).may_pass(standing) is may


@pytest.mark.parametrize(("most", "full"), [(0, True), (1, True), (2, True), (3, False)])
def test_no_more_than_the_most_may_wait(most: int, full: bool) -> None:
    assert admission(1, 2, most=most).is_full() is full


# --- late


@pytest.mark.parametrize(
    ("since", "standing", "offered", "late"),
    [
        ([10.0], 0, None, False),
        ([10.0 - LATE], 0, None, False),
        ([9.99 - LATE], 0, None, True),
        ([9.99 - LATE, 10.0], 0, None, True),  # the oldest counts
        ([10.0], 1, 9.99 - LATE, True),  # … also where it stands in the backlog
        ([10.0], 1, 9.5, False),
        ([], FEW, 1.0, False),  # what stands there is no more than there may be
        ([], FEW + 1, 1.0, True),
        ([], FEW + 1, 9.5, False),
    ],
)
def test_it_is_late_when_the_oldest_has_waited_too_long(
    since: list[float], standing: int, offered: float | None, late: bool
) -> None:
    waiting = Admission(FEW, 100)
    for number, when in enumerate(since):
        waiting.enter(Ticket(number, when))
    waiting.judge(10.0, standing, 10.0 if offered is None else offered)
    assert waiting.late is late


@pytest.mark.parametrize(
    ("numbers", "standing", "late"),
    [((1,), 0, True), ((), FEW + 1, True), ((), FEW, False), ((), 0, False)],
)
def test_it_is_late_when_a_client_has_left_a_queue(numbers: Sequence[int], standing: int, late: bool) -> None:
    waiting = admission(*numbers)
    waiting.client_left(standing)
    assert waiting.late is late


def test_it_stays_late_while_anybody_waits_however_young() -> None:
    waiting = admission(late=True)
    waiting.enter(Ticket(1, 99.9))
    waiting.judge(100.0, 0, 100.0)
    assert waiting.late


def test_it_stays_late_while_more_than_a_few_stand_in_the_backlog() -> None:
    waiting = admission(late=True)
    waiting.judge(100.0, FEW + 1, 99.9)
    assert waiting.late


def test_it_is_late_no_more_when_nobody_waits() -> None:
    waiting = admission(late=True)
    waiting.judge(100.0, FEW, 0.0)
    assert not waiting.late


# --- against a model

STEPS = st.one_of(
    st.tuples(st.just("enter"), st.integers(0, 30)),
    st.tuples(st.just("leave"), st.integers(0, 30)),
    st.tuples(st.just("serve"), st.integers(0, 6)),
    st.tuples(st.just("client left"), st.integers(0, 6)),
    st.tuples(st.just("judge"), st.integers(0, 6)),
    st.tuples(st.just("time passes"), st.integers(1, 8)),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=60))
def test_it_is_a_set_that_is_searched_every_time(steps: list[tuple[str, int]]) -> None:
    waiting = Admission(FEW, 6)
    model: dict[int, Ticket] = {}
    late, now = False, 0.0
    for what, value in steps:
        if what == "time passes":
            now += value / 4
        elif what == "enter" and value not in model and not waiting.is_full():
            model[value] = Ticket(value, now)
            waiting.enter(model[value])
        elif what == "leave" and value in model:
            waiting.leave(model.pop(value))
        elif what == "client left":
            waiting.client_left(value)
            late = bool(model) or value > FEW
        elif what == "judge":
            offered = now - value / 2 if value else now
            waiting.judge(now, value, offered)
            oldest = model[min(model)].since if model else now
            if not model and value <= FEW:
                late = False
            elif now - min(oldest, offered) > LATE:
                late = True
        elif what == "serve":
            turn = waiting.next(value)
            assert turn is (
                None if not model or (late and value >= FEW) else model[(max if late else min)(model)]
            )
            if turn is not None:
                waiting.leave(model.pop(turn.number))
        assert waiting.late is late
        assert waiting.is_full() is (len(model) >= 6)
        assert [ticket.number for ticket in waiting.waiting] == sorted(model)
        assert waiting.oldest() is (model[min(model)] if model else None)
        assert waiting.may_pass(0) is (late or not model)
