"""A group with `processes = 0`: what takes the supervisor's place where there is nothing to supervise.

Front and group see one process that is always there, the gateway's own. The application and its threads are `pool/_embedded`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

import anyio
import attrs
from anyio.abc import TaskStatus

from gatekeep._errors import CannotStart
from gatekeep._events import Logger, request_name
from gatekeep._group import Group
from gatekeep._host import Clock, Net, Socket
from gatekeep._processes import ProcessReport
from gatekeep._status import STOPPING, ProcessStatus
from gatekeep.lifecycle._control import Stacks
from gatekeep.lifecycle._postmortem import threads_of_answer
from gatekeep.pool._embedded import Embedded
from gatekeep.pool._loader import LoadError
from gatekeep.settings._app import AppTarget
from gatekeep.settings._embedded import OFF, switched_off
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._spec import dashed

LOOK = 0.01
"""Seconds between looks whether threads are done: they have no event loop that they could tell."""

UNWIND = 1.0
"""Seconds that threads have at least, when graceful-timeout is over, to notice that nobody waits for their responses."""


class EmbeddedNet:
    """Connections to the threads of one group. Their addresses mean nothing: there is one place only."""

    def __init__(self, net: Net, name: str, embedded: Embedded) -> None:
        self.waiter, self.unread, self.abort = net.waiter, net.unread, net.abort
        self._name = name
        self._embedded = embedded

    def connect(self, address: str) -> Socket:
        return self._embedded.connect()

    def describe(self, address: str) -> str:
        return f"the threads of group {self._name}"


class EmbeddedSupervisor:
    """Loads a group's applications into the gateway's own process and starts its threads; has the supervisor's interface.

    Args:
        apps: the group's applications, its own first.

    Attributes:
        net: how the front gets to the threads.
        on_folders: never called: code that is loaded here stays.
    """

    def __init__(
        self,
        net: Net,
        clock: Clock,
        settings: GroupSettings,
        group: Group,
        log: Logger,
        *,
        apps: Sequence[AppTarget],
        debug: bool,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._group = group
        self._log = log
        self._embedded = Embedded(settings, {str(app): app for app in apps}, log, debug=debug)
        self.net = EmbeddedNet(net, settings.name, self._embedded)
        self.reports = EmbeddedReports(group, self._embedded, clock)
        self.on_folders: Callable[[list[str]], None] = lambda folders: None
        self._stop_expected = math.inf
        self._stopped = anyio.Event()
        self._finished = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; reports that it has started when the applications are loaded.

        When it is cancelled, the threads take nothing more and are left to themselves.

        Raises:
            CannotStart: the applications could not be loaded. Nothing would change if it were tried again.
        """
        pid = os.getpid()
        try:
            await self._load()
            self._group.process_started(pid)
            self._group.process_ready(pid)
            self.reports.state = "ready"
            self._say_what_is_off()
            task_status.started()
            await self._finished.wait()
        finally:
            self._end(pid)

    async def _load(self) -> None:
        self._embedded.begin_load()
        while not self._embedded.is_loaded():
            await anyio.sleep(LOOK)
        failure = self._embedded.failure
        try:
            if failure is None:
                self._embedded.open()
        except LoadError as error:
            failure = error
        if failure is not None:
            raise CannotStart(str(failure), failure.traceback)

    def _say_what_is_off(self) -> None:
        settings = self._settings
        ignored = [
            dashed(field.name)
            for field in attrs.fields(GroupSettings)
            if switched_off(field.name) and getattr(settings, field.name) != field.default
        ]
        self._log.info(
            "group.embedded",
            group=self._group.name,
            threads=settings.threads,
            load_time=round(self._embedded.load_time, 3),
            off={kind: [dashed(name) for name in names] for kind, names in OFF.items()},
            **({"ignored": ignored} if ignored else {}),
        )

    def expect_stop(self) -> None:
        """The gateway stops: from now on graceful-timeout runs."""
        self._stop_expected = min(self._stop_expected, self._clock.now())

    async def stop(self) -> None:
        """Take nothing more, and wait until all threads have ended; what is stuck in the application is left behind, and said."""
        self.expect_stop()
        self._stop_threads()
        ends = max(self._stop_expected + self._settings.graceful_timeout, self._clock.now() + UNWIND)
        try:
            while not self._embedded.is_over() and self._clock.now() < ends:
                await anyio.sleep(LOOK)
        finally:
            self._finished.set()

    def _stop_threads(self) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            self.reports.state = STOPPING
            self._group.process_finishing(os.getpid())
            self._embedded.stop()

    def _end(self, pid: int) -> None:
        self._stop_threads()
        self._embedded.close()
        self._group.process_ended(pid, in_order=True)
        for thread in self._embedded.left():
            self._log.warning(
                "group.thread_left",
                group=self._group.name,
                thread=thread.number,
                request_id=request_name(thread.request) if thread.request else "",
                method=thread.method,
                path=thread.path,
                age=round(thread.age, 3),
                stack=thread.stack,
                reason="it does not end, and nothing can end it: it stays until the whole process ends",
            )

    # --- what only processes can do

    def reload(self) -> int:
        """Nothing is replaced: 0."""
        self._keeps_its_code("a reload was asked for")
        return 0

    def resize(self, processes: int) -> int:
        """There are none: 0."""
        self._log.warning(
            "group.not_resized", group=self._settings.name, reason="it has no processes (processes = 0)"
        )
        return 0

    def files_changed(self, paths: list[str]) -> None:
        """A developer has saved something, and must do more."""
        self._keeps_its_code("files have changed: " + ", ".join(paths[:3]))

    def _keeps_its_code(self, reason: str) -> None:
        self._log.warning(
            "group.keeps_its_code",
            group=self._group.name,
            reason=reason,
            action="none: with processes = 0 new code needs a new gateway",
        )

    def evict(self, pid: int) -> bool:
        """There is no such process: False."""
        return False

    def failure(self) -> str:
        """No start fails while the gateway goes on."""
        return ""

    def next_start(self) -> float:
        """Nor is another one tried."""
        return 0.0

    def start_failure(self) -> CannotStart:
        """`run` raises the reason itself."""
        return CannotStart(f"group {self._group.name} was not started")


class EmbeddedReports:
    """Tells of the group's threads: see `lifecycle/_reports`.

    Attributes:
        state: of the group, as that of a process.
    """

    def __init__(self, group: Group, embedded: Embedded, clock: Clock) -> None:
        self._group = group
        self._embedded = embedded
        self._clock = clock
        self._began = clock.now()
        self.state = "starting"

    def status(self) -> tuple[ProcessStatus, ...]:
        """The gateway's own process, as far as it is this group's."""
        board = self._embedded.board
        running = sum(1 for _ in board.row(0).running())
        return (ProcessStatus(os.getpid(), 0, self.state, self._uptime(), running, board.threads),)

    def occupied_since(self) -> float:
        """Since when no thread has begun another request; `math.inf` where one is free."""
        return self._embedded.board.occupied_since(self._group.trusted())

    async def stacks(self) -> list[ProcessReport]:
        """What its threads do at this moment."""
        threads = threads_of_answer(Stacks(self._embedded.stacks()))
        return [ProcessReport(self._group.name, os.getpid(), 0, self.state, self._uptime(), threads)]

    def _uptime(self) -> float:
        return self._clock.now() - self._began
