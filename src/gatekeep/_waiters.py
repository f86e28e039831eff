"""Waiting for sockets on asyncio, uvloop and trio: the `Waiter`s of the real host."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol

from gatekeep._host import Ended, ignore_end

_NOT, _SENDING, _BROKEN = (
    Ended  # looking a member up in its class costs a tenth of a microsecond in Python 3.11
)

if hasattr(select, "epoll"):
    READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
    BROKEN = select.EPOLLHUP | select.EPOLLERR
    ENDED = select.EPOLLRDHUP | BROKEN
    EPOLLOUT = select.EPOLLOUT
    # Not EPOLLRDHUP: a client that has shut its sending side is reported again with every look, and may not be reading.
    WRITABLE = EPOLLOUT | BROKEN
    NOT_WRITABILITY = ~EPOLLOUT


class Hub:
    """Waits for all sockets of a program through one epoll of our own, which the event loop watches.

    The loop's own registration of each hop costs up to four `epoll_ctl` a request (uvloop), as many Python calls (asyncio), or
    one `epoll_ctl` for each wait (trio); here it is one for a socket's life. Edge-triggered: an event that comes while nobody
    waits is remembered, so nothing is ever registered again, and a client that goes while its request runs is noticed without
    a wait.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._waiters: dict[int, HubWaiter] = {}
        self.new_future = loop.new_future
        self.checkpoint = loop.checkpoint
        loop.watch(self._epoll.fileno(), self._on_events)

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
        self._epoll.modify(fd, READABLE | EPOLLOUT if wanted else READABLE)

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
        self._loop.unwatch(self._epoll.fileno())
        self._epoll.close()


class HubWaiter:
    """Waits for one socket."""

    __slots__ = ("_fd", "_hub", "_readable", "_reader", "_writer", "ended", "on_end")

    def __init__(self, hub: Hub, fd: int) -> None:
        self._hub = hub
        self._fd = fd
        self._readable = False
        self._reader: Future | None = None
        self._writer: Future | None = None
        self.ended = _NOT
        self.on_end: Callable[[], None] = ignore_end

    def happened(self, mask: int) -> None:
        """Events that epoll reported. An end lasts, so that whoever waits for it later is told, too."""
        if mask & NOT_WRITABILITY:
            if self._reader is not None and not self._reader.done():
                self._reader.set_result(None)
            else:
                self._readable = True
        if self._writer is not None and mask & WRITABLE and not self._writer.done():
            self._writer.set_result(None)
        if mask & ENDED:
            ended = _BROKEN if mask & BROKEN else _SENDING
            if ended is not self.ended:  # to ask for writability reports it again
                self.ended = ended
                self.on_end()

    def wait_readable(self) -> Awaitable[None]:
        # A future that is done, or was cancelled, is nobody's: it may stay where it is until the next wait.
        if self._readable or self.ended:
            self._readable = False
            return self._hub.checkpoint()
        self._reader = future = self._hub.new_future()
        return future

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
        self.on_end = ignore_end
        self._hub.forget(self._fd, self)


class Future(Protocol):
    """A result that one task waits for."""

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> None: ...
    def __await__(self) -> Generator[Any, Any, None]: ...


class Loop(Protocol):
    """What the hub needs of an event loop."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable."""

    def unwatch(self, fd: int) -> None:
        """Do so no more."""

    @property
    def new_future(self) -> Callable[[], Future]: ...
    @property
    def checkpoint(self) -> Callable[[], Awaitable[None]]: ...


class AsyncioLoop:
    """asyncio, or uvloop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.new_future: Callable[[], Future] = self._loop.create_future

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._loop.add_reader(fd, callback)

    def unwatch(self, fd: int) -> None:
        self._loop.remove_reader(fd)

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)


class TrioLoop:
    """trio."""

    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._watching = False
        self.checkpoint: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._watching = True
        self._trio.lowlevel.spawn_system_task(self._watch, fd, callback)

    async def _watch(self, fd: int, callback: Callable[[], None]) -> None:
        try:
            while self._watching:
                await self._trio.lowlevel.wait_readable(fd)
                # It may have been closed since the event that woke us: a system task must not fail.
                if self._watching:
                    callback()
        except self._trio.ClosedResourceError:
            pass

    def unwatch(self, fd: int) -> None:
        self._watching = False
        self._trio.lowlevel.notify_closing(fd)

    def new_future(self) -> Future:
        return TrioFuture(self._trio.lowlevel)


class TrioFuture:
    """A future for one waiting task, which trio has not."""

    __slots__ = ("_done", "_lowlevel", "_task")

    def __init__(self, lowlevel: Any) -> None:
        self._lowlevel = lowlevel
        self._task: Any = None
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: None, /) -> None:
        self._done = True
        self._lowlevel.reschedule(self._task)

    def __await__(self) -> Generator[Any, None, None]:
        self._task = self._lowlevel.current_task()
        yield from self._lowlevel.wait_task_rescheduled(self._abort).__await__()

    def _abort(self, _: Any) -> Any:
        self._done = True
        return self._lowlevel.Abort.SUCCEEDED


class LoopWaiter:
    """Where there is no epoll: one `add_reader` registration per socket, a future per wait.

    anyio's own `wait_readable` registers anew for every wait: 64 µs against a few. The registration is dropped only when data
    comes and nobody waits, for then it would wake the loop for ever.
    """

    __slots__ = ("_fd", "_loop", "_reader", "_registered", "_writer", "ended", "on_end")

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._registered = False
        self.ended = Ended.NOT  # nobody tells us
        self.on_end: Callable[[], None] = ignore_end

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
    """The same on trio, which waits for descriptors itself."""

    __slots__ = ("_closed", "_lowlevel", "_reading", "_socket", "ended", "on_end")

    def __init__(self, sock: socket.socket) -> None:
        from trio import ClosedResourceError, lowlevel

        self._socket = sock
        self._lowlevel = lowlevel
        self._closed = ClosedResourceError
        self._reading = False
        self.ended = Ended.NOT
        self.on_end: Callable[[], None] = ignore_end

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


def running_loop() -> str:
    """The event loop that runs: "asyncio", "uvloop" or "trio"."""
    if not is_asyncio():
        return "trio"
    return "uvloop" if type(asyncio.get_running_loop()).__module__.startswith("uvloop") else "asyncio"


def is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
