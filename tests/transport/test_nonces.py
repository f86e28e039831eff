"""Nonces of Digest challenges: nobody else makes them, and whoever has overheard one that was used can do nothing with it."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from gatekeep.transport import _nonces
from gatekeep.transport._nonces import KEPT, NONCE_LIFE, WINDOW, Nonces, make_nonce, nonce_made

SECRET = b"of this gateway"


@given(st.floats(0, 1e12), st.integers(0))
def test_a_nonce_tells_when_it_was_made_and_nobody_else_can_make_one(made: float, serial: int) -> None:
    nonce = make_nonce(made, SECRET, serial)
    assert nonce_made(nonce, SECRET) == pytest.approx(made, abs=0.001)
    assert nonce_made(nonce, b"another") is None


@given(st.text() | st.floats().map(lambda number: f"{number}-0") | st.text("0123456789-.abcdef"))
@example("nan-")
@example("1e999-")
@example("1_0.000-" + make_nonce(10.0, SECRET).partition("-")[2])
@example(" 10.000-" + make_nonce(10.0, SECRET).partition("-")[2])
@example("99999.000-" + make_nonce(10.0, SECRET).partition("-")[2])
@example(make_nonce(10.0, SECRET).replace("-0-", "-1-"))
@example(make_nonce(10.0, b"that of another mount"))
@example(make_nonce(10.0, SECRET).upper())
def test_a_nonce_that_we_have_not_made_is_none(nonce: str) -> None:
    assert nonce_made(nonce, SECRET) is None
    assert not Nonces(SECRET).use(nonce, 1, 11.0)


def test_each_client_is_given_another_nonce() -> None:
    nonces = Nonces(SECRET)
    assert len({nonces.make(7.0) for _ in range(100)}) == 100


def test_a_nonce_is_good_for_its_life() -> None:
    nonces = Nonces(SECRET)
    nonce = nonces.make(100.0)
    assert nonces.use(nonce, 1, 100.0)
    assert nonces.use(nonce, 2, 100.0 + NONCE_LIFE)
    assert not nonces.use(nonce, 3, 100.1 + NONCE_LIFE)


@given(st.lists(st.integers(0, 3 * WINDOW) | st.integers(0, 0xFFFFFFFF), max_size=200))
@example([1, 1])
@example([0])
@example([3, 1, 2, 2, 1, 3])
@example([0xFFFFFFFF, 1, 0xFFFFFFFF])
def test_no_count_is_good_twice_and_each_that_is_not_far_behind_is_good_once(counts: list[int]) -> None:
    nonces = Nonces(SECRET)
    nonce = nonces.make(1.0)
    used: set[int] = set()
    for count in counts:
        is_good = count > 0 and count not in used and count > max(used, default=0) - WINDOW
        assert nonces.use(nonce, count, 1.0) is is_good
        if is_good:
            used.add(count)


def test_counts_of_one_nonce_are_not_anothers() -> None:
    nonces = Nonces(SECRET)
    assert [nonces.use(nonces.make(1.0), 1, 1.0) for _ in range(3)] == [True] * 3


def test_nonces_that_nobody_used_are_not_kept_and_those_that_were_are_forgotten_when_they_are_too_old() -> (
    None
):
    nonces = Nonces(SECRET)
    for _ in range(100):
        nonces.make(1.0)
    assert not nonces._used
    nonces.use(nonces.make(1.0), 1, 1.0)
    nonces.use(nonces.make(2.0 + NONCE_LIFE), 1, 2.0 + NONCE_LIFE)
    assert len(nonces._used) == 1


def test_a_nonce_whose_counts_had_to_be_forgotten_is_not_good_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nonces, "KEPT", 3)
    assert KEPT > 3
    nonces = Nonces(SECRET)
    made = [nonces.make(float(second)) for second in range(1, 7)]
    assert [nonces.use(nonce, 1, 10.0) for nonce in made[:5]] == [True] * 5
    assert len(nonces._used) == 3
    assert [nonces.use(nonce, 1, 10.0) for nonce in made] == [False] * 5 + [True]
    assert [nonces.use(nonce, 2, 10.0) for nonce in made] == [False, False, False, True, True, True]
    assert not nonces.use(nonces.make(2.0), 1, 10.0), "it is as old as one that was forgotten"
