"""The stages, as data."""

from __future__ import annotations

from gatekeep import Stage


def test_the_stages_stand_in_the_order_in_which_a_request_passes_them() -> None:
    assert list(Stage) == [
        *["accept", "parse", "route", "body", "admit", "connect", "queue", "pickup", "run", "respond"],
    ]


def test_a_stage_is_its_word() -> None:
    assert all(stage == stage.name.lower() == str(stage) for stage in Stage)
