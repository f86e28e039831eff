"""What can make a process end, as data: the one list of reasons for a drain. Pure.

A planned change may wait until its replacement is ready, and until its turn; it costs nobody anything. The others are about a
process that is not well, or that somebody wants gone: its replacement is started at once, and its time runs from then on.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Trigger:
    """A reason for a drain.

    Attributes:
        name: the setting's, or a word for the log.
        planned: whether it waits for its turn, and for its replacement to be ready before its time runs.
        evicts: whether its window is eviction-timeout instead of graceful-timeout.
        succeeded: whether the process gets a replacement.
        at_once: whether it accepts no more from the first moment on.
    """

    name: str
    planned: bool = True
    evicts: bool = False
    succeeded: bool = True
    at_once: bool = False


MAXIMUM_REQUESTS = Trigger("maximum-requests")
RESTART_INTERVAL = Trigger("restart-interval")
CPU_TIME_LIMIT = Trigger("cpu-time-limit")
MEMORY_LIMIT = Trigger("memory-limit")
SCRIPT_CHANGED = Trigger("script-reloading")
SCRIPT_REJECTED = Trigger("script-reloading strict", planned=False, at_once=True)
SCRIPT = (SCRIPT_CHANGED, SCRIPT_REJECTED)
RELOAD = Trigger("reload")
REQUEST_TIMEOUT = Trigger("request-timeout", planned=False)
EVICTION = Trigger("eviction", planned=False, evicts=True)
FEWER = Trigger("fewer processes")
"""Its group shall have fewer processes: its seat goes, too."""
INACTIVITY = Trigger("inactivity-timeout", succeeded=False, at_once=True)
SHUTDOWN = Trigger("a signal to this process", planned=False, at_once=True)
"""SIGTERM or SIGINT at a daemon: it has shutdown-timeout, and no window before that."""

TRIGGERS = {
    trigger.name: trigger
    for trigger in (
        MAXIMUM_REQUESTS,
        RESTART_INTERVAL,
        CPU_TIME_LIMIT,
        MEMORY_LIMIT,
        SCRIPT_CHANGED,
        SCRIPT_REJECTED,
        RELOAD,
        REQUEST_TIMEOUT,
        EVICTION,
        FEWER,
        INACTIVITY,
        SHUTDOWN,
    )
}
