"""Settings of a group that hide or defeat each other, or that are seldom meant: one small check for each. Pure.

What a check says is about the effective values. None of them is about the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import attrs

from gatekeep._explain._derived import fire_value, socket_value, t_fire
from gatekeep._explain._model import Finding, Surroundings, Value
from gatekeep._explain._words import seconds, time_value, value_of
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._settings import Settings, apps_of
from gatekeep.settings._spec import never_if_zero
from gatekeep.settings._units import show_size

LEAST_INTERRUPT = 10.0
"""Seconds: mod_wsgi's guide advises no less, since what unwinds has finally blocks and context managers to pass."""

LEAST_REQUEST_TIMEOUT = 5.0
"""Seconds: with less, somebody probably means a deadline for users."""

LEAST_STARTUP = 15.0
"""Seconds: mod_wsgi-express's value; imports on a busy machine take several times as long as on an idle one."""

LEAST_SHUTDOWN = 1.0
"""Seconds that `atexit` functions, and the last responses, may need."""

LEAST_DEADLOCK = 5.0
"""Seconds: a large import, or a regular expression, keeps the GIL for as long without being wedged."""

FEW_REQUESTS = 100
"""A process that has so few is mostly at starting."""

MANY_THREADS = 100
"""Threads that share one GIL."""

SYSTEM_STACK = 8 << 20
"""Bytes of a thread's stack where stack-size does not say otherwise."""

OWN_THREADS = 3
"""Threads of a process that run no requests."""


@attrs.frozen
class Facts:
    """What the checks look at.

    Attributes:
        group: the group in question; any one for checks of the whole gateway.
    """

    settings: Settings
    group: GroupSettings
    surroundings: Surroundings

    @property
    def fire(self) -> float:
        """T_fire in seconds."""
        return t_fire(self.group)

    @property
    def socket(self) -> float:
        """socket-timeout in seconds, as it is in effect."""
        return self.group.socket_timeout_or_default

    @property
    def applications(self) -> tuple[str, ...]:
        """The group's applications, its own first."""
        return tuple(dict.fromkeys(map(str, apps_of(self.group, self.settings))))

    def values(self, *names: str) -> tuple[Value, ...]:
        """Settings of the group as they are."""
        return tuple(value_of(self.group, name) for name in names)

    def found(self, code: str, settings: Sequence[Value], why: str, advice: str) -> Finding:
        """A finding about the group."""
        return Finding(code=code, group=self.group.name, settings=tuple(settings), why=why, advice=advice)


Check = Callable[[Facts], Finding | None]


def findings(checks: Sequence[Check], facts: Facts) -> Iterator[Finding]:
    """What the checks find."""
    for check in checks:
        found = check(facts)
        if found is not None:
            yield found


def _in_daemons(check: Check) -> Check:
    """For groups that have processes of their own."""
    return lambda facts: check(facts) if facts.group.processes else None


# --- socket-timeout and those that it hides


def _socket_below_fire(facts: Facts) -> Finding | None:
    if not facts.socket < facts.fire < math.inf:
        return None
    return facts.found(
        "socket-below-fire",
        (socket_value(facts.group), fire_value(facts.group)),
        "the client gets 504 before the request is interrupted, which runs on unseen",
        f"leave socket-timeout out, or set more than {seconds(facts.fire + facts.group.interrupt_timeout)}",
    )


def _socket_inside_grace(facts: Facts) -> Finding | None:
    end = facts.fire + facts.group.interrupt_timeout
    if not facts.fire <= facts.socket < end < math.inf:
        return None
    return facts.found(
        "socket-inside-grace",
        (socket_value(facts.group), fire_value(facts.group), *facts.values("interrupt_timeout")),
        "the client gets 504 while its request unwinds",
        f"leave socket-timeout out, or set more than {seconds(end)}",
    )


def _queue_above_socket(facts: Facts) -> Finding | None:
    if not facts.socket < facts.group.queue_timeout < math.inf:
        return None
    return facts.found(
        "queue-above-socket",
        (*facts.values("queue_timeout"), socket_value(facts.group)),
        "clients wait longer for a worker than for an answer; unlike mod_wsgi's, socket-timeout ends no queueing",
        "what clients really wait for",
    )


def _deadlock_above_socket(facts: Facts) -> Finding | None:
    if not facts.socket < facts.group.deadlock_timeout < math.inf:
        return None
    return facts.found(
        "deadlock-above-socket",
        (*facts.values("deadlock_timeout"), socket_value(facts.group)),
        "clients of a process whose GIL is held get 504 one by one, before it is found to be wedged",
        "60",
    )


def _socket_off(facts: Facts) -> Finding | None:
    if facts.group.socket_timeout != 0:
        return None
    return facts.found(
        "socket-off",
        facts.values("socket_timeout"),
        "nothing bounds a read or write between gateway and worker",
        "leave it out: then it is longer than every request that is not wedged",
    )


# --- requests that do not end


def _request_timeout_off(facts: Facts) -> Finding | None:
    if facts.fire < math.inf:
        return None
    return facts.found(
        "request-timeout-off",
        facts.values("request_timeout", "threads"),
        "requests that do not end keep their threads for ever, until none is left",
        "a few times what the slowest honest request takes",
    )


def _request_timeout_short(facts: Facts) -> Finding | None:
    if not 0 < facts.group.request_timeout < LEAST_REQUEST_TIMEOUT:
        return None
    return facts.found(
        "request-timeout-short",
        (*facts.values("request_timeout"), fire_value(facts.group)),
        "honest requests are slow now and then, and users' deadlines are another matter",
        "timeouts inside the application, and a few times their sum here",
    )


def _interrupt_off(facts: Facts) -> Finding | None:
    if facts.group.interrupt_timeout or facts.fire == math.inf:
        return None
    return facts.found(
        "interrupt-off",
        facts.values("interrupt_timeout", "graceful_timeout"),
        "one wedged request costs its process, and its siblings have only graceful-timeout",
        "10 or more, so that it is ended alone",
    )


def _interrupt_short(facts: Facts) -> Finding | None:
    if not 0 < facts.group.interrupt_timeout < LEAST_INTERRUPT or facts.fire == math.inf:
        return None
    return facts.found(
        "interrupt-short",
        facts.values("interrupt_timeout"),
        "what is interrupted has finally blocks to pass; where that takes longer the process is replaced after all",
        "10 or more",
    )


def _interrupt_unused(facts: Facts) -> Finding | None:
    default = attrs.fields(GroupSettings).interrupt_timeout.default
    if facts.fire < math.inf or facts.group.interrupt_timeout in (0, default):
        return None
    return facts.found(
        "interrupt-unused",
        facts.values("interrupt_timeout", "request_timeout"),
        "without a request-timeout nothing is ever interrupted",
        "set request-timeout",
    )


def _deadlock_off(facts: Facts) -> Finding | None:
    if facts.group.deadlock_timeout:
        return None
    return facts.found(
        "deadlock-off",
        facts.values("deadlock_timeout"),
        "a process whose GIL is held is never noticed, and keeps what it has accepted",
        "60",
    )


def _deadlock_short(facts: Facts) -> Finding | None:
    if not 0 < facts.group.deadlock_timeout < LEAST_DEADLOCK:
        return None
    return facts.found(
        "deadlock-short",
        facts.values("deadlock_timeout"),
        "an import or a regular expression that keeps the GIL for a moment costs the whole process",
        "60; what such a process has not begun goes to others after 2.5 s anyway",
    )


def _cancels(facts: Facts) -> Finding | None:
    if not facts.group.cancel_on_disconnect:
        return None
    return facts.found(
        "cancels-on-disconnect",
        facts.values("cancel_on_disconnect"),
        "whoever closes a browser interrupts the application, wherever it is",
        "only for applications that can be left at any point (transactions)",
    )


# --- waiting for a worker


def _queue_off(facts: Facts) -> Finding | None:
    if facts.group.queue_timeout:
        return None
    return facts.found(
        "queue-off",
        facts.values("queue_timeout"),
        "requests wait for a worker for ever, so after a jam it is stale ones that are served",
        "45, or what clients really wait for",
    )


def _queue_shed_late(facts: Facts) -> Finding | None:
    if facts.group.queue_shed != "pickup" or not facts.group.queue_timeout:
        return None
    return facts.found(
        "queue-shed-late",
        facts.values("queue_shed", "queue_timeout"),
        "nobody is told at queue-timeout: the 504 comes when a worker is free, which may be much later",
        "queue-shed = deadline",
    )


def _connect_above_queue(facts: Facts) -> Finding | None:
    if not facts.group.queue_timeout < facts.group.connect_timeout or not facts.group.queue_timeout:
        return None
    return facts.found(
        "connect-above-queue",
        facts.values("connect_timeout", "queue_timeout"),
        "queue-timeout counts from a place in the backlog on, and the wait for that place may be longer",
        "a connect-timeout below queue-timeout",
    )


def _max_waiting_off(facts: Facts) -> Finding | None:
    if facts.group.max_waiting:
        return None
    return facts.found(
        "max-waiting-off",
        facts.values("max_waiting", "listen_backlog", "connect_timeout"),
        "a full backlog is 503 at once: connect-timeout is never used",
        "as many as may reasonably wait: 2048",
    )


# --- the life of processes


def _shutdown_short(facts: Facts) -> Finding | None:
    if not facts.group.shutdown_timeout < LEAST_SHUTDOWN:
        return None
    return facts.found(
        "shutdown-short",
        facts.values("shutdown_timeout"),
        "processes are killed before their last responses and atexit functions are through",
        "5",
    )


def _graceful_off(facts: Facts) -> Finding | None:
    if facts.group.graceful_timeout:
        return None
    return facts.found(
        "graceful-off",
        facts.values("graceful_timeout", "shutdown_timeout"),
        "what runs in a process that is replaced, or when the gateway stops, has shutdown-timeout at the most",
        "15",
    )


def _eviction_long(facts: Facts) -> Finding | None:
    if not facts.group.eviction_timeout_or_default > facts.group.graceful_timeout:
        return None
    return facts.found(
        "eviction-above-graceful",
        facts.values("eviction_timeout", "graceful_timeout"),
        "a stop of the gateway does not wait for an eviction",
        "a graceful-timeout as long, if those requests matter",
    )


def _startup_off(facts: Facts) -> Finding | None:
    if facts.group.startup_timeout:
        return None
    return facts.found(
        "startup-off",
        facts.values("startup_timeout"),
        "an import that hangs is never ended, and its process never serves",
        "60, or several times what loading takes",
    )


def _startup_short(facts: Facts) -> Finding | None:
    if not 0 < facts.group.startup_timeout < LEAST_STARTUP:
        return None
    return facts.found(
        "startup-short",
        facts.values("startup_timeout"),
        "several processes that import at once on a busy machine take a multiple of what one takes on an idle one",
        "60, or several times what loading takes",
    )


def _startup_slow(facts: Facts) -> Finding | None:
    load_time = facts.surroundings.load_times.get(facts.group.name, 0.0)
    if not load_time > never_if_zero(facts.group.startup_timeout) / 3:
        return None
    return facts.found(
        "startup-slow",
        (*facts.values("startup_timeout"), time_value("load time", load_time)),
        "loading takes more than a third of it, and a busy machine takes several times as long",
        f"{seconds(math.ceil(load_time * 5))} or more",
    )


def _cpu_below_load(facts: Facts) -> Finding | None:
    load_time = facts.surroundings.load_times.get(facts.group.name, 0.0)
    if not 0 < facts.group.cpu_time_limit <= load_time:
        return None
    return facts.found(
        "cpu-below-load",
        (*facts.values("cpu_time_limit"), time_value("load time", load_time)),
        "loading alone may use that up: processes are replaced as soon as they are ready",
        "many times as much, or 0",
    )


def _few_requests(facts: Facts) -> Finding | None:
    if not 0 < facts.group.maximum_requests < FEW_REQUESTS:
        return None
    return facts.found(
        "maximum-requests-low",
        facts.values("maximum_requests"),
        "processes are replaced all the time, and loading the application is most of what they do",
        "1000 or more; memory-limit where it is for a leak",
    )


def _interval_short(facts: Facts) -> Finding | None:
    interval = facts.group.restart_interval
    if not 0 < interval < facts.group.startup_timeout + facts.group.graceful_timeout:
        return None
    return facts.found(
        "restart-interval-short",
        facts.values("restart_interval", "startup_timeout", "graceful_timeout"),
        "a replacement may take longer than the process may live, so that there is always one under way",
        "an hour or more",
    )


def _sleepy(facts: Facts) -> Finding | None:
    if not facts.group.inactivity_timeout or facts.group.processes < 2:
        return None
    return facts.found(
        "inactivity-of-several",
        facts.values("inactivity_timeout", "processes"),
        "quiet hours end processes one by one, and the next burst waits for their imports",
        "for groups that are seldom used, with processes = 1; else 0",
    )


def _strict_reloading(facts: Facts) -> Finding | None:
    if facts.group.script_reloading != "strict":
        return None
    return facts.found(
        "script-reloading-strict",
        facts.values("script_reloading"),
        "the first requests after a change wait until new processes have loaded it",
        "on: the old ones serve meanwhile",
    )


# --- memory and processors


def _memory_hidden(facts: Facts) -> Finding | None:
    group = facts.group
    if not 0 < group.virtual_memory_limit <= group.memory_limit:
        return None
    return facts.found(
        "memory-limit-hidden",
        facts.values("memory_limit", "virtual_memory_limit"),
        "MemoryError comes first, so that no process is ever replaced",
        "several times memory-limit for the other",
    )


def _stacks_too_large(facts: Facts) -> Finding | None:
    group = facts.group
    stacks = (group.stack_size or SYSTEM_STACK) * (group.threads + OWN_THREADS)
    if not 0 < group.virtual_memory_limit < 2 * stacks:
        return None
    return facts.found(
        "stacks-too-large",
        facts.values("virtual_memory_limit", "stack_size", "threads"),
        f"the stacks alone are {show_size(stacks)} of address space: processes may not even start",
        "a larger limit, smaller stacks",
    )


def _many_threads(facts: Facts) -> Finding | None:
    if facts.group.threads < MANY_THREADS:
        return None
    return facts.found(
        "many-threads",
        (*facts.values("threads"), fire_value(facts.group)),
        "they share one GIL, and T_fire grows with them",
        "more processes, of 5 to 25 threads each",
    )


# --- what is not separate


def _embedded(facts: Facts) -> Finding | None:
    if facts.group.processes:
        return None
    return facts.found(
        "embedded",
        facts.values("processes"),
        "the application runs in the gateway's own process: no timer ends a request there, nothing is replaced",
        "processes = 1 or more, unless it is for development",
    )


def _shared(facts: Facts) -> Finding | None:
    if len(facts.applications) < 2:
        return None
    return facts.found(
        "applications-share",
        (Value("applications", len(facts.applications)), *facts.values("processes")),
        "they are loaded one by one into the same processes: modules, memory and threads are shared, nothing is isolated",
        "a group each, where one must not harm another",
    )


GROUP_CHECKS: tuple[Check, ...] = (
    _embedded,
    _shared,
    *map(
        _in_daemons,
        (
            *(
                _socket_below_fire,
                _socket_inside_grace,
                _queue_above_socket,
                _deadlock_above_socket,
                _socket_off,
            ),
            *(_request_timeout_off, _request_timeout_short),
            *(_interrupt_off, _interrupt_short, _interrupt_unused, _deadlock_off, _deadlock_short, _cancels),
            *(_queue_off, _queue_shed_late, _connect_above_queue, _max_waiting_off),
            *(_shutdown_short, _graceful_off, _eviction_long),
            *(_startup_off, _startup_short, _startup_slow, _cpu_below_load),
            *(_few_requests, _interval_short, _sleepy, _strict_reloading),
            *(_memory_hidden, _stacks_too_large, _many_threads),
        ),
    ),
)
"""For each group."""
