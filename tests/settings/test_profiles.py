"""Named sets of values: the specification's starter configuration, and the raw defaults of a directive."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gatekeep import GroupSettings, Settings
from gatekeep.settings._declared import declared
from gatekeep.settings._profiles import DEFAULT_PROFILE, PROFILES

STARTER = """
    WSGIDaemonProcess example processes=2 threads=5
    lang=en_US.UTF-8
    locale=en_US.UTF-8
    queue-timeout=45
    socket-timeout=60
    connect-timeout=15
    request-timeout=60
    interrupt-timeout=0
    startup-timeout=15
    deadlock-timeout=60
    graceful-timeout=15
    eviction-timeout=0
    inactivity-timeout=0
    restart-interval=0
    shutdown-timeout=5
    maximum-requests=0
"""
"""To the letter but for display-name, which is our own."""

RAW = {
    "processes": 1,
    "threads": 15,
    "listen_backlog": 100,
    "connect_timeout": 15,
    "queue_timeout": 0,
    "socket_timeout": 60,  # 0 is Apache's Timeout
    "request_timeout": 0,
    "interrupt_timeout": 0,
    "deadlock_timeout": 300,
    "startup_timeout": 0,
    "inactivity_timeout": 0,
    "graceful_timeout": 15,
    "shutdown_timeout": 5,
    "restart_interval": 0,
    "maximum_requests": 0,
    "cpu_time_limit": 0,
    "memory_limit": 0,
    "virtual_memory_limit": 0,
    "stack_size": 0,
    "lang": "",
    "locale": "",
}

NEVER_GIVEN = (None, 0)
"""An eviction-timeout that is not given is graceful-timeout."""


def values(profile: str) -> GroupSettings:
    return Settings.for_app("apps:hello", profile=profile).groups[0]


def starter() -> dict[str, Any]:
    found = dict(re.findall(r"([a-z-]+)=(\S+)", STARTER))
    return {name.replace("-", "_"): int(text) if text.isdigit() else text for name, text in found.items()}


def test_express_is_the_starter_configuration_to_the_letter() -> None:
    group = values("express")
    assert group.eviction_timeout in NEVER_GIVEN
    wanted = starter()
    assert len(wanted) == 17
    for name in wanted.keys() - {"eviction_timeout"}:
        assert (name, getattr(group, name)) == (name, wanted[name])


def test_express_says_nothing_else() -> None:
    assert set(PROFILES["express"]) - set(starter()) == {"listen_backlog"}
    assert values("express").listen_backlog == 100


def test_directive_is_what_a_bare_directive_has() -> None:
    group = values("directive")
    assert group.eviction_timeout in NEVER_GIVEN
    for name, value in RAW.items():
        assert (name, getattr(group, name)) == (name, value)


def test_tuned_is_the_defaults_and_what_counts_where_nothing_is_said() -> None:
    assert DEFAULT_PROFILE == "tuned"
    assert Settings.for_app("apps:hello", profile="tuned") == Settings.for_app("apps:hello")


def test_tuned_differs_from_the_starter_configuration_in_what_is_said_to_differ_only() -> None:
    tuned, express = values("tuned"), values("express")
    differing = {name for name in starter() if getattr(tuned, name) != getattr(express, name)}
    assert differing - {"eviction_timeout"} == {
        "lang",
        "locale",
        "socket_timeout",
        "interrupt_timeout",
        "startup_timeout",
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_says_what_is_declared_and_allowed_of_groups_alone(profile: str) -> None:
    assert all(declared()[name][0] is GroupSettings for name in PROFILES[profile])
    group = values(profile)
    assert {name: getattr(group, name) for name in PROFILES[profile]} == PROFILES[profile]


@pytest.mark.parametrize("profile", PROFILES)
def test_whatever_else_is_said_goes_before_a_profile(profile: str) -> None:
    group = Settings.for_app("apps:hello", profile=profile, threads=9, deadlock_timeout=7).groups[0]
    assert (group.threads, group.deadlock_timeout) == (9, 7)
