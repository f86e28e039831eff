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

BATCH = 64
"""Connections taken in a row before the event loop gets its turn."""

PASSED_OVER = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
"""The connection was gone, or forbidden by a firewall, before we took it (accept(2))."""


async def serve(
    net: Net,
    listener: Listener,
    handle: Callable[[Peer], Coroutine[Any, Any, None]],
    connections: TaskGroup,
    log: Logger,
) -> None:
    """Accept until cancelled, each connection handled by a task of its own in `connections`.

    Never returns. An error of one connection (it was reset before we took it) is passed over; when descriptors or memory run out
    there is a pause; anything else is a fault and raised.
    """
    waiter = net.waiter(listener)
    try:
        while True:
            for _ in range(BATCH):
                try:
                    connections.start_soon(handle, net.accept(listener))
                except BlockingIOError:
                    await waiter.wait_readable()
                except OSError as error:
                    await _overcome(error, log)
            await checkpoint()
    finally:
        waiter.close()


async def _overcome(error: OSError, log: Logger) -> None:
    if error.errno in OVERLOAD:
        log.warning("accept.paused", reason=str(error), pause=OVERLOAD_PAUSE)
        await anyio.sleep(OVERLOAD_PAUSE)
    elif error.errno not in PASSED_OVER:
        raise error


def accept_waiting(
    net: Net, listener: Listener, handle: Callable[[Peer], Coroutine[Any, Any, None]], connections: TaskGroup
) -> None:
    """Take what waits now, before the listener is closed: these clients were promised a connection."""
    try:
        while True:
            connections.start_soon(handle, net.accept(listener))
    except OSError:
        pass  # none is left, or none can be had
