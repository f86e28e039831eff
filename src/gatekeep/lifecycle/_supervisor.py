"""Starts a group's daemon processes, watches them from outside, starts them again, stops them.

It lives in the gateway's process, so it works when the Python of a daemon does not. Each seat of the group is kept by one task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import anyio
import attrs
import msgspec
from anyio.abc import TaskGroup, TaskStatus

from gatekeep._channel import Channel
from gatekeep._deadlines import fire_after, lateness
from gatekeep._errors import CannotStart
from gatekeep._events import Logger
from gatekeep._frames import Decoder, FrameError
from gatekeep._group import Group
from gatekeep._host import GroupHome, Host, Process
from gatekeep._processes import ProcessReport
from gatekeep._settings import GroupSettings, never_if_zero
from gatekeep._statistics import Counters
from gatekeep.lifecycle import _control, _postmortem
from gatekeep.lifecycle._control import BEAT_INTERVAL, Kind
from gatekeep.lifecycle._liveness import SUSPECT_AFTER, Action, Liveness, State as LivenessState
from gatekeep.lifecycle._postmortem import Question
from gatekeep.lifecycle._process_state import ProcessEvent, ProcessState, ProcessStateError, after
from gatekeep.lifecycle._respawn import Respawn
from gatekeep.lifecycle._slots import Board

LOG_PACKET = 1 << 18
"""Bytes that hold any packet of the log socket."""

UNREADABLE = (FrameError, ProcessStateError, msgspec.MsgspecError, ValueError, RecursionError)
"""What bytes that are no message of ours end in."""

DEADLOCK = "deadlock-timeout"

SPAWN_PAUSE = 0.5
"""Seconds before another try where the system would not start a process."""


class Daemon:
    """One daemon process, as the supervisor knows it."""

    def __init__(self, process: Process, seat: int, now: float, deadlock_timeout: float) -> None:
        self.process = process
        self.seat = seat
        self.state = ProcessState.STARTING
        self.started = now
        self.failure: _control.Failed | None = None
        self.decoder = Decoder()
        self.liveness = Liveness(deadlock_timeout)
        self.questions: list[Question] = []
        self.dumping = anyio.Lock()

    def happened(self, event: ProcessEvent) -> None:
        """Move on in the table."""
        self.state = after(self.state, event)

    def describe_state(self) -> str:
        """For people."""
        if self.state is ProcessState.SERVING:
            return "ready" if self.liveness.state is LivenessState.ALIVE else "suspect"
        return self.state.name.lower()


class Supervisor:
    """Keeps one group's processes running.

    Args:
        folders: what comes first on the daemons' module path; `module_path` is the gateway's own.
        socket_timeout: the group's (see `Settings.socket_timeout_of`), `math.inf` for never.
        debug: whether the daemons shall send events at debug.
    """

    def __init__(
        self,
        host: Host,
        settings: GroupSettings,
        group: Group,
        home: GroupHome,
        counters: Counters,
        log: Logger,
        *,
        folders: list[str],
        module_path: list[str],
        debug: bool,
        socket_timeout: float,
        graceful_timeout: float,
    ) -> None:
        self._host = host
        self._settings = settings
        self._group = group
        self._home = home
        self._counters = counters
        self._log = log
        self._folders = folders
        self._module_path = module_path
        self._debug = debug
        self._socket_timeout = socket_timeout
        self._graceful_timeout = graceful_timeout
        self._board = Board(home.board, settings.processes, settings.threads)
        self._respawn = Respawn()
        self._daemons: dict[int, Daemon] = {}
        self._stopping = False
        self._first_ready = anyio.Event()
        self._finished = anyio.Event()
        self._last_failure = _control.Failed("no process became ready", "")

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep all seats until `stop`; reports that it has started when the first process is ready.

        When it is cancelled, the processes are killed and awaited.

        Raises:
            CannotStart: three processes ended before the first one was ready.
        """
        try:
            async with anyio.create_task_group() as judge:
                if self._settings.deadlock_timeout:
                    judge.start_soon(self._judge)
                async with anyio.create_task_group() as seats:
                    for seat in range(self._settings.processes):
                        seats.start_soon(self._keep_seat, seat)
                    await self._first_ready.wait()
                    task_status.started()
                judge.cancel_scope.cancel()
        finally:
            self._board.release()
            self._finished.set()

    async def stop(self) -> None:
        """Stop all processes: each has shutdown-timeout to finish what it runs, then it is killed. `run` returns after that."""
        self._stopping = True
        for daemon in tuple(self._daemons.values()):
            self._tell_to_stop(daemon)
        with anyio.move_on_after(self._settings.shutdown_timeout):
            await self._finished.wait()
        self.kill()

    def kill(self) -> None:
        """Kill what is left of them."""
        self._stopping = True
        for daemon in self._daemons.values():
            self._log.error("process.killed", **self._describe(daemon), reason="shutdown-timeout is over")
            self._log_lost(daemon)
            daemon.process.kill()

    def _tell_to_stop(self, daemon: Daemon) -> None:
        if daemon.state is ProcessState.STARTING:
            daemon.process.terminate()  # it would hear nothing before the application is loaded
        daemon.happened(ProcessEvent.STOP)
        self._send(daemon, _control.STOP)

    def _send(self, daemon: Daemon, data: bytes) -> None:
        try:
            daemon.process.control.send(data)
        except OSError:
            pass  # it is ending by itself, or reads nothing

    # --- one seat

    async def _keep_seat(self, seat: int) -> None:
        while not self._stopping:
            try:
                process = await self._host.processes.spawn(self._home)
            except OSError as error:
                await self._spawn_failed(error)
                continue
            daemon = Daemon(
                process, seat, self._host.clock.now(), never_if_zero(self._settings.deadlock_timeout)
            )
            await self._watch(daemon)
            self._give_up_if_hopeless()

    async def _spawn_failed(self, error: OSError) -> None:
        self._log.error("process.spawn_failed", group=self._group.name, reason=str(error))
        self._last_failure = _control.Failed(f"the system would not start a process: {error}", "")
        self._respawn.ended()
        self._give_up_if_hopeless()
        await anyio.sleep(SPAWN_PAUSE)

    def _give_up_if_hopeless(self) -> None:
        if self._respawn.is_hopeless() and not self._stopping:
            self._stopping = True
            raise CannotStart(self._last_failure.reason, self._last_failure.traceback)

    async def _watch(self, daemon: Daemon) -> None:
        """See one process through its life. Kills it when cancelled."""
        process = daemon.process
        self._daemons[process.pid] = daemon
        self._counters.process_starts += 1
        self._group.process_started(process.pid)
        self._log.info("process.started", **self._describe(daemon))
        if self._stopping:
            self._tell_to_stop(daemon)  # we were told while it was being started
        try:
            async with anyio.create_task_group() as ears:
                ears.start_soon(self._listen_control, daemon)
                ears.start_soon(self._listen_log, daemon)
                end = await process.wait()
                ears.cancel_scope.cancel()
            self._read_rest(daemon)
            self._ended(daemon, end)
        finally:
            await self._bury(daemon)

    async def _bury(self, daemon: Daemon) -> None:
        process = daemon.process
        if daemon.state is not ProcessState.EXITED:
            daemon.happened(ProcessEvent.STOP)
            process.kill()
            with anyio.CancelScope(shield=True):
                self._ended(daemon, await process.wait())
        self._board.row(daemon.seat).clear()
        del self._daemons[process.pid]
        process.close()

    def _ended(self, daemon: Daemon, end: str) -> None:
        planned = daemon.state is ProcessState.STOPPING
        daemon.happened(ProcessEvent.EXIT)
        self._counters.process_ends += 1
        self._group.process_ended(daemon.process.pid)
        if not planned:
            self._log_lost(daemon)
            self._note_failure(daemon, end)
        say = self._log.info if planned or daemon.failure else self._log.error
        say(
            "process.exited",
            **self._describe(daemon),
            end=end,
            planned=planned,
            uptime=round(self._host.clock.now() - daemon.started, 3),
        )

    def _note_failure(self, daemon: Daemon, end: str) -> None:
        self._respawn.ended()
        failure = daemon.failure or _control.Failed(
            f"a process of group {self._group.name} ended before it was ready: {end}", ""
        )
        if failure != self._last_failure and daemon.failure:
            self._log.error("process.load_failed", **self._describe(daemon), **_texts(failure))
        self._last_failure = failure

    def _log_lost(self, daemon: Daemon) -> None:
        for fields in _postmortem.lost(self._board.row(daemon.seat), self._group, self._host.clock.now()):
            self._log.error("process.lost_request", **self._describe(daemon), **fields)

    def _describe(self, daemon: Daemon) -> dict[str, Any]:
        return {"group": self._group.name, "pid": daemon.process.pid, "seat": daemon.seat}

    # --- signs of life

    async def _judge(self) -> None:
        """Look after the processes that say nothing. Whatever has been said is read before any of them is judged."""
        planned = self._host.clock.now()
        async with anyio.create_task_group() as dumps:
            while True:
                now = self._host.clock.now()
                missed = lateness(planned, now)
                for daemon in tuple(self._daemons.values()):
                    self._read_control(daemon)
                    if missed:
                        daemon.liveness.late(now)  # we were stopped ourselves
                    if daemon.state is ProcessState.SERVING:
                        self._act(daemon, daemon.liveness.tick(now), dumps)
                planned = max(now, min(self._next_looks(), default=math.inf))
                planned = min(planned, now + SUSPECT_AFTER)
                await anyio.sleep(planned - now)

    def _next_looks(self) -> Iterator[float]:
        for daemon in self._daemons.values():
            if daemon.state is ProcessState.SERVING:
                yield daemon.liveness.next_look()

    def _act(self, daemon: Daemon, actions: list[Action], dumps: TaskGroup) -> None:
        group, pid = self._group, daemon.process.pid
        silent = round(self._host.clock.now() - daemon.liveness.last_beat, 3)
        for action in actions:
            match action:
                case Action.SUSPECT:
                    self._log.warning(
                        "process.suspect", **self._describe(daemon), silent=silent, reason="no sign of life"
                    )
                    # What it accepted, it had accepted before the first beat that it missed.
                    group.process_suspected(pid, daemon.liveness.last_beat + BEAT_INTERVAL)
                case Action.DUMP_STACKS:
                    dumps.start_soon(self._write_stacks, daemon, silent, dumps)
                case Action.KILL:
                    self._log.error("process.killed", **self._describe(daemon), reason=DEADLOCK)
                    daemon.process.kill()

    async def _write_stacks(self, daemon: Daemon, silent: float, dumps: TaskGroup) -> None:
        stacks = await self._dump(daemon)
        if daemon.liveness.state in (LivenessState.DUMPING, LivenessState.KILLED):
            self._counters.deadlocks += 1
            self._log.error(
                "process.deadlocked",
                **self._describe(daemon),
                timer=DEADLOCK,
                silent=silent,
                stacks=stacks,
                reason="no sign of life for deadlock-timeout" + ("" if stacks else "; it wrote no stacks"),
            )
        self._act(daemon, daemon.liveness.dumped(), dumps)

    def occupied_since(self) -> float:
        """Since when no thread of the processes that can be trusted has begun another request; `math.inf` where one is free."""
        if self._finished.is_set():
            return math.inf  # the scoreboard is gone with them
        return self._board.occupied_since(self._group.trusted())

    async def report(self) -> list[ProcessReport]:
        """What all processes do at this moment: asked of each, or found out where one does not answer."""
        reports: dict[int, ProcessReport] = {}

        async def ask(daemon: Daemon) -> None:
            reports[daemon.seat] = await self._report(daemon)

        async with anyio.create_task_group() as tasks:
            for daemon in tuple(self._daemons.values()):
                tasks.start_soon(ask, daemon)
        return [reports[seat] for seat in sorted(reports)]

    async def _report(self, daemon: Daemon) -> ProcessReport:
        now = self._host.clock.now()
        row = self._board.row(daemon.seat)
        report = ProcessReport(
            self._group.name,
            daemon.process.pid,
            daemon.seat,
            daemon.describe_state(),
            now - daemon.started,
            _postmortem.threads_of_row(row, self._group, now),
        )
        answer = await self._ask(daemon) if daemon.state is not ProcessState.STARTING else None
        if answer is not None:
            return attrs.evolve(report, threads=_postmortem.threads_of_answer(answer))
        dump = await self._dump(daemon)
        note = "it did not answer; this is what it wrote at a signal" if dump else "it did not answer"
        return attrs.evolve(report, dump=dump, note=note)

    async def _dump(self, daemon: Daemon) -> str:
        async with daemon.dumping:  # there is one file for it
            return await _postmortem.dump(daemon.process)

    async def _ask(self, daemon: Daemon) -> _control.Stacks | None:
        question = Question(lambda: self._send(daemon, _control.ASK))
        daemon.questions.append(question)
        try:
            return await question.wait()
        finally:
            daemon.questions.remove(question)

    # --- what a process says

    async def _listen_control(self, daemon: Daemon) -> None:
        channel = Channel(self._host.net, daemon.process.control)
        try:
            await channel.send(_control.encode(self._daemon_settings(daemon)))
            while data := await channel.receive():
                self._heard(daemon, data)
        except OSError:
            pass  # its end comes from the system
        finally:
            channel.forget()

    def _heard(self, daemon: Daemon, data: bytes) -> None:
        daemon.decoder.feed(data)
        try:
            for kind, payload in daemon.decoder.frames():
                if kind == Kind.READY:
                    self._ready(daemon, _control.decode_ready(payload))
                elif kind == Kind.FAILED:
                    daemon.failure = _control.decode_failed(payload)
                elif kind == Kind.BEAT:
                    self._beat(daemon)
                elif kind == Kind.STACKS:
                    answer = _control.decode_stacks(payload)
                    for question in daemon.questions:
                        question.answered(answer)
        except UNREADABLE as error:
            self._misspoke(daemon, error)

    def _beat(self, daemon: Daemon) -> None:
        if daemon.liveness.beat(self._host.clock.now()):
            self._log.info("process.alive", **self._describe(daemon))
            self._group.process_trusted(daemon.process.pid)

    def _misspoke(self, daemon: Daemon, error: Exception) -> None:
        """What a process said makes no sense (its application may have written to our descriptors): it alone pays for it."""
        self._log.error("process.misspoke", **self._describe(daemon), reason=str(error))
        daemon.process.kill()

    def _ready(self, daemon: Daemon, ready: _control.Ready) -> None:
        daemon.happened(ProcessEvent.READY)
        self._respawn.ready()
        daemon.liveness.ready(self._host.clock.now())
        self._group.process_ready(daemon.process.pid)
        self._first_ready.set()
        self._log.info("process.ready", **self._describe(daemon), load_time=round(ready.load_time, 3))

    async def _listen_log(self, daemon: Daemon) -> None:
        channel = Channel(self._host.net, daemon.process.log)
        try:
            while packet := await channel.receive(LOG_PACKET):
                self._relay_log(daemon, packet)
        except OSError:
            pass
        finally:
            channel.forget()

    def _read_rest(self, daemon: Daemon) -> None:
        """What it said last, and that we had not come to read."""
        for packet in _queued(daemon.process.log):
            self._relay_log(daemon, packet)
        self._read_control(daemon)

    def _read_control(self, daemon: Daemon) -> None:
        for data in _queued(daemon.process.control):
            self._heard(daemon, data)

    def _relay_log(self, daemon: Daemon, packet: bytes) -> None:
        try:
            record = _control.decode_log(packet)
        except UNREADABLE as error:
            self._misspoke(daemon, error)
            return
        if record.dropped:
            self._counters.dropped_log_records += record.dropped
            self._log.warning("log.dropped", **self._describe(daemon), count=record.dropped)
        say = getattr(self._log, record.level)
        say(record.event, pid=daemon.process.pid, **record.fields)

    def _daemon_settings(self, daemon: Daemon) -> _control.DaemonSettings:
        settings = self._settings
        return _control.DaemonSettings(
            group=settings.name,
            row=daemon.seat,
            rows=settings.processes,
            processes=settings.processes,
            threads=settings.threads,
            module=settings.app.module,
            path=settings.app.path,
            attribute=settings.app.attribute,
            factory=settings.app.factory,
            folders=self._folders,
            module_path=self._module_path,
            shutdown_timeout=settings.shutdown_timeout,
            queue_timeout=never_if_zero(settings.queue_timeout),
            socket_timeout=self._socket_timeout,
            fire=fire_after(settings.request_timeout, settings.threads),
            interrupt_timeout=settings.interrupt_timeout,
            interrupt_sockets=settings.interrupt_sockets,
            cancel_on_disconnect=settings.cancel_on_disconnect,
            beats=settings.deadlock_timeout > 0,
            graceful_timeout=self._graceful_timeout,
            debug=self._debug,
        )


def _queued(socket: Any) -> list[bytes]:
    """What can still be read without waiting."""
    found = []
    try:
        while data := socket.recv(LOG_PACKET):
            found.append(data)
    except OSError:
        pass
    return found


def _texts(failure: _control.Failed) -> Mapping[str, str]:
    return {"reason": failure.reason} | ({"traceback": failure.traceback} if failure.traceback else {})
