"""The list of reasons for a drain."""

from __future__ import annotations

import pytest

from gatekeep.lifecycle import _triggers
from gatekeep.lifecycle._triggers import TRIGGERS, Trigger
from gatekeep.settings._declared import declared
from gatekeep.settings._spec import dashed

# name: planned, evicts, succeeded, at once
WHAT = {
    "maximum-requests": (True, False, True, False),
    "restart-interval": (True, False, True, False),
    "cpu-time-limit": (True, False, True, False),
    "memory-limit": (True, False, True, False),
    "script-reloading": (True, False, True, False),
    "script-reloading strict": (False, False, True, True),
    "reload": (True, False, True, False),
    "fewer processes": (True, False, True, False),
    "request-timeout": (False, False, True, False),
    "eviction": (False, True, True, False),
    "inactivity-timeout": (True, False, False, True),
    "a signal to this process": (False, False, True, True),
}

NO_SETTING = {"reload", "fewer processes", "eviction", "a signal to this process"}
"""What somebody asks for, and no setting brings about."""


def test_these_are_all() -> None:
    assert set(TRIGGERS) == set(WHAT)
    all_of_them = [value for value in vars(_triggers).values() if isinstance(value, Trigger)]
    assert sorted(each.name for each in all_of_them) == sorted(TRIGGERS)


@pytest.mark.parametrize("name", WHAT)
def test_each_is_what_it_is_said_to_be(name: str) -> None:
    trigger = TRIGGERS[name]
    assert trigger.name == name
    assert (trigger.planned, trigger.evicts, trigger.succeeded, trigger.at_once) == WHAT[name]


@pytest.mark.parametrize("name", sorted(set(WHAT) - NO_SETTING))
def test_a_trigger_that_a_setting_brings_about_has_the_settings_name(name: str) -> None:
    setting, _, value = name.partition(" ")
    names = {dashed(each): attribute for each, (_, attribute) in declared().items()}
    assert setting in names
    if value:
        assert value in names[setting].metadata["spec"].choices


def test_only_who_has_nothing_to_do_goes_without_a_successor() -> None:
    assert [name for name, trigger in TRIGGERS.items() if not trigger.succeeded] == ["inactivity-timeout"]


def test_who_goes_without_a_successor_waits_for_none() -> None:
    assert all(trigger.at_once for trigger in TRIGGERS.values() if not trigger.succeeded)
