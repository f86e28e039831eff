"""gatekeep: the gateway that Python web applications cannot hang.

    async with Gateway(Settings.for_app("mysite.wsgi:application")).serving() as served:
        print(served.url)

Names load when they are used: a daemon process never loads the front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatekeep._errors import CannotStart, GatekeepError, SettingsError
    from gatekeep._events import Outcome
    from gatekeep._gateway import Gateway, Served
    from gatekeep._hooks import (
        Event,
        ProcessStopping,
        RequestFinished,
        RequestRaised,
        RequestStarted,
        request_data,
        subscribe_events,
    )
    from gatekeep._stages import Stage
    from gatekeep._statistics import Statistics
    from gatekeep.settings._group import GroupSettings
    from gatekeep.settings._http import HttpSettings
    from gatekeep.settings._mount import MountSettings
    from gatekeep.settings._reload import ReloadSettings
    from gatekeep.settings._settings import Settings

_HOMES = {
    "ClientDisconnected": "_errors",
    "RequestInterrupted": "_errors",
    "RequestTimeout": "_errors",
    "CannotStart": "_errors",
    "Event": "_hooks",
    "Gateway": "_gateway",
    "GatekeepError": "_errors",
    "GroupSettings": "settings._group",
    "HttpSettings": "settings._http",
    "MountSettings": "settings._mount",
    "ReloadSettings": "settings._reload",
    "Outcome": "_events",
    "ProcessStopping": "_hooks",
    "RequestFinished": "_hooks",
    "RequestRaised": "_hooks",
    "RequestStarted": "_hooks",
    "Served": "_gateway",
    "Settings": "settings._settings",
    "SettingsError": "_errors",
    "Stage": "_stages",
    "Statistics": "_statistics",
    "request_data": "_hooks",
    "subscribe_events": "_hooks",
}

__all__ = [
    "CannotStart",
    "ClientDisconnected",
    "Event",
    "GatekeepError",
    "Gateway",
    "GroupSettings",
    "HttpSettings",
    "MountSettings",
    "Outcome",
    "ProcessStopping",
    "ReloadSettings",
    "RequestFinished",
    "RequestInterrupted",
    "RequestRaised",
    "RequestStarted",
    "RequestTimeout",
    "Served",
    "Settings",
    "SettingsError",
    "Stage",
    "Statistics",
    "request_data",
    "subscribe_events",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gatekeep' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"gatekeep.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
