"""Planned changes come one at a time."""

from __future__ import annotations

from hypothesis import given, strategies as st

from gatekeep.lifecycle._turns import Turns


def test_the_first_has_its_turn_at_once_and_the_others_wait_in_order() -> None:
    turns: Turns[str] = Turns()
    assert turns.ask("a") == "a"
    assert turns.ask("b") is None
    assert turns.ask("c") is None
    assert turns.done("a") == "b"
    assert turns.done("b") == "c"
    assert turns.done("c") is None
    assert turns.holder is None


def test_who_asks_twice_has_one_turn() -> None:
    turns: Turns[str] = Turns()
    turns.ask("a")
    assert turns.ask("a") is None
    turns.ask("b")
    turns.ask("b")
    assert turns.done("a") == "b"
    assert turns.done("b") is None


def test_who_is_gone_before_its_turn_is_passed_over() -> None:
    turns: Turns[str] = Turns()
    turns.ask("a")
    turns.ask("b")
    turns.ask("c")
    assert turns.done("b") is None
    assert turns.done("a") == "c"


def test_the_end_of_a_stranger_gives_nobody_a_turn() -> None:
    turns: Turns[str] = Turns()
    turns.ask("a")
    turns.ask("b")
    assert turns.done("stranger") is None
    assert turns.holder == "a"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_one_at_a_time_first_come_first_served_and_nobody_is_forgotten(
    story: list[tuple[bool, int]],
) -> None:
    turns: Turns[int] = Turns()
    queue: list[int] = []  # the holder first
    for asks, who in story:
        before = queue[0] if queue else None
        if asks:
            given_to = turns.ask(who)
            if who not in queue:
                queue.append(who)
        else:
            given_to = turns.done(who)
            if who in queue:
                queue.remove(who)
        holder = queue[0] if queue else None
        assert turns.holder == holder
        assert given_to == (holder if holder != before else None)
