"""Where clients come in: the listeners, and their connections from the first accept to the end of the last."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from anyio.abc import TaskGroup, TaskStatus

from gatekeep._errors import CannotStart
from gatekeep._events import Logger
from gatekeep._host import Host, Listener
from gatekeep.settings._bind import Bind, BindKind
from gatekeep.transport._accept import Door, Room
from gatekeep.transport._front import Front


class Doors:
    """The listeners that clients connect to."""

    def __init__(self, host: Host, binds: Sequence[Bind], backlog: int) -> None:
        self._host = host
        self._binds = binds
        self._backlog = backlog
        self.listeners: list[tuple[Bind, Listener]] = []
        self.addresses: tuple[str, ...] = ()

    def __enter__(self) -> Doors:
        addresses = []
        for bind in self._binds:
            try:
                for listener, address in self._host.net.listen(bind, self._backlog):
                    self.listeners.append((bind, listener))
                    addresses.append(address)
            except (OSError, ValueError) as error:  # ValueError: text that the system takes for no address
                self.close()
                reason = getattr(error, "strerror", None) or error
                raise CannotStart(f"cannot listen on {bind}: {reason}") from error
        self.addresses = tuple(addresses)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def descriptors(self) -> dict[str, list[int]]:
        """Those of the listeners, by the address that was asked for."""
        found: dict[str, list[int]] = {}
        for bind, listener in self.listeners:
            found.setdefault(str(bind), []).append(listener.fileno())
        return found

    def close(self) -> None:
        """Listen no more; whoever still waits is turned away."""
        for _, listener in self.listeners:
            listener.close()
        self.listeners = []
        for bind in self._binds:
            if bind.kind is BindKind.UNIX:
                self._host.net.unlisten(bind)


class Shop:
    """Accepts and serves clients until it is closed.

    Attributes:
        patient: whether clients that keep idle connections are waited for then.
    """

    def __init__(self, host: Host, front: Front, room: Room, doors: Doors, grace: float, log: Logger) -> None:
        self._host = host
        self._front = front
        self._room = room
        self._doors = doors
        self._grace = grace
        self._log = log
        self.patient = False
        self._accepting = anyio.CancelScope()
        self._clients: TaskGroup | None = None
        self._shut = anyio.Event()
        self._closed = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Accept until `close`; returns when the last connection has ended."""
        try:
            async with anyio.create_task_group() as self._clients:
                self._front.guests.open(self._clients)
                doors = [
                    self._door(bind, listener, self._clients) for bind, listener in self._doors.listeners
                ]
                try:
                    await self._accept(doors, task_status)
                    if not self.patient:  # else another gateway takes what waits
                        for door in doors:
                            door.serve_waiting()
                finally:
                    self._doors.close()
                    self._shut.set()
        finally:
            self._closed.set()

    def _door(self, bind: Bind, listener: Listener, clients: TaskGroup) -> Door:
        handle = self._front.handler(bind)
        return Door(self._host.net, listener, self._room, handle, clients, self._log)

    async def _accept(self, doors: list[Door], task_status: TaskStatus[None]) -> None:
        with self._accepting:
            async with anyio.create_task_group() as tasks:
                for door in doors:
                    tasks.start_soon(door.serve)
                task_status.started()

    def leave(self) -> None:
        """Another gateway serves here from now on, and takes what waits. Connections that we have may have one more request."""
        self.patient = True
        self._front.stop(patient=True)
        self._accepting.cancel()

    async def announce_close(self, delay: float) -> None:
        """Say that we will close, and serve on for so many seconds: whoever balances the load needs them to notice.

        Where another gateway serves at these addresses nobody need notice anything.
        """
        if self.patient:
            return
        self._front.announce_stop()
        if delay:
            self._log.info("gateway.stop_announced", delay=delay)
            await anyio.sleep(delay)

    async def close(self) -> None:
        """Accept no more, let requests in flight finish within the grace, then drop what is left."""
        self._front.stop(patient=self.patient)
        self._accepting.cancel()
        try:
            # Nobody may be waiting for a listener when it is closed: its descriptor's number is another's in a moment.
            await self._shut.wait()
            with anyio.move_on_after(self._grace):
                await self._closed.wait()
        finally:
            if not self._closed.is_set() and self._clients is not None:
                if in_flight := self._front.in_flight():
                    self._log.warning("gateway.grace_over", in_flight=in_flight, grace=self._grace)
                self._clients.cancel_scope.cancel()
