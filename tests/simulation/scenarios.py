"""The bad nights: what clients come, what goes wrong, when the gateway is told to stop; and how one is played."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from random import Random
from typing import Any
from unittest import mock

import anyio
import attrs

from gatekeep import _groups
from gatekeep._events import Outcome
from gatekeep._gateway import Gateway, Served
from gatekeep.lifecycle._liveness import SUSPECT_AFTER
from gatekeep.lifecycle._supervisor import Supervisor
from gatekeep.settings._settings import Settings

from .actors import Steps, Wait
from .checks import Audit, schedule
from .clients import Client
from .lives import Lives
from .plans import Habits, Plan, draw, pattern
from .runtime import VirtualTime, run
from .world import TICK, World


@attrs.frozen
class Scenario:
    """One sort of bad night.

    Attributes:
        come: brings the clients, once the gateway serves.
        settings: of the gateway.
        faults: probabilities by name, from the moment when the gateway serves.
        crashes: how many processes are killed from outside, within `crash_span` seconds.
        freezes: how many processes are stopped for a while (from, to seconds), within `crash_span` seconds, as SIGSTOP or a held
            GIL does it.
        frozen: for how long (from, to).
        stop: the gateway is told to stop after so many seconds (from, to), or when a happening says so (`Night.stop_now`); else
            when the clients have gone.
        hurry: it is told again, so many seconds (from, to) later.
        capacities: of sockets, in bytes.
        suspense: how often a worker claims just when the front gives up.
        brinkmanship: how often exactly at a deadline, within `brink` seconds.
        cost: of so many nights as a usual one one is played.
        arrange: further changes of the world, when the gateway serves.
        happen: what else happens meanwhile; the gateway is told to stop when all of it has.
        settle: so many seconds later, when no fault happens any more, all changes must be over.
        always_accepts, spare: see `Lives`.
        expect: further checks at the end.
    """

    name: str
    come: Callable[[World], list[Client]]
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    faults: Mapping[str, float] = attrs.field(factory=dict)
    crashes: int = 0
    crash_span: float = 3.0
    freezes: int = 0
    frozen: tuple[float, float] = (0.0, 20.0)
    stop: tuple[float, float] | None = None
    hurry: tuple[float, float] | None = None
    capacities: tuple[int, ...] = (65536,)
    suspense: float = 0.1
    brinkmanship: float = 0.1
    brink: float = 1.0
    cost: int = 1
    arrange: Callable[[World], None] | None = None
    happen: tuple[Callable[[Night], Awaitable[None]], ...] = ()
    settle: float = 0.0
    always_accepts: bool = False
    spare: float = inf
    expect: Callable[[Night], None] | None = None


class Failed(AssertionError):
    """Something happened that must not."""


class Night:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, backend: str, seed: int) -> None:
        self.scenario = scenario
        self.backend = backend
        self.seed = seed
        self.world = World(seed)
        options = {"processes": 2, "threads": 2, "deadlock_timeout": 0, **scenario.settings}
        self.settings = Settings.for_app("simulated:application", bind="192.0.2.80:80", **options)
        self.audit = Audit(self.world, self.settings)
        self.gateway = self.audit.gateway = Gateway(self.settings, logger=self.audit)
        self.lives = self.audit.lives = Lives(
            self.world, self.settings, self.gateway,
            always_accepts=scenario.always_accepts, spare=scenario.spare,
        )  # fmt: skip
        self.clients: list[Client] = []
        self.stop_now = anyio.Event()

    @property
    def supervisor(self) -> Supervisor:
        """The group's."""
        assert self.lives.supervisor is not None
        return self.lives.supervisor

    def play(self) -> Night:
        """Play it to its end.

        Raises:
            Failed: an invariant does not hold.
        """
        try:
            with mock.patch.object(_groups, "Supervisor", self._supervise):
                run(self._main, self.backend, self.seed, self.world.idle)
        except Exception as error:
            if not self.world.violations:
                raise Failed(self._report("".join(traceback.format_exception(error)))) from error
        if self.world.violations:
            raise Failed(self._report("\n".join(self.world.violations)))
        return self

    def _supervise(self, *args: Any, **options: Any) -> Supervisor:
        return self.lives.watch(Supervisor(*args, **options))

    def _report(self, what: str) -> str:
        name = self.scenario.name
        return (
            f"\n{what}\n\n{name} on {self.backend}, seed {self.seed}; its trace:\n{self.world.story()}\n\n"
            f"replay: GATEKEEP_SEED={self.seed} python -m pytest tests/simulation -k '{name} and {self.backend}'\n"
        )

    async def _main(self, time: VirtualTime) -> None:
        world = self.world
        world.time = time
        world.capacities = self.scenario.capacities
        world.suspense = self.scenario.suspense
        world.brinkmanship, world.brink = self.scenario.brinkmanship, self.scenario.brink
        tasks_before = len(anyio.get_running_tasks())
        async with anyio.create_task_group() as tasks:
            async with self.gateway._serving(world) as served:
                await self._until_stop()
                self.audit.stopping = time.now
                world.note("stop")
                if self.scenario.hurry:
                    tasks.start_soon(self._hurry, served, *self.scenario.hurry)
            tasks.cancel_scope.cancel()
        world.note("stopped")
        await self._gone.wait()
        if len(anyio.get_running_tasks()) != tasks_before:
            world.violation(f"tasks at rest: {anyio.get_running_tasks()}")
        self.audit.at_rest(self.gateway.statistics())
        if self.scenario.expect is not None:
            self.scenario.expect(self)

    async def _until_stop(self) -> None:
        world, scenario = self.world, self.scenario
        world.faults = dict(scenario.faults)
        if scenario.arrange is not None:
            scenario.arrange(world)
        self.clients = scenario.come(world)
        self._gone = anyio.Event()
        world.add("watch", self._watch())
        for _ in range(scenario.crashes):
            world.add("crash", self._crash())
        for _ in range(scenario.freezes):
            world.add("freeze", self._freeze())
        async with anyio.create_task_group() as happenings:
            for happen in scenario.happen:
                happenings.start_soon(happen, self)
            if scenario.stop is None:
                await self._gone.wait()
            else:
                with anyio.move_on_after(world.random.uniform(*scenario.stop)):
                    await self.stop_now.wait()
                happenings.cancel_scope.cancel()
        if scenario.settle:
            world.faults = {}
            await anyio.sleep(scenario.settle)
            self.lives.settled()

    async def _hurry(self, served: Served, least: float, most: float) -> None:
        await anyio.sleep(self.world.random.uniform(least, most))
        self.world.note("hurry")
        self.world.moments += 1
        served.hurry()

    def _watch(self) -> Steps:
        here = list(self.clients)

        def all_are_gone() -> bool:  # asked at every step
            while here and here[-1].over:
                here.pop()
            return not here

        yield Wait(all_are_gone)
        self.world.wake(self._gone)

    def _crash(self) -> Steps:
        """The system kills a process, as it does when memory runs out."""
        world = self.world
        yield Wait(until=world.time.now + world.random.uniform(0, self.scenario.crash_span))
        living = [daemon for daemon in world.processes.all.values() if not daemon.is_dying()]
        if living:
            world.fired["crash"] += 1
            world.random.choice(living).die("killed by SIGKILL")

    def _freeze(self) -> Steps:
        """A process stops for a while."""
        world = self.world
        yield Wait(until=world.time.now + world.random.uniform(0, self.scenario.crash_span))
        living = [daemon for daemon in world.processes.all.values() if not daemon.is_dying()]
        if living:
            world.fired["freeze"] += 1
            world.random.choice(living).freeze(world.random.uniform(*self.scenario.frozen))


def play(scenario: Scenario, backend: str, seed: int) -> Night:
    """Play one night.

    Raises:
        Failed: an invariant does not hold.
    """
    return Night(scenario, backend, seed).play()


# --- who comes ------------------------------------------------------------------------------------------------------


def crowd(
    count: int, span: float, requests: tuple[int, ...] = (1,), **fixed: Any
) -> Callable[[World], list[Client]]:
    """So many clients within so many seconds, each with some requests on its connection."""

    def come(world: World) -> list[Client]:
        random = world.random
        clients = []
        for _ in range(count):
            several = random.choice(requests)
            chosen = {key: value(random) if callable(value) else value for key, value in fixed.items()}
            # Nothing is answered after a request that ends the connection.
            keep = {"version": "1.1", "close": False} if several > 1 else {}
            plans = [draw(world, **chosen, **keep) for _ in range(several)]
            start = world.time.now + random.choice((0.0, random.uniform(0, span)))
            clients.append(Client(world, plans, start=start, pipelined=several > 1 and random.random() < 0.5))
        return clients

    return come


def _outcomes(night: Night) -> set[Outcome]:
    return {record["outcome"] for record in night.audit.records}


def _some_are_served_and_some_shed(night: Night) -> None:
    if not {Outcome.SERVED, Outcome.SHED} <= _outcomes(night):
        night.world.violation(f"outcomes: {_outcomes(night)}")


def _nobody_notices(night: Night) -> None:
    """Before the claim a death costs an attempt and nothing else."""
    lost = _outcomes(night) & {Outcome.LOST, Outcome.TRUNCATED, Outcome.CLIENT_GONE}
    planned = {
        record["path"]
        for record in night.audit.records
        if record["reason"].startswith("RuntimeError: planned")
    }
    for record in night.audit.records:
        if record["outcome"] in lost and record["path"] not in planned:
            night.world.violation(f"{record['path']} was lost: {record}")


def _only_failed_starts_shed(night: Night) -> None:
    """Requests wait for a process to start, unless the last start has failed: the backlog has room for all of them."""
    shed = sum(record["outcome"] is Outcome.SHED for record in night.audit.records)
    if shed != night.audit.events["admit.no_process"]:
        night.world.violation("503, though all requests have room in the backlog")


def _work_promptly(world: World) -> None:
    world.prompt = True


# --- the nights -----------------------------------------------------------------------------------------------------

# A death leaves a corpse of each request that waited in the backlog, and whoever accepts it may die too: more than this and
# the deaths never end.
BEFORE_GO = {"before accept": 0.02, "after envelope": 0.04, "before GO": 0.05}
AFTER_GO = {"after GO": 0.08, "mid data": 0.05, "before END": 0.08}
SICK_START = {"spawn fails": 0.1, "while loading": 0.1, "load fails": 0.05, "ready late": 0.1}
ILL_MANNERS = {"resets": 0.12, "leaves": 0.12, "half-closes": 0.15, "trickles": 0.3, "stops reading": 0.1}

FULL_BACKLOG = Scenario(
    "full_backlog",
    crowd(9, 0.5, version="1.1", app="plain", framing="none", run_time=lambda random: random.uniform(2, 6)),
    settings={"processes": 1, "threads": 1, "listen_backlog": 2, "connect_timeout": 3.3},
    expect=_some_are_served_and_some_shed,
)
CLAIM_RACES = Scenario(
    "claim_races",
    crowd(10, 1.0, pieces=(10,)),
    settings={"processes": 3, "threads": 3, "listen_backlog": 2},
    faults={**BEFORE_GO, "after GO": 0.05, "child holds hop": 0.15},
    crashes=3,
    crash_span=1.0,
    stop=(0.0, 1.0),
    hurry=(0.0, 0.3),
    suspense=0.6,
)
RETRY = Scenario(
    "retry_before_go",
    crowd(6, 2.0, requests=(1, 1, 3)),
    settings={"processes": 1, "threads": 1},  # with more, a death takes a sibling that has started with it
    faults={**BEFORE_GO, "rejects": 0.05, "child holds hop": 0.1, "spawn fails": 0.1, "ready late": 0.1},
    expect=_nobody_notices,
)
FAILED_STARTS = Scenario(
    "failed_starts",
    crowd(6, 0.2, app="plain", run_time=0.0),
    settings={"processes": 1, "threads": 1, "listen_backlog": 15, "connect_timeout": 0.5},
    faults={"while loading": 0.5, "load fails": 0.2},
    crashes=1,
    crash_span=0.0,
    arrange=_work_promptly,
    expect=_only_failed_starts_shed,
)
EXHAUSTION = Scenario(
    "exhaustion",
    crowd(4, 1.0, app="plain"),
    faults={"rejects": 0.6},
    settings={"threads": 1},
    expect=_nobody_notices,
)
TRUNCATION = Scenario(
    "truncation",
    crowd(
        6,
        2.0,
        requests=(1, 1, 3),
        app=lambda random: random.choice(("plain", "plain", "read", "echo", "raise late")),
    ),
    faults={**AFTER_GO, "child holds hop": 0.2},
    capacities=(2500, 65536),
)
STREAMS = Scenario(
    "streams",
    crowd(4, 0.5, requests=(1, 2), app="echo", body=lambda random: bytes(random.randrange(80_000))),
    faults={"trickles": 0.3},
    capacities=(1500, 5000, 65536),
    cost=4,
)


def _frozen_processes_are_noticed(night: Night) -> None:
    """What happened of all that can happen, over the nights (see `test_scenarios`)."""
    for event in ("process.suspect", "process.alive", "process.deadlocked"):
        night.world.fired[event] += night.audit.events[event]


def _nobody_waits_for_it(night: Night) -> None:
    """What one process has in hand and not started, when it freezes, the other one serves long before it thaws."""
    for record in night.audit.records:
        waited = record["stages"].get("queue", 0.0)
        if waited > SUSPECT_AFTER + 5.0:
            night.world.violation(f"{record['path']} waited for {waited} s")


STOP_UNDER_LOAD = Scenario(
    "stop_under_load",
    crowd(8, 1.5, requests=(1, 2, 4)),
    faults={"trickles": 0.2},
    stop=(0.0, 2.0),
    settings={"graceful_timeout": 60.0},
    expect=_nobody_notices,
)
GRACE_OVER = Scenario(
    "grace_over",
    crowd(
        8,
        1.0,
        version=lambda random: random.choice(("1.0", "1.1")),
        pieces=(5000, 5000, 5000),
        pause=lambda random: random.uniform(0, 2),
    ),
    settings={"graceful_timeout": 1.0, "shutdown_timeout": 1.0},
    faults={"stops reading": 0.1, "child holds hop": 0.1},
    capacities=(2500, 65536),
    stop=(0.0, 2.0),
)
FROZEN = Scenario(
    "frozen",
    crowd(10, 6.0, requests=(1, 1, 2, 4)),
    settings={"deadlock_timeout": 8.0, "queue_timeout": 0.0},
    freezes=3,
    expect=_frozen_processes_are_noticed,
)
ONE_FROZEN = Scenario(
    "one_frozen",
    crowd(12, 3.0, requests=(1, 1, 2, 4)),
    settings={"deadlock_timeout": 60.0, "queue_timeout": 0.0, "threads": 4},
    freezes=1,
    frozen=(10.0, 30.0),
    expect=_nobody_waits_for_it,
)
STORM = Scenario(
    "storm",
    crowd(10, 4.0, requests=(1, 1, 2, 4)),
    settings={"listen_backlog": 3, "connect_timeout": 2.0},
    faults={**BEFORE_GO, **AFTER_GO, **SICK_START, **ILL_MANNERS, "rejects": 0.03, "child holds hop": 0.05},
    crashes=3,
    cost=2,
    capacities=(2500, 65536),
)

# --- the nights of the boundary: who waits for a worker, and who keeps us waiting -----------------------------------


def _plain(world: World, **options: Any) -> Plan:
    """A small request, of which nothing but what is said is left to chance."""
    usual = {
        "version": "1.1",
        "close": True,
        "app": "plain",
        "framing": "none",
        "pieces": (10,),
        "pause": 0.0,
    }
    return draw(world, **{**usual, "run_time": 0.0, **options})


def _line(count: int, gap: float = 0.01, **options: Any) -> Callable[[World], list[Client]]:
    """So many clients one after the other, each with one small request."""

    def come(world: World) -> list[Client]:
        begin = world.time.now
        clients = []
        for number in range(count):
            chosen = {
                key: value(world.random) if callable(value) else value for key, value in options.items()
            }
            clients.append(Client(world, [_plain(world, **chosen)], start=begin + number * gap))
        return clients

    return come


def _kill_the_only_process(world: World) -> None:
    for daemon in world.processes.all.values():
        daemon.die("killed by SIGKILL")


def _only_the_oldest_tries_by_the_schedule(night: Night) -> None:
    """No process is there, two stand in the backlog of one: the oldest of the rest tries by the schedule, the others never."""
    waits = sorted(night.audit.waits.values(), key=lambda wait: wait.since)
    budget = night.audit.group.connect_timeout
    oldest, *others = waits[2:]
    due = schedule(oldest.since, budget)
    if len(due) != len(oldest.tries) or any(
        abs(one - other) > TICK for one, other in zip(due, oldest.tries, strict=True)
    ):
        night.world.violation(f"tries at {oldest.tries}, due at {due}")
    for wait in others:
        # When the oldest has gone, the next one's turn comes.
        if any(time < oldest.since + budget - TICK for time in wait.tries):
            night.world.violation(f"one who was not next tried at {wait.tries}")
    if _outcomes(night) != {Outcome.SERVED, Outcome.SHED}:
        night.world.violation(f"outcomes: {_outcomes(night)}")


def _habits(**choices: Any) -> Callable[[Random], Habits]:
    """Habits that are drawn anew for each client."""

    def choose(random: Random) -> Habits:
        return Habits(**{key: value(random) if callable(value) else value for key, value in choices.items()})

    return choose


def _impatient(least: float, most: float, *ways: str) -> Callable[[Random], Habits]:
    return _habits(
        patience=lambda random: random.uniform(least, most), way=lambda random: random.choice(ways)
    )


RUN, THREADS, LOAD, PATIENCE = 0.25, 2, 12.0, 2.0
"""Overload: how long a request runs, on how many threads, for how long three times as many come, and when they leave."""


def _overload(world: World) -> list[Client]:
    begin, clients = world.time.now, []
    count = int(3 * THREADS / RUN * LOAD)
    for number in range(count):
        habits = Habits(patience=PATIENCE, way=world.random.choice(("leaves", "resets")))
        plan = _plain(world, run_time=RUN, habits=habits)
        clients.append(Client(world, [plan], start=begin + number * LOAD / count))
    fresh = _plain(world, path="/fresh", run_time=RUN)
    clients.append(Client(world, [fresh], start=begin + LOAD + PATIENCE + 2 * RUN))
    return clients


def _most_work_is_for_those_who_wait(night: Night) -> None:
    plans = night.world.plans
    good = sum(plan.whole_at < plan.left and plan.seen.status == 200 for plan in plans.values())
    share = good * RUN / THREADS / LOAD
    if share < 0.8:
        night.world.violation(f"of what could be served {share:.0%} was, before its client left")
    fresh = plans["/fresh"]
    if fresh.seen.status != 200 or fresh.whole_at - fresh.connected > RUN + 0.01 + TICK:
        night.world.violation(
            f"after the load a request took {fresh.whole_at - fresh.connected} s: {fresh.seen}"
        )


def _workers_wait_for_no_client(night: Night) -> None:
    """A response that memory and file can hold is out of its worker's hands at once."""
    room = night.settings.http.response_spool_size
    for plan in night.world.plans.values():
        took = plan.ended_at - plan.claimed_at
        alone = plan.run_time + plan.pause * len(plan.pieces) + 1.0
        if plan.answered and sum(plan.pieces) <= room and took > alone:
            night.world.violation(f"{plan.path} held its worker for {took} s, alone it takes {alone} s")


def _slow_readers_hold_nobody(night: Night) -> None:
    """And get all, if they go on reading."""
    _workers_wait_for_no_client(night)
    for plan in night.world.plans.values():
        if plan.well_behaved and not plan.habits.deaf and not plan.seen.whole:
            night.world.violation(f"{plan.path}: its client read on, and saw {plan.seen}")


def _chosen(*values: Any) -> Callable[[Random], Any]:
    return lambda random: random.choice(values)


def _uploads(world: World) -> list[Client]:
    """Bodies that come fast, slowly but fast enough, too slowly, with a silence in them, or never whole."""
    random, begin, clients = world.random, world.time.now, []
    for _ in range(7):
        size = random.randrange(2000, 20_000)
        sort = random.choice(("fast", "steady", "steady", "dribble", "silence", "ends", "long"))
        if sort == "steady":
            # 1000 bytes a second are twice the least rate.
            habits = Habits(body_pace=(100, 0.1))
        elif sort == "dribble":
            habits = Habits(body_pace=(random.randrange(1, 40), random.uniform(0.1, 0.5)))
        elif sort == "silence":
            habits = Habits(silence=(random.randrange(150, size), random.uniform(1, 8)))
        elif sort == "long":
            habits, size = Habits(body_pace=(600, 1.0)), random.randrange(6000, 9000)
        elif sort == "ends":
            habits = Habits(ends_at=random.randrange(200, size))
        else:
            habits = Habits()
        path = f"/{len(world.plans) + 1}"
        body = pattern(path + "?", size)
        plan = _plain(
            world, path=path, habits=habits, app=random.choice(("read", "echo")), method="POST", body=body,
            framing=random.choice(("length", "chunked")), expect=random.random() < 0.2,
        )  # fmt: skip
        clients.append(Client(world, [plan], start=begin + random.uniform(0, 1)))
    return clients


def _no_worker_waits_for_a_body(night: Night) -> None:
    for plan in night.world.plans.values():
        if plan.answered and plan.ended_at - plan.claimed_at > 0.5:
            night.world.violation(f"{plan.path} held its worker for {plan.ended_at - plan.claimed_at} s")


def _late_heads(world: World) -> list[Client]:
    """Heads that come fast, slowly but fast enough, too slowly, never, or not whole."""
    random, begin, clients = world.random, world.time.now, []
    for _ in range(8):
        habits = random.choice(
            (
                Habits(),
                Habits(head_pace=(random.randrange(10, 30), random.uniform(0.01, 0.1))),
                Habits(head_pace=(1, random.uniform(0.05, 0.4))),
                Habits(silence=(random.randrange(1, 20), random.uniform(1, 8))),
                Habits(ends_at=random.randrange(1, 20)),
            )
        )
        plan = _plain(world, habits=habits, close=random.random() < 0.5)
        clients.append(Client(world, [plan], start=begin + random.uniform(0, 1)))
    return clients


def _idlers(world: World) -> list[Client]:
    """Kept connections whose clients come again in time, late, or just then."""
    random, begin, clients = world.random, world.time.now, []
    for _ in range(5):
        plans = [
            _plain(
                world,
                close=False,
                habits=Habits(idle=random.choice((0.0, 1.0, 2.0, 3.0, random.uniform(1.5, 2.5)))),
            )
            for _ in range(3)
        ]
        clients.append(Client(world, plans, start=begin + random.uniform(0, 1)))
    return clients


def _idle_connections_end_in_time(night: Night) -> None:
    """Whoever comes again within keep-alive-timeout is heard."""
    limit = night.settings.http.keep_alive_timeout
    for client in night.clients:
        for plan, following in zip(client.plans, client.plans[1:], strict=False):
            if not (plan.seen.whole and following.sent):
                continue
            if plan.habits.idle < limit and not following.records:
                night.world.violation(f"{following.path} came {plan.habits.idle} s later and was not heard")
            if plan.habits.idle > limit and following.records:
                night.world.violation(f"{following.path} came {plan.habits.idle} s later and was heard")


CONNECT_SCHEDULE = Scenario(
    "connect_schedule",
    _line(5, 0.2),
    settings={
        "processes": 1,
        "threads": 1,
        "listen_backlog": 1,
        "queue_timeout": 0.0,
        "connect_timeout": 3.3,
    },
    faults={"ready late": 1.0},
    arrange=_kill_the_only_process,
    brinkmanship=0.0,
    suspense=0.0,
    cost=3,
    expect=_only_the_oldest_tries_by_the_schedule,
)
QUEUE_DEADLINE = Scenario(
    "queue_deadline",
    crowd(9, 1.5, app="plain", framing="none", run_time=lambda random: random.uniform(0, 2)),
    settings={
        "processes": 1,
        "threads": 2,
        "listen_backlog": 3,
        "queue_timeout": 1.5,
        "connect_timeout": 20.0,
    },
    faults={
        "after envelope": 0.03,
        "before GO": 0.03,
        "rejects": 0.05,
        "child holds hop": 0.05,
        "half-closes": 0.1,
    },
    brinkmanship=0.4,
    brink=3.0,
)
QUEUE_PICKUP = attrs.evolve(
    QUEUE_DEADLINE, name="queue_pickup", settings={**QUEUE_DEADLINE.settings, "queue_shed": "pickup"}
)
LEAVING = Scenario(
    "leaving",
    crowd(
        10, 1.5, requests=(1, 1, 2), app="plain", run_time=lambda random: random.uniform(0, 2),
        habits=_impatient(0.0, 4.0, "leaves", "resets", "half-closes", "half-closes"),
    ),
    settings={"processes": 1, "threads": 3, "listen_backlog": 2, "connect_timeout": 20.0},
    faults={"half-closes": 0.2, "after envelope": 0.03, "before GO": 0.03},
    brinkmanship=0.5,
    brink=3.0,
    cost=2,
)  # fmt: skip
OVERLOAD = Scenario(
    "overload",
    _overload,
    settings={"processes": 1, "threads": THREADS, "queue_timeout": 30.0},
    brinkmanship=0.0,
    suspense=0.0,
    cost=25,
    arrange=_work_promptly,
    expect=_most_work_is_for_those_who_wait,
)
WAITING_DEATHS = Scenario(
    "waiting_deaths",
    crowd(12, 1.0, app="plain", framing="none", run_time=lambda random: random.uniform(0, 1)),
    settings={
        "threads": 1,
        "listen_backlog": 2,
        "connect_timeout": 20.0,
        "queue_timeout": 6.0,
        "graceful_timeout": 3.0,
    },
    faults={**BEFORE_GO, "after GO": 0.05, "child holds hop": 0.1, "ready late": 0.1},
    crashes=4,
    cost=2,
    crash_span=4.0,
    suspense=0.4,
)
WAITING_STOP = attrs.evolve(WAITING_DEATHS, name="waiting_stop", crashes=2, stop=(0.0, 3.0), hurry=(0.0, 4.0))
MAX_WAITING = Scenario(
    "max_waiting",
    crowd(12, 1.0, run_time=lambda random: random.uniform(0, 1.5)),
    settings={"processes": 1, "threads": 1, "listen_backlog": 1, "max_waiting": 2},
    faults={"half-closes": 0.1, "before GO": 0.03},
)
SLOW_UPLOADS = Scenario(
    "slow_uploads",
    _uploads,
    settings={
        "processes": 1,
        "threads": 1,
        "body_timeout": 3.0,
        "body_max_timeout": 12.0,
        "queue_timeout": 60.0,
    },
    capacities=(2500, 65536),
    brinkmanship=0.0,
    suspense=0.0,
    cost=2,
    expect=_no_worker_waits_for_a_body,
)
UNBUFFERED_UPLOADS = Scenario(
    "unbuffered_uploads",
    crowd(
        5, 1.0, app=_chosen("read", "echo", "slow read"),
        framing=_chosen("length", "chunked"), version="1.1", pause=0.2, run_time=_chosen(0.0, 4.0),
        body=lambda random: b"x" * random.randrange(20_000),
        habits=_habits(silence=_chosen(None, None, (1500, 2.0))),
    ),
    settings={"request_buffering": False, "body_timeout": 3.5, "body_min_rate": 0, "queue_timeout": 60.0},
    capacities=(2500,),
)  # fmt: skip
SLOW_HEADS = Scenario(
    "slow_heads",
    _late_heads,
    settings={
        "header_timeout": 2.0,
        "header_max_timeout": 5.0,
        "header_min_rate": 20,
        "keep_alive_timeout": 4.0,
    },
)
SLOW_READERS = Scenario(
    "slow_readers",
    crowd(
        5, 1.0, version="1.1", app="plain", framing="none",
        pieces=lambda random: tuple(random.choice((100, 5000, 30_000)) for _ in range(random.randrange(8))),
        habits=_habits(
            read_pace=_chosen(None, (2000, 0.3), (1000, 1.0), (500, 1.0)),
            deaf=_chosen(None, None, None, (500, 4.0), (2500, 60.0)),
        ),
    ),
    settings={
        "response_buffer_size": 16384, "response_spool_size": 100_000, "response_socket_timeout": 20.0,
        "socket_timeout": 90.0, "queue_timeout": 0.0,
    },
    faults={"short write": 0.3, "short read": 0.3},
    capacities=(2500, 20_000),
    cost=2,
    expect=_slow_readers_hold_nobody,
)  # fmt: skip
BACK_PRESSURE = attrs.evolve(
    SLOW_READERS,
    name="back_pressure",
    settings={**SLOW_READERS.settings, "response_spool_size": 20_000},
    faults={
        "disk full": 0.3,
        "no file": 0.1,
        "disk broken": 0.02,
        "short write": 0.3,
        "stops reading": 0.1,
        "resets": 0.1,
    },
    expect=None,
)
FULL_DISK = Scenario(
    "full_disk",
    crowd(
        5, 1.0, version="1.1", app=_chosen("read", "echo", "plain"), framing=_chosen("length", "chunked"),
        body=lambda random: bytes(random.randrange(120_000)),
    ),
    settings={"request_buffer_size": 16384},
    faults={"disk full": 0.15, "no file": 0.1, "disk broken": 0.05, "short write": 0.3, "short read": 0.3, "resets": 0.1},
    capacities=(20_000, 65536),
)  # fmt: skip
IDLENESS = Scenario(
    "idleness",
    _idlers,
    settings={"keep_alive_timeout": 2.0},
    brinkmanship=0.0,
    suspense=0.0,
    expect=_idle_connections_end_in_time,
)
SILENT_WORKERS = Scenario(
    "silent_workers",
    crowd(
        6, 1.0, requests=(1, 2), run_time=_chosen(0.0, 1.0, 2.0, 5.0), pause=_chosen(0.0, 0.5, 2.0, 3.0),
        pieces=(3000, 3000, 10),
    ),
    settings={"socket_timeout": 2.0, "threads": 3, "response_socket_timeout": 30.0},
    faults={"half-closes": 0.1, "resets": 0.1, "after GO": 0.02},
    capacities=(2500, 65536),
)  # fmt: skip

SCENARIOS = (
    FULL_BACKLOG,
    CLAIM_RACES,
    RETRY,
    FAILED_STARTS,
    EXHAUSTION,
    TRUNCATION,
    STREAMS,
    STOP_UNDER_LOAD,
    GRACE_OVER,
    FROZEN,
    ONE_FROZEN,
    STORM,
    CONNECT_SCHEDULE,
    QUEUE_DEADLINE,
    QUEUE_PICKUP,
    LEAVING,
    OVERLOAD,
    WAITING_DEATHS,
    WAITING_STOP,
    MAX_WAITING,
    SLOW_UPLOADS,
    UNBUFFERED_UPLOADS,
    SLOW_HEADS,
    SLOW_READERS,
    BACK_PRESSURE,
    FULL_DISK,
    IDLENESS,
    SILENT_WORKERS,
)

FAULTS = frozenset().union(
    *(scenario.faults for scenario in SCENARIOS),
    ("freeze", "process.suspect", "process.alive", "process.deadlocked"),
    ("crash", "deaf", "expired at pickup", "claimed at the deadline", "ends inside its request"),
    ("impatient: leaves", "impatient: resets", "impatient: half-closes"),
)
