"""Whether a process that ended is followed by another."""

from __future__ import annotations

from hypothesis import given, strategies as st

from gatekeep.lifecycle._respawn import FIRST_TRIES, Respawn


def test_three_ends_before_any_process_was_ready_are_hopeless() -> None:
    respawn = Respawn()
    hopeless = []
    for _ in range(4):
        hopeless.append(respawn.is_hopeless())
        respawn.ended()
    assert hopeless == [False, False, False, True]
    assert FIRST_TRIES == 3


def test_once_one_was_ready_no_number_of_ends_is() -> None:
    respawn = Respawn()
    respawn.ended()
    respawn.ended()
    respawn.ready()
    for _ in range(100):
        respawn.ended()
        assert not respawn.is_hopeless()


def test_nothing_has_happened_yet_is_no_reason_to_give_up() -> None:
    assert not Respawn().is_hopeless()


@given(st.lists(st.booleans(), max_size=12))
def test_hopeless_is_never_ready_and_three_ends(happenings: list[bool]) -> None:
    respawn = Respawn()
    for number, ready in enumerate(happenings, 1):
        if ready:
            respawn.ready()
        else:
            respawn.ended()
        so_far = happenings[:number]
        assert respawn.is_hopeless() == (not any(so_far) and so_far.count(False) >= FIRST_TRIES)
