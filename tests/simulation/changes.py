"""The nights of change: processes are replaced, evicted, recycled, put to sleep, fail to start, under load."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import anyio
import attrs

from gatekeep._events import Outcome
from gatekeep.lifecycle._supervisor import ECHO
from gatekeep.lifecycle._triggers import TRIGGERS

from . import scenarios
from .actors import Steps, Wait
from .clients import Client
from .daemons import SimDaemon
from .plans import Habits
from .scenarios import (
    AFTER_GO,
    BEFORE_GO,
    ILL_MANNERS,
    SICK_START,
    Night,
    Scenario,
    _chosen,
    _nobody_notices,
    _plain,
    _work_promptly,
    crowd,
)
from .world import World

Happening = Callable[[Night], Awaitable[None]]

# --- what happens ---------------------------------------------------------------------------------------------------


def _at_times(count: int, span: float, act: Callable[[Night], object]) -> Happening:
    """So often, at any times within so many seconds."""

    async def happen(night: Night) -> None:
        world = night.world
        begin = world.time.now
        for when in sorted(world.random.uniform(0, span) for _ in range(count)):
            await anyio.sleep(begin + when - world.time.now)
            act(night)

    return happen


def _reload(night: Night) -> None:
    night.world.note("reload")
    night.lives.reloaded = night.world.time.now
    night.supervisor.reload()


def _resize(night: Night) -> None:
    """SIGTTIN or SIGTTOU."""
    night.world.changed = night.world.time.now  # more may stand in a backlog that is late
    night.supervisor.resize(night.supervisor._seats + night.world.random.choice((-2, -1, +1, +1)))


def _touch(night: Night) -> None:
    night.world.touch_script()


def _evict_all(night: Night) -> None:
    """Each process that is there, at the same moment."""
    for pid in list(night.supervisor._children):
        night.supervisor.evict(pid)


async def _evict_each(night: Night) -> None:
    """Each process that is there, one after the other, by people or by a signal."""
    random = night.world.random
    for pid in list(night.supervisor._children):
        await anyio.sleep(random.uniform(0, 2))
        if random.random() < 0.5:
            night.supervisor.evict(pid)
        else:
            night.world.processes.all[pid].signal("SIGUSR1", "stranger")


async def _evict_newborn(night: Night) -> None:
    """The next process that is started, just when it has loaded the application."""
    world, begin, born = night.world, night.world.time.now, anyio.Event()

    def newborn() -> SimDaemon | None:
        living = world.processes.living()
        return next((daemon for daemon in living if begin < daemon.born and daemon.loaded_at < inf), None)

    def watch() -> Steps:
        yield Wait(newborn, begin + 10.0)
        world.wake(born)

    world.add("evict newborn", watch())
    await born.wait()
    if (daemon := newborn()) is not None:
        with anyio.CancelScope(deadline=daemon.loaded_at):
            await anyio.sleep_forever()
        night.supervisor.evict(daemon.pid)


def _signal_one(name: str) -> Callable[[Night], None]:
    """A stranger sends a signal to a process that takes requests."""

    def act(night: Night) -> None:
        world = night.world
        accepting = [daemon for daemon in world.processes.living() if daemon.accepts()]
        if accepting:
            world.fired[f"{name} of a stranger"] += 1
            world.random.choice(accepting).signal(name, "stranger")

    return act


def _signal_all(name: str) -> Callable[[Night], None]:
    def act(night: Night) -> None:
        for daemon in night.world.processes.living():
            night.world.fired[f"{name} of a stranger"] += 1
            daemon.signal(name, "stranger")

    return act


async def _report(night: Night) -> None:
    """Somebody asks what the processes do."""
    for _ in range(3):
        await anyio.sleep(night.world.random.uniform(0, 3))
        await night.supervisor.reports.stacks()


async def _stop_the_unit(night: Night) -> None:
    """SIGTERM goes to the gateway and to all of its processes, as systemd sends it: in any order, within a moment."""
    random = night.world.random
    await anyio.sleep(random.uniform(1, 6))  # a signal at a process that starts ends it
    _signal_all("SIGTERM")(night)
    await anyio.sleep(random.uniform(0, ECHO - 0.1))
    night.stop_now.set()


def _imports(*ways: str) -> Callable[[World], None]:
    """How the next imports go."""

    def arrange(world: World) -> None:
        world.imports = deque(ways)

    return arrange


def _consume(world: World) -> None:
    world.leak, world.effort = world.random.choice(((30_000_000, 0.0), (0, 0.7)))


# --- what is expected -----------------------------------------------------------------------------------------------


def _all_are_answered(night: Night) -> None:
    """Nobody notices anything."""
    for plan in night.world.plans.values():
        if plan.records and (plan.seen.status != 200 or not plan.seen.whole):
            night.world.violation(f"{plan.path}: {plan.seen}")


def _all_have_the_present_script(night: Night) -> None:
    """All processes that could notice that there is another one."""
    _all_are_answered(night)
    world = night.world
    for daemon in night.lives.lasting:
        if daemon.version != world.script and daemon.picked_up_at > world.script_changed:
            world.violation(f"{daemon.owner} has version {daemon.version} of the script still")


def _nobody_is_replaced(night: Night) -> None:
    """Nor lost."""
    _nobody_notices(night)
    if len(night.world.processes.all) > night.audit.group.processes:
        night.world.violation("a process was started for one that stops with the gateway")


def _idlers_are_served_at_once(night: Night) -> None:
    """A process that sleeps costs its start, and no more."""
    _all_are_answered(night)
    for record in night.audit.records:
        if (waited := record["stages"].get("queue", 0.0)) > 2.0:
            night.world.violation(f"{record['path']} waited for {waited} s")


# --- the nights -----------------------------------------------------------------------------------------------------

STEADY = crowd(
    14, 8.0, requests=(1, 1, 2), app=_chosen("plain", "plain", "read", "echo"), pause=0.0,
    run_time=lambda random: random.choice((0.0, 0.1, random.uniform(0, 3))),
)  # fmt: skip
"""A load that one process can bear."""

PLANNED: dict[str, Any] = {
    "come": STEADY,
    "faults": {"import is slow": 0.15, "hears late": 0.2},
    "always_accepts": True,
    "spare": 1,
    "settle": 40.0,
    "cost": 3,
    "expect": _all_are_answered,
}
"""A night in which only planned changes happen, and the load fits."""

UNPLANNED = {**PLANNED, "spare": inf}

RELOAD = Scenario(
    **PLANNED,
    name="reload",
    settings={"queue_timeout": 60.0},
    happen=(_at_times(2, 7.0, _reload),),
)
SCRIPT_TOUCHED = Scenario(
    **{**PLANNED, "expect": _all_have_the_present_script},
    name="script_touched",
    settings={"queue_timeout": 60.0},
    happen=(_at_times(2, 7.0, _touch),),
)
SCRIPT_STRICT = Scenario(
    **{**UNPLANNED, "expect": _all_have_the_present_script, "always_accepts": False},
    name="script_strict",
    settings={"script_reloading": "strict", "queue_timeout": 60.0},
    happen=(_at_times(2, 7.0, _touch),),
)


def _bursts(world: World) -> list[Client]:
    """Requests with gaps that are as long as inactivity-timeout, exactly, nearly, or much longer."""
    random, begin, clients = world.random, world.time.now, []
    for _ in range(3):
        plans = [
            _plain(
                world,
                close=False,
                run_time=random.choice((0.0, 0.0, 0.3, 3.0)),
                habits=Habits(idle=random.choice((2.0, 2.0, 2.0, random.uniform(1.9, 2.1), 7.0, 0.0))),
            )
            for _ in range(4)
        ]
        clients.append(
            Client(world, plans, start=begin + random.choice((0.0, 2.0, 5.0, random.uniform(0, 5))))
        )
    return clients


RESIZED = Scenario(
    **UNPLANNED,
    name="resized",
    settings={"queue_timeout": 60.0},
    happen=(_at_times(6, 7.0, _resize), _at_times(1, 7.0, _reload)),
)
RESIZED_IDLERS = attrs.evolve(
    RESIZED,
    name="resized_idlers",
    come=_bursts,
    faults={"import is slow": 0.3, "hears late": 0.2},
    settings={**RESIZED.settings, "inactivity_timeout": 2.0, "keep_alive_timeout": 60.0},
    always_accepts=False,  # the one that stays may go to sleep before one that leaves has accepted its last
)
EVICTION = Scenario(
    **UNPLANNED,
    name="eviction",
    settings={"queue_timeout": 60.0, "eviction_timeout": 20.0},
    happen=(_evict_each, _at_times(1, 9.0, _evict_all)),
)
MAXIMUM_REQUESTS = Scenario(
    **PLANNED,
    name="maximum_requests",
    settings={"maximum_requests": 2, "maximum_requests_jitter": 2, "queue_timeout": 60.0},
)
ONE_PROCESS = Scenario(
    **{**PLANNED, "faults": {"import is slow": 0.6}},
    name="one_process",
    settings={"processes": 1, "threads": 3, "maximum_requests": 3, "queue_timeout": 60.0},
    arrange=_imports("is slow"),
    happen=(_at_times(1, 5.0, _reload),),
)
RESTART_INTERVAL = Scenario(
    **{**PLANNED, "settle": 0.0},
    name="restart_interval",
    settings={"processes": 3, "restart_interval": 2.0, "restart_interval_jitter": 0.5, "queue_timeout": 60.0},
)
LIMITS = Scenario(
    **PLANNED,
    name="limits",
    settings={"memory_limit": 100_000_000, "cpu_time_limit": 1.5, "queue_timeout": 60.0},
    arrange=_consume,
)
BROKEN_DEPLOYMENT = Scenario(
    **{**PLANNED, "settle": 100.0},
    name="broken_deployment",
    settings={"startup_timeout": 5.0, "queue_timeout": 60.0},
    arrange=_imports("fails", "hangs"),
    happen=(_at_times(2, 7.0, _reload),),
)
BROKEN_DEPLOYMENT = attrs.evolve(
    BROKEN_DEPLOYMENT,
    faults={
        "load fails": 0.5,
        "while loading": 0.1,
        "late in loading": 0.2,
        "import hangs": 0.2,
        "spawn fails": 0.1,
    },
)


INACTIVITY = Scenario(
    **{
        **UNPLANNED,
        "come": _bursts,
        "faults": {},
        "expect": _idlers_are_served_at_once,
    },
    name="inactivity",
    settings={"inactivity_timeout": 2.0, "queue_timeout": 60.0, "keep_alive_timeout": 60.0},
)
INACTIVITY_OF_ONE = attrs.evolve(
    INACTIVITY,
    name="inactivity_of_one",
    settings={**INACTIVITY.settings, "processes": 1},
    faults={"import is slow": 0.1, "hears late": 0.2},
    expect=_all_are_answered,
    cost=1,
)
RELOAD_OF_IDLERS = attrs.evolve(
    INACTIVITY,
    name="reload_of_idlers",
    faults={"import is slow": 0.5},
    happen=(_at_times(2, 8.0, _reload),),
    spare=2,  # one that sleeps may finish what it has accepted in the last moment, when a request wakes the next
    expect=_all_are_answered,
)
STRANGERS = Scenario(
    **{**UNPLANNED, "always_accepts": False},
    name="strangers",
    settings={"queue_timeout": 60.0},
    happen=(_at_times(2, 8.0, _signal_one("SIGTERM")), _at_times(1, 8.0, _signal_one("SIGUSR1"))),
)
CRASH_LOOP = Scenario(
    name="crash_loop",
    come=crowd(12, 20.0, app="plain", run_time=lambda random: random.choice((0.0, 0.1))),
    faults={"after ready": 0.5, "after GO": 0.2, "load fails": 0.1, "spawn fails": 0.1},
    settings={"queue_timeout": 60.0},
    settle=60.0,
    cost=3,
)
HARD_CHANGES = Scenario(
    name="hard_changes",
    come=STEADY,
    faults={
        "while loading": 0.1, "late in loading": 0.1, "after ready": 0.1, "while it hopes": 0.3, "while it finishes": 0.2,
        "while it stops": 0.3, "control is full": 0.1, "hears late": 0.3, "a request is stale": 0.1,
    },
    settings={"graceful_timeout": 2.0, "eviction_timeout": 1.0, "shutdown_timeout": 1.0, "maximum_requests": 4},
    happen=(_at_times(1, 7.0, _reload), _evict_each, _at_times(1, 8.0, _signal_one("SIGTERM"))),
    crashes=1,
    crash_span=8.0,
    settle=60.0,
    cost=3,
)  # fmt: skip
SICKLY_REPLACEMENTS = Scenario(
    name="sickly_replacements",
    come=crowd(
        12, 4.0, requests=(1, 1, 2), app="plain", run_time=lambda random: random.choice((0.0, 0.1, 0.5))
    ),
    faults={"after ready": 0.6, "late in loading": 0.1, "exits at once": 0.5},
    settings={"queue_timeout": 60.0, "processes": 1, "threads": 3},
    happen=(_at_times(3, 3.0, _reload), _evict_newborn),
    settle=60.0,
    cost=3,
)
STOP_AMID_CHANGES = Scenario(
    name="stop_amid_changes",
    come=STEADY,
    faults={"import is slow": 0.2, "hears late": 0.1},
    settings={"graceful_timeout": 60.0, "queue_timeout": 60.0, "maximum_requests": 3},
    happen=(_at_times(2, 4.0, _reload), _at_times(2, 4.0, _touch), _at_times(1, 4.0, _evict_all)),
    stop=(0.0, 5.0),
    expect=_nobody_notices,
)


def _all_who_waited_are_served(night: Night) -> None:
    """Within the grace there is a process that can."""
    _nobody_notices(night)
    for record in night.audit.records:
        if record["outcome"] is Outcome.SHED and record["stages"].get("queue", 0.0) > 10.0:
            night.world.violation(f"{record['path']} waited in vain: {record['reason']}")


STOP_AMID_REJECTIONS = attrs.evolve(
    STOP_AMID_CHANGES, name="stop_amid_rejections", happen=(_at_times(2, 3.0, _touch),), stop=(0.0, 4.0),
    settings={"graceful_timeout": 60.0, "queue_timeout": 0.0, "script_reloading": "strict"},
    expect=_all_who_waited_are_served,
)  # fmt: skip
HURRY_AMID_CHANGES = attrs.evolve(
    STOP_AMID_CHANGES, name="hurry_amid_changes", hurry=(0.0, 2.0), expect=None,
    faults={**STOP_AMID_CHANGES.faults, "while it stops": 0.1, "late in loading": 0.1, "control is full": 0.1},
)  # fmt: skip


STOP_OF_THE_UNIT = Scenario(
    name="stop_of_the_unit",
    come=crowd(8, 6.0, app="plain", run_time=_chosen(0.0, 0.5, 9.0), pause=0.0),
    settings={"graceful_timeout": 60.0, "queue_timeout": 60.0},
    happen=(_stop_the_unit,),
    stop=(1000.0, 1000.0),
    arrange=_work_promptly,
    brinkmanship=0.0,
    suspense=0.0,
    expect=_nobody_is_replaced,
)
STORM_OF_CHANGES = Scenario(
    name="storm_of_changes",
    come=crowd(16, 12.0, requests=(1, 1, 2, 4)),
    settings={
        "processes": 3, "threads": 2, "maximum_requests": 4, "maximum_requests_jitter": 3, "restart_interval": 5.0,
        "memory_limit": 150_000_000, "cpu_time_limit": 4.0, "inactivity_timeout": 3.0, "startup_timeout": 10.0,
        "graceful_timeout": 5.0, "eviction_timeout": 2.0, "shutdown_timeout": 2.0, "deadlock_timeout": 6.0,
    },
    faults={
        **BEFORE_GO, **AFTER_GO, **SICK_START, **ILL_MANNERS,
        "late in loading": 0.05, "after ready": 0.03, "import hangs": 0.05, "import is slow": 0.1, "hears late": 0.1,
        "while it hopes": 0.1, "while it finishes": 0.1, "while it stops": 0.1, "control is full": 0.05,
        "a request is stale": 0.03, "rejects": 0.02, "child holds hop": 0.05,
    },
    arrange=_consume,
    happen=(
        _at_times(2, 12.0, _reload), _at_times(2, 12.0, _touch), _evict_each, _at_times(1, 12.0, _evict_all), _report,
        _at_times(2, 12.0, _signal_one("SIGTERM")), _at_times(1, 12.0, _signal_one("SIGUSR1")),
    ),
    crashes=2, crash_span=12.0, freezes=1, frozen=(0.0, 12.0),
    capacities=(20_000, 65536),  # an envelope fits, as it does where sockets have the size that Linux gives them
    cost=5,
)  # fmt: skip

STORM_OF_SIZES = attrs.evolve(
    STORM_OF_CHANGES, name="storm_of_sizes",
    happen=(_at_times(8, 12.0, _resize), _at_times(1, 12.0, _reload), _evict_each, _at_times(1, 12.0, _touch)),
)  # fmt: skip


CHANGES = (
    RELOAD,
    SCRIPT_TOUCHED,
    SCRIPT_STRICT,
    RESIZED,
    RESIZED_IDLERS,
    EVICTION,
    MAXIMUM_REQUESTS,
    ONE_PROCESS,
    RESTART_INTERVAL,
    LIMITS,
    BROKEN_DEPLOYMENT,
    INACTIVITY,
    INACTIVITY_OF_ONE,
    RELOAD_OF_IDLERS,
    STRANGERS,
    CRASH_LOOP,
    HARD_CHANGES,
    SICKLY_REPLACEMENTS,
    STOP_AMID_CHANGES,
    STOP_AMID_REJECTIONS,
    HURRY_AMID_CHANGES,
    STOP_OF_THE_UNIT,
    STORM_OF_CHANGES,
    STORM_OF_SIZES,
)

SCENARIOS = (*scenarios.SCENARIOS, *CHANGES)

FAULTS = scenarios.FAULTS.union(
    *(scenario.faults for scenario in CHANGES),
    (f"drain: {name}" for name in TRIGGERS),
    ("import fails", "import hangs", "script touched", "group sleeps", "startup-timeout"),
    ("SIGTERM of a stranger", "SIGUSR1 of a stranger"),
)
