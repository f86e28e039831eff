"""What `processes = 0` means for the other settings of a group: its application runs in the gateway's own process. Pure.

There is no hop whose waits could be bounded, nobody outside who could end what hangs, and no process that could be replaced: such
settings are off. What a process of its own would be given cannot be given, and is refused, since who asks for a user or a umask
must not believe that it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._spec import dashed

OFF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "transport timeouts": ("connect_timeout", "queue_timeout", "queue_shed", "socket_timeout"),
        "fail-safe timeouts": (
            "request_timeout",
            "interrupt_timeout",
            "interrupt_sockets",
            "deadlock_timeout",
            "startup_timeout",
            "cancel_on_disconnect",
        ),
        "recycling": (
            "maximum_requests",
            "maximum_requests_jitter",
            "restart_interval",
            "restart_interval_jitter",
            "cpu_time_limit",
            "memory_limit",
            "inactivity_timeout",
            "script_reloading",
        ),
        "drain and shutdown": ("eviction_timeout", "shutdown_timeout"),
    }
)
"""The settings of a group that mean nothing there, by kind. (graceful-timeout stays: the gateway's stop has it.)"""

WITHOUT_MEANING = ("display_name", "lang", "locale", "python_path")
"""What such a group is not given, and may be said: profiles do so, and the command has the module path for itself."""

REFUSED = (
    "user",
    "group",
    "supplementary_groups",
    "umask",
    "home",
    "env",
    "nice",
    "stack_size",
    "virtual_memory_limit",
)

_IN_EFFECT = {
    "connect_timeout": math.inf,
    "queue_timeout": 0.0,
    "queue_shed": "deadline",
    "socket_timeout": 0.0,
    "request_timeout": 0.0,
    "interrupt_timeout": 0.0,
    "deadlock_timeout": 0.0,
    "startup_timeout": 0.0,
    "cancel_on_disconnect": False,
    "maximum_requests": 0,
    "restart_interval": 0.0,
    "cpu_time_limit": 0.0,
    "memory_limit": 0,
    "inactivity_timeout": 0.0,
    "script_reloading": "off",
}


def switched_off(name: str) -> str:
    """Of what kind a group's setting is that means nothing with `processes = 0`; empty where it means what it always does."""
    return next((kind for kind, names in OFF.items() if name in names), "")


def in_effect(settings: Any) -> Any:
    """A group's settings as they count with `processes = 0`."""
    return attrs.evolve(settings, **_IN_EFFECT)


def check(settings: Any) -> None:
    """Raise `SettingsError` if a group with `processes = 0` asks for what only a process of its own can be given."""
    fields = attrs.fields_dict(type(settings))
    for name in REFUSED:
        value = getattr(settings, name)
        if value != fields[name].default:
            said = ", ".join(value) if isinstance(value, tuple) else value
            raise SettingsError(
                f"{dashed(name)} = {said!r}: allowed is nothing with processes = 0, "
                "where the application runs in the gateway's own process"
            )
