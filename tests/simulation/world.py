"""The simulated operating system: a `Host` whose sockets, processes and time follow from one seed.

Everybody but the gateway (daemon threads, clients, forked children) is an actor: a generator that yields before each of its
system calls. The world lets randomly chosen actors take 0 to 4 steps before every call that the gateway makes, and whenever
the gateway's loop is idle. As tasks on the gateway's own loop they would never run between two calls of the front, and that is
where the races are: a planted peek instead of the claim was found in 0 of 300 seeds with tasks, in 151 of 200 with generators.
"""

from __future__ import annotations

import hashlib
import random
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from gatekeep._host import GroupHome, Peer
from gatekeep._process_options import ProcessOptions
from gatekeep.settings._bind import Bind

from .actors import NOW, Actor, Steps
from .daemons import SimDaemon, SimHome, SimProcess
from .disk import Disk, SimSpoolFile
from .runtime import VirtualTime, call_soon
from .sockets import (
    CAPACITY,
    GATEWAY,
    Descriptor,
    End,
    Kind,
    Listener,
    SimListener,
    SimSocket,
    SimWaiter,
    port_of,
)

if TYPE_CHECKING:
    from .plans import Plan

T = TypeVar("T")

STEPS = (0, 0, 0, 1, 1, 2, 3, 4)
"""How many steps others take before a call of the gateway's."""

CLOCK_OFFSET = 4096.0
"""The clock that processes share is not the loop's: whoever mixes them up is an hour wrong."""

THREAD_TIMES = (0.0, 0.0, 0.001, 0.02)
"""Seconds for which a call in a thread may wait, before it and after."""

TICK = 1e-6
"""Virtual time passes only where somebody waits, so what is due happens at once."""

TRACE_LINES = 40


class World:
    """The operating system, and everybody in it but the gateway.

    Attributes:
        random: the one source of chance.
        faults: what goes wrong how often: a probability by name.
        fired: how often each did.
        violations: what must not happen and did.
        calls: how many the gateway has made.
        moments: how often something happened that makes the front give up hops: a process's end, a hurried stop.
        suspense: how often a worker is slow to claim just until then.
        prompt: whether workers claim at once.
        brinkmanship: how often it is slow until exactly the next deadline, within `brink` seconds.
        plans: the requests of all clients, by path.
        changed: when something happened last that may make the gateway try again to connect.
        script: the version of the application's script; `script_changed`: since when.
        imports: how the next imports go: "fails", "hangs", "is slow", or "" for as usual.
        leak, effort: bytes and seconds of CPU that each request costs its process.
        when_it_accepts, when_it_accepts_no_more: called when a process has accepted, and when it takes requests no more.
        when_born: called when there is one more process.
        when_idle: called when nobody can do anything before time passes, with the time of what comes next.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.faults: dict[str, float] = {}
        self.fired: Counter[str] = Counter()
        self.violations: list[str] = []
        self.trace: list[tuple[Any, ...]] = []
        self.plans: dict[str, Plan] = {}
        self.plans_of_port: dict[int, Sequence[Plan]] = {}
        self.time = VirtualTime()
        self.actors: list[Actor] = []
        self.descriptors: dict[Descriptor, None] = {}
        self.capacities: Sequence[int] = (CAPACITY,)
        self.early_wakes = 0.02
        self.calls = 0
        self.moments = 0
        self.suspense = 0.1
        self.brinkmanship = 0.1
        self.brink = 1.0
        self.prompt = False
        self.changed = -inf
        self.script, self.script_changed = 1, -inf
        self.imports: deque[str] = deque()
        self.leak, self.effort = 0, 0.0
        self.when_idle: Callable[[float], None] = lambda until: None
        self.when_it_accepts: Callable[[SimDaemon], None] = lambda daemon: None
        self.when_it_accepts_no_more: Callable[[SimDaemon], None] = lambda daemon: None
        self.when_born: Callable[[SimDaemon], None] = lambda daemon: None
        self._acting = False
        self._woke = False
        self.net = Net(self)
        self.disk = Disk(self)
        self.processes = Processes(self)
        self.clock = _Clock(self)
        self.chance = _Chance(seed)

    # --- chance and faults

    def strikes(self, fault: str) -> bool:
        """Whether the named fault happens here and now."""
        probability = self.faults.get(fault)
        if not probability or self.random.random() >= probability:
            return False
        self.fired[fault] += 1
        self.note("fault", fault)
        return True

    def capacity(self) -> int:
        """How much a new connection holds in each direction."""
        return self.random.choice(self.capacities)

    def wakes_too_early(self) -> bool:
        """Whether a waiter returns for nothing, as it may."""
        return self.random.random() < self.early_wakes

    def violation(self, text: str) -> None:
        """Something happened that must not."""
        self.violations.append(text)
        self.note("VIOLATION", text)

    def touch_script(self) -> None:
        """Somebody deploys."""
        self.script, self.script_changed = self.script + 1, self.time.now
        self.fired["script touched"] += 1
        self.note("script", self.script)

    # --- the trace

    def note(self, *what: Any) -> None:
        """Add a line to the trace."""
        self.trace.append((self.time.now, *what))

    def story(self, lines: int = TRACE_LINES) -> str:
        """The trace, for people: until the first thing that must not happen, or its end."""
        end = next(
            (number for number, line in enumerate(self.trace, 1) if line[1] == "VIOLATION"), len(self.trace)
        )
        part = self.trace[max(0, end - lines) : end]
        return "\n".join(f"{line[0]:12.6f}  {' '.join(map(str, line[1:]))}" for line in part)

    def digest(self) -> str:
        """The whole trace as one number."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()

    # --- actors

    def add(self, name: str, steps: Steps) -> Actor:
        """Let somebody act."""
        actor = Actor(name, steps)
        self.actors.append(actor)
        return actor

    def remove(self, actor: Actor) -> None:
        """He acts no more."""
        if actor in self.actors:
            self.actors.remove(actor)

    def before_call(self) -> None:
        """The gateway is about to make a system call: others may be quicker."""
        if self._acting:
            return
        self.calls += 1
        for _ in range(self.random.choice(STEPS)):
            if not self._step():
                return

    def _step(self) -> bool:
        """One step of somebody who can. False when nobody can."""
        actors, now = self.actors, self.time.now
        if not actors:
            return False
        start = self.random.randrange(len(actors))
        for index in range(start - len(actors), start):
            wait = actors[index].wait  # no method of it: this line is a third of a night
            if now >= wait.until or (wait.ready is not None and wait.ready()):
                self._act(actors[index])
                return True
        return False

    def _act(self, actor: Actor) -> None:
        self._acting = True
        try:
            actor.wait = next(actor.steps)
        except StopIteration:
            self.remove(actor)
        except Exception:
            self.remove(actor)
            self.violation(f"{actor.name}: {traceback.format_exc()}")
        finally:
            self._acting = False

    def idle(self, time: VirtualTime, deadline: float) -> None:
        """The gateway waits for something: others act until it has it, or can do no more before time passes."""
        self._woke = False
        while not self._woke:
            if not self._step():
                self._let_time_pass(time, deadline)
                return

    def _let_time_pass(self, time: VirtualTime, deadline: float) -> None:
        until = min((actor.wait.until for actor in self.actors), default=inf)
        if deadline == until == inf:
            raise RuntimeError("deadlock: nobody can do anything, ever")
        self.when_idle(min(until, deadline))
        time.now = min(until, deadline)
        if time.now < deadline:
            return
        for actor in self.actors:
            if actor.wait.at_deadline:
                actor.wait = NOW
        # What falls on the same instant may happen before the loop's timer, or after.
        for _ in range(self.random.choice(STEPS)):
            if not self._step():
                return

    def wake(self, event: anyio.Event) -> None:
        """Let a task of the gateway's go on."""
        self._woke = True
        event.set()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Let the gateway's event loop call this in one of its next turns."""
        turns = self.random.choice((0, 0, 0, 1, 2))

        def turn() -> None:
            nonlocal turns
            if turns:
                turns -= 1
                call_soon(turn)
                return
            try:
                callback()
            except Exception:
                self.violation(traceback.format_exc())

        self._woke = True
        call_soon(turn)

    def gives_up(self, hop: End) -> None:
        """The gateway closes its end of a connection. It must not have waited for a process that is dead."""
        holder = self.processes.of_owner(hop.peer.holder)
        waited = self.time.now - holder.ended if holder is not None and holder.end else 0.0
        if waited > TICK and not any(plan.hop is hop for plan in self.plans.values()):
            self.violation(f"{hop.name} was kept for {waited:.6f} s after the end of {hop.peer.holder}")

    # --- descriptors

    def opened(self, descriptor: Descriptor) -> None:
        """A process has one more."""
        self.descriptors[descriptor] = None

    def closed(self, descriptor: Descriptor) -> None:
        """A process has one less."""
        del self.descriptors[descriptor]

    def descriptors_of(self, owner: str) -> list[Descriptor]:
        """What a process has open, in the order of opening."""
        return [descriptor for descriptor in self.descriptors if descriptor.owner == owner]

    # --- the rest of the Host

    def spool_file(self, folder: str) -> SimSpoolFile:
        self.before_call()
        return SimSpoolFile(self.disk)

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        """As if in a thread: it is waited for by those who were cancelled, too."""
        self.before_call()
        await checkpoint()
        with anyio.CancelScope(shield=True):
            await self._take_time()
            with self.disk.in_thread():
                result = function(*args)
            await self._take_time()
        return result

    async def _take_time(self) -> None:
        await anyio.sleep(self.random.choice(THREAD_TIMES))


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        self._world.before_call()
        return self._world.time.now + CLOCK_OFFSET

    def wall(self) -> float:
        return self._world.time.now + 1.7e9


class _Chance:
    def __init__(self, seed: int) -> None:
        self.bits = random.Random(seed).getrandbits


class Net:
    """Sockets.

    Attributes:
        doors: the listeners that clients connect to.
        last_attempt: the number of the call that tried to reach the group last.
        when_tried: called for each try, with whether it succeeded, in the task that tries.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._groups: dict[str, Listener] = {}
        self.doors: list[Listener] = []
        self.most_descriptors = 1 << 20
        self.last_attempt = 0
        self.when_tried: Callable[[bool], None] = lambda success: None

    def listen(self, bind: Bind, backlog: int) -> Sequence[tuple[SimListener, str]]:
        self._world.before_call()
        listener = Listener(self._world, "client", Kind.TCP, backlog)
        self.doors.append(listener)
        return [(SimListener(listener, GATEWAY), f"http://{bind}")]

    def unlisten(self, bind: Bind) -> None:
        """A TCP address leaves nothing behind."""

    def adopt(self) -> None:
        """No gateway was there before this one."""

    def disown(self) -> None:
        raise NotImplementedError("no gateway follows this one")

    def group_listener(self, address: str, backlog: int) -> Listener:
        """A new listener for a group."""
        self._groups[address] = listener = Listener(self._world, "hop", Kind.UNIX, backlog)
        return listener

    def accept(self, listener: SimListener) -> Peer:
        sock = listener.accept()
        return Peer(sock, ("192.0.2.1", port_of(sock)), ("192.0.2.80", "80"))

    def connect(self, address: str) -> SimSocket:
        world = self._world
        world.before_call()
        try:
            sock = self._groups[address].connect(GATEWAY)
        except OSError as error:
            world.note(GATEWAY, "connect", type(error).__name__)
            self._tried(False)
            raise
        world.note(GATEWAY, "connect", sock.name)
        self._tried(True)
        return sock

    def _tried(self, success: bool) -> None:
        self.last_attempt = self._world.calls
        self.when_tried(success)

    def has_room(self, address: str) -> bool:
        """Whether a group's backlog would take one more."""
        listener = self._groups[address]
        return not listener.released and len(listener.waiting) <= listener.backlog

    def describe(self, address: str) -> str:
        return f"{address} as user simulated"

    def descriptors(self) -> int:
        return self.most_descriptors

    def waiter(self, sock: SimSocket | SimListener) -> SimWaiter:
        return SimWaiter(sock)

    def unread(self, sock: SimSocket) -> int:
        self._world.before_call()
        return len(sock.end.peer.incoming)

    def abort(self, sock: SimSocket) -> None:
        self._world.before_call()
        sock.abort()


class Processes:
    """Daemon processes.

    Attributes:
        all: those that ever were, by pid.
        being_born: how many are being started at this moment.
        home: what they share; None before the first was started.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.all: dict[int, SimDaemon] = {}
        self.being_born = 0
        self.home: SimHome | None = None
        self._next_pid = 100

    def of_owner(self, owner: str) -> SimDaemon | None:
        """The process of that name, if it is one."""
        return next((daemon for daemon in self.all.values() if daemon.owner == owner), None)

    def open_group(self, name: str, backlog: int, board_size: int) -> SimHome:
        world = self._world
        world.before_call()
        address = f"group:{name}"
        return SimHome(address, SimListener(world.net.group_listener(address, backlog), GATEWAY), board_size)

    def open_console(self) -> None:
        """Nobody asks a simulated gateway anything."""

    async def spawn(self, home: GroupHome, options: ProcessOptions) -> SimProcess:
        assert isinstance(home, SimHome)
        world = self._world
        world.before_call()
        await checkpoint()
        self.being_born += 1
        try:
            # The thread that starts a process is waited for, by those who were cancelled too.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(world.random.choice((0.0, 0.001, 0.05)))
        finally:
            self.being_born -= 1
        if world.strikes("spawn fails"):
            raise BlockingIOError("Resource temporarily unavailable")
        self._next_pid += 1
        self.all[self._next_pid] = daemon = SimDaemon(world, self._next_pid, home)
        self.home = home
        world.when_born(daemon)
        return SimProcess(daemon)

    def living(self) -> list[SimDaemon]:
        """Those that have not ended, oldest first."""
        return [daemon for daemon in self.all.values() if not daemon.end]
