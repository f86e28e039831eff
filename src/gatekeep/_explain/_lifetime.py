"""What ends a process that is well, or does not become ready. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gatekeep._explain._model import Limit
from gatekeep._explain._words import LARGEST, finite, limit_of, time_value, value_of
from gatekeep.lifecycle._recycle import MEMORY_SAMPLES, draw_limits, draw_maximum
from gatekeep.settings._group import GroupSettings

REPLACED = "replaced"


def lifetime(group: GroupSettings) -> tuple[Limit, ...]:
    """Of the processes of one group."""
    return (*_start(group), *_recycling(group), *_windows(group))


def _start(group: GroupSettings) -> Iterator[Limit]:
    yield Limit(
        bound=limit_of(group, "startup_timeout"),
        since="until its application is loaded",
        then="else a fresh one",
    )


def _recycling(group: GroupSettings) -> Iterator[Limit]:
    yield Limit(
        bound=limit_of(group, "restart_interval", "and a jitter"),
        at_most=finite(draw_limits(group, 1.0).interval),
        since="from when it is ready",
        then=REPLACED,
    )
    yield Limit(
        bound=limit_of(group, "maximum_requests", "and a jitter"),
        at_most=min(draw_maximum(group, 1.0), LARGEST) or None,
        since="so many requests",
        then=REPLACED,
    )
    yield Limit(bound=limit_of(group, "cpu_time_limit"), since="of CPU time", then=REPLACED)
    yield Limit(
        bound=limit_of(group, "memory_limit"),
        since=f"resident, {MEMORY_SAMPLES} looks in a row",
        then=REPLACED,
    )
    yield Limit(
        bound=limit_of(group, "inactivity_timeout"),
        since="without anything to do",
        then="it ends; the next request starts one",
    )
    if group.script_reloading != "off":
        yield Limit(
            bound=value_of(group, "script_reloading"),
            since="when the application's file changes",
            then=REPLACED,
        )


def _windows(group: GroupSettings) -> Iterator[Limit]:
    derived = "" if group.eviction_timeout else "graceful-timeout"
    yield Limit(
        bound=time_value("eviction-timeout", group.eviction_timeout_or_default, derived),
        since="after SIGUSR1 or gatekeep drain",
        then="it must end",
    )
