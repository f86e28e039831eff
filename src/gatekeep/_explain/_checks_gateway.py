"""The same for the settings of the whole gateway, and for what its groups come to together. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from gatekeep._explain._checks import Check, Facts
from gatekeep._explain._derived import response_socket_value
from gatekeep._explain._model import Finding, Value
from gatekeep._explain._words import LARGEST, time_value, value_of
from gatekeep.settings._http import FEW_CONNECTIONS, HttpSettings

BALANCERS_KEEP = 60.0
"""Seconds for which the load balancers of the large clouds keep an idle connection."""

KUBERNETES_GRACE = 30.0
"""Seconds: terminationGracePeriodSeconds where nobody has set it; then everything is killed."""

PROCESSES_PER_CPU = 4
"""More are seldom of use: while one waits its other threads serve."""

DESCRIPTORS_PER_CLIENT = 3
"""Its connection, its request's way to a worker, a temporary file."""


def _found(code: str, settings: Sequence[Value], why: str, advice: str) -> Finding:
    return Finding(code=code, settings=tuple(settings), why=why, advice=advice)


def _of(holder: Any, *names: str) -> tuple[Value, ...]:
    return tuple(value_of(holder, name) for name in names)


# --- clients


def _header_off(facts: Facts) -> Finding | None:
    if facts.settings.http.header_timeout:
        return None
    return _found(
        "header-off",
        _of(facts.settings.http, "header_timeout", "max_connections"),
        "a client that never ends its head keeps its connection for ever",
        "15",
    )


def _body_off(facts: Facts) -> Finding | None:
    if facts.settings.http.body_timeout:
        return None
    return _found(
        "body-off",
        _of(facts.settings.http, "body_timeout"),
        "a client that never ends its body keeps its connection for ever, and what it has sent",
        "15",
    )


def _header_hidden(facts: Facts) -> Finding | None:
    http = facts.settings.http
    if not 0 < http.header_max_timeout < http.header_timeout:
        return None
    return _found(
        "header-hidden",
        _of(http, "header_timeout", "header_max_timeout"),
        "header-max-timeout always comes first: header-timeout is never reached",
        "a header-max-timeout of twice header-timeout, or 0",
    )


def _body_hidden(facts: Facts) -> Finding | None:
    http = facts.settings.http
    if not 0 < http.body_max_timeout < http.body_timeout:
        return None
    return _found(
        "body-hidden",
        _of(http, "body_timeout", "body_max_timeout"),
        "body-max-timeout always comes first: body-timeout is never reached, and large uploads are cut",
        "0, or what the largest upload takes",
    )


def _keep_alive_short(facts: Facts) -> Finding | None:
    if not 0 < facts.settings.http.keep_alive_timeout < BALANCERS_KEEP:
        return None
    return _found(
        "keep-alive-short",
        _of(facts.settings.http, "keep_alive_timeout"),
        "a load balancer keeps connections for 60 s, and sends requests into those that are just being closed: 502",
        "65, or more than the balancer's own",
    )


def _response_socket_off(facts: Facts) -> Finding | None:
    if facts.settings.response_socket_timeout < math.inf:
        return None
    return _found(
        "response-socket-off",
        (response_socket_value(facts.settings),),
        "a client that stops reading keeps its connection, and its response's temporary file, for ever",
        "60",
    )


def _response_socket_hidden(facts: Facts) -> Finding | None:
    settings = facts.settings
    shortest = min(group.socket_timeout_or_default for group in settings.groups)
    given = settings.http.response_socket_timeout
    if given is None or not shortest < settings.response_socket_timeout < math.inf:
        return None
    return _found(
        "response-socket-hidden",
        (response_socket_value(settings), time_value("socket-timeout", shortest)),
        "where a response is larger than response-spool-size its worker gives up first",
        "not above socket-timeout",
    )


def _trusts_anybody(facts: Facts) -> Finding | None:
    trusted = facts.settings.trusts_anybody()
    if not trusted:
        return None
    return _found(
        "trusts-anybody",
        tuple(Value(name, item) for name, item in trusted.items()),
        "whoever connects may say that it is somebody else",
        "the addresses of your proxies",
    )


def _few_descriptors(facts: Facts) -> Finding | None:
    descriptors, wanted = facts.surroundings.descriptors, facts.settings.http.max_connections
    if descriptors is None:
        return None
    is_meant = wanted != attrs.fields(HttpSettings).max_connections.default
    allowed = descriptors // DESCRIPTORS_PER_CLIENT
    if allowed >= wanted or (allowed >= FEW_CONNECTIONS and not is_meant):
        return None
    return _found(
        "few-descriptors",
        (*_of(facts.settings.http, "max_connections"), Value("file descriptors", min(descriptors, LARGEST))),
        f"a client needs up to {DESCRIPTORS_PER_CLIENT}, so that about {allowed} clients can be connected",
        "raise the limit (ulimit -n, LimitNOFILE=)",
    )


# --- the stop


def _stop_long(facts: Facts) -> Finding | None:
    settings = facts.settings
    shutdown = max(group.shutdown_timeout for group in settings.groups)
    whole = settings.shutdown_delay + settings.graceful_timeout + shutdown
    if whole <= KUBERNETES_GRACE:
        return None
    return _found(
        "stop-long",
        (
            *_of(settings, "shutdown_delay"),
            time_value("graceful-timeout", settings.graceful_timeout),
            time_value("shutdown-timeout", shutdown),
        ),
        "together more than the 30 s after which Kubernetes kills everything",
        "less, or a longer terminationGracePeriodSeconds",
    )


def _delay_unseen(facts: Facts) -> Finding | None:
    settings = facts.settings
    if not settings.shutdown_delay or settings.health_binds or settings.http.readyz_path:
        return None
    return _found(
        "delay-unseen",
        _of(settings, "shutdown_delay"),
        "only a readiness probe can tell, and there is none: the stop is merely later",
        "health-bind, or readyz-path",
    )


# --- all groups together


def _memory_too_large(facts: Facts) -> Finding | None:
    allowed = facts.surroundings.memory_limit
    limited = [group for group in facts.settings.groups if group.processes and group.memory_limit]
    whole = sum(group.memory_limit * (group.processes + 1) for group in limited)
    if allowed is None or whole <= allowed:
        return None
    values = [value for group in limited for value in _of(group, "memory_limit", "processes")]
    return _found(
        "memory-above-container",
        (*values[:4], Value("the container's memory", min(allowed, LARGEST), "bytes")),
        "memory-limit * (processes + 1) is more: the kernel kills first",
        "a lower memory-limit, or fewer processes",
    )


def _many_processes(facts: Facts) -> Finding | None:
    cpus = facts.surroundings.cpus
    processes = sum(group.processes for group in facts.settings.groups)
    if cpus is None or processes <= PROCESSES_PER_CPU * max(1.0, cpus):
        return None
    return _found(
        "many-processes",
        (Value("processes", processes), Value("processors", f"{cpus:g}")),
        "they take turns on the processors, and each has its own copy of the application in memory",
        "one or two for each processor, and threads for what waits",
    )


GATEWAY_CHECKS: tuple[Check, ...] = (
    *(_header_off, _body_off, _header_hidden, _body_hidden, _keep_alive_short, _response_socket_off),
    _response_socket_hidden,
    *(_trusts_anybody, _few_descriptors, _stop_long, _delay_unseen, _memory_too_large, _many_processes),
)
"""For the gateway: they look at no single group."""
