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
from gatekeep.lifecycle import _control
from gatekeep.lifecycle._drain import Order
from gatekeep.lifecycle._slots import Board, Row, RowState
from gatekeep.lifecycle._triggers import EVICTION, SHUTDOWN, Trigger
from gatekeep.pool._patience import GIVE_WAY
from gatekeep.pool._pickup import claim
from gatekeep.pool._verdict import Verdict, judge
from gatekeep.transport import _wire

from .actors import NOW, Actor, Steps, Wait
from .application import Application
from .sockets import GATEWAY, Kind, SimListener, SimSocket, pair

if TYPE_CHECKING:
    from .world import World

_ORDERS = {
    int(_control.Kind.HOPE): Order.HOPE,
    int(_control.Kind.FINISH): Order.FINISH,
    int(_control.Kind.STOP): Order.STOP,
}

POINTS = ("before accept", "after envelope", "before GO", "after GO", "mid data", "before END")
"""Where a process may die while it has to do with a request."""


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

    def usage(self) -> None:
        return None

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
    """

    def __init__(self, world: World, pid: int, home: SimHome) -> None:
        self.world = world
        self.pid = pid
        self.owner = f"daemon{pid}"
        self.end = ""
        self.ended = 0.0
        self.buried = False
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
        self._queue_timeout = math.inf
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
        self.world.note(self.owner, f"frozen for {seconds:.3f} s")

    # --- the end

    def signal(self, name: str) -> None:
        """A signal was sent; the process may take some more steps before it arrives."""
        if not self._dying:
            self.world.note(GATEWAY, name, self.pid)
            self.world.add(f"{self.owner}/signal", self._receive(name))

    def _receive(self, name: str) -> Steps:
        for _ in range(self.world.random.randrange(3)):
            yield NOW
        if name == "SIGTERM" and self._loaded:
            self._wish(SHUTDOWN)
        elif name == "SIGUSR1" and self._loaded:
            self._wish(EVICTION)
        else:
            self.die(f"killed by {name}")

    def is_dying(self) -> bool:
        """Whether it is dead, or as good as."""
        return self._dying

    def die(self, how: str) -> None:
        """End now; the kernel tidies up."""
        if not self._dying:
            self._dying = True
            self.world.note(self.owner, how)
            for actor in self._threads:
                self.world.remove(actor)
            self.world.add(f"{self.owner}/exit", self._exit(how))

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
        load_time = (
            world.random.uniform(5, 30) if world.strikes("ready late") else world.random.uniform(0.01, 0.5)
        )
        self.dies("while loading")
        yield Wait(self._is_orphan, world.time.now + load_time)
        if self._is_orphan():
            self.die("exit status 1")
        elif world.strikes("load fails"):
            self._tell(_control.Failed("the application is broken", "Traceback: none"))
            self.die("exit status 3")
        else:
            yield from self._serve(_control.decode_settings(item[1]), load_time)

    def _is_orphan(self) -> bool:
        return self.control.end.no_more_in

    def _tell(self, message: Any) -> None:
        try:
            self.control.sendall(_control.encode(message))
        except OSError:
            pass

    def _wish(self, trigger: Trigger) -> None:
        self._tell(_control.Wish(trigger.name, "simulated"))

    def _serve(self, settings: _control.DaemonSettings, load_time: float) -> Steps:
        self._loaded = True
        self._queue_timeout = settings.queue_timeout
        self.socket_timeout = settings.socket_timeout
        board = Board(memoryview(self._home.memory), settings.rows, settings.threads)
        self._row = board.row(settings.row)
        self._row.set_pid(self.pid)
        # Ready is said before the first accept: who ends without having said it has accepted nothing.
        self._tell(_control.Ready(load_time))
        yield NOW
        for number in range(settings.threads):
            self._start_thread(str(number), self._work(number))
        if settings.beats:
            self._start_thread("monitor", self._beat())
        self._row.set_state(RowState.SERVING)
        orders = Decoder()
        while not (self._order and self._is_idle()):
            # A process that hopes looks from time to time whether it is idle.
            yield Wait(lambda: self._is_told() or (self._order is not None and self._is_idle()))
            if self._is_told():
                self._hear(orders)
            if self._order is Order.HOPE and self._is_idle():
                self._order = Order.FINISH
            if self._order not in (None, Order.HOPE) and not self._stopping:
                self._row.set_state(RowState.STOPPING)
                yield NOW
                self._stopping = True
                self.world.note(self.owner, "stopping")
        yield NOW
        self.die("exit status 0")

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
        orders = [_ORDERS[kind] for kind, _ in decoder.frames() if kind in _ORDERS]
        for order in orders if data else [Order.STOP]:
            if self._order is None or order.value > self._order.value:
                self._order = order

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
            self._set_running(+1)
            yield from self._serve_hop(hop, number)
            yield NOW
            hop.close()
            self._set_running(-1)

    def _set_running(self, change: int) -> None:
        assert self._row
        self._running += change
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
        if world.strikes("rejects"):
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
