"""Counters by stage and outcome, and the frozen snapshot that `Gateway.statistics()` returns. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from gatekeep._events import Outcome, Record
from gatekeep._stages import Stage


@attrs.frozen
class Statistics:
    """What the gateway has done since it began, at one instant.

    Attributes:
        requests: how many ended, by the stage where they ended and their outcome. Pairs that never occurred are absent.
        in_flight: requests that have not ended: their head was read.
        waiting: of those, how many wait for a place in the group's backlog.
        standing: of those, how many stand in the backlog: no worker has claimed them yet.
        oldest: for how many seconds the oldest of both has waited; 0.0 where there is none.
        connections: open connections of clients, idle ones included.
        idle_closed: connections that were closed between two requests, for keep-alive-timeout or to make room.
        timers: how often each timer ended a request, by the name of its setting. Those that never did are absent.
        retries: attempts that ended before a worker claimed the request, so that it was offered again.
        streams_ended: streams of events that were ended because their process, or the gateway, went. They count as served.
        dropped_fields: header fields that were dropped because their names could forge others (underscores, `Proxy`).
        not_introduced: connections that were closed because they did not begin with an acceptable PROXY header, or came from a
            peer that may not send one.
        dropped_log_records: log records that were dropped because their reader was too slow.
        process_starts, process_ends: daemon processes started and ended.
        deadlocks: of those, how many were ended by deadlock-timeout.
        processes: pids of the daemon processes that are ready.
    """

    requests: Mapping[tuple[Stage, Outcome], int]
    in_flight: int
    waiting: int
    standing: int
    oldest: float
    connections: int
    idle_closed: int
    timers: Mapping[str, int]
    retries: int
    streams_ended: int
    dropped_fields: int
    not_introduced: int
    dropped_log_records: int
    process_starts: int
    process_ends: int
    deadlocks: int
    processes: tuple[int, ...]

    def by_outcome(self) -> dict[Outcome, int]:
        """How many requests ended in each way, wherever that was."""
        totals: dict[Outcome, int] = {}
        for (_, outcome), count in self.requests.items():
            totals[outcome] = totals.get(outcome, 0) + count
        return totals


class Counters:
    """The running numbers; one owner (the front's loop) writes them."""

    def __init__(self) -> None:
        self.requests: dict[tuple[Stage, Outcome], int] = {}
        self.in_flight = 0
        self.timers: dict[str, int] = {}
        self.connections = 0
        self.idle_closed = 0
        self.retries = 0
        self.streams_ended = 0
        self.dropped_fields = 0
        self.not_introduced = 0
        self.dropped_log_records = 0
        self.process_starts = 0
        self.process_ends = 0
        self.deadlocks = 0

    def count(self, record: Record) -> None:
        """Count a request that has ended."""
        assert record.outcome is not None
        key = record.stage, record.outcome
        self.requests[key] = self.requests.get(key, 0) + 1
        if record.timer:
            self.timers[record.timer] = self.timers.get(record.timer, 0) + 1

    def snapshot(
        self, *, waiting: int, standing: int, oldest: float, processes: tuple[int, ...]
    ) -> Statistics:
        """All of it now, unchangeable."""
        return Statistics(
            requests=MappingProxyType(dict(self.requests)),
            in_flight=self.in_flight,
            waiting=waiting,
            standing=standing,
            oldest=oldest,
            connections=self.connections,
            idle_closed=self.idle_closed,
            timers=MappingProxyType(dict(self.timers)),
            retries=self.retries,
            streams_ended=self.streams_ended,
            dropped_fields=self.dropped_fields,
            not_introduced=self.not_introduced,
            dropped_log_records=self.dropped_log_records,
            process_starts=self.process_starts,
            process_ends=self.process_ends,
            deadlocks=self.deadlocks,
            processes=processes,
        )
