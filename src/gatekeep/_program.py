"""`gatekeep serve`, from start to stop: a gateway, the signals that it gets, and the gateway that may replace it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from gatekeep import __version__, _signals
from gatekeep._configuration import Configuration
from gatekeep._deadlines import describe_fire
from gatekeep._errors import CannotStart, SettingsError
from gatekeep._events import Logger
from gatekeep._gateway import Gateway, Served
from gatekeep._groups import share_module_path
from gatekeep._handover import Handover, Origin, Successor
from gatekeep._host_processes import own_children
from gatekeep._keeper import Keeper
from gatekeep._log_file import LogFile
from gatekeep._pid_file import removing_pid, write_pid
from gatekeep._reaper import Reaper
from gatekeep._systemd import Notifier
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._settings import Settings, apps_of


class Program:
    """One run of the command.

    Args:
        configuration: what the gateway is told; `reread` finds out what that would be now.
        loop: the event loop's name, for the log.
        log_file: where the log goes.
        origin: how the program was started.
        handover: what the gateway that this one replaces has said.
        notifier: tells a service manager.
        is_first: whether this is the first process of its container.
    """

    def __init__(
        self,
        configuration: Configuration,
        loop: str,
        log: Logger,
        log_file: LogFile,
        origin: Origin,
        handover: Handover | None,
        notifier: Notifier,
        *,
        reread: Callable[[], Configuration],
        is_first: bool,
    ) -> None:
        self._notifier = notifier
        self._keeper = Keeper() if is_first else None
        self._configuration, self._reread = configuration, reread
        self._settings = settings = configuration.settings
        debug = configuration.server.log_level == "debug"
        self._loop = loop
        self._log, self._log_file = log, log_file
        self._handover = handover
        inherited = handover.listeners if handover else {}
        may_fail = handover.failing if handover else ()
        self._gateway = Gateway(settings, logger=log, debug=debug, inherited=inherited, may_fail=may_fail)
        keeper = self._keeper.writer if self._keeper else handover.keeper if handover else None
        self._successor = Successor(origin, log, keeper, notifier.resign)
        self._starting: anyio.CancelScope | None = None
        self._stop = anyio.Event()
        self._tasks: TaskGroup | None = None

    async def run(self) -> int:
        """Serve until a signal asks for the end. Returns the exit status.

        Raises:
            CannotStart, SettingsError: as `Gateway.serving`.
        """
        failure: CannotStart | SettingsError | None = None
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._notifier.feed_watchdog)
            tasks.start_soon(self._stop_when_told)
            if self._keeper is not None:
                tasks.start_soon(Reaper(self._own_children).run)
            await tasks.start(_signals.watch, self._log, self._ask_to_stop, self._hurry)
            await tasks.start(_signals.obey, self._log, self._orders())
            status = 0
            try:
                await self._serve()
                self._say_stopped()
                if self._keeper is not None:
                    status = await self._keeper.stay()
            except (CannotStart, SettingsError) as error:
                failure = error
            tasks.cancel_scope.cancel()
        _signals.ignore_from_now_on()
        if failure is not None:
            raise failure
        return status

    def _orders(self) -> dict[signal.Signals, tuple[str, Callable[[], None]]]:
        return {
            signal.SIGHUP: ("reload", self._reload),
            signal.SIGUSR1: ("reopen the log", self._reopen_log),
            signal.SIGUSR2: ("replace the gateway", self._replace),
            signal.SIGTTIN: ("one process more", partial(self._resize, signal.SIGTTIN, +1)),
            signal.SIGTTOU: ("one process fewer", partial(self._resize, signal.SIGTTOU, -1)),
        }

    async def _serve(self) -> None:
        share_module_path(self._settings)
        pid_file = self._configuration.server.pid_file
        if self._handover is None:  # otherwise it is the old one's until we are ready
            write_pid(pid_file)
        with removing_pid(pid_file), anyio.CancelScope() as self._starting:
            async with self._gateway.serving() as served:
                self._starting = None
                self._say_ready(served)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._go_when_replaced, served)
                    await self._stop.wait()
                    tasks.cancel_scope.cancel()

    async def _go_when_replaced(self, served: Served) -> None:
        await self._successor.take_over(served)
        self._stop.set()  # which is no news for a service manager: the service goes on

    async def _stop_when_told(self) -> None:
        await self._gateway.wait_stop_requested()
        self._ask_to_stop()

    def _own_children(self) -> set[int]:
        assert self._keeper is not None
        return {*own_children, *self._keeper.successors(), self._successor.tried}

    def _passes_on(self, number: signal.Signals) -> bool:
        """Whether a signal is the business of the gateway that has replaced this one, and was sent there."""
        return self._keeper is not None and self._keeper.pass_on(number)

    def _replace(self) -> None:
        if not self._passes_on(signal.SIGUSR2):
            self._successor.ask()

    def _reload(self) -> None:
        if self._passes_on(signal.SIGHUP):
            return
        if self._stop.is_set():
            self._log.warning("signal.ignored", signal="SIGHUP", reason="the gateway stops")
            return
        assert self._tasks is not None
        self._tasks.start_soon(self._reload_as_told)

    def _resize(self, number: signal.Signals, change: int) -> None:
        """gunicorn's signals, for the first group; the gateway says what came of it."""
        if not self._passes_on(number):
            self._gateway.resize(change)

    def _reopen_log(self) -> None:
        if not self._passes_on(signal.SIGUSR1):
            self._log_file.reopen(self._log)

    async def _reload_as_told(self) -> None:
        try:
            # In a thread, since a file of another server may be a program that takes its time.
            configuration = await anyio.to_thread.run_sync(self._reread)
        except SettingsError as error:
            self._log.error(
                "settings.refused", reason=str(error), action="the old ones stay, and nothing is reloaded"
            )
            return
        if configuration == self._configuration and not self._has_embedded():
            self._gateway.reload()
        else:
            # New settings may concern everything, our own addresses included, and code in our own process stays what it is: who
            # has the new ones replaces us.
            if configuration != self._configuration:
                self._log.info("settings.changed", file=configuration.file)
            self._successor.ask()

    def _hurry(self) -> None:
        self._passes_on(signal.SIGTERM)
        self._gateway.hurry()

    def _has_embedded(self) -> bool:
        return any(group.is_embedded for group in self._settings.groups)

    def _ask_to_stop(self) -> None:
        if self._passes_on(signal.SIGTERM):
            return
        if not self._stop.is_set():
            self._notifier.say(STOPPING=1, STATUS="finishing what runs")
        self._stop.set()
        if self._starting is not None:
            self._starting.cancel()  # there is nothing to finish yet

    def _say_stopped(self) -> None:
        outcomes = {str(name): count for name, count in self._gateway.statistics().by_outcome().items()}
        self._log.info("gateway.stopped", requests=outcomes)

    def _say_ready(self, served: Served) -> None:
        codec = self._settings.http.http
        self._log.info(
            "gateway.ready",
            addresses=list(served.addresses),
            **_described(self._settings),
            loop=self._loop,
            http="strict" if codec == "auto" else codec,
            version=__version__,
            pid=os.getpid(),
            **({"config": self._configuration.file} if self._configuration.file else {}),
            **({"health": list(served.health_addresses)} if served.health_addresses else {}),
        )
        self._notifier.say(
            READY=1,
            MAINPID=os.getpid(),
            STATUS=f"serving {_apps(self._settings)} at {', '.join(served.addresses)}",
        )
        if self._handover is not None:
            write_pid(self._configuration.server.pid_file)
            self._handover.say_ready()


def _described(settings: Settings) -> dict[str, Any]:
    """What is served, for the log."""
    if len(settings.groups) > 1:
        return {"groups": {group.name: _described_group(settings, group) for group in settings.groups}}
    return _described_group(settings, settings.groups[0])


def _described_group(settings: Settings, group: GroupSettings) -> dict[str, Any]:
    return {
        "app": ", ".join(map(str, apps_of(group, settings))),
        "processes": group.processes,
        "threads": group.threads,
        "request_timeout": describe_fire(group.in_effect.request_timeout, group.threads),
    }


def _apps(settings: Settings) -> str:
    return ", ".join(dict.fromkeys(str(app) for group in settings.groups for app in apps_of(group, settings)))
