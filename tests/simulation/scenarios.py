"""The bad nights: what clients come, what goes wrong, when the gateway is told to stop; and how one is played."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import attrs

from gatekeep._events import Outcome
from gatekeep._gateway import Gateway, Served
from gatekeep._settings import Settings

from .actors import Steps, Wait
from .checks import Audit
from .clients import Client
from .plans import draw
from .runtime import VirtualTime, run
from .world import World


@attrs.frozen
class Scenario:
    """One sort of bad night.

    Attributes:
        come: brings the clients, once the gateway serves.
        settings: of the gateway.
        faults: probabilities by name, from the moment when the gateway serves.
        crashes: how many processes are killed from outside, within `crash_span` seconds.
        stop: the gateway is told to stop after so many seconds (from, to); else when the clients have gone.
        hurry: it is told again, so many seconds (from, to) later.
        capacities: of sockets, in bytes.
        suspense: how often a worker claims just when the front gives up.
        expect: further checks at the end.
    """

    name: str
    come: Callable[[World], list[Client]]
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    faults: Mapping[str, float] = attrs.field(factory=dict)
    crashes: int = 0
    crash_span: float = 3.0
    stop: tuple[float, float] | None = None
    hurry: tuple[float, float] | None = None
    capacities: tuple[int, ...] = (65536,)
    suspense: float = 0.1
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
        options = {"processes": 2, "threads": 2, **scenario.settings}
        self.settings = Settings.for_app("simulated:application", bind="192.0.2.80:80", **options)
        (group,) = self.settings.groups
        self.audit = Audit(self.world, group.processes, group.connect_timeout)
        self.gateway = Gateway(self.settings, logger=self.audit)
        self.clients: list[Client] = []

    def play(self) -> Night:
        """Play it to its end.

        Raises:
            Failed: an invariant does not hold.
        """
        try:
            run(self._main, self.backend, self.seed, self.world.idle)
        except Exception as error:
            if not self.world.violations:
                raise Failed(self._report("".join(traceback.format_exception(error)))) from error
        if self.world.violations:
            raise Failed(self._report("\n".join(self.world.violations)))
        return self

    def _report(self, what: str) -> str:
        name = self.scenario.name
        return (
            f"\n{what}\n\n{name} on {self.backend}, seed {self.seed}; the end of its trace:\n{self.world.story()}\n\n"
            f"replay: GATEKEEP_SEED={self.seed} python -m pytest tests/simulation -k '{name} and {self.backend}'\n"
        )

    async def _main(self, time: VirtualTime) -> None:
        world = self.world
        world.time = time
        world.capacities = self.scenario.capacities
        world.suspense = self.scenario.suspense
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
        self.clients = scenario.come(world)
        self._gone = anyio.Event()
        world.add("watch", self._watch())
        for _ in range(scenario.crashes):
            world.add("crash", self._crash())
        if scenario.stop is None:
            await self._gone.wait()
        else:
            await anyio.sleep(world.random.uniform(*scenario.stop))

    async def _hurry(self, served: Served, least: float, most: float) -> None:
        await anyio.sleep(self.world.random.uniform(least, most))
        self.world.note("hurry")
        self.world.moments += 1
        served.hurry()

    def _watch(self) -> Steps:
        yield Wait(lambda: all(client.over for client in self.clients))
        self.world.wake(self._gone)

    def _crash(self) -> Steps:
        """The system kills a process, as it does when memory runs out."""
        world = self.world
        yield Wait(until=world.time.now + world.random.uniform(0, self.scenario.crash_span))
        living = [daemon for daemon in world.processes.all.values() if not daemon.is_dying()]
        if living:
            world.fired["crash"] += 1
            world.random.choice(living).die("killed by SIGKILL")


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


def _nobody_is_shed(night: Night) -> None:
    """Requests wait for a process to start: the backlog has room for all of them."""
    if Outcome.SHED in _outcomes(night):
        night.world.violation("503, though all requests have room in the backlog")


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
    expect=_nobody_is_shed,
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
)
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
STORM = Scenario(
    "storm",
    crowd(10, 4.0, requests=(1, 1, 2, 4)),
    settings={"listen_backlog": 3, "connect_timeout": 2.0},
    faults={**BEFORE_GO, **AFTER_GO, **SICK_START, **ILL_MANNERS, "rejects": 0.03, "child holds hop": 0.05},
    crashes=3,
    capacities=(2500, 65536),
)

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
    STORM,
)

FAULTS = frozenset().union(*(scenario.faults for scenario in SCENARIOS), ("crash",))
