"""One process group as the gateway runs it: what front and supervisor share, and both of its ends, wired together."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import anyio
import attrs
from anyio.abc import TaskGroup, TaskStatus

from gatekeep._errors import CannotStart
from gatekeep._events import Logger
from gatekeep._group import Group
from gatekeep._health import GroupState
from gatekeep._host import GroupHome, HopNet, Host
from gatekeep._reloader import Reloader
from gatekeep._script_files import Script
from gatekeep._script_threads import ScriptPools
from gatekeep._statistics import Counters
from gatekeep._status import GroupStatus
from gatekeep.lifecycle._slots import board_size, rows_for
from gatekeep.lifecycle._supervisor import Supervisor
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._mount import MountSettings
from gatekeep.settings._script_target import ScriptTarget
from gatekeep.settings._settings import Settings, apps_of
from gatekeep.transport._dispatch import HopDispatch, Mounted, Target
from gatekeep.transport._route import Mount, Routes
from gatekeep.transport._scripts import Choice, Scripts

if TYPE_CHECKING:
    from gatekeep._embedded import EmbeddedSupervisor

LATE = 5.0
"""Seconds that a group may take longer to start than another one, before that is served without it."""


@attrs.frozen
class ServedGroup:
    """A process group that is served."""

    settings: GroupSettings
    group: Group
    dispatch: HopDispatch
    supervisor: Supervisor | EmbeddedSupervisor

    def health(self) -> GroupState:
        """What is known of its health now."""
        group, dispatch = self.group, self.dispatch
        now, trusted = dispatch.clock.now(), len(group.trusted())
        return GroupState(
            group.name,
            group.processes,
            ready=trusted,
            suspect=len(group.ready()) - trusted,
            waiting=len(dispatch.entrance.admission.waiting),
            standing=len(group.standing),
            is_full=dispatch.entrance.is_full(),
            oldest=dispatch.oldest_since(now),
            last_claim=group.last_claim(),
            occupied=self.supervisor.reports.occupied_since(),
            is_asleep=group.is_asleep(),
            is_failing=group.is_failing(),
        )

    def status(self) -> GroupStatus:
        """What is told of it when somebody asks."""
        group, supervisor = self.group, self.supervisor
        return GroupStatus(
            name=group.name,
            state=group.describe_state(),
            failure=supervisor.failure(),
            processes=supervisor.reports.status(),
            wanted=0 if self.settings.is_embedded else group.processes,
            waiting=len(self.dispatch.entrance.admission.waiting),
            standing=len(group.standing),
            oldest=self.dispatch.oldest_wait(),
            next_start=supervisor.next_start(),
        )


@attrs.frozen(kw_only=True)
class Opener:
    """Makes the groups of a gateway.

    Attributes:
        relieve: called when we are out of descriptors.
        replaces: whether another gateway serves until this one does.
        may_fail: the names of groups that this other one does not serve either.
    """

    host: Host
    settings: Settings
    counters: Counters
    log: Logger
    relieve: Callable[[], None]
    debug: bool
    replaces: bool
    may_fail: Collection[str]

    @contextlib.contextmanager
    def open(self) -> Iterator[list[ServedGroup]]:
        """All groups, with their listeners; no process is started yet.

        Raises:
            CannotStart: a listener cannot be made.
        """
        with contextlib.ExitStack() as homes:
            yield [
                self._embedded(group)
                if group.is_embedded
                else self._served(group, homes.enter_context(_home(self.host, group)))
                for group in self.settings.groups
            ]

    def _served(self, settings: GroupSettings, home: GroupHome) -> ServedGroup:
        host, whole = self.host, self.settings
        group = Group(settings.name, settings.processes, home.address)
        supervisor = Supervisor(
            host, settings, group, home, self.counters, self.log,
            apps=apps_of(settings, whole), folders=folders_of(settings, whole), module_path=_module_path(),
            debug=self.debug, develops=whole.reload.reload, gives_up=self._is_needed(settings), starts_whole=self.replaces,
        )  # fmt: skip
        return ServedGroup(settings, group, self._dispatch(host.net, group, settings), supervisor)

    def _is_needed(self, settings: GroupSettings) -> bool:
        """Whether there is no sense in a start without that group: nobody else would be served, or it is served until now."""
        return len(self.settings.groups) == 1 or (self.replaces and settings.name not in self.may_fail)

    def _embedded(self, settings: GroupSettings) -> ServedGroup:
        from gatekeep._embedded import EmbeddedSupervisor  # most gateways have no such group

        group = Group(settings.name, 1, "")
        apps = apps_of(settings, self.settings)
        supervisor = EmbeddedSupervisor(
            self.host.net, self.host.clock, settings, group, self.log, apps=apps, debug=self.debug
        )
        dispatch = self._dispatch(supervisor.net, group, settings.in_effect)
        return ServedGroup(settings, group, dispatch, supervisor)

    def _dispatch(self, net: HopNet, group: Group, settings: GroupSettings) -> HopDispatch:
        return HopDispatch(
            net, self.host.clock, group, settings, self.counters, self.log, relieve=self.relieve
        )


@contextlib.contextmanager
def _home(host: Host, settings: GroupSettings) -> Iterator[GroupHome]:
    size = board_size(rows_for(settings.processes), settings.threads)
    try:
        home = host.processes.open_group(settings.name, settings.listen_backlog, size)
    except OSError as error:
        raise CannotStart(f"cannot make the listener of group {settings.name}: {error}") from error
    try:
        yield home
    finally:
        home.close()


def routes_of(
    settings: Settings, groups: list[ServedGroup], threads: ScriptPools, log: Logger
) -> Routes[Mounted]:
    """Where requests go.

    Args:
        threads: those for each of the scripts that decide about them.
    """
    files = functools.cache(Script)  # one for all mounts: its functions share what the file knows
    choices = {served.group.name: Choice(served.dispatch, served.settings.app) for served in groups}
    return Routes(
        Mount(mount.host, mount.path, _mounted(mount, choices, files, threads, log))
        for mount in settings.mount_table
    )


def _mounted(
    mount: MountSettings,
    choices: Mapping[str, Choice],
    files: Callable[[ScriptTarget], Script],
    threads: ScriptPools,
    log: Logger,
) -> Mounted:
    dispatch, own = choices[mount.group]
    target = Target(dispatch, str(mount.app or ""))
    if not mount.has_scripts:
        return Mounted(target)
    scripts = Scripts(mount, target, mount.app or own, files, threads, dispatch.clock, log, choices)
    return Mounted(target, scripts.decide)


def folders_of(group: GroupSettings, settings: Settings) -> list[str]:
    """What comes first on the daemons' module path: what the settings say, then a script's own folder or the present one."""
    own = [
        os.path.dirname(os.path.abspath(app.path)) if app.path else os.getcwd()
        for app in apps_of(group, settings)
    ]
    return list(dict.fromkeys([*map(os.path.abspath, group.python_path), *own]))


def share_module_path(settings: Settings) -> None:
    """For a program that is nothing but the gateway: groups that run in this process find their modules as others would.

    (A program of somebody else's has its own module path, which is none of our business.)
    """
    embedded = [group for group in settings.groups if group.is_embedded]
    folders = [folder for group in embedded for folder in folders_of(group, settings)]
    sys.path[:] = dict.fromkeys([*folders, *sys.path])


def _module_path() -> list[str]:
    """This interpreter's module path, as other processes may use it, without the folder of the console script."""
    script = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv[0].endswith("gatekeep") else None
    return [path for path in map(os.path.abspath, sys.path) if path != script]


class _GroupStarts:
    """Which groups have started, or have failed to."""

    def __init__(self, groups: list[ServedGroup]) -> None:
        self._pending = {served.group.name: served for served in groups}
        self._serving: list[ServedGroup] = []
        self._changed = anyio.Event()

    def is_over(self, served: ServedGroup) -> None:
        """One of them has."""
        del self._pending[served.group.name]
        self._serving += [served] if served.group.is_ready() else []
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self, patience: float) -> list[ServedGroup]:
        """Wait for all, but no longer than `patience` seconds more than for the first; returns those that are late."""
        deadline = math.inf
        while self._pending:
            if deadline == math.inf and self._serving and not self._is_indispensable():
                deadline = anyio.current_time() + patience
            with anyio.CancelScope(deadline=deadline):
                await self._changed.wait()
            if anyio.current_time() >= deadline:
                break
        return list(self._pending.values())

    def _is_indispensable(self) -> bool:
        # One that cannot be loaded into this process ends the start, so that is to be known before clients are let in.
        return any(served.settings.is_embedded for served in self._pending.values())


@attrs.frozen
class _GroupStart(TaskStatus[None]):
    """Tells `_GroupStarts` of one group."""

    _starts: _GroupStarts
    _served: ServedGroup

    def started(self, value: None = None) -> None:
        self._starts.is_over(self._served)


async def start_groups(groups: list[ServedGroup], tasks: TaskGroup, log: Logger, *, whole: bool) -> None:
    """Start all of them side by side; returns when each has a process that is ready, or fails to get one while another has. A
    group that takes `LATE` seconds longer than another is not waited for: its requests wait for it instead.

    Args:
        tasks: where they run; what keeps the gateway from starting (`CannotStart`) is raised there: one that runs in this process
            could not be loaded, or one that must start could not.
        whole: whether each is waited for, however long it takes, since another gateway serves until then.

    Raises:
        CannotStart: none of them could.
    """
    starts = _GroupStarts(groups)
    for served in groups:
        tasks.start_soon(functools.partial(served.supervisor.run, task_status=_GroupStart(starts, served)))
    for late in await starts.wait(math.inf if whole else LATE):
        log.warning(
            "group.late",
            group=late.group.name,
            reason=f"not ready {LATE:g} s after another group: that one is served, requests for this one wait",
        )
    if len(groups) > 1 and not any(served.group.is_ready() for served in groups):
        raise groups[0].supervisor.start_failure()


async def stop_groups(groups: list[ServedGroup]) -> None:
    """Stop all processes, each within its group's shutdown-timeout."""
    async with anyio.create_task_group() as stopping:
        for served in groups:
            stopping.start_soon(served.supervisor.stop)


def watch_files(groups: list[ServedGroup], settings: Settings) -> Reloader:
    """For a developer: what tells the groups that files have changed. What is installed is not watched."""

    def files_changed(paths: list[str]) -> None:
        for served in groups:
            served.supervisor.files_changed(paths)

    folders = [
        folder
        for served in groups
        for folder in folders_of(served.settings, settings)
        if os.path.isdir(folder)
    ]
    reloader = Reloader(settings.reload, folders, files_changed)
    for served in groups:
        served.supervisor.on_folders = reloader.add
    return reloader
