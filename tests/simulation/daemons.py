"""Simulated daemon processes: the main thread and each worker thread a generator that yields before every system call.

They speak with the real `_wire`, `_control`, `_slots`, `_verdict` and `_pickup`, and do in the order of `pool/_daemon` and
`pool/_threads` what these do. What their application makes of a request stands in the request's plan.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from gatekeep._frames import Decoder
from gatekeep._host import Usage
from gatekeep.lifecycle import _control
from gatekeep.lifecycle._drain import Order
from gatekeep.lifecycle._slots import Board, Row, RowState
from gatekeep.lifecycle._triggers import (
    EVICTION,
    INACTIVITY,
    MAXIMUM_REQUESTS,
    REQUEST_TIMEOUT,
    SCRIPT_CHANGED,
    SCRIPT_REJECTED,
    SHUTDOWN,
    Trigger,
)
from gatekeep.pool._patience import GIVE_WAY
from gatekeep.pool._pickup import claim
from gatekeep.pool._verdict import Verdict, judge
from gatekeep.transport import _wire

from .actors import NOW, Actor, Steps, Wait
from .application import Application
from .sockets import GATEWAY, Kind, SimListener, SimSocket, pair

if TYPE_CHECKING:
    from .world import World

_DOES = {Order.HOPE: "hopes", Order.FINISH: "finishes", Order.STOP: "stops"}

POINTS = ("before accept", "after envelope", "before GO", "after GO", "mid data", "before END")
"""Where a process may die while it has to do with a request."""

SLOW_IMPORT = 6.0
"""Seconds that an import of some size takes."""

LONGEST_DEAFNESS = 2.0
"""Seconds for which a main thread may not come to hear an order: the application keeps the GIL."""


class Died(Exception):
    """A fault killed the process in which this is raised."""


class SimHome:
    """A group's listener and scoreboard."""

    def __init__(self, address: str, listener: SimListener, board_size: int) -> None:
        self.address = address
        self.listener = listener
        self.memory = bytearray(board_size)
        self.board = memoryview(self.memory)

    def close(self) -> None:
        self.listener.close()
        self.board.release()


class SimProcess:
    """The gateway's handle of a daemon process."""

    def __init__(self, daemon: SimDaemon) -> None:
        self._daemon = daemon
        self._world = daemon.world
        self.pid = daemon.pid
        self.control = SimSocket(daemon.control.end.peer, GATEWAY)
        self.log = SimSocket(daemon.log.end.peer, GATEWAY)
        self._world.note(GATEWAY, "spawn", self.pid)

    async def wait(self) -> str:
        self._world.before_call()
        await checkpoint()
        await self._daemon.exited.wait()
        return self._daemon.end

    def terminate(self) -> None:
        self._world.before_call()
        self._daemon.signal("SIGTERM")

    def kill(self) -> None:
        self._world.before_call()
        self._daemon.signal("SIGKILL")

    def ask_dump(self) -> bool:
        return False

    def read_dump(self) -> str:
        return ""

    def usage(self) -> Usage | None:
        self._world.before_call()
        return None if self._daemon.end else self._daemon.usage()

    def close(self) -> None:
        assert self._daemon.end, "it lives"
        self.control.close()
        self.log.close()
        self._daemon.buried = True


class SimDaemon:
    """One daemon process.

    Attributes:
        end: how it ended, in words; empty while it lives.
        ended: when.
        buried: whether the supervisor has released what it held for it.
        born, loaded_at: when it was started, and when its import is over.
        version: of the script that it has loaded; 0 before.
        picked_up_at: when it looked last whether there is another version.
        deaf_until: until when it may not have heard what it was told.
    """

    def __init__(self, world: World, pid: int, home: SimHome) -> None:
        self.world = world
        self.pid = pid
        self.owner = f"daemon{pid}"
        self.end = ""
        self.ended = 0.0
        self.buried = False
        self.born = world.time.now
        self.loaded_at = math.inf
        self.version = 0
        self.picked_up_at = -math.inf
        self.deaf_until = -math.inf
        self.exited = anyio.Event()
        self.control = SimSocket(pair(world, f"control{pid}", Kind.UNIX)[0], self.owner)
        self.log = SimSocket(pair(world, f"log{pid}", Kind.PACKET)[0], self.owner)
        self._home = home
        self._listener = home.listener.dup(self.owner)
        self._threads: list[Actor] = []
        self._dying = False
        self._frozen_until = 0.0
        self._order: Order | None = None
        self._loaded = False
        self._stopping = False
        self._running = 0
        self._served = 0
        self._quiet_since = math.inf
        self._must_end = math.inf
        self._wishes: set[Trigger] = set()
        self._queue_timeout = math.inf
        self._shutdown_timeout = 0.0
        self._inactivity_timeout = math.inf
        self._maximum_requests = 0
        self._script_reloading = "off"
        self.socket_timeout = math.inf
        self._row: Row | None = None
        self._start_thread("main", self._main())

    def _start_thread(self, name: str, steps: Steps) -> None:
        self._threads.append(self.world.add(f"{self.owner}/{name}", self._until_death(steps)))

    def _until_death(self, steps: Steps) -> Steps:
        try:
            for wait in steps:
                yield wait
                if self.world.time.now < self._frozen_until:
                    yield Wait(until=self._frozen_until)
        except Died:
            self.die("killed by SIGKILL")

    def freeze(self, seconds: float) -> None:
        """Nothing of it runs for so long."""
        self._frozen_until = max(self._frozen_until, self.world.time.now + seconds)
        self.deaf_until = max(self.deaf_until, self._frozen_until)
        self.world.note(self.owner, f"frozen for {seconds:.3f} s")

    def accepts(self) -> bool:
        """Whether it takes requests."""
        return self._loaded and not self._stopping and not self._dying

    def usage(self) -> Usage:
        """What it uses: its application keeps some of each request, and thinks about it."""
        world = self.world
        return Usage(world.effort * self._served, 50_000_000 + world.leak * self._served)

    # --- the end

    def signal(self, name: str, sender: str = GATEWAY) -> None:
        """A signal was sent; the process may take some more steps before it arrives."""
        if not self._dying:
            self.world.note(sender, name, self.pid)
            self.world.add(f"{self.owner}/signal", self._receive(name))

    def _receive(self, name: str) -> Steps:
        for _ in range(self.world.random.randrange(3)):
            yield NOW
        if name == "SIGUSR1":
            # It is blocked until the application is loaded.
            yield Wait(lambda: self._loaded or self._dying)
            self._wish(EVICTION)
        elif name == "SIGTERM" and self._loaded:
            self._wish(SHUTDOWN)
        else:
            self.die(f"killed by {name}")

    def is_dying(self) -> bool:
        """Whether it is dead, or as good as."""
        return self._dying

    def die(self, how: str) -> None:
        """End now; the kernel tidies up."""
        if not self._dying:
            accepted = self.accepts()
            self._dying = True
            self.world.note(self.owner, how)
            if accepted:
                self.world.when_it_accepts_no_more(self)
            for actor in self._threads:
                self.world.remove(actor)
            exit = self._exit(how)
            if self.world.strikes("exits at once"):
                for _ in exit:
                    pass
            else:
                self.world.add(f"{self.owner}/exit", exit)

    def _exit(self, how: str) -> Steps:
        """What it had open is closed, one after the other, and then its parent is told."""
        descriptors = self.world.descriptors_of(self.owner)
        self.world.random.shuffle(descriptors)
        for descriptor in descriptors:
            yield NOW
            descriptor.close()
        yield NOW
        self.end, self.ended = how, self.world.time.now
        self.world.note(self.owner, "has exited")
        self.world.moments += 1
        self.world.wake(self.exited)

    def dies(self, point: str) -> None:
        """Perhaps."""
        if self.world.strikes(point):
            raise Died

    # --- the main thread

    def _main(self) -> Steps:
        world, decoder = self.world, Decoder()
        while (item := decoder.next_frame()) is None:
            yield Wait(self.control.readable)
            data = self.control.recv(65536)
            if not data:
                self.die("exit status 0")
                return
            decoder.feed(data)
        self.version = world.script
        load_time, works = self._import()
        self.dies("while loading")
        self.loaded_at = world.time.now + load_time
        yield Wait(self._is_orphan, self.loaded_at)
        self.dies("late in loading")
        if self._is_orphan():
            self.die("exit status 1")
        elif not works or world.strikes("load fails"):
            self._tell(_control.Failed("the application is broken", "Traceback: none"))
            self.die("exit status 3")
        else:
            yield from self._serve(_control.decode_settings(item[1]), load_time)

    def _import(self) -> tuple[float, bool]:
        """How long the import takes, and whether it works."""
        world = self.world
        how = world.imports.popleft() if world.imports else ""
        if how:
            world.fired[f"import {how}"] += 1
        elif world.strikes("import hangs"):
            how = "hangs"
        elif world.strikes("import is slow"):
            how = "is slow"
        if how == "hangs":
            return math.inf, True
        if how == "is slow":
            return SLOW_IMPORT, True
        if world.strikes("ready late"):
            return world.random.uniform(5, 30), how != "fails"
        return world.random.uniform(0.01, 0.5), how != "fails"

    def _is_orphan(self) -> bool:
        return self.control.end.no_more_in

    def _tell(self, message: Any) -> None:
        try:
            self.control.sendall(_control.encode(message))
        except OSError:
            pass

    def _wish(self, trigger: Trigger) -> None:
        """Once for each reason."""
        if trigger not in self._wishes and not self._dying:
            self._wishes.add(trigger)
            self._tell(_control.Wish(trigger.name, "simulated"))

    def _serve(self, settings: _control.DaemonSettings, load_time: float) -> Steps:
        self._configure(settings)
        board = Board(memoryview(self._home.memory), settings.rows, settings.threads)
        self._row = board.row(settings.row)
        self._row.set_pid(self.pid)
        # Ready is said before the first accept: who ends without having said it has accepted nothing.
        self._loaded = True
        self._tell(_control.Ready(load_time))
        self.dies("after ready")
        yield NOW
        self._quiet_since = self.world.time.now
        for number in range(settings.threads):
            self._start_thread(str(number), self._work(number))
        if settings.beats:
            self._start_thread("monitor", self._beat())
        self._row.set_state(RowState.SERVING)
        if self.world.strikes("control is full"):
            self.world.add(f"{self.owner}/control", self._reads_nothing())
        yield from self._obey()
        yield NOW
        self.die("exit status 0")

    def _configure(self, settings: _control.DaemonSettings) -> None:
        self._queue_timeout = settings.queue_timeout
        self.socket_timeout = settings.socket_timeout
        self._shutdown_timeout = settings.shutdown_timeout
        self._inactivity_timeout = settings.inactivity_timeout
        self._maximum_requests = settings.maximum_requests
        self._script_reloading = settings.script_reloading

    def _reads_nothing(self) -> Steps:
        """What it is told for a while is lost: there is no room for it."""
        end = self.control.end
        yield Wait(until=self.world.time.now + self.world.random.uniform(0, 5))
        capacity, end.capacity = end.capacity, 0
        self.deaf_until = math.inf
        self.world.note(self.owner, "control socket is full")
        yield Wait(until=self.world.time.now + self.world.random.uniform(1, 10))
        end.capacity = capacity

    # --- orders

    def _obey(self) -> Steps:
        """Until it was told to end, and nothing runs or its time is over."""
        orders = Decoder()
        while not self._is_over():
            yield Wait(self._has_news, self._due())
            if self._is_told():
                if self.world.strikes("hears late"):
                    late = self.world.random.uniform(0, LONGEST_DEAFNESS)
                    self.deaf_until = max(self.deaf_until, self.world.time.now + late)
                    yield Wait(until=self.world.time.now + late)
                self._hear(orders)
            self._look_at_clock()
            if self._order is Order.HOPE and self._is_idle():
                self._ordered(Order.FINISH)
            if self._order not in (None, Order.HOPE) and not self._stopping:
                yield NOW
                self._stop_accepting()

    def _is_over(self) -> bool:
        if self._order is Order.STOP and self.world.time.now >= self._must_end:
            return True
        return self._order not in (None, Order.HOPE) and self._stopping and self._is_idle()

    def _has_news(self) -> bool:
        return self._is_told() or (self._order is not None and self._is_idle())

    def _due(self) -> float:
        if self._order is not None:
            return self._must_end if self._order is Order.STOP else math.inf
        quiet_since = math.inf if INACTIVITY in self._wishes else min(self._quiet_since, self.world.time.now)
        return quiet_since + self._inactivity_timeout

    def _look_at_clock(self) -> None:
        now = self.world.time.now
        if self._order is None and now >= self._quiet_since + self._inactivity_timeout:
            self._wish(INACTIVITY)

    def _is_told(self) -> bool:
        return self._order is not Order.STOP and self.control.readable()

    def _is_idle(self) -> bool:
        return not self._running

    def _hear(self, decoder: Decoder) -> None:
        try:
            data = self.control.recv(65536)
        except OSError:
            data = b""
        decoder.feed(data)
        orders = [_control.ORDERS[kind] for kind, _ in decoder.frames() if kind in _control.ORDERS]
        for order in orders if data else [Order.STOP]:
            self._ordered(order)

    def _ordered(self, order: Order) -> None:
        if self._order is not None and order.value <= self._order.value:
            return
        self._order = order
        if order is Order.STOP:
            self._must_end = self.world.time.now + self._shutdown_timeout
        if self.world.strikes(f"while it {_DOES[order]}"):
            self.world.add(f"{self.owner}/fate", self._dies_soon())

    def _dies_soon(self) -> Steps:
        yield Wait(
            until=self.world.time.now + self.world.random.choice((0.0, self.world.random.uniform(0, 1)))
        )
        self.die("killed by SIGKILL")

    def _stop_accepting(self) -> None:
        if self.accepts():
            assert self._row
            self._row.set_state(RowState.STOPPING)
            self._stopping = True
            self.world.note(self.owner, "stopping")
            self.world.when_it_accepts_no_more(self)

    def _beat(self) -> Steps:
        while True:
            try:
                self.control.send(_control.BEAT)
            except OSError:
                pass
            yield Wait(until=self.world.time.now + _control.BEAT_INTERVAL)

    # --- a worker thread

    def _work(self, number: int) -> Steps:
        assert self._row
        while True:
            yield Wait(lambda: self._stopping or self._listener.readable())
            if self._stopping:
                return
            if self._running and self._row.board.is_another_idle(self._row.index):
                yield Wait(until=self.world.time.now + GIVE_WAY)
            self.dies("before accept")
            try:
                hop = self._listener.accept()
            except BlockingIOError:
                continue
            yield NOW
            if self._stopping:
                hop.close()
                return
            self.world.when_it_accepts(self)
            self._served += 1
            self._set_running(+1)
            yield from self._serve_hop(hop, number)
            yield NOW
            hop.close()
            self._set_running(-1)

    def _set_running(self, change: int) -> None:
        assert self._row
        self._running += change
        self._quiet_since = math.inf if self._running else self.world.time.now
        self._row.set_running(self._running)

    def _serve_hop(self, hop: SimSocket, number: int) -> Steps:
        decoder = _wire.worker_decoder()
        while (item := decoder.next_frame()) is None:
            yield Wait(hop.readable, self.world.time.now + self.socket_timeout)
            data = _recv(hop)
            if not data:
                return  # it ended, or nothing came for socket-timeout
            decoder.feed(data)
        yield from self._pick_up(hop, number, _wire.decode_envelope(item[1]), decoder)

    def _pick_up(self, hop: SimSocket, number: int, envelope: _wire.Envelope, decoder: Decoder) -> Steps:
        from .world import CLOCK_OFFSET

        world, plan = self.world, self.world.plans[envelope.environ["PATH_INFO"]]
        # A fork between the accept and the read would be one that the front cannot tell from a place in the backlog.
        if world.strikes("child holds hop"):
            child = f"child of {self.pid} for {hop.name}"
            world.add(child, _hold(world, hop.dup(child)))
        plan.picked_up(envelope.stamp)
        yield NOW
        self.dies("after envelope")
        yield self._dawdle()
        self.dies("before GO")
        if world.strikes("rejects") or self._is_outdated():
            _send(hop, _wire.REJECT)
            return
        now = world.time.now + CLOCK_OFFSET
        if judge(envelope, now, self._queue_timeout) is Verdict.EXPIRED:
            world.fired["expired at pickup"] += 1
            _send(hop, _wire.EXPIRED)
            return
        if not claim(hop, self.pid, number, now):
            return
        if now - envelope.stamp > self._queue_timeout:
            world.violation(f"{plan.path} was claimed after {now - envelope.stamp} s")
        if now - envelope.stamp == self._queue_timeout:
            world.fired["claimed at the deadline"] += 1
        plan.claimed(self.pid, hop.end.peer)
        yield NOW
        self.dies("after GO")
        assert self._row
        self._row.begin(number, envelope.request, now)
        yield from Application(self, plan, hop, envelope, decoder).run()
        self._row.end(number)
        if self._maximum_requests and self._served >= self._maximum_requests:
            self._wish(MAXIMUM_REQUESTS)
        if world.strikes("a request is stale"):
            self._wish(REQUEST_TIMEOUT)

    def _is_outdated(self) -> bool:
        """Look whether the script has changed, and say so. Whether this process must not run a request any more."""
        self.picked_up_at = self.world.time.now
        if self._script_reloading == "off" or self.version == self.world.script:
            return False
        rejects = self._script_reloading == "strict"
        self._wish(SCRIPT_REJECTED if rejects else SCRIPT_CHANGED)
        if rejects:
            self._stop_accepting()
        return rejects

    def _dawdle(self) -> Wait:
        """How long it takes from the envelope to the claim."""
        world = self.world
        if world.prompt:
            return NOW
        chance = world.random.random()
        if chance < 0.1:
            return Wait(until=world.time.now + world.random.uniform(0, 0.3))
        if chance < 0.1 + world.brinkmanship:
            return Wait(at_deadline=True, until=world.time.now + world.brink)
        if chance < 0.1 + world.brinkmanship + world.suspense:
            moment = world.moments
            return Wait(lambda: world.moments > moment, world.time.now + 1.0)
        return NOW


def _recv(hop: SimSocket) -> bytes:
    try:
        return hop.recv(65536)
    except OSError:
        return b""


def _send(hop: SimSocket, data: bytes) -> None:
    try:
        hop.sendall(data)
    except OSError:
        pass


def _hold(world: World, hop: SimSocket) -> Steps:
    """A child that the application forked, which knows nothing of us, holds the hop open for a long time."""
    yield Wait(until=world.time.now + world.random.uniform(5, 60))
    hop.close()
