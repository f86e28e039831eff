"""What must be true of every request and of every run; and the logger, which sees each request's end as it happens."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable
from contextvars import ContextVar
from math import inf
from typing import Any

import attrs

from gatekeep._events import Outcome
from gatekeep._gateway import Gateway
from gatekeep._stages import Stage
from gatekeep._statistics import Statistics
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._http import HttpSettings
from gatekeep.settings._settings import Settings
from gatekeep.transport._backoff import LONG_PAUSE, connect_pauses

from .clients import IMPATIENCE
from .disk import FAULTS as DISK_FAULTS
from .lives import Lives
from .plans import Plan
from .sockets import GATEWAY
from .world import THREAD_TIMES, TICK, World

STOPPED = "the gateway was stopped"
LOUD = frozenset({"front.failed"})
"""Events that tell of a fault of the gateway's own."""

FREES = frozenset({"pickup.claimed", "queue.retried", "queue.expired", "queue.exhausted", "pickup.discarded"})
"""Events that tell of a place that was freed in the backlog."""

CHANGES = FREES | {"request.finished", "connect.expired", "process.exited", "process.ready"}
"""Events after which somebody may try who was not next before."""

SPOOLING = 6 * max(THREAD_TIMES)
"""Seconds that a request whose client has gone may still take: a file is written, read and closed in threads that wait twice."""

WHOLE = {
    400: {Outcome.CLIENT_GONE, Outcome.REFUSED},
    408: {Outcome.REFUSED},
    500: {Outcome.APP_ERROR},
    502: {Outcome.LOST},
    503: {Outcome.SHED, Outcome.CLIENT_GONE},
    504: {Outcome.QUEUE_TIMEOUT, Outcome.INTERRUPTED},
    507: {Outcome.SHED},
}
"""The outcomes that a status of ours stands for."""


@attrs.define
class Wait:
    """A request's present wait for a place in the backlog.

    Attributes:
        since: when it began.
        tries: when it tried.
    """

    since: float
    tries: list[float] = attrs.field(factory=list)


_waits: ContextVar[Wait] = ContextVar("waits")


def plan_silence(plan: Plan) -> float:
    """How long its client may send nothing in all: it pauses, and may wait in vain to be invited."""
    return plan.habits.longest_silence() + (IMPATIENCE if plan.expect else 0.0)


@attrs.define
class Audit:
    """Watches one run.

    Attributes:
        stopping: since when the gateway was told to stop.
        hurried: whether it was told to wait for nothing.
        offered: when each request was offered to the group first.
        lives: watches the processes.
    """

    world: World
    settings: Settings
    gateway: Gateway | None = None
    lives: Lives | None = None
    stopping: float | None = None
    hurried: bool = False
    records: list[dict[str, Any]] = attrs.field(factory=list)
    retries: Counter[str] = attrs.field(factory=Counter)
    events: Counter[str] = attrs.field(factory=Counter)
    offered: dict[str, float] = attrs.field(factory=dict)
    claimed: dict[str, float] = attrs.field(factory=dict)
    waits: dict[str, Wait] = attrs.field(factory=dict)
    _freed: int = 0
    _is_late: bool = False
    _room_since: float = inf

    def __attrs_post_init__(self) -> None:
        self.world.net.when_tried = self._tried
        self.world.when_idle = self._idle

    @property
    def group(self) -> GroupSettings:
        return self.settings.groups[0]

    @property
    def http(self) -> HttpSettings:
        return self.settings.http

    # --- the logger

    def debug(self, event: str, **fields: Any) -> None:
        try:
            self._said(event, fields)
        except Exception:
            self._wrong(traceback.format_exc())

    info = warning = error = debug

    def _said(self, event: str, fields: dict[str, Any]) -> None:
        about = [
            f"{key}={fields[key]}"
            for key in ("path", "pid", "outcome", "status", "stage", "timer", "reason", "end")
            if key in fields
        ]
        world = self.world
        world.note("log", event, *about)
        self._look_at_order()
        self.events[event] += 1
        if event in CHANGES:
            world.changed = world.time.now
        if event in FREES:
            self._freed = world.calls
        if event in LOUD:
            self._wrong(f"{event}: {fields}")
        hear = getattr(self, "_" + event.replace(".", "_"), None)
        if hear is not None:
            hear(fields)
        if self.lives is not None:
            self.lives.hear(event, fields)

    def _wrong(self, text: str) -> None:
        self.world.violation(text)

    # --- what is said on a request's way

    def _parse_finished(self, fields: dict[str, Any]) -> None:
        wait = self.waits[fields["request_id"]] = Wait(self.world.time.now)
        _waits.set(wait)

    _body_received = _parse_finished

    def _queue_retried(self, fields: dict[str, Any]) -> None:
        self._parse_finished(fields)
        if not fields["taken_back"]:
            self.retries[fields["request_id"]] += 1

    def _connect_finished(self, fields: dict[str, Any]) -> None:
        self.offered.setdefault(fields["request_id"], self.world.time.now)

    def _late(self, fields: dict[str, Any], due: float) -> None:
        late = self.world.time.now - due
        if abs(late) > TICK:
            self._wrong(f"{fields['path']}: {fields['reason']}, {late:+.6f} s off its time")

    def _connect_expired(self, fields: dict[str, Any]) -> None:
        self._late(fields, self.waits[fields["request_id"]].since + self.group.connect_timeout)

    def _admit_refused(self, fields: dict[str, Any]) -> None:
        self._late(fields, self.waits[fields["request_id"]].since)
        assert self.gateway is not None
        if not self.gateway._groups[0].dispatch.entrance.admission.is_full():
            self._wrong(f"{fields['path']}: turned away, though few wait")

    def _queue_expired(self, fields: dict[str, Any]) -> None:
        self._late(fields, self.offered[fields["request_id"]] + self.group.queue_timeout)

    def _pickup_discarded(self, fields: dict[str, Any]) -> None:
        waited = self.world.time.now - self.offered[fields["request_id"]] - self.group.queue_timeout
        if waited < -TICK or (self.group.queue_shed == "deadline" and waited > TICK):
            self._wrong(f"{fields['path']}: discarded {waited:+.6f} s off its queue-timeout")

    def _pickup_claimed(self, fields: dict[str, Any]) -> None:
        self.claimed[fields["request_id"]] = self.world.time.now

    def _run_lost(self, fields: dict[str, Any]) -> None:
        process = self.world.processes.all[fields["pid"]]
        if process.end and self.world.time.now - process.ended > TICK:
            late = self.world.time.now - process.ended
            self._wrong(f"{fields['path']}: found lost only {late} s after its process's end")

    def _run_expired(self, fields: dict[str, Any]) -> None:
        plan = self.world.plans[fields["path"]]
        due = self.claimed[fields["request_id"]] + self.group.socket_timeout_or_default
        if plan.framing == "none":
            self._late(fields, due)

    def _respond_stalled(self, fields: dict[str, Any]) -> None:
        plan = self.world.plans[fields["path"]]
        silent = self.world.time.now - plan.read_at
        if (
            plan.well_behaved
            and not plan.habits.deaf
            and silent < self.settings.response_socket_timeout - TICK
        ):
            self._wrong(f"{plan.path}: {fields['reason']}, but it read {silent} s ago")

    # --- trying to connect

    def _tried(self, success: bool) -> None:
        """By its own schedule, or because something has changed just now."""
        world, wait = self.world, _waits.get(None)
        now = world.time.now
        self._look_at_order()
        if wait is None:
            self._wrong("a connection for no request")
            return
        wait.tries.append(now)
        if success:
            last, world.changed = world.changed, now  # the queue for the backlog moves on
        else:
            last = world.changed
        if abs(now - last) > TICK and not _is_near(now, schedule(wait.since, self.group.connect_timeout)):
            self._wrong(f"an attempt to connect at {now}, for a request that waits since {wait.since}")

    def _look_at_order(self) -> None:
        """Is it another one's turn?"""
        assert self.gateway is not None
        late = any(served.dispatch.entrance.admission.late for served in self.gateway._groups)
        if late != self._is_late:
            self._is_late, self.world.changed = late, self.world.time.now

    def _idle(self, until: float) -> None:
        """Nobody can do anything now: if there is room, and somebody whose turn it is, he has tried."""
        assert self.gateway is not None
        if self.lives is not None:
            self.lives.idle()
        if not self.gateway._groups:
            return
        dispatch, group = self.gateway._groups[0].dispatch, self.gateway._groups[0].group
        world, admission = self.world, dispatch.entrance.admission
        if (
            not admission.waiting
            or admission.next(len(group.standing)) is None
            or not world.net.has_room(group.address)
        ):
            self._room_since = inf
            return
        now = world.time.now
        self._room_since = min(self._room_since, now)
        if self._freed > world.net.last_attempt:
            self._wrong("a place in the backlog was freed, and whoever is next has not tried")
        if until - self._room_since > LONG_PAUSE + TICK:
            self._wrong(
                f"there is room since {self._room_since}, and whoever is next does not try before {until}"
            )

    # --- the end of a request

    def _request_finished(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        plan = self._plan_of(record)
        if plan is None:
            self._wrong(f"a request that nobody made: {record}")
            return
        if plan.records:
            self._wrong(f"{plan.path} has two outcomes: {plan.records[0]['outcome']} and {record['outcome']}")
        plan.records.append(record)
        started = bool(record["pid"])
        if started != bool(plan.claims):
            self._wrong(f"{plan.path}: the front says started={started}, and it was claimed by {plan.claims}")
        if record["status"] == 502 and not started:
            self._wrong(f"{plan.path}: 502 for a request that was not started")
        unread = record["reason"].startswith("the temporary file could not be read")
        if record["outcome"] in (Outcome.SHED, Outcome.QUEUE_TIMEOUT) and plan.claims and not unread:
            self._wrong(f"{plan.path}: {record['status']} for a request that was started")
        if self.world.time.now - plan.reset_at > SPOOLING + TICK:
            self._wrong(f"{plan.path}: its client was gone {self.world.time.now - plan.reset_at} s before")
        if record["outcome"] is Outcome.SHED:
            self._shed(plan, record)
        if record["outcome"] is Outcome.LOST and record["status"] == 502 and record["reason"] != STOPPED:
            self._lost(plan, record)
        if record["outcome"] is Outcome.TRUNCATED and record["reason"].startswith("its process ended"):
            self._cut(plan, record)
        if record["outcome"] is Outcome.CLIENT_GONE:
            self._gone(plan, record)
        if record.get("timer"):
            self._timed_out(plan, record)

    def _plan_of(self, record: dict[str, Any]) -> Plan | None:
        """Whose head did not come whole is known by his port; only of one who leaves or is slow may half a head come."""
        if record["path"]:
            return self.world.plans.get(record["path"])
        plans = self.world.plans_of_port[int(record["client"].rpartition(":")[2])]
        for plan in plans:
            halves = not plan.well_behaved or plan.habits.ends_at is not None
            slow = record["status"] == 408 and (plan.habits.sends_slowly() or plan.paused)
            if not plan.records and record["outcome"] is Outcome.REFUSED and (halves or slow):
                return plan
        return None

    def _shed(self, plan: Plan, record: dict[str, Any]) -> None:
        if record["reason"] == STOPPED and self.stopping is None:
            self._wrong(f"{plan.path}: {STOPPED}, which it was not")
        if record["status"] == 507 and not any(self.world.fired[fault] for fault in DISK_FAULTS):
            self._wrong(f"{plan.path}: 507, though the disk has room")
        if record["stage"] is Stage.QUEUE and record["reason"] != STOPPED:
            failed = self.retries[record["request_id"]] + 1
            if failed < 2 * self.group.processes + 1:
                self._wrong(f"{plan.path}: 503 after {failed} failed attempts only")

    def _lost(self, plan: Plan, record: dict[str, Any]) -> None:
        process = self.world.processes.all[record["pid"]]
        if not process.is_dying():
            self._lost_for_nothing(plan)

    def _cut(self, plan: Plan, record: dict[str, Any]) -> None:
        """Whoever is cut off has lost his process, or it has lost patience with us, or the hop was given up."""
        assert plan.hop is not None
        took = self.world.time.now - plan.claimed_at
        patient = took < self.group.socket_timeout_or_default
        dying = self.world.processes.all[record["pid"]].is_dying()
        if patient and not dying and not plan.hop.was_shut:
            self._wrong(f"{plan.path}: truncated, though its process lives and has it in hand")

    def _lost_for_nothing(self, plan: Plan) -> None:
        """Giving a hop up also cuts off the response of a worker that was quicker.

        That cannot be helped where its claim came between the front's last look and the giving up, and only there.
        """
        assert plan.hop is not None
        if plan.hop.cut_off or not plan.hop.no_more_in:
            self._wrong(f"{plan.path}: 502, though its process lives and its claim was there to be seen")

    def _gone(self, plan: Plan, record: dict[str, Any]) -> None:
        """Nobody is gone who has done nothing but wait."""
        ends = record["stage"] is Stage.BODY and plan.half_closed < inf
        if record["stage"] in (Stage.CONNECT, Stage.QUEUE):
            since = min(plan.half_closed, plan.left)
            if plan.claims:
                self._wrong(f"{plan.path}: taken for gone while it waited, and it was claimed")
            if since == inf:
                self._wrong(f"{plan.path}: taken for gone while it waited, and it was there")
            elif plan.left == inf and self.world.time.now - since < self.group.client_gone_delay - TICK:
                self._wrong(
                    f"{plan.path}: taken for gone {self.world.time.now - since} s after it half-closed"
                )
        elif record["timer"] != "response-socket-timeout" and plan.well_behaved and not ends:
            self._wrong(f"{plan.path}: its client was there; {record['reason']}")

    def _timed_out(self, plan: Plan, record: dict[str, Any]) -> None:
        timer = record["timer"]
        self.events[f"{timer} at {record['stage']}"] += 1
        if timer in ("header-timeout", "body-timeout"):
            if not (plan.habits.sends_slowly() or plan.paused):
                self._wrong(f"{plan.path}: 408 for a client that sent all it had at once")
            elif not self.group.request_buffering and plan_silence(plan) < self.http.body_timeout:
                self._wrong(f"{plan.path}: 408 for a client that was never silent for so long")
            elif self.group.request_buffering and not plan.paused:
                now = self.world.time.now
                due = plan_expires(plan, self.http, now)
                if abs(now - due) > TICK:
                    self._wrong(f"{plan.path}: 408 at {now}, due at {due}")

    # --- the end of a run

    def at_rest(self, statistics: Statistics) -> None:
        """The gateway has stopped and the clients have gone."""
        self._nothing_is_left()
        self._numbers_add_up(statistics)
        if self.lives is not None:
            self.lives.at_rest()
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
        rest = statistics.waiting, statistics.in_flight, statistics.connections, statistics.standing
        if any(rest) or statistics.processes or statistics.oldest:
            self._wrong(f"at rest: {statistics}")
        timers = Counter(record["timer"] for record in self.records if record.get("timer"))
        if dict(statistics.timers) != dict(timers):
            self._wrong(f"statistics {dict(statistics.timers)} and timers of records {dict(timers)} differ")
        processes = len(self.world.processes.all)
        if (statistics.process_starts, statistics.process_ends) != (processes, processes):
            self._wrong(f"{processes} processes were there, counted: {statistics}")
        whole = sum(plan.seen.whole and plan.seen.status == 200 for plan in self.world.plans.values())
        if whole > statistics.by_outcome().get(Outcome.SERVED, 0):
            self._wrong(f"clients saw {whole} whole responses, counted: {statistics.by_outcome()}")

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
        if record["outcome"] is Outcome.LOST and record["reason"] == STOPPED and self.stopping is None:
            self._wrong(f"{plan.path}: {STOPPED}, which it was not")

    def _may_be_unheard(self, plan: Plan) -> bool:
        """Whoever comes when the gateway stops is turned away; whoever leaves, or was idle too long, may not have been heard."""
        idle = self.http.keep_alive_timeout <= max(p.habits.idle or 0.5 for p in self.world.plans.values())
        return self.stopping is not None or not plan.sent or not plan.well_behaved or idle

    def _check_whole(self, plan: Plan, record: dict[str, Any]) -> None:
        seen, outcome = plan.seen, record["outcome"]
        if seen.status == 200:
            right = outcome is Outcome.SERVED and seen.body == plan.expected() and len(plan.entries) == 1
        else:
            right = outcome in WHOLE.get(seen.status, ()) and record["status"] == seen.status
            right = right and (seen.status != 500 or plan.app == "raise")
            right = right and (seen.status == 503) == seen.retry_after.isdigit()
        if not right:
            body = f"{len(seen.body)} of {len(plan.expected())} bytes"
            self._wrong(
                f"{plan.path}: the client saw a whole {seen.status} with {body}, the record says {outcome}"
            )

    def _check_not_whole(self, plan: Plan, record: dict[str, Any]) -> None:
        outcome = record["outcome"]
        if outcome is Outcome.TRUNCATED and (plan.seen.status == 200 or plan.seen.end == "reset"):
            return
        if record["reason"] == STOPPED and self.stopping is not None:
            return
        if plan.habits.deaf and record["timer"] == "response-socket-timeout":
            return
        if plan.habits.sends_slowly() and record["timer"] == "body-timeout":
            return  # the answer had begun before the body was whole
        if record["reason"].startswith("the temporary file could not be read"):
            return
        self._wrong(f"{plan.path}: the record says {outcome} {record['status']}, the client saw {plan.seen}")


def schedule(since: float, budget: float) -> list[float]:
    """When a request that waits since then tries to connect, if it is next all the time."""
    times = [since]
    for pause in connect_pauses(budget):
        times.append(times[-1] + pause)
    return times


def _is_near(time: float, times: Iterable[float]) -> bool:
    return any(abs(time - other) <= TICK for other in times)


def plan_expires(plan: Plan, settings: HttpSettings, now: float) -> float:
    """When a client's patience budget is used up by what it sent and when: worked out a second time, from the outside.

    What comes in this very moment may have come too late.
    """
    head, body = map(len, plan.request())
    went = [(time, count) for time, count in plan.went if time < now - TICK]
    if not went:
        return plan.connected + (settings.header_timeout or inf)
    begin = went[0][0]
    heads, bodies, sent = [], [], 0
    for time, count in went:
        (heads if sent < head else bodies).append((time, count))
        sent += count
    done = sum(count for _, count in heads) >= head
    due = _expires(
        begin, heads[1:], settings.header_timeout, settings.header_min_rate, settings.header_max_timeout, done
    )
    if due < inf or not done:
        return due
    done = sent >= head + body
    return _expires(
        heads[-1][0], bodies, settings.body_timeout, settings.body_min_rate, settings.body_max_timeout, done
    )


def _expires(
    begin: float, arrivals: list[tuple[float, int]], timeout: float, rate: float, most: float, done: bool
) -> float:
    left = timeout or inf
    most = most or inf
    for time, count in arrivals:
        if time - begin > min(left, most):
            return begin + min(left, most)
        most -= time - begin
        left = min(timeout or inf, left - (time - begin) + (count / rate if rate else 0.0))
        begin = time
    return inf if done else begin + min(left, most)
