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
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from gatekeep._deadlines import is_stale
from gatekeep._events import request_name
from gatekeep._frames import Decoder
from gatekeep._host import DUMP_SIGNAL
from gatekeep._settings import AppTarget
from gatekeep.lifecycle import _control
from gatekeep.lifecycle._control import DaemonSettings, Failed, Kind, Ready, Stacks, Thread
from gatekeep.lifecycle._slots import Board, RowState, board_size
from gatekeep.pool._disconnected import Disconnected
from gatekeep.pool._fork import became_child, end_if_child
from gatekeep.pool._input import body_stream
from gatekeep.pool._listener import Listener
from gatekeep.pool._loader import Application, LoadError, import_scripts, load
from gatekeep.pool._log import LogSocket, OutputStream, capture_output, current_request, format_error
from gatekeep.pool._monitor import Monitor
from gatekeep.pool._pickup import pick_up
from gatekeep.pool._region import Region
from gatekeep.pool._respond import Responder
from gatekeep.pool._setup import set_up, show_as, stacks_of
from gatekeep.pool._stacks import all_stacks
from gatekeep.pool._threads import Crew, Worker
from gatekeep.pool._wsgi import base_environ, run as run_application
from gatekeep.transport._wire import Envelope

SIGNALLED = "a signal to this process"

DRAIN_LOOK = 0.05
"""Seconds between looks whether a process that is to end has become idle."""

MOST_STACKS = 1 << 20
"""Characters of all threads' stacks: what is sent over the control socket has its limit (`_frames.LIMIT`)."""

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
    application = _load(settings, control)
    _install_signals(control)
    daemon = Daemon(settings, application, Listener(listener_fd), _map_board(settings, board_fd), log, output)
    os.register_at_fork(after_in_child=daemon.close_in_child)
    guard.loaded()
    daemon.serve(control)
    end(0)


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


def _load(settings: DaemonSettings, control: Control) -> Application:
    began = time.monotonic()
    try:
        set_up(settings)
        import_scripts(settings.import_scripts)
        application = load(AppTarget(settings.module, settings.path, settings.attribute, settings.factory))
    except LoadError as error:
        control.send(Failed(str(error), error.traceback))
        end(LOAD_FAILED_STATUS)
    control.load_time = time.monotonic() - began
    return application


def _map_board(settings: DaemonSettings, fd: int) -> Board:
    size = board_size(settings.rows, settings.threads)
    memory = memoryview(mmap.mmap(fd, size))
    os.close(fd)
    return Board(memory, settings.rows, settings.threads)


def _install_signals(control: Control) -> None:
    """After the application's own: the gateway's word is what counts here.

    TERM and INT shut down; USR1 does so too, after what runs. HUP is ignored, since people send it to every process that they
    find by name. What was blocked since the start is let through now.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: control.interrupt())
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


class Control:
    """The daemon's end of the control socket, blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.load_time = 0.0
        self._decoder = Decoder()
        self._sending = threading.Lock()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self.stacks: Callable[[], Stacks] = lambda: Stacks([])

    def receive_settings(self) -> DaemonSettings:
        """The gateway's first message."""
        while (item := self._decoder.next_frame()) is None:
            data = self.socket.recv(65536)
            if not data:
                os._exit(0)  # the gateway was gone before it said anything
            self._decoder.feed(data)
        return _control.decode_settings(item[1])

    def send(self, message: Any) -> None:
        """Tell the gateway something; if it is gone, the next read will say so."""
        try:
            with self._sending:
                self.socket.sendall(_control.encode(message))
        except OSError:
            pass

    def beat(self) -> None:
        """A sign of life. Waits for nothing: where the gateway does not read, it was stopped, and knows that when it goes on."""
        if self._sending.acquire(blocking=False):
            try:
                self.socket.send(_control.BEAT, socket.MSG_DONTWAIT)
            except OSError:
                pass
            finally:
                self._sending.release()

    def interrupt(self) -> None:
        """A signal told us to stop (called by its handler)."""
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            pass

    def wait_stop(self, timeout: float | None = None) -> str:
        """Wait until the gateway or a signal says stop, or the gateway is gone; tell which. Empty after `timeout` seconds."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while events := poll.poll(None if timeout is None else timeout * 1000):
            for fd, _ in events:
                if fd == self._wake_reader:
                    os.read(fd, 64)
                    return SIGNALLED
                if self._is_stop():
                    return "the gateway said so"
        return ""

    def _is_stop(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except OSError:
            return True
        self._decoder.feed(data)
        stop = not data
        for kind, _ in self._decoder.frames():
            if kind == Kind.ASK:
                self._answer()
            stop = stop or kind == Kind.STOP
        return stop

    def _answer(self) -> None:
        try:
            self.send(self.stacks())
        except Exception:
            # Whatever is odd about the application's threads: the gateway gets no answer, and asks by a signal.
            traceback.print_exc()


class Guard:
    """A thread that watches nothing but the end of the control socket: no orphan survives its gateway.

    While the application loads nobody else would notice (a daemon that hung in its import outlived a gateway that was killed).
    Later the main thread notices too and ends in order; the guard sees to it that this has an end.
    """

    def __init__(self, control: socket.socket, grace: float) -> None:
        self._control = control
        self._grace = 0.0
        self._later = grace
        threading.Thread(target=self._watch, name="gatekeep-guard", daemon=True).start()

    def loaded(self) -> None:
        """From now on the main thread ends the process in order and gets the time for it."""
        self._grace = self._later

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._control, 0)  # an end is reported without being asked for
        poll.poll()
        time.sleep(self._grace)
        os._exit(1)


class Daemon:
    """The worker threads and what they share."""

    def __init__(
        self,
        settings: DaemonSettings,
        application: Application,
        listener: Listener,
        board: Board,
        log: LogSocket,
        output: tuple[OutputStream, OutputStream],
    ) -> None:
        self._application = application
        self._listener = listener
        self._log = log
        self._output = output
        self._pid = os.getpid()
        self._stack_size = settings.stack_size
        self._shutdown_timeout = settings.shutdown_timeout
        self._queue_timeout = settings.queue_timeout
        self._socket_timeout = settings.socket_timeout
        self._row = board.row(settings.row)
        self._base = base_environ(
            threads=settings.threads, processes=settings.processes, group=settings.group, errors=output[1]
        )
        self._crew = Crew(listener, settings.threads, self._serve, self._row)
        self._graceful_timeout = settings.graceful_timeout
        self._fire, self._interrupt_timeout = settings.fire, settings.interrupt_timeout
        self._control: Control | None = None
        self._drain_reason = ""
        self._monitor = Monitor(
            [worker.region for worker in self._crew.workers],
            log,
            fire=settings.fire,
            interrupt_timeout=settings.interrupt_timeout,
            reach_sockets=settings.interrupt_sockets,
            cancel_on_disconnect=settings.cancel_on_disconnect,
            ours=self._descriptors,
            drain=self._drain,
            beat=self._beat if settings.beats else None,
        )
        self._is_watched = settings.beats or settings.fire < math.inf or settings.cancel_on_disconnect

    def serve(self, control: Control) -> None:
        """Serve until told to stop, then until nothing runs any more, or shutdown-timeout is over."""
        self._row.set_pid(self._pid)
        # First of all: only of a process that was ready is it believed that it had connections in hand.
        control.send(Ready(control.load_time))
        self._control = control
        control.stacks = self._stacks
        with stacks_of(self._stack_size):
            self._crew.start()
        if self._is_watched:
            self._monitor.start()
        self._row.set_state(RowState.SERVING)
        reason = control.wait_stop()
        if reason == SIGNALLED and self._drain_reason:
            reason = self._drain_reason
            self._hope_for_idle(control, reason)
        self._row.set_state(RowState.STOPPING)
        if reason == SIGNALLED:
            self._log.warning("process.stopping", reason=reason)
        self._crew.stop()
        # A bound of its own too: a signal to this process alone is nobody else's to watch.
        if not self._wait_idle(self._shutdown_timeout):
            self._log.error("process.shutdown_timeout", reason=reason, timeout=self._shutdown_timeout)
        if self._is_watched:
            self._monitor.look(time.monotonic())

    def _beat(self) -> None:
        if self._control is not None:
            self._control.beat()

    def _stacks(self) -> Stacks:
        """What all threads do, the workers first."""
        workers = {worker.region.ident: worker for worker in self._crew.workers}
        now = time.monotonic()
        threads, size = [], 0
        for found in all_stacks():
            size += len(found.stack)
            stack = found.stack if size < MOST_STACKS else "… there are too many"
            threads.append(_describe(found.name, stack, workers.get(found.ident), now))
        return Stacks(sorted(threads, key=lambda thread: (thread.number < 0, thread.number)))

    def _drain(self, reason: str) -> None:
        """The process is to be replaced (called by the monitor's thread)."""
        if not self._drain_reason and self._control is not None:
            self._drain_reason = reason
            self._control.interrupt()

    def _hope_for_idle(self, control: Control, reason: str) -> None:
        """Accept on, and return when nothing runs that will end, or when graceful-timeout is over."""
        self._log.warning("drain.started", reason=reason, timeout=self._graceful_timeout)
        deadline = time.monotonic() + self._graceful_timeout
        while not self._is_idle() and time.monotonic() < deadline:
            if control.wait_stop(DRAIN_LOOK):
                return

    def _wait_idle(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not (idle := self._is_idle()) and time.monotonic() < deadline:
            time.sleep(DRAIN_LOOK)
        return idle

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
        accepted = time.monotonic()
        envelope = pick_up(
            hop, self._pid, worker.number, accepted,
            queue_timeout=self._queue_timeout, socket_timeout=self._socket_timeout, log=self._log,
        )  # fmt: skip
        if envelope is None:
            return
        self._row.begin(worker.number, envelope.request, accepted)
        token = current_request.set(envelope.request)
        try:
            self._run(hop, envelope, worker, accepted)
        except Exception as error:
            self._log.error("run.failed", reason="a fault of the gateway", traceback=format_error(error))
        finally:
            end_if_child()
            for stream in self._output:
                stream.lines.finish_line()
            current_request.reset(token)
            self._row.end(worker.number)

    def _run(self, hop: socket.SocketType, envelope: Envelope, worker: Worker, accepted: float) -> None:
        environ: dict[str, Any] = envelope.environ
        environ.update(self._base)
        _stamp(environ, envelope, accepted)
        environ["gatekeep.disconnected"] = Disconnected(hop)
        responder = Responder(hop, environ["REQUEST_METHOD"], self._socket_timeout, worker.region)
        body = body_stream(envelope, hop, self._socket_timeout, worker.region)
        run_application(
            self._application, environ, body, responder,
            worker.region, envelope.request, time.monotonic, self._log,
        )  # fmt: skip

    def close_in_child(self) -> None:
        """Close what belongs to the parent, in a child that the application forked."""
        self._listener.close_in_child()
        self._crew.close_in_child()


def _describe(name: str, stack: str, worker: Worker | None, now: float) -> Thread:
    """One thread, as the gateway is told of it."""
    if worker is None:
        return Thread(name, -1, 0, "", "", 0.0, stack)
    region = worker.region
    if not region.request:
        return Thread(name, worker.number, 0, "", "", 0.0, stack)
    elapsed = region.elapsed(now)
    return Thread(name, worker.number, region.request, region.method, region.path, elapsed, stack)


def _stamp(environ: dict[str, Any], envelope: Envelope, accepted: float) -> None:
    """The request's name and its stamps, in seconds since the epoch as mod_wsgi's are."""
    offset = envelope.wall - envelope.stamp
    environ["gatekeep.request_id"] = request_name(envelope.request)
    environ["gatekeep.request_start"] = envelope.began + offset
    environ["gatekeep.queue_start"] = envelope.wall
    environ["gatekeep.daemon_start"] = accepted + offset
    environ["gatekeep.application_start"] = time.monotonic() + offset
