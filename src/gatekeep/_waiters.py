"""Waiting for sockets on asyncio, uvloop and trio: the `Waiter`s of the real host."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any

if hasattr(select, "epoll"):
    READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
    ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    # Not EPOLLRDHUP: a client that has shut its sending side is reported again with every look, and may not be reading.
    WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


class Hub:
    """Waits for all sockets of an asyncio or uvloop program through one epoll of our own, which the loop watches.

    The loop's own registration of each hop costs up to four `epoll_ctl` a request (uvloop), or as many Python calls (asyncio);
    here it is one. Edge-triggered: an event that comes while nobody waits is remembered, so nothing is ever registered again.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._waiters: dict[int, HubWaiter] = {}
        self._loop.add_reader(self._epoll.fileno(), self._on_events)
        self.new_future = self._loop.create_future

    def waiter(self, sock: Any) -> HubWaiter:
        """A waiter for a socket that has none."""
        fd = sock.fileno()
        waiter = self._waiters[fd] = HubWaiter(self, fd)
        self._epoll.register(fd, READABLE)
        return waiter

    def _on_events(self) -> None:
        waiters = self._waiters
        for fd, mask in self._epoll.poll(0, 256):
            waiter = waiters.get(fd)
            if waiter is not None:
                waiter.happened(mask)

    def want_writable(self, fd: int, wanted: bool) -> None:
        """Whether events of writability are of interest; changing it reports what is the case already."""
        self._epoll.modify(fd, READABLE | select.EPOLLOUT if wanted else READABLE)

    def forget(self, fd: int, waiter: HubWaiter) -> None:
        """The socket is about to be closed, or is waited for no more.

        The kernel would forget a closed socket by itself, but not one that a child of the program around us holds as well.
        """
        if self._waiters.get(fd) is waiter:
            del self._waiters[fd]
            try:
                self._epoll.unregister(fd)
            except (OSError, ValueError):
                pass  # it, or all of the epoll, is closed already

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class HubWaiter:
    """Waits for one socket."""

    __slots__ = ("_ended", "_fd", "_hub", "_readable", "_reader", "_writer")

    def __init__(self, hub: Hub, fd: int) -> None:
        self._hub = hub
        self._fd = fd
        self._readable = False
        self._ended = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def happened(self, mask: int) -> None:
        """Events that epoll reported. An end lasts, so that whoever waits for it later is told, too."""
        if mask & ENDED:
            self._ended = True
        if mask & ~select.EPOLLOUT:
            if self._reader is not None and not self._reader.done():
                self._reader.set_result(None)
            else:
                self._readable = True
        if self._writer is not None and mask & WRITABLE and not self._writer.done():
            self._writer.set_result(None)

    async def wait_readable(self) -> None:
        if self._readable or self._ended:
            self._readable = False
            await asyncio.sleep(0)
            return
        self._reader = future = self._hub.new_future()
        try:
            await future
        finally:
            self._reader = None

    def interrupt(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def wait_writable(self) -> None:
        self._writer = future = self._hub.new_future()
        self._hub.want_writable(self._fd, True)
        try:
            await future
        finally:
            self._writer = None
            self._hub.want_writable(self._fd, False)

    def close(self) -> None:
        self._hub.forget(self._fd, self)


class LoopWaiter:
    """Where there is no epoll: one `add_reader` registration per socket, a future per wait.

    anyio's own `wait_readable` registers anew for every wait: 64 µs against a few. The registration is dropped only when data
    comes and nobody waits, for then it would wake the loop for ever.
    """

    __slots__ = ("_fd", "_loop", "_reader", "_registered", "_writer")

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._registered = False

    async def wait_readable(self) -> None:
        if not self._registered:
            self._registered = True
            self._loop.add_reader(self._fd, self._on_readable)
        self._reader = future = self._loop.create_future()
        try:
            await future
        finally:
            self._reader = None

    def interrupt(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _on_readable(self) -> None:
        future = self._reader
        if future is None:
            self._registered = False
            self._loop.remove_reader(self._fd)
        elif not future.done():
            future.set_result(None)

    async def wait_writable(self) -> None:
        self._writer = future = self._loop.create_future()
        self._loop.add_writer(self._fd, self._on_writable)
        try:
            await future
        finally:
            self._writer = None
            self._loop.remove_writer(self._fd)

    def _on_writable(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def close(self) -> None:
        if self._registered:
            self._registered = False
            self._loop.remove_reader(self._fd)


class TrioWaiter:
    """trio waits for descriptors itself."""

    __slots__ = ("_closed", "_lowlevel", "_reading", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        from trio import ClosedResourceError, lowlevel

        self._socket = sock
        self._lowlevel = lowlevel
        self._closed = ClosedResourceError
        self._reading = False

    async def wait_readable(self) -> None:
        self._reading = True
        try:
            await self._lowlevel.wait_readable(self._socket)
        except self._closed:
            pass  # we were interrupted
        finally:
            self._reading = False

    def interrupt(self) -> None:
        if self._reading:
            self._lowlevel.notify_closing(self._socket)

    async def wait_writable(self) -> None:
        await self._lowlevel.wait_writable(self._socket)

    def close(self) -> None:
        pass


def is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
