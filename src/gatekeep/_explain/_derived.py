"""How values were made from others, in numbers. Pure."""

from __future__ import annotations

from gatekeep._deadlines import fire_after
from gatekeep._explain._model import Value
from gatekeep._explain._words import seconds, time_value
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._settings import Settings


def t_fire(group: GroupSettings) -> float:
    """Seconds that the application may have a request."""
    return fire_after(group.request_timeout, group.threads)


def fire_value(group: GroupSettings) -> Value:
    """T_fire beside the settings."""
    formula = f"{seconds(group.request_timeout)} * (1 + ln {group.threads} threads)"
    return time_value("T_fire", t_fire(group), formula if group.request_timeout else "")


def socket_value(group: GroupSettings) -> Value:
    """socket-timeout as it is in effect."""
    parts = [
        ("T_fire", t_fire(group)),
        ("interrupt", group.interrupt_timeout),
        ("graceful", max(group.graceful_timeout, group.eviction_timeout_or_default)),
        ("shutdown", group.shutdown_timeout),
    ]
    formula = " + ".join(f"{name} {seconds(value)}" for name, value in parts)
    derived = "" if group.socket_timeout is not None else f"{formula} + 5 s"
    return time_value("socket-timeout", group.socket_timeout_or_default, derived)


def response_socket_value(settings: Settings) -> Value:
    """response-socket-timeout as it is in effect."""
    derived = ""
    if settings.http.response_socket_timeout is None:
        hops = sum(not group.is_embedded for group in settings.groups)
        derived = ("Apache's Timeout", "socket-timeout", "the longest socket-timeout")[min(hops, 2)]
    return time_value("response-socket-timeout", settings.response_socket_timeout, derived)
