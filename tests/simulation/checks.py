"""What must be true of every request and of every run; and the logger, which sees each request's end as it happens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from gatekeep._events import Outcome
from gatekeep._stages import Stage
from gatekeep._statistics import Statistics
from gatekeep.transport._backoff import connect_pauses

from .plans import Plan
from .sockets import GATEWAY
from .world import TICK, World

STOPPED = "the gateway was stopped"
LOUD = frozenset({"front.failed"})
"""Events that tell of a fault of the gateway's own."""


@attrs.define
class Audit:
    """Watches one run.

    Attributes:
        stopping: since when the gateway was told to stop.
        hurried: whether it was told to wait for nothing.
    """

    world: World
    processes: int
    connect_timeout: float
    stopping: float | None = None
    hurried: bool = False
    records: list[dict[str, Any]] = attrs.field(factory=list)
    retries: Counter[str] = attrs.field(factory=Counter)

    # --- the logger

    def debug(self, event: str, **fields: Any) -> None:
        self._said(event, fields)

    info = warning = error = debug

    def _said(self, event: str, fields: dict[str, Any]) -> None:
        about = [
            f"{key}={fields[key]}"
            for key in ("path", "pid", "outcome", "status", "reason", "end")
            if key in fields
        ]
        self.world.note("log", event, *about)
        if event in LOUD:
            self._wrong(f"{event}: {fields}")
        if event == "queue.retried" and not fields["taken_back"]:
            self.retries[fields["request_id"]] += 1
        if event == "request.finished":
            self._finished(fields)

    def _wrong(self, text: str) -> None:
        self.world.violation(text)

    # --- the end of a request

    def _finished(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        plan = self.world.plans.get(record["path"])
        if plan is None:
            self._unheard_of(record)
            return
        if plan.records:
            self._wrong(f"{plan.path} has two outcomes: {plan.records[0]['outcome']} and {record['outcome']}")
        plan.records.append(record)
        started = bool(record["pid"])
        if started != bool(plan.claims):
            self._wrong(f"{plan.path}: the front says started={started}, and it was claimed by {plan.claims}")
        if record["status"] == 502 and not started:
            self._wrong(f"{plan.path}: 502 for a request that was not started")
        if record["outcome"] is Outcome.SHED:
            self._shed(plan, record)
        if record["outcome"] is Outcome.LOST and record["status"] == 502:
            self._lost(plan, record)

    def _unheard_of(self, record: dict[str, Any]) -> None:
        """Only of a client that leaves may half a head arrive."""
        plans = self.world.plans_of_port[int(record["client"].rpartition(":")[2])]
        if record["outcome"] is not Outcome.REFUSED or all(plan.well_behaved for plan in plans):
            self._wrong(f"a request that nobody made: {record}")

    def _shed(self, plan: Plan, record: dict[str, Any]) -> None:
        if plan.claims:
            self._wrong(f"{plan.path}: 503 for a request that was started")
        if record["stage"] is Stage.CONNECT:
            since = _episodes(self.world.net.attempts_of_task())[-1][0]
            late = self.world.time.now - since - self.connect_timeout
            if abs(late) > TICK:
                self._wrong(f"{plan.path}: 503 {late:+.6f} s off its connect-timeout")
        else:
            failed = self.retries[record["request_id"]] + 1
            if failed < 2 * self.processes + 1:
                self._wrong(f"{plan.path}: 503 after {failed} failed attempts only")

    def _lost(self, plan: Plan, record: dict[str, Any]) -> None:
        process = self.world.processes.all[record["pid"]]
        if not process.is_dying():
            self._lost_for_nothing(plan)
        if process.end and self.world.time.now - process.ended > TICK:
            self._wrong(
                f"{plan.path}: 502 only {self.world.time.now - process.ended} s after its process's end"
            )

    def _lost_for_nothing(self, plan: Plan) -> None:
        """Giving a hop up also cuts off the response of a worker that was quicker.

        That cannot be helped where its claim came between the front's last look and the giving up, and only there.
        """
        assert plan.hop is not None
        if plan.hop.cut_off or not plan.hop.no_more_in:
            self._wrong(f"{plan.path}: 502, though its process lives and its claim was there to be seen")

    # --- the end of a run

    def at_rest(self, statistics: Statistics) -> None:
        """The gateway has stopped and the clients have gone."""
        self._nothing_is_left()
        self._numbers_add_up(statistics)
        self._attempts_keep_the_schedule()
        for plan in self.world.plans.values():
            self._check_story(plan)

    def _nothing_is_left(self) -> None:
        for descriptor in self.world.descriptors:
            if not descriptor.owner.startswith("child"):
                self._wrong(f"{descriptor} is open at rest")
        for process in self.world.processes.all.values():
            if not process.end:
                self._wrong(f"process {process.pid} lives at rest")
            if not process.buried:
                self._wrong(f"the supervisor still holds process {process.pid}")
        if self.world.disk.files:
            self._wrong(f"{len(self.world.disk.files)} temporary files are left at rest")
        if self.world.descriptors_of(GATEWAY):
            self._wrong("the gateway holds descriptors at rest")

    def _numbers_add_up(self, statistics: Statistics) -> None:
        counted = Counter((record["stage"], record["outcome"]) for record in self.records)
        if dict(statistics.requests) != dict(counted):
            self._wrong(f"statistics {dict(statistics.requests)} and records {dict(counted)} differ")
        if statistics.in_flight or statistics.connections or statistics.standing or statistics.processes:
            self._wrong(f"at rest: {statistics}")
        processes = len(self.world.processes.all)
        if (statistics.process_starts, statistics.process_ends) != (processes, processes):
            self._wrong(f"{processes} processes were there, counted: {statistics}")
        whole = sum(plan.seen.whole and plan.seen.status == 200 for plan in self.world.plans.values())
        if whole > statistics.by_outcome().get(Outcome.SERVED, 0):
            self._wrong(f"clients saw {whole} whole responses, counted: {statistics.by_outcome()}")

    def _attempts_keep_the_schedule(self) -> None:
        for attempts in self.world.net.attempts:
            for episode in _episodes(attempts):
                due = episode[0]
                for time, pause in zip(episode[1:], connect_pauses(self.connect_timeout), strict=False):
                    due += pause
                    if abs(time - due) > TICK:
                        self._wrong(f"an attempt to connect at {time}, due at {due}")

    def _check_story(self, plan: Plan) -> None:
        seen, record = plan.seen, plan.records[0] if plan.records else None
        if record is None:
            if plan.claims or seen.status:
                self._wrong(f"{plan.path} has no outcome, and was claimed by {plan.claims}; seen: {seen}")
            elif not self._may_be_unheard(plan):
                self._wrong(f"{plan.path} was never heard")
            return
        if seen.end.startswith("nonsense"):
            self._wrong(f"{plan.path}: {seen.end}")
        if seen.whole:
            self._check_whole(plan, record)
        elif plan.well_behaved:
            self._check_not_whole(plan, record)
        if plan.well_behaved and record["outcome"] is Outcome.CLIENT_GONE:
            self._wrong(f"{plan.path}: its client was there; {record['reason']}")
        if record["outcome"] is Outcome.LOST and record["reason"] == STOPPED and self.stopping is None:
            self._wrong(f"{plan.path}: {STOPPED}, which it was not")

    def _may_be_unheard(self, plan: Plan) -> bool:
        """Whoever comes when the gateway stops is turned away; whoever leaves may not have been heard."""
        return self.stopping is not None or not plan.sent or not plan.well_behaved

    def _check_whole(self, plan: Plan, record: dict[str, Any]) -> None:
        seen, outcome = plan.seen, record["outcome"]
        right = {
            200: outcome is Outcome.SERVED and seen.body == plan.expected() and len(plan.entries) == 1,
            500: outcome is Outcome.APP_ERROR and plan.app == "raise",
            502: outcome is Outcome.LOST,
            503: outcome is Outcome.SHED,
            400: outcome is Outcome.CLIENT_GONE and not plan.well_behaved,
        }
        if not right.get(seen.status, False):
            body = f"{len(seen.body)} of {len(plan.expected())} bytes"
            self._wrong(
                f"{plan.path}: the client saw a whole {seen.status} with {body}, the record says {outcome}"
            )

    def _check_not_whole(self, plan: Plan, record: dict[str, Any]) -> None:
        outcome = record["outcome"]
        if outcome is Outcome.TRUNCATED and (plan.seen.status == 200 or plan.seen.end == "reset"):
            return
        if outcome is Outcome.LOST and record["reason"] == STOPPED and self.stopping is not None:
            return
        self._wrong(f"{plan.path}: the record says {outcome} {record['status']}, the client saw {plan.seen}")


def _episodes(attempts: list[tuple[float, bool]]) -> list[list[float]]:
    """Attempts to connect, from one success to the next."""
    episodes: list[list[float]] = [[]]
    for time, success in attempts:
        episodes[-1].append(time)
        if success:
            episodes.append([])
    return [episode for episode in episodes if episode]
