"""The accept stage: take clients' connections as they come."""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from gatekeep._events import Logger
from gatekeep._host import OVERLOAD, Listener, Net, Peer

OVERLOAD_PAUSE = 0.1
"""Seconds before another attempt when the system has run out of something, as in trio's `serve_listeners`."""

LOOK_AGAIN = 1.0
"""Seconds after which somebody who waits for room looks again for a connection that can be spared."""

BATCH = 64
"""Connections taken in a row before the event loop gets its turn."""

PASSED_OVER = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
"""The connection was gone, or forbidden by a firewall, before we took it (accept(2))."""


class Room:
    """How many clients may be connected, and what is done when one more comes.

    Args:
        most: connections at once.
        relieve: called to close one that can be spared.

    Attributes:
        crowded: whether somebody waits outside, so that no connection should stay without a request.
    """

    def __init__(self, most: int, relieve: Callable[[], None]) -> None:
        self.crowded = False
        self._most = most
        self._relieve = relieve
        self._inside = self._outside = 0
        self._left = anyio.Event()

    def enter(self) -> None:
        """One more is connected."""
        self._inside += 1

    def leave(self) -> None:
        """A connection has ended."""
        self._inside -= 1
        if self.crowded:
            self._left.set()

    async def wait(self) -> None:
        """Wait until there is room for one more. Idle connections are closed for it, and those that become idle meanwhile.

        Several may wait, one for each address: all of them are woken, since nobody knows where the next client is.
        """
        if self._inside < self._most:
            return
        self._outside += 1
        self.crowded = True
        try:
            while self._inside >= self._most:
                if self._left.is_set():
                    self._left = anyio.Event()
                self._relieve()
                with anyio.move_on_after(LOOK_AGAIN):
                    await self._left.wait()
        finally:
            self._outside -= 1
            self.crowded = self._outside > 0

    async def recover(self) -> None:
        """The system has run out of something, descriptors most likely: close what can be spared, and wait a moment."""
        self._relieve()
        await anyio.sleep(OVERLOAD_PAUSE)


class Door:
    """One listener that clients connect to.

    `handle` serves one client to its end, in a task of its own in `connections`.
    """

    def __init__(
        self,
        net: Net,
        listener: Listener,
        room: Room,
        handle: Callable[[Peer], Coroutine[Any, Any, None]],
        connections: TaskGroup,
        log: Logger,
    ) -> None:
        self._net = net
        self._listener = listener
        self._room = room
        self._handle = handle
        self._connections = connections
        self._log = log
        self._paused = False

    async def serve(self) -> None:
        """Accept until cancelled.

        Never returns. An error of one connection (it was reset before we took it) is passed over; when descriptors or memory run
        out there is a pause; anything else is a fault and raised.
        """
        waiter = self._net.waiter(self._listener)
        try:
            while True:
                for _ in range(BATCH):
                    await self._room.wait()
                    try:
                        self._take()
                    except BlockingIOError:
                        await waiter.wait_readable()
                    except OSError as error:
                        await self._overcome(error)
                await checkpoint()
        finally:
            waiter.close()

    def serve_waiting(self) -> None:
        """Take what waits now, before the listener is closed: these clients were promised a connection."""
        try:
            while True:
                self._take()
        except OSError:
            pass  # none is left, or none can be had

    def _take(self) -> None:
        peer = self._net.accept(self._listener)
        self._room.enter()
        self._connections.start_soon(self._serve, peer)
        if self._paused:
            self._paused = False
            self._log.info("accept.resumed")

    async def _serve(self, peer: Peer) -> None:
        try:
            await self._handle(peer)
        finally:
            self._room.leave()

    async def _overcome(self, error: OSError) -> None:
        if error.errno in OVERLOAD:
            if not self._paused:
                self._log.warning("accept.paused", reason=str(error))
                self._paused = True
            await self._room.recover()
        elif error.errno not in PASSED_OVER:
            raise error
