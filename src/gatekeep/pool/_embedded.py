"""The worker threads of a group that has no processes: the same crew, in the front's own process.

The process is somebody else's, so nothing of it is touched: no signals, no standard streams, no module path, no thread but our
own. What hangs here, hangs: nobody can end a thread, and nobody kills the process around it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Mapping, Sequence

from gatekeep._events import Logger
from gatekeep.lifecycle._control import GATEWAY_STOPS, Thread
from gatekeep.lifecycle._slots import Board, RowState, board_size
from gatekeep.pool._announce import Farewell
from gatekeep.pool._applications import Applications
from gatekeep.pool._fork import became_child
from gatekeep.pool._inbox import End, Inbox
from gatekeep.pool._loader import LoadError, import_scripts
from gatekeep.pool._log import DirectLog, OutputStream, format_error
from gatekeep.pool._service import Service, threads_of
from gatekeep.pool._threads import Crew, Worker
from gatekeep.pool._wsgi import base_environ
from gatekeep.settings._app import AppTarget
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._spec import never_if_zero


class _Unknown:
    """How much of the CPU these threads use nobody knows: the front and the program around it use it, too."""

    def share(self, now: float) -> float:
        """None of it."""
        return 0.0


class Embedded:
    """One group's application and its worker threads. Its methods wait for nothing, but for `load`.

    Args:
        apps: the applications by the names that requests ask for them by; the group's own first.
        debug: whether events at debug are said.

    Attributes:
        failure: why the applications could not be loaded.
        load_time: seconds that it took.
        board: the group's scoreboard, which has one row.
    """

    def __init__(
        self, settings: GroupSettings, apps: Mapping[str, AppTarget], log: Logger, *, debug: bool
    ) -> None:
        self._settings = settings.in_effect
        self._apps = apps
        self._name = f"gatekeep-{settings.name}"
        self._log = DirectLog(log, debug=debug, pid=os.getpid())
        self._errors = OutputStream(self._log, "stderr", 2)
        self.failure: LoadError | None = None
        self.load_time = 0.0
        self.board = Board(
            memoryview(bytearray(board_size(1, settings.threads))), rows=1, threads=settings.threads
        )
        self._row = self.board.row(0)
        self._inbox = Inbox(settings.listen_backlog)
        self._crew = Crew(
            self._inbox, settings.threads, self._serve, self._row, name=self._name, load=_Unknown()
        )
        self._farewell = Farewell(self._log)
        self._service: Service | None = None
        self._loader: threading.Thread | None = None

    # --- the start

    def begin_load(self) -> None:
        """Load the applications in a thread of their own: the event loop has other things to do meanwhile."""
        self._loader = threading.Thread(target=self._load, name=f"{self._name}-load", daemon=True)
        self._loader.start()

    def is_loaded(self) -> bool:
        """Whether that is over, in one way or another."""
        return self._loader is not None and not self._loader.is_alive()

    def _load(self) -> None:
        began = time.monotonic()
        try:
            import_scripts(self._settings.import_scripts)
            self._service = self._made_service(Applications(self._apps, self._settings.script_reloading))
        except LoadError as error:
            self.failure = error
        except BaseException as error:
            self.failure = LoadError("a fault of the gateway", format_error(error))
        self.load_time = time.monotonic() - began

    def _made_service(self, applications: Applications) -> Service:
        settings = self._settings
        base = base_environ(threads=settings.threads, processes=1, group=settings.name, errors=self._errors)
        return Service(
            applications, base, self._row, self._log,
            queue_timeout=never_if_zero(settings.queue_timeout), socket_timeout=settings.socket_timeout_or_default, memory=None,
            finish_lines=[self._errors.lines.finish_line], rejects=lambda: False,
        )  # fmt: skip

    def open(self) -> None:
        """Start the threads, when all is loaded.

        Raises:
            LoadError: the system has no room for so many.
        """
        _watch_forks(self)
        self._row.set_pid(os.getpid())
        self._row.set_state(RowState.SERVING)
        try:
            self._crew.start()
        except RuntimeError as error:
            raise LoadError(
                f"the system has no room for {self._settings.threads} worker threads: {error}"
            ) from None
        finally:
            self._crew.open()

    # --- serving

    def connect(self) -> End:
        """A connection to one of the threads, as soon as it is free: see `Inbox.connect`."""
        return self._inbox.connect()

    def _serve(self, hop: socket.SocketType, worker: Worker) -> None:
        assert self._service is not None
        self._service.serve(hop, worker)

    def stacks(self) -> list[Thread]:
        """What its threads do."""
        return [thread for thread in threads_of(self._crew.workers) if thread.number >= 0]

    # --- the end

    def stop(self) -> None:
        """Take nothing more. What runs is not touched."""
        self._row.set_state(RowState.STOPPING)
        self._crew.stop()
        self._crew.open()
        if self._service is not None:
            self._farewell.begin(GATEWAY_STOPS)

    def is_over(self) -> bool:
        """Whether all of its threads have ended, and all subscribers know of the stop."""
        return not self._living() and (self._service is None or self._farewell.is_over())

    def left(self) -> Sequence[Thread]:
        """The threads that have not ended because of what they run. (One that is idle ends as soon as it wakes.)"""
        numbers = {worker.number for worker in self._living()}
        return [thread for thread in self.stacks() if thread.number in numbers and thread.request]

    def _living(self) -> list[Worker]:
        return [worker for worker in self._crew.workers if worker.thread and worker.thread.is_alive()]

    def close(self) -> None:
        """Let go of what nobody will serve any more."""
        self._inbox.close()
        if not self._living():
            _open.discard(self)

    # --- children that somebody forks

    def in_child(self) -> None:
        """In such a child: the parent's requests are none of its business, and a worker's thread must not come back to them."""
        me = threading.current_thread()
        if any(worker.thread is me for worker in self._crew.workers):
            became_child()
        self._crew.close_in_child()
        self._inbox.close_in_child()


_open: weakref.WeakSet[Embedded] = weakref.WeakSet()
_forks_are_watched = False


def _watch_forks(embedded: Embedded) -> None:
    """Registered once and for ever: Python has no way to take it back."""
    global _forks_are_watched
    _open.add(embedded)
    if not _forks_are_watched:
        _forks_are_watched = True
        os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    for embedded in tuple(_open):
        try:
            embedded.in_child()
        except OSError:
            pass  # a connection ended in the very moment of the fork
