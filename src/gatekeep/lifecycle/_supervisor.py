"""Starts a group's daemon processes, replaces them, stops them. It lives outside of them, so it works when their Python does not.

Each seat of the group is kept by one task. A process that is to be replaced keeps its seat until its successor is ready: then it
accepts no more and finishes what it runs (see `_drain`), while the successor serves already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from gatekeep._errors import CannotStart
from gatekeep._events import Logger
from gatekeep._group import Group
from gatekeep._host import GroupHome, Host
from gatekeep._statistics import Counters
from gatekeep.lifecycle import _control, _postmortem
from gatekeep.lifecycle._child import Child
from gatekeep.lifecycle._drain import Life, Order, timers_of
from gatekeep.lifecycle._heartbeat import Heartbeat
from gatekeep.lifecycle._liveness import Liveness
from gatekeep.lifecycle._process_state import ProcessState
from gatekeep.lifecycle._recycle import Recycle, draw_limits, draw_maximum
from gatekeep.lifecycle._reports import Reports
from gatekeep.lifecycle._sleep import Sleep
from gatekeep.lifecycle._slots import Board, FreeRows, most_processes, rows_for
from gatekeep.lifecycle._starts import Starts
from gatekeep.lifecycle._triggers import (
    EVICTION,
    FEWER,
    RELOAD,
    REQUEST_TIMEOUT,
    SCRIPT,
    SCRIPT_REJECTED,
    SHUTDOWN,
    TRIGGERS,
    Trigger,
)
from gatekeep.lifecycle._turns import Turns
from gatekeep.settings._app import AppTarget
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._spec import never_if_zero

SPAWN_PAUSE = 0.5
"""Seconds before another try where the system would not start a process."""

ECHO = 0.5
"""Seconds within which a signal at a process may be part of the gateway's own stop: systemd sends SIGTERM to all of them."""

REPLACEABLE = frozenset({ProcessState.STARTING, ProcessState.SERVING, ProcessState.DRAINING})
"""The states in which a process has not made room for a successor yet."""


class Supervisor:
    """Keeps one group's processes running.

    Args:
        apps: the group's applications, its own first.
        folders: what comes first on the daemons' module path; `module_path` is the gateway's own.
        debug: whether the daemons shall send events at debug.
        develops: whether a developer watches: failed starts are shown and waited out, and new code need not wait for old one.
        gives_up: whether the gateway has no sense without this group; else it is started again and again while others serve.
        starts_whole: whether it has started only when each seat's first process is ready, or has failed: another gateway serves
            until then with all of its own.

    Attributes:
        on_folders: called with the folders that modules were loaded from, where a developer watches.
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
        apps: list[AppTarget],
        folders: list[str],
        module_path: list[str],
        debug: bool,
        develops: bool = False,
        gives_up: bool = True,
        starts_whole: bool = False,
    ) -> None:
        self._starts_whole = starts_whole
        self.on_folders: Callable[[list[str]], None] = lambda folders: None
        self._host = host
        self._settings = settings
        self._group = group
        self._home = home
        self._counters = counters
        self._log = log
        self._settings_for = partial(
            _control.settings_for, settings,
            apps=apps, folders=folders, module_path=module_path, tells_folders=develops, debug=debug,
        )  # fmt: skip
        self._timers = timers_of(settings)
        self._board = Board(home.board, rows_for(settings.processes), settings.threads)
        self._children: dict[int, Child] = {}
        self._heartbeat = Heartbeat(
            host.clock, group, self, self._children.values, counters, log,
            judges=settings.deadlock_timeout > 0,
        )  # fmt: skip
        self._starts = Starts(
            settings.processes, FreeRows(self._board), group, host.clock, self._chance, log,
            develops=develops, gives_up=gives_up,
        )  # fmt: skip
        self._turns: Turns[Child] = Turns()
        self._sleep = Sleep(group, host.clock, self._is_starting)
        self.reports = Reports(group, self._board, self._children.values, self._heartbeat, host.clock)
        self._seats = settings.processes
        self._kept: set[int] = set()
        self._last: Child | None = None  # its seat is gone, and it stays until another one is ready
        self._generation = 0
        self._expects_stop = False
        self._stopped = anyio.Event()
        self._finished = anyio.Event()
        self._tasks: TaskGroup

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep all seats until `stop`; reports that it has started when the first process is ready.

        When it is cancelled, the processes are killed and awaited.

        Raises:
            CannotStart: each of them failed to start three times before the first one was ready.
        """
        try:
            async with anyio.create_task_group() as carer:
                carer.start_soon(self._heartbeat.run)
                async with anyio.create_task_group() as self._tasks:
                    self._keep_seats()
                    await self._starts.wait_started(whole=self._starts_whole)
                    task_status.started()
                carer.cancel_scope.cancel()
        finally:
            self._board.release()
            self._finished.set()

    def expect_stop(self) -> None:
        """The gateway stops, and its clients have some time yet: nothing is replaced any more that serves them well.

        A signal that reaches a process from now on is part of that stop (systemd's default sends it to all of them).
        """
        self._expects_stop = True

    async def stop(self) -> None:
        """Stop all processes: each has shutdown-timeout to finish what it runs, then it is killed. `run` returns after that."""
        self._begin_stop()
        for child in tuple(self._children.values()):
            child.why = _control.GATEWAY_STOPS
            self.obey(child, child.life.stop(self._host.clock.now()))
        with anyio.move_on_after(self._settings.shutdown_timeout):
            await self._finished.wait()
        self.kill()

    def kill(self) -> None:
        """Kill what is left of them."""
        self._begin_stop()
        for child in self._children.values():
            self.obey(child, [Order.KILL])

    def _begin_stop(self) -> None:
        self._stopped.set()
        self._starts.look_again()
        self._sleep.end()

    @property
    def _stopping(self) -> bool:
        return self._stopped.is_set()

    def resize(self, processes: int) -> int:
        """Have so many processes from now on, or as near as can be: at least one, at most what the scoreboard has room for.

        Those that are too many accept no more and finish what they run within graceful-timeout. Returns how many there will be.
        """
        most = most_processes(self._settings.processes)
        seats = max(1, min(processes, most))
        if self._stopping or self._expects_stop:
            return self._seats
        if seats == self._seats:
            if seats != processes:
                why = f"it may have from 1 to {most} processes and has {seats}"
                self._log.warning("group.not_resized", group=self._group.name, reason=why)
            return seats
        self._log.info("group.resized", group=self._group.name, processes=seats, before=self._seats)
        self._seats = seats
        self._group.resize(seats)
        self._sleep.dismiss(seats)
        for child in tuple(self._children.values()):
            if child.seat >= seats:
                self.drain(child, FEWER, "its group shall have fewer processes")
        self._rouse_if_needed()
        self._starts.resize(seats)
        if self._kept:  # else `run` has not begun, and fills them all
            self._keep_seats()
        return seats

    # --- one seat

    def _wants(self, seat: int) -> bool:
        return seat < self._seats and not self._stopping

    def _keep_seats(self) -> None:
        """Each seat has one task that keeps it; one that was given up a moment ago may have its task still."""
        for seat in sorted({*range(self._seats)} - self._kept):
            self._kept.add(seat)
            self._tasks.start_soon(self._keep_seat, seat)

    async def _keep_seat(self, seat: int) -> None:
        incumbent: Child | None = None
        while self._wants(seat):
            child = await self._start(seat)
            if child is not None:
                self._tasks.start_soon(self._live, child)
                await child.settled.wait()
            self._starts.tried(seat)
            if child is None or not child.life.stays:
                continue  # an incumbent that lives serves on meanwhile
            if incumbent is not None:
                self._succeed(incumbent)
            incumbent = child
            await child.vacates.wait()
        self._kept.discard(seat)
        self._starts.tried(seat)
        if incumbent is not None and not self._stopping:
            self._leave(incumbent)
        self._rouse_if_needed()

    def _leave(self, incumbent: Child) -> None:
        """Its seat is gone: so does it, unless nobody else takes requests yet."""
        if self._is_needed(incumbent):
            self._last = incumbent
        else:
            self._succeed(incumbent)

    def _rouse_if_needed(self) -> None:
        """The process that a request, or one that would leave, has waited for may have been one that is too many."""
        if self._last is not None or (self._group.standing and not self._group.is_ready()):
            self._sleep.rouse()

    def _is_needed(self, child: Child) -> bool:
        return not any(other.life.stays for other in self._children.values() if other is not child)

    async def _start(self, seat: int) -> Child | None:
        """Start a process when it is time for it. None where the system would not, or nobody wants it any more."""
        row = await self._starts.wait_for_row(lambda: self._wants(seat))
        if row is None:
            self._sleep.started()
            return None
        try:
            process = await self._host.processes.spawn(self._home, self._settings.process_options)
        except OSError as error:
            self._sleep.started()
            self._starts.give_back(row)
            await self._spawn_failed(seat, error)
            return None
        now = self._host.clock.now()
        liveness = Liveness(never_if_zero(self._settings.deadlock_timeout))
        child = Child(process, seat, row, Life(self._timers, now), liveness, now)
        child.generation = self._generation
        self._children[process.pid] = child
        self._sleep.started()
        self._counters.process_starts += 1
        self._group.process_started(process.pid)
        self._log.info("process.started", **self.describe(child))
        if not self._wants(seat):
            self.obey(child, child.life.stop(now))  # we were told while it was being started
        self._heartbeat.look_again()
        return child

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._stopped.wait()

    async def _spawn_failed(self, seat: int, error: OSError) -> None:
        self._log.error("process.spawn_failed", group=self._group.name, reason=str(error))
        failure = _control.Failed(f"the system would not start a process: {error}", "")
        self._starts.failed(seat, failure, self._generation)
        self._give_up_if_hopeless()
        self._say_if_failing()
        await self._pause(SPAWN_PAUSE)

    def _give_up_if_hopeless(self) -> None:
        if self._starts.is_hopeless() and not self._stopping:
            self._begin_stop()
            raise self.start_failure()

    def _succeed(self, incumbent: Child) -> None:
        if not incumbent.life.is_over:
            self.obey(incumbent, incumbent.life.succeed(self._host.clock.now()))
            self._heartbeat.look_again()

    def _is_starting(self) -> bool:
        return any(child.life.state is ProcessState.STARTING for child in self._children.values())

    # --- one process

    async def _live(self, child: Child) -> None:
        """See one process through its life. Kills it when cancelled."""
        settings = self._settings_for(
            row=child.row.index, maximum_requests=draw_maximum(self._settings, self._chance())
        )
        try:
            async with anyio.create_task_group() as ears:
                ears.start_soon(child.listen, self._host.net, self, settings)
                end = await child.process.wait()
                ears.cancel_scope.cancel()
            child.read_rest(self)
            self._ended(child, end)
        finally:
            await self._bury(child)

    async def _bury(self, child: Child) -> None:
        if not child.life.is_over:
            child.life.stop(self._host.clock.now())
            child.process.kill()
            with anyio.CancelScope(shield=True):
                self._ended(child, await child.process.wait())
        del self._children[child.pid]
        self._starts.give_back(child.row)
        child.process.close()
        child.settled.set()
        if not self._sleep.holds(child):
            child.vacates.set()
        self._turn_to(self._turns.done(child))

    def _ended(self, child: Child, end: str) -> None:
        state, now = child.life.state, self._host.clock.now()
        is_planned = state is ProcessState.STOPPING or (
            child.life.trigger is not None and end == "exit status 0"
        )
        child.life.exited()
        self._counters.process_ends += 1
        self._group.process_ended(child.pid, in_order=is_planned and end == "exit status 0")
        for fields in _postmortem.lost(child.row, self._group, now):
            self._log.error("process.lost_request", **self.describe(child), **fields)
        say = self._log.info if is_planned or child.failure else self._log.error
        say(
            "process.exited",
            **self.describe(child),
            end=end,
            planned=is_planned,
            trigger=child.life.trigger.name if child.life.trigger else "",
            uptime=round(now - child.started, 3),
        )
        try:
            if not is_planned and child.ready_at is not None:
                self._starts.died(now - child.ready_at)
            elif not is_planned:
                self._note_failure(child, end)
        finally:
            self._say_if_failing()

    def _note_failure(self, child: Child, end: str) -> None:
        failure = child.failure or _control.Failed(
            f"a process of group {self._group.name} ended before it was ready: {end}", ""
        )
        is_news = self._starts.failed(child.seat, failure, child.generation)
        if is_news and child.failure:
            self._log.error("process.load_failed", **self.describe(child), **_texts(failure))
        self._give_up_if_hopeless()

    def _say_if_failing(self) -> None:
        if not self._stopping:
            self._starts.failures.say()

    def describe(self, child: Child) -> dict[str, Any]:
        """Its fields in the log."""
        return {"group": self._group.name, "pid": child.pid, "seat": child.seat}

    # --- drains

    def drain(self, child: Child, trigger: Trigger, reason: str) -> None:
        """Something asks for the end of a process."""
        if self._stopping or child.life.is_over:
            return
        if self._expects_stop and trigger not in (REQUEST_TIMEOUT, SCRIPT_REJECTED):
            return  # it can serve until then
        was_serving, before = child.is_serving, child.life.trigger
        orders = child.life.drain(trigger, self._host.clock.now(), is_needed=self._is_needed(child))
        if orders or child.life.trigger is not before:
            child.why = _control.Why(trigger.name, reason)
            self._log.info(
                "drain.started",
                **self.describe(child),
                trigger=trigger.name,
                reason=reason,
                planned=trigger.planned,
                window=self._timers.window(trigger),
            )
        self.obey(child, orders)
        if not child.life.gets_successor:
            if was_serving:
                asleep = self._sleep.lie_down(child, self._tasks)
                self._log.info("group.sleeping", group=self._group.name, asleep=asleep)
        elif trigger.planned and not child.vacates.is_set():
            self._turn_to(self._turns.ask(child))
        else:
            child.vacates.set()
        self._heartbeat.look_again()

    def _turn_to(self, child: Child | None) -> None:
        if child is not None:
            child.vacates.set()

    def obey(self, child: Child, orders: list[Order]) -> None:
        """Do what its life asks for."""
        for order in orders:
            if order is Order.KILL:
                self._log.error("process.killed", **self.describe(child), reason="shutdown-timeout is over")
                child.process.kill()
                continue
            if order is not Order.HOPE:
                self._accepts_no_more(child)
            child.order(order)
        if orders:
            self._heartbeat.look_again()

    def _accepts_no_more(self, child: Child) -> None:
        was_ready = self._group.is_ready()
        self._group.process_finishing(child.pid)
        if was_ready:
            self._say_if_failing()

    def reload(self) -> int:
        """Replace all processes, one after the other. Returns how many.

        Whoever asks for it has usually mended what made starts fail: no pause is waited out, and `failure` tells of news only.
        """
        self._starts.forgive()
        return self._replace_all(RELOAD, "a reload was asked for")

    def files_changed(self, paths: list[str]) -> None:
        """A developer has saved something: what is asked for from now on, the new code must answer."""
        self._log.info("group.files_changed", group=self._group.name, paths=paths[:10])
        self._starts.forgive()
        for child in self._children.values():
            if child.ready_at is None:
                self.obey(child, child.life.stop(self._host.clock.now()))
        self._replace_all(SCRIPT_REJECTED, "files have changed: " + ", ".join(paths[:3]))

    def _replace_all(self, trigger: Trigger, reason: str, first: Child | None = None) -> int:
        self._generation += 1
        outdated = [child for child in self._children.values() if child.life.state in REPLACEABLE]
        for child in sorted(outdated, key=lambda child: child is not first):
            if child.is_serving:
                self.drain(child, trigger, reason)
        # Those that start follow when they are ready, and who drains already is on its way; a seat may have one of each.
        return len({child.seat for child in outdated})

    def evict(self, pid: int) -> bool:
        """Replace one process now. False where there is none of that pid, or it is going already."""
        child = self._children.get(pid)
        if child is None or child.life.state in (ProcessState.FINISHING, ProcessState.STOPPING):
            return False
        self.drain(child, EVICTION, "a drain was asked for")
        return True

    # --- what a process says (see `_child.Ears`)

    def said_ready(self, child: Child, ready: _control.Ready) -> None:
        """It takes requests."""
        now = self._host.clock.now()
        child.life.ready()
        child.ready_at = now
        child.liveness.ready(now)
        child.recycle = Recycle(draw_limits(self._settings, self._chance()), now)
        self._starts.ready()
        self._sleep.ready()
        if child.is_serving:
            self._group.process_ready(child.pid)
        if (last := self._last) is not None:
            self._last = None
            self._leave(last)
        child.settled.set()
        self.on_folders(ready.folders)
        self._log.info("process.ready", **self.describe(child), load_time=round(ready.load_time, 3))
        if ready.load_time > self._timers.startup / 3:
            self._log.warning(
                "process.slow_start",
                **self.describe(child),
                load_time=round(ready.load_time, 3),
                timer="startup-timeout",
                reason="a start on a busy machine may take longer than startup-timeout allows",
            )
        if child.generation < self._generation:
            self.drain(child, RELOAD, "a reload was asked for while it started")
        self._heartbeat.look_again()

    def said_wish(self, child: Child, wish: _control.Wish) -> None:
        """It wants to be replaced, or to end."""
        trigger = TRIGGERS[wish.trigger]
        if trigger is SHUTDOWN:
            self._tasks.start_soon(self._after_echo, child, wish.reason)
        elif trigger in SCRIPT and child.generation == self._generation:
            # What one of them has noticed concerns all that were started before.
            self._replace_all(trigger, wish.reason, first=child)
        else:
            self.drain(child, trigger, wish.reason)

    async def _after_echo(self, child: Child, reason: str) -> None:
        await self._pause(ECHO)
        self.drain(child, SHUTDOWN, reason)

    def said_log(self, child: Child, record: _control.LogRecord) -> None:
        """It logs."""
        if record.dropped:
            self._counters.dropped_log_records += record.dropped
            self._log.warning("log.dropped", **self.describe(child), count=record.dropped)
        say = getattr(self._log, record.level)
        say(record.event, pid=child.pid, **record.fields)

    def beat(self, child: Child) -> None:
        """It gave a sign of life."""
        self._heartbeat.beat(child)

    def misspoke(self, child: Child, error: Exception) -> None:
        """What it said makes no sense (its application may have written to our descriptors): it alone pays for it."""
        self._log.error("process.misspoke", **self.describe(child), reason=str(error))
        child.process.kill()

    # --- asked by people

    def start_failure(self) -> CannotStart:
        """Why no process ever became ready."""
        return self._starts.failures.error()

    def failure(self) -> str:
        """Why the last start failed; empty where it did not, or a reload was asked for after it began."""
        return self._starts.failures.reason(self._generation)

    def next_start(self) -> float:
        """In how many seconds the next process is started, where the last start failed; else 0.0."""
        return self._starts.failures.next_start(self._generation)

    # --- numbers

    def _chance(self) -> float:
        return self._host.chance.bits(32) / (1 << 32)


def _texts(failure: _control.Failed) -> Mapping[str, str]:
    return {"reason": failure.reason} | ({"traceback": failure.traceback} if failure.traceback else {})
