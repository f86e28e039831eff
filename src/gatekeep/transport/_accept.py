"""The accept stage: take clients' connections as they come."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from gatekeep._events import Logger
from gatekeep._host import Listener, Net, Peer

OVERLOAD = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The system has run out of something for a moment: everything else goes on, so must we (as trio's serve_listeners does)."""

OVERLOAD_PAUSE = 0.1
"""Seconds between attempts then, as in trio."""

BATCH = 64
"""Connections taken between two looks at the event loop."""


async def serve(
    net: Net,
    listener: Listener,
    handle: Callable[[Peer], Awaitable[None]],
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
            await waiter.wait_readable()
            if not _accept_all(net, listener, handle, connections, log):
                await anyio.sleep(OVERLOAD_PAUSE)
    finally:
        waiter.close()


def _accept_all(
    net: Net,
    listener: Listener,
    handle: Callable[[Peer], Awaitable[None]],
    connections: TaskGroup,
    log: Logger,
) -> bool:
    """Take what waits, but not without end. False when the system is out of something."""
    for _ in range(BATCH):
        try:
            peer = net.accept(listener)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in OVERLOAD:
                log.warning("accept.paused", reason=str(error), pause=OVERLOAD_PAUSE)
                return False
            if error.errno not in (errno.ECONNABORTED, errno.EPROTO, errno.EPERM):
                raise
        else:
            connections.start_soon(handle, peer)
    return True
