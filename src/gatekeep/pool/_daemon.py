"""A daemon process from start to end: settings, the load of the application, the worker threads, the stop.

The main thread loads the application (applications call `signal.signal`, which only works there) and then waits for the
gateway's word in plain `poll()`. Its end is `os._exit` after `atexit`'s functions and a flush, so that a thread that the
application left running delays nobody.
"""

from __future__ import annotations

import atexit
import faulthandler
import math
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from typing import NoReturn

from gatekeep._deadlines import is_stale
from gatekeep._host import DUMP_SIGNAL
from gatekeep.lifecycle import _triggers
from gatekeep.lifecycle._control import DaemonSettings, Failed, Ready, Stacks, Wish
from gatekeep.lifecycle._drain import Order
from gatekeep.lifecycle._slots import Board, RowState, board_size
from gatekeep.lifecycle._triggers import Trigger
from gatekeep.pool._announce import Farewell
from gatekeep.pool._applications import Applications
from gatekeep.pool._control import Control, Guard
from gatekeep.pool._fork import became_child, take_signals
from gatekeep.pool._listener import Listener
from gatekeep.pool._loader import LoadError, import_scripts
from gatekeep.pool._log import LogSocket, OutputStream, capture_output
from gatekeep.pool._memory import Memory
from gatekeep.pool._monitor import Monitor
from gatekeep.pool._region import Region
from gatekeep.pool._script import module_folders
from gatekeep.pool._service import Service, threads_of
from gatekeep.pool._setup import set_up, show_as, stacks_of
from gatekeep.pool._threads import Crew, Worker
from gatekeep.pool._wsgi import base_environ
from gatekeep.settings._app import AppTarget

DRAIN_LOOK = 0.05
"""Seconds between looks whether a process that is to end has become idle."""

ANSWER_TIME = 1.0
"""Seconds in which the monitor has told the front of a request that has become stale: each of them gets its own 504."""

LOAD_FAILED_STATUS = 3
"""Exit status of a daemon whose application could not be loaded: the reason went over the control socket."""


def run(control_fd: int, log_fd: int, listener_fd: int, board_fd: int, dump_fd: int) -> NoReturn:
    """Run the daemon process to its end."""
    _offer_itself_first()
    _dump_when_asked(dump_fd)
    control = Control(socket.socket(fileno=control_fd))
    settings = control.receive_settings()
    show_as(settings.display_name)
    guard = Guard(control.socket, settings.shutdown_timeout)
    log = LogSocket(socket.socket(fileno=log_fd), debug=settings.debug)
    output = capture_output(log)
    # From here on the application's code may fork.
    os.register_at_fork(after_in_child=lambda: _close_in_child(control, log, output))
    _set_module_path(settings)
    sys.argv[:] = ["gatekeep"]  # the application's code may look; our descriptors are none of its business
    board = _map_board(settings, board_fd)  # before the application may have taken all address space there is
    applications = _load(settings, control)
    _install_signals(control)
    try:
        daemon = Daemon(settings, applications, Listener(listener_fd), board, log, output)
        os.register_at_fork(after_in_child=daemon.close_in_child)
        daemon.start_threads()
    except (MemoryError, OSError, RuntimeError) as error:
        control.send(Failed(_no_room(settings, error), ""))
        end(LOAD_FAILED_STATUS)
    guard.loaded()
    daemon.serve(control)
    end(0)


def _no_room(settings: DaemonSettings, error: Exception) -> str:
    limit = settings.virtual_memory_limit
    why = f"virtual-memory-limit = {limit}: " if limit else ""
    return (
        f"{why}the system has no room for {settings.threads} worker threads: {error or type(error).__name__}"
    )


def end(status: int) -> NoReturn:
    """End the process: `atexit` functions, flushed streams, and no waiting for any thread."""
    try:
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            if isinstance(stream, OutputStream):
                stream.lines.finish_line()
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


def _offer_itself_first() -> None:
    """When memory runs out the kernel shall end a daemon, which is replaced, and not the gateway."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = int(file.read())
            file.seek(0)
            file.write(str(min(1000, score + 100)))
    except (OSError, ValueError):
        pass  # not this system's way


def _dump_when_asked(fd: int) -> None:
    """Write all stacks into the gateway's file at its signal. That needs no GIL, so it works in a process that is wedged."""
    os.set_inheritable(fd, False)
    faulthandler.register(DUMP_SIGNAL, file=fd, all_threads=True)


def _set_module_path(settings: DaemonSettings) -> None:
    """The application's folders, then the gateway's own module path; what this interpreter added itself stays behind them."""
    sys.path[:] = dict.fromkeys([*settings.folders, *settings.module_path, *sys.path])


def _load(settings: DaemonSettings, control: Control) -> Applications:
    began = time.monotonic()
    try:
        set_up(settings)
        import_scripts(settings.import_scripts)
        targets = {
            app.name: AppTarget(app.module, app.path, app.attribute, app.factory) for app in settings.apps
        }
        applications = Applications(targets, settings.script_reloading)
    except LoadError as error:
        control.send(Failed(str(error), error.traceback))
        end(LOAD_FAILED_STATUS)
    control.load_time = time.monotonic() - began
    return applications


def _map_board(settings: DaemonSettings, fd: int) -> Board:
    size = board_size(settings.rows, settings.threads)
    memory = memoryview(mmap.mmap(fd, size))
    os.close(fd)
    return Board(memory, settings.rows, settings.threads)


def _install_signals(control: Control) -> None:
    """After the application's own: the gateway's word is what counts here.

    TERM and INT shut down, USR1 evicts; the gateway is asked, which may be stopping itself. HUP is ignored, since people send
    it to every process that they find by name. What was blocked since the start is let through now.
    """
    take_signals((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), control.signalled)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP})


def _close_in_child(control: Control, log: LogSocket, output: tuple[OutputStream, OutputStream]) -> None:
    """A child that the application forked must not hold our connections open: their ends would tell nobody anything.

    It may log and print, though another thread of the parent may have been in the middle of that.
    """
    became_child()
    os.close(control.socket.detach())
    log.reset_in_child()
    for stream in output:
        stream.lines.reset_in_child()


class Daemon:
    """The worker threads and what they share."""

    def __init__(
        self,
        settings: DaemonSettings,
        applications: Applications,
        listener: Listener,
        board: Board,
        log: LogSocket,
        output: tuple[OutputStream, OutputStream],
    ) -> None:
        self._applications = applications
        self._folders = module_folders() if settings.tells_folders else []
        self._rejects = settings.script_reloading == "strict"
        self._listener = listener
        self._log = log
        self._stack_size = settings.stack_size
        self._shutdown_timeout = settings.shutdown_timeout
        self._row = board.row(settings.row)
        base = base_environ(
            threads=settings.threads, processes=settings.processes, group=settings.group, errors=output[1]
        )
        self._service = Service(
            applications, base, self._row, log,
            queue_timeout=settings.queue_timeout, socket_timeout=settings.socket_timeout, memory=Memory(),
            finish_lines=[stream.lines.finish_line for stream in output], rejects=self._is_outdated,
        )  # fmt: skip
        self._crew = Crew(listener, settings.threads, self._serve, self._row)
        self._maximum_requests = settings.maximum_requests
        self._inactivity_timeout = settings.inactivity_timeout
        self._fire, self._interrupt_timeout = settings.fire, settings.interrupt_timeout
        self._control: Control | None = None
        self._wishes: set[Trigger] = set()
        self._order: Order | None = None
        self._must_end = math.inf
        self._farewell = Farewell(log)
        self._monitor = Monitor(
            [worker.region for worker in self._crew.workers],
            log,
            fire=settings.fire,
            interrupt_timeout=settings.interrupt_timeout,
            reach_sockets=settings.interrupt_sockets,
            cancel_on_disconnect=settings.cancel_on_disconnect,
            ours=self._descriptors,
            drain=lambda reason: self._wish(_triggers.REQUEST_TIMEOUT, reason),
            beat=self._beat if settings.beats else None,
        )
        self._is_watched = settings.beats or settings.fire < math.inf or settings.cancel_on_disconnect

    def start_threads(self) -> None:
        """Start the worker threads; they wait until `serve`.

        Raises:
            MemoryError, RuntimeError: the system has no room for them.
        """
        with stacks_of(self._stack_size):
            self._crew.start()

    def serve(self, control: Control) -> None:
        """Serve until the gateway orders the end (see `_drain.Order`), and nothing runs any more or shutdown-timeout is over."""
        self._row.set_pid(os.getpid())
        # Before the first accept: only of a process that was ready is it believed that it had connections in hand.
        control.send(Ready(control.load_time, self._folders))
        self._control = control
        control.stacks = self._stacks
        self._crew.open()
        if self._is_watched:
            self._monitor.start()
        self._row.set_state(RowState.SERVING)
        while not self._is_over():
            for item in control.wait(self._pause()):
                if isinstance(item, Order):
                    self._obey(item)
                else:
                    self._signalled(item)
        if self._is_watched:
            self._monitor.look(time.monotonic())

    def _pause(self) -> float | None:
        """Seconds until something may be due; None where only news can change anything."""
        if self._order is not None:
            return DRAIN_LOOK
        now = time.monotonic()
        due = min(self._crew.quiet_since(), now) + self._inactivity_timeout
        return None if due == math.inf else max(due - now, DRAIN_LOOK)

    def _is_over(self) -> bool:
        now = time.monotonic()
        if self._order is None:
            if now >= self._crew.quiet_since() + self._inactivity_timeout:
                self._wish(_triggers.INACTIVITY, f"nothing to do for {self._inactivity_timeout:g} s")
            return False
        if self._order is Order.HOPE and self._is_idle():
            self._obey(Order.FINISH)  # what came in this very moment is finished too
        if self._order is Order.STOP and now >= self._must_end:
            self._log.error("process.shutdown_timeout", timeout=self._shutdown_timeout)
            return True
        return self._order is not Order.HOPE and self._is_idle() and self._farewell.is_over()

    def _obey(self, order: Order) -> None:
        """An order, or what must be done without one: HOPE, FINISH and STOP follow each other, and never go back."""
        if self._order in (order, Order.STOP) or (self._order is Order.FINISH and order is Order.HOPE):
            return
        self._order = order
        if order is Order.STOP:
            self._must_end = time.monotonic() + self._shutdown_timeout
        if order is not Order.HOPE:
            self._stop_accepting()
            assert self._control is not None
            self._farewell.begin(self._control.why)

    def _stop_accepting(self) -> None:
        self._row.set_state(RowState.STOPPING)
        self._crew.stop()

    def _signalled(self, number: int) -> None:
        """Somebody wants this process to end: the gateway knows whether all of it stops, and replaces it otherwise."""
        name = signal.Signals(number).name
        trigger = _triggers.EVICTION if number == signal.SIGUSR1 else _triggers.SHUTDOWN
        self._wish(trigger, f"{name} at the process")

    def _wish(self, trigger: Trigger, reason: str) -> None:
        """Ask the gateway for the end of this process, once for each reason. Any thread may call this."""
        if trigger not in self._wishes and self._control is not None:
            self._wishes.add(trigger)
            self._control.send(Wish(trigger.name, reason))

    def _beat(self) -> None:
        if self._control is not None:
            self._control.beat()

    def _stacks(self) -> Stacks:
        return Stacks(threads_of(self._crew.workers))

    def _is_idle(self) -> bool:
        """Whether nothing runs that will end: a stale request is not waited for, once its client has its answer."""
        now = time.monotonic() - ANSWER_TIME
        return all(
            worker.hop is None or worker.region.given_up or self._is_stale(worker.region, now)
            for worker in self._crew.workers
        )

    def _is_stale(self, region: Region, now: float) -> bool:
        return region.request != 0 and is_stale(region.elapsed(now), self._fire, self._interrupt_timeout)

    def _descriptors(self) -> list[int]:
        """What is ours and must not be shut, whatever a thread of the application waits for."""
        ours = [worker.hop.fileno() for worker in self._crew.workers if worker.hop is not None]
        if self._control is not None:
            ours.append(self._control.socket.fileno())
        return [*ours, self._listener.socket.fileno(), self._log.fileno()]

    def _serve(self, hop: socket.SocketType, worker: Worker) -> None:
        has_run = self._service.serve(hop, worker)
        if has_run and self._maximum_requests and self._crew.served >= self._maximum_requests:
            self._wish(_triggers.MAXIMUM_REQUESTS, f"it has had {self._maximum_requests} requests")

    def _is_outdated(self) -> bool:
        """Look whether the script has changed, and say so. Whether this process must not run a request any more."""
        if not self._applications.have_changed():
            return False
        trigger = _triggers.SCRIPT_REJECTED if self._rejects else _triggers.SCRIPT_CHANGED
        self._wish(trigger, "its script has changed")
        if self._rejects:
            self._stop_accepting()
        return self._rejects

    def close_in_child(self) -> None:
        """Close what belongs to the parent, in a child that the application forked."""
        self._listener.close_in_child()
        self._crew.close_in_child()
