"""The composition root and the embedding interface: wires front, group and supervisor over one host."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import anyio
import anyio.from_thread
import attrs

from gatekeep import __version__
from gatekeep._alarms import Alarms
from gatekeep._commands import commands_of
from gatekeep._console_server import Console
from gatekeep._errors import CannotStart
from gatekeep._events import Logger, SilentLogger
from gatekeep._group import Group
from gatekeep._health import GroupState
from gatekeep._host import GroupHome, Host, Listener
from gatekeep._host_real import RealHost
from gatekeep._reloader import Reloader
from gatekeep._settings import GroupSettings, Settings
from gatekeep._shop import Doors, Shop
from gatekeep._statistics import Counters, Statistics
from gatekeep._status import STOPPING, GatewayStatus, GroupStatus
from gatekeep._waiters import running_loop
from gatekeep.lifecycle._slots import board_size, rows_for
from gatekeep.lifecycle._supervisor import Supervisor
from gatekeep.transport._accept import Room
from gatekeep.transport._dispatch import HopDispatch
from gatekeep.transport._front import Front
from gatekeep.transport._probes import Health

OWN_DESCRIPTORS, PROCESS_DESCRIPTORS = 32, 8
"""Descriptors that the gateway needs for itself, and for each daemon process while it starts."""

HEALTH_CONNECTIONS = 32
"""Connections at once to the addresses of health-bind: several balancers' probes, and room for those that hang."""

FEW_CONNECTIONS = 256
"""Where the descriptors allow fewer, and the settings more, somebody should know."""


@attrs.frozen
class Served:
    """A gateway that serves.

    Attributes:
        addresses: where it can be reached, such as `http://127.0.0.1:8000` and `unix:/run/site.sock`.
        health_addresses: where it answers health probes and nothing else.
    """

    addresses: tuple[str, ...]
    _gateway: Gateway
    _doors: Doors
    _shop: Shop
    _host: Host
    health_addresses: tuple[str, ...]
    _health_doors: Doors
    _clinic: Shop

    @property
    def url(self) -> str:
        """The first address that a browser understands.

        Raises:
            LookupError: it listens on UNIX sockets only.
        """
        for address in self.addresses:
            if address.startswith("http"):
                return address
        raise LookupError("the gateway listens on UNIX sockets only")

    def statistics(self) -> Statistics:
        """A snapshot of what it has done."""
        return self._gateway.statistics()

    def hurry(self) -> None:
        """Make the stop that is under way, or comes, wait for nothing: requests in flight are lost."""
        self._gateway.hurry()

    async def wait_stop_requested(self) -> None:
        """Wait until somebody asks over the control socket that the program around the gateway stop (`gatekeep stop`).

        Nothing else happens when they do: where nobody has ever waited for it, they are told that nobody listens. To be told
        while the gateway starts, call it on `Gateway`.
        """
        await self._gateway.wait_stop_requested()

    def reload(self) -> int:
        """Replace all daemon processes: see `Gateway.reload`."""
        return self._gateway.reload()

    def listeners(self) -> dict[str, list[int]]:
        """Descriptors of the sockets that clients and probes connect to, by the address that was asked for. They stay its own."""
        # One name for both is possible only where the system chooses the port, on which nobody counts.
        return {**self._health_doors.descriptors(), **self._doors.descriptors()}

    def hand_over(self) -> None:
        """Another gateway has these sockets, too, and this one will stop: no UNIX socket's file is removed then, and clients that
        keep their connections may send one more request within graceful-timeout."""
        self._host.net.disown()
        self._shop.patient = True
        self._clinic.leave()


class Gateway:
    """Serves one application in daemon processes of its own, inside whatever anyio program it is put into.

    Nothing of the program around it is touched: no signal handlers, no logging configuration, no event loop policy. One gateway
    serves once at a time; make as many as you like.

    Args:
        settings: what to serve, where and how.
        logger: a structlog logger (or anything with its `debug`, `info`, `warning` and `error`); without one it is silent.
        debug: whether daemon processes shall send debug events too.
        inherited: listening sockets that a gateway before this one has opened (see `Served.listeners`). Those descriptors are
            closed when it serves.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        logger: Logger | None = None,
        debug: bool = False,
        inherited: Mapping[str, Sequence[int]] = MappingProxyType({}),
    ) -> None:
        self.settings = settings
        self._inherited = inherited
        self._log: Logger = logger or SilentLogger()
        self._debug = debug
        self._counters = Counters()
        self._group: Group | None = None
        self._dispatch: HopDispatch | None = None
        self._supervisor: Supervisor | None = None
        self._state, self._began = "starting", 0.0
        self._now: Callable[[], float] = float
        self._stop_requested: anyio.Event | None = None
        self._is_stop_awaited = False
        self._loop = ""
        self._hurry: anyio.CancelScope | None = None
        self._hurried = False
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._is_serving = False

    def statistics(self) -> Statistics:
        """A snapshot of what the gateway has done since it was made, by stage and outcome."""
        group, dispatch = self._group, self._dispatch
        if group is None or dispatch is None:
            return self._counters.snapshot(waiting=0, standing=0, oldest=0.0, processes=())
        return self._counters.snapshot(
            waiting=len(dispatch.entrance.admission.waiting),
            standing=len(group.standing),
            oldest=dispatch.oldest_wait(),
            processes=group.ready(),
        )

    def _status(self, addresses: tuple[str, ...], supervisor: Supervisor) -> GatewayStatus:
        numbers = self.statistics()
        group = self._group
        assert group is not None
        return GatewayStatus(
            version=__version__,
            pid=os.getpid(),
            state=self._state,
            uptime=self._now() - self._began,
            addresses=addresses,
            groups=(
                GroupStatus(
                    name=group.name,
                    state=group.describe_state(),
                    failure=supervisor.failure(),
                    processes=supervisor.reports.status(),
                    wanted=group.processes,
                    waiting=numbers.waiting,
                    standing=numbers.standing,
                    oldest=numbers.oldest,
                    next_start=supervisor.next_start(),
                ),
            ),
            in_flight=numbers.in_flight,
            connections=numbers.connections,
            outcomes={str(outcome): count for outcome, count in numbers.by_outcome().items()},
            timers=dict(numbers.timers),
            loop=self._loop,
        )

    async def wait_stop_requested(self) -> None:
        """As `Served.wait_stop_requested`; may be called before `serving`, in the same event loop."""
        self._is_stop_awaited = True
        await self._stop_request().wait()

    def _stop_request(self) -> anyio.Event:
        # Made when it is needed, so that it is the running event loop's.
        self._stop_requested = self._stop_requested or anyio.Event()
        return self._stop_requested

    def _ask_to_stop(self, now: bool) -> bool:
        self._stop_request().set()
        if now:
            self._hurry_now()
        return self._is_stop_awaited or self._state == STOPPING

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Served]:
        """Serve while the context lasts; it is entered when the first daemon process is ready.

        On leaving, requests in flight get graceful-timeout to finish, then daemon processes get shutdown-timeout, then what is
        left is killed; afterwards no process, socket or file is left.

        Raises:
            CannotStart: an address cannot be listened on, or the application cannot be loaded.
            SettingsError: there is no such user, group or folder, or this process may not give its processes what is asked for.
            RuntimeError: this gateway serves already.
        """
        if self._is_serving:
            raise RuntimeError("this gateway serves already; make another one")
        self._is_serving, self._hurried = True, False
        host = RealHost(self._inherited)
        self._loop = running_loop()
        self._state, self._began, self._now = "starting", host.clock.now(), host.clock.now
        error: BaseException | None = None
        bodys: BaseException | None = None
        try:
            await self._prepare(host)
            async with self._serving(host) as served:
                try:
                    yield served
                except BaseException as raised:
                    bodys = raised
                    raise
        except BaseExceptionGroup as group:
            error = _unwrapped(group, bodys)
        finally:
            host.close()
            self._is_serving = self._is_stop_awaited = False
            self._stop_requested = None
        if error is not None:
            raise error

    async def _prepare(self, host: RealHost) -> None:
        for group in self.settings.groups:
            launch = await host.run_blocking(host.processes.prepare, group.process_options)
            if launch.as_root:
                self._log.warning(
                    "process.runs_as_root", group=group.name, reason="no --user: the application runs as root"
                )

    @contextlib.asynccontextmanager
    async def _serving(self, host: Host) -> AsyncIterator[Served]:
        settings = self.settings
        (group_settings,) = settings.groups
        with (
            Doors(host, settings.binds, settings.backlog) as doors,
            Doors(host, settings.health_binds, settings.backlog) as health_doors,
            _home(host, group_settings) as home,
            _console_listener(host) as console_listener,
        ):
            self._group = group = Group(group_settings.name, group_settings.processes, home.address)
            self._dispatch = dispatch = HopDispatch(
                host.net, host.clock, group, group_settings, self._counters, self._log,
                socket_timeout=settings.socket_timeout_of(group_settings), relieve=lambda: front.relieve(),
            )  # fmt: skip
            alarms = Alarms()
            health = Health(lambda: [_state_of(group, dispatch, supervisor)], host.clock.now)
            make_front = functools.partial(
                Front, host, settings.http, dispatch, alarms, self._counters, self._log,
                response_socket_timeout=settings.response_socket_timeout, health=health,
            )  # fmt: skip
            room = Room(self._most_connections(host), lambda: front.relieve())
            front = make_front(room=room)
            health_room = Room(HEALTH_CONNECTIONS, lambda: health_front.relieve())
            health_front = make_front(room=health_room, only_health=True)
            self._supervisor = supervisor = Supervisor(
                host, group_settings, group, home, self._counters, self._log,
                folders=_folders(group_settings), module_path=_module_path(), debug=self._debug,
                socket_timeout=dispatch.socket_timeout, graceful_timeout=settings.graceful_timeout,
                develops=settings.reload.reload, starts_whole=bool(self._inherited),
            )  # fmt: skip
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(alarms.run, host.clock)
                if settings.reload.reload:
                    folders = _watched(group_settings)
                    reloader = Reloader(settings.reload, folders, supervisor.files_changed)
                    supervisor.on_folders = reloader.add
                    tasks.start_soon(reloader.run)
                if console_listener is not None:
                    # Before the processes: an application that never loads is a reason to ask.
                    commands = commands_of(
                        supervisor,
                        lambda: self._status(doors.addresses, supervisor),
                        self._ask_to_stop,
                        self._log,
                    )
                    console = Console(host.net, console_listener, commands, self._log)
                    tasks.start_soon(console.run)
                clinic = Shop(host, health_front, health_room, health_doors, 0.0, self._log)
                if settings.health_binds and not self._inherited:
                    # Before them, too, and until the last has ended: a long start is no reason to be killed.
                    await tasks.start(clinic.run)
                await tasks.start(supervisor.run)
                if settings.health_binds and self._inherited:
                    await tasks.start(clinic.run)  # until now the other gateway has answered for itself
                shop = Shop(host, front, room, doors, settings.graceful_timeout, self._log)
                await tasks.start(shop.run)
                self._state = "serving"
                host.net.adopt()
                try:
                    yield Served(
                        doors.addresses, self, doors, shop, host, health_doors.addresses, health_doors, clinic
                    )
                finally:
                    self._state = STOPPING
                    supervisor.expect_stop()
                    with anyio.CancelScope(shield=True) as self._hurry:
                        if self._hurried:
                            self._hurry.cancel()
                        await shop.announce_close(settings.shutdown_delay)
                        await shop.close()
                        await supervisor.stop()
                    tasks.cancel_scope.cancel()

    def _most_connections(self, host: Host) -> int:
        """As many as the settings allow, and the descriptors: a client with a request needs one for its hop, and maybe a file."""
        (group,) = self.settings.groups
        wanted = self.settings.http.max_connections
        own = OWN_DESCRIPTORS + PROCESS_DESCRIPTORS * group.processes
        if self.settings.health_binds:
            own += HEALTH_CONNECTIONS
        allowed = (host.net.descriptors() - own) // 3
        if allowed < min(wanted, FEW_CONNECTIONS):
            self._log.warning(
                "accept.limited", reason="few descriptors (ulimit -n)", connections=max(allowed, 1)
            )
        return max(1, min(wanted, allowed))

    def reload(self) -> int:
        """Replace all daemon processes, one after the other: each serves until its successor is ready. No request notices.

        Their successors import the application anew. Returns at once, with the number of processes that will be replaced. With
        `serving_in_thread` any other thread may call it. Nothing happens while the gateway does not serve, or stops: 0.
        """
        return self._portal.call(self._reload_now) if self._portal is not None else self._reload_now()

    def _reload_now(self) -> int:
        if self._supervisor is None or self._state == STOPPING:
            return 0
        return self._supervisor.reload()

    def hurry(self) -> None:
        """Make the stop that is under way, or comes, wait for nothing. With `serving_in_thread` any thread may call it."""
        if self._portal is not None:
            self._portal.start_task_soon(self._hurry_now)
        else:
            self._hurry_now()

    def _hurry_now(self) -> None:
        self._hurried = True
        if self._hurry is not None:
            self._hurry.cancel()

    @contextlib.contextmanager
    def serving_in_thread(self, backend: str = "asyncio", **backend_options: Any) -> Iterator[Served]:
        """The same for a program without an event loop: one is run in a thread of its own.

        Raises:
            CannotStart, SettingsError: as `serving`.
        """
        with anyio.from_thread.start_blocking_portal(backend, backend_options) as portal:
            self._portal = portal
            try:
                with portal.wrap_async_context_manager(self.serving()) as served:
                    yield served
            finally:
                self._portal = None


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


@contextlib.contextmanager
def _console_listener(host: Host) -> Iterator[Listener | None]:
    try:
        listener = host.processes.open_console()
    except OSError as error:
        raise CannotStart(f"cannot make the control socket: {error}") from error
    try:
        yield listener
    finally:
        if listener is not None:
            listener.close()


def _state_of(group: Group, dispatch: HopDispatch, supervisor: Supervisor) -> GroupState:
    """What is known of a group's health now."""
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
        occupied=supervisor.reports.occupied_since(),
        is_asleep=group.is_asleep(),
        is_failing=group.is_failing(),
    )


def _folders(settings: GroupSettings) -> list[str]:
    """What comes first on the daemons' module path: what the settings say, then a script's own folder or the present one."""
    own = os.path.dirname(os.path.abspath(settings.app.path)) if settings.app.path else os.getcwd()
    return [*map(os.path.abspath, settings.python_path), own]


def _watched(settings: GroupSettings) -> list[str]:
    """What is watched for a developer: the application's own folders, not what is installed."""
    return [folder for folder in _folders(settings) if os.path.isdir(folder)]


def _module_path() -> list[str]:
    """This interpreter's module path, as other processes may use it, without the folder of the console script."""
    script = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv[0].endswith("gatekeep") else None
    return [path for path in map(os.path.abspath, sys.path) if path != script]


def _unwrapped(group: BaseExceptionGroup[BaseException], bodys: BaseException | None) -> BaseException:
    """The single error that nested task groups of ours wrapped: callers expect `CannotStart`, or what their own body raised."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        # A group of the body's may come as a copy (trio takes cancellations out of it).
        if isinstance(bodys, BaseExceptionGroup) and error.exceptions == bodys.exceptions:
            return bodys
        error = error.exceptions[0]
    return error
