"""The composition root and the embedding interface: wires front, group and supervisor over one host."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import anyio
import anyio.from_thread
import attrs
from anyio.abc import TaskGroup

from gatekeep import __version__, _asgi_app
from gatekeep._alarms import Alarms
from gatekeep._commands import commands_of
from gatekeep._console_server import Console
from gatekeep._errors import CannotStart, SettingsError
from gatekeep._events import Logger, SilentLogger
from gatekeep._groups import Opener, ServedGroup, routes_of, start_groups, stop_groups, watch_files
from gatekeep._host import Host, Listener
from gatekeep._host_real import RealHost
from gatekeep._script_threads import ScriptPools
from gatekeep._shop import Doors, Shop
from gatekeep._statistics import Counters, Statistics
from gatekeep._status import STOPPING, GatewayStatus
from gatekeep._waiters import running_loop
from gatekeep.settings._http import FEW_CONNECTIONS
from gatekeep.settings._settings import Settings
from gatekeep.transport._accept import Room
from gatekeep.transport._asgi import Receive, Scope, Send
from gatekeep.transport._front import Front
from gatekeep.transport._probes import Health

OWN_DESCRIPTORS, PROCESS_DESCRIPTORS = 32, 8
"""Descriptors that the gateway needs for itself, and for each daemon process while it starts."""

HEALTH_CONNECTIONS = 32
"""Connections at once to the addresses of health-bind: several balancers' probes, and room for those that hang."""


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
    _health_shop: Shop

    @property
    def url(self) -> str:
        """The first address that a browser understands.

        Raises:
            LookupError: it listens on UNIX sockets only, or nowhere.
        """
        for address in self.addresses:
            if address.startswith("http"):
                return address
        where = "on UNIX sockets only" if self.addresses else "nowhere itself"
        raise LookupError(f"the gateway listens {where}")

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

    def resize(self, change: int, group: str | None = None) -> int:
        """Have so many processes more, or fewer: see `Gateway.resize`."""
        return self._gateway.resize(change, group)

    def failing_groups(self) -> list[str]:
        """The groups that have no process at this moment, though they should."""
        return self._gateway._failing_groups()

    def hand_over(self) -> None:
        """Another gateway has these sockets, too, and this one will stop: no UNIX socket's file is removed then, and clients that
        keep their connections may send one more request within graceful-timeout."""
        self._host.net.disown()
        self._shop.patient = True
        self._health_shop.leave()


class Gateway:
    """Serves applications in daemon processes of its own, inside whatever anyio program it is put into: on addresses of its
    own (`serving`), or as an ASGI application inside another server (`lifespan`). Groups with `processes = 0` run in this one.

    Nothing of the program around it is touched: no signal handlers, no logging configuration, no event loop policy. One gateway
    serves once at a time; make as many as you like.

    Args:
        settings: what to serve, where and how.
        logger: a structlog logger (or anything with its `debug`, `info`, `warning` and `error`); without one it is silent. Worker
            threads of this process (`processes = 0`) call it, too.
        debug: whether daemon processes shall send debug events too.
        inherited: listening sockets that a gateway before this one has opened (see `Served.listeners`). Those descriptors are
            closed when it serves.
        may_fail: where sockets are inherited, the groups that need not start, since the gateway before this one does not serve
            them either. Of the others each must: what is served now shall not be given up for settings or code that do not work.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        logger: Logger | None = None,
        debug: bool = False,
        inherited: Mapping[str, Sequence[int]] = MappingProxyType({}),
        may_fail: Collection[str] = (),
    ) -> None:
        if not isinstance(settings, Settings):
            raise TypeError(
                f"Gateway takes Settings, such as Settings.for_app('mysite.wsgi'), not {settings!r}"
            )
        self.settings = settings
        self._inherited = inherited
        self._may_fail = frozenset(may_fail)
        self._log: Logger = logger or SilentLogger()
        self._debug = debug
        self._counters = Counters()
        self._front: Front | None = None
        self._groups: list[ServedGroup] = []
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
        groups = self._groups
        return self._counters.snapshot(
            waiting=sum(len(served.dispatch.entrance.admission.waiting) for served in groups),
            standing=sum(len(served.group.standing) for served in groups),
            oldest=max((served.dispatch.oldest_wait() for served in groups), default=0.0),
            processes=tuple(
                pid for served in groups if not served.settings.is_embedded for pid in served.group.ready()
            ),
        )

    def _failing_groups(self) -> list[str]:
        groups = [served.group for served in self._groups]
        return [group.name for group in groups if not (group.is_ready() or group.is_asleep())]

    def _status(self, addresses: tuple[str, ...]) -> GatewayStatus:
        numbers = self.statistics()
        return GatewayStatus(
            version=__version__,
            pid=os.getpid(),
            state=self._state,
            uptime=self._now() - self._began,
            addresses=addresses,
            groups=tuple(served.status() for served in self._groups),
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI 3 application, whole (the server's lifespan starts and stops it) or mounted in another (see `lifespan`).

        Raises:
            RuntimeError: nothing has started it, or something in another event loop.
            GatekeepError: a response stopped short, so that the server shall close its connection.
            ValueError: the scope's type is unknown.
        """
        await _asgi_app.run(scope, receive, send, front=self._front, lifespan=self.lifespan, log=self._log)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """As `serving`, for requests that an ASGI server hands in: it listens nowhere itself, but for health-bind.

        A mounted application is not told when its server starts, so the one that it is mounted in has to pass it on:
        `FastAPI(lifespan=gateway.lifespan)`, or `async with gateway.lifespan():` inside a lifespan of its own.

        Args:
            app: the application around it, which Starlette and FastAPI hand in; not used.

        Raises:
            CannotStart, SettingsError, RuntimeError: as `serving`.
        """
        async with self.serving(listen=False):
            yield

    @contextlib.asynccontextmanager
    async def serving(self, *, listen: bool = True) -> AsyncIterator[Served]:
        """Serve while the context lasts; it is entered when the first daemon process is ready.

        On leaving, requests in flight get graceful-timeout to finish, then daemon processes get shutdown-timeout, then what is
        left is killed; afterwards no process, socket or file is left.

        Args:
            listen: whether on the addresses of the settings; otherwise requests come as an ASGI application's only.

        Raises:
            CannotStart: an address cannot be listened on, or the application cannot be loaded.
            SettingsError: there is no such user, group or folder, or this process may not give its processes what is asked for.
            RuntimeError: this gateway serves already.
        """
        self._check_idle()
        self._is_serving, self._hurried = True, False
        host = RealHost(self._inherited)
        self._loop = running_loop()
        self._state, self._began, self._now = "starting", host.clock.now(), host.clock.now
        error: BaseException | None = None
        bodys: BaseException | None = None
        try:
            await self._prepare(host)
            async with self._serving(host, listen=listen) as served:
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
            self._stop_requested = self._front = None
        if error is not None:
            raise error

    def _check_idle(self) -> None:
        if self._is_serving:
            raise RuntimeError("this gateway serves already; make another one")

    async def _prepare(self, host: RealHost) -> None:
        for name, value in self.settings.trusts_anybody().items():
            self._log.warning(
                "proxies.anybody_is_trusted", setting=name, value=value, reason="whoever connects may pass for anybody else"
            )  # fmt: skip
        for group in self.settings.groups:
            launch = await host.run_blocking(host.processes.prepare, group.process_options)
            if launch.as_root:
                why = "it runs in the gateway's process" if group.is_embedded else "no --user"
                self._log.warning(
                    "process.runs_as_root", group=group.name, reason=f"{why}: the application runs as root"
                )

    @contextlib.asynccontextmanager
    async def _serving(self, host: Host, *, listen: bool = True) -> AsyncIterator[Served]:
        settings = self.settings
        with (
            Doors(host, settings.binds if listen else (), settings.backlog) as doors,
            Doors(host, settings.health_binds, settings.backlog) as health_doors,
            Opener(
                host=host,
                settings=settings,
                counters=self._counters,
                log=self._log,
                relieve=self._relieve,
                debug=self._debug,
                replaces=bool(self._inherited),
                may_fail=self._may_fail,
            ).open() as self._groups,
            _console_listener(host) as console_listener,
        ):
            alarms, scripts = Alarms(), ScriptPools()
            shop, health_shop = self._shops(host, doors, health_doors, alarms, scripts)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(alarms.run, host.clock)
                if settings.reload.reload:
                    tasks.start_soon(watch_files(self._groups, settings).run)
                if console_listener is not None:
                    # Before the processes: an application that never loads is a reason to ask.
                    commands = commands_of(
                        self._groups, lambda: self._status(doors.addresses), self._ask_to_stop, self._log
                    )
                    tasks.start_soon(Console(host.net, console_listener, commands, self._log).run)
                await self._start_groups(tasks, health_shop)
                await tasks.start(shop.run)
                self._state = "serving"
                host.net.adopt()
                try:
                    yield Served(
                        doors.addresses, self, doors, shop, host,
                        health_doors.addresses, health_doors, health_shop,
                    )  # fmt: skip
                finally:
                    await self._stop(shop)
                    scripts.close()
                    tasks.cancel_scope.cancel()

    def _shops(
        self, host: Host, doors: Doors, health_doors: Doors, alarms: Alarms, scripts: ScriptPools
    ) -> tuple[Shop, Shop]:
        """Where clients come in, and where those who probe health do: each has a front and a room of its own."""
        settings = self.settings
        make_front = functools.partial(
            Front, host, settings.http, routes_of(settings, self._groups, scripts, self._log),
            [served.dispatch for served in self._groups], alarms, self._counters, self._log,
            response_socket_timeout=settings.response_socket_timeout,
            health=Health(lambda: [served.health() for served in self._groups], host.clock.now),
        )  # fmt: skip
        room = Room(self._most_connections(host), self._relieve)
        self._front = make_front(room=room)
        health_room = Room(HEALTH_CONNECTIONS, lambda: health_front.relieve())
        health_front = make_front(room=health_room, only_health=True)
        return (
            Shop(host, self._front, room, doors, settings.graceful_timeout, self._log),
            Shop(host, health_front, health_room, health_doors, 0.0, self._log),
        )

    def _relieve(self) -> None:
        """We are out of descriptors, or of connections."""
        if self._front is not None:
            self._front.relieve()

    async def _start_groups(self, tasks: TaskGroup, health_shop: Shop) -> None:
        """Probes are answered from before the first process starts, since a long start is no reason to be killed, until the last
        has ended; where another gateway is replaced, that one answers for itself until we are ready."""
        is_probed, replaces = bool(self.settings.health_binds), bool(self._inherited)
        if is_probed and not replaces:
            await tasks.start(health_shop.run)
        await start_groups(self._groups, tasks, self._log, whole=replaces)
        if is_probed and replaces:
            await tasks.start(health_shop.run)

    async def _stop(self, shop: Shop) -> None:
        """Turn nobody away who can still be served, then end all processes."""
        self._state = STOPPING
        for served in self._groups:
            served.supervisor.expect_stop()
        with anyio.CancelScope(shield=True) as self._hurry:
            if self._hurried:
                self._hurry.cancel()
            try:
                await shop.announce_close(self.settings.shutdown_delay)
                await shop.close()
                await stop_groups(self._groups)
            finally:
                self._hurry = None  # whoever is in a hurry later finds nothing to do

    def _most_connections(self, host: Host) -> int:
        """As many as the settings allow, and the descriptors: a client with a request needs one for its hop, and maybe a file."""
        wanted = self.settings.http.max_connections
        own = OWN_DESCRIPTORS + PROCESS_DESCRIPTORS * sum(group.processes for group in self.settings.groups)
        if self.settings.health_binds:
            own += HEALTH_CONNECTIONS
        # Where no other process has the hop's other end, that is one of ours, too.
        each = 4 if any(group.is_embedded for group in self.settings.groups) else 3
        allowed = (host.net.descriptors() - own) // each
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
        return self._in_loop(self._reload_now)

    def _reload_now(self) -> int:
        if self._state == STOPPING:
            return 0
        return sum(served.supervisor.reload() for served in self._groups)

    def resize(self, change: int, group: str | None = None) -> int:
        """Have so many processes more in a group, or fewer; at least one, at most 32 or twice as many as the settings say.

        One that is too many accepts no more, finishes what it runs within graceful-timeout and goes. A reload keeps the number; a
        gateway that replaces this one has that of its settings. With `serving_in_thread` any other thread may call it.

        Args:
            group: its name; None for the first one.

        Returns how many the group has from now on; 0 where it runs in this process, or nothing is served yet. Nothing changes
        while the gateway stops.

        Raises:
            SettingsError: there is no such group.
        """
        return self._in_loop(self._resize_now, change, group)

    def _in_loop(self, function: Callable[..., int], *arguments: Any) -> int:
        """Call it in the thread of the event loop that serves."""
        portal = self._portal
        return portal.call(function, *arguments) if portal is not None else function(*arguments)

    def _resize_now(self, change: int, name: str | None) -> int:
        chosen = [served for served in self._groups if name in (None, served.settings.name)]
        if not chosen:
            if name is None:
                return 0  # nothing is served yet
            raise SettingsError(f"group = {name!r}: there is no such group that is served")
        return chosen[0].supervisor.resize(chosen[0].group.processes + change)

    def hurry(self) -> None:
        """Make the stop that is under way, or comes, wait for nothing. With `serving_in_thread` any thread may call it."""
        portal = self._portal
        if portal is not None:
            portal.start_task_soon(self._hurry_now)
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
            CannotStart, SettingsError, RuntimeError: as `serving`.
        """
        self._check_idle()  # before the portal of the one that serves is lost
        with anyio.from_thread.start_blocking_portal(backend, backend_options) as portal:
            self._portal = portal
            try:
                with portal.wrap_async_context_manager(self.serving()) as served:
                    yield served
            finally:
                self._portal = None


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


def _unwrapped(group: BaseExceptionGroup[BaseException], bodys: BaseException | None) -> BaseException:
    """The single error that nested task groups of ours wrapped: callers expect `CannotStart`, or what their own body raised."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        # A group of the body's may come as a copy (trio takes cancellations out of it).
        if isinstance(bodys, BaseExceptionGroup) and error.exceptions == bodys.exceptions:
            return bodys
        if len(error.exceptions) > 1 and not all(isinstance(each, CannotStart) for each in error.exceptions):
            break  # while several groups that cannot start in the same moment are one reason too many
        error = error.exceptions[0]
    return error
