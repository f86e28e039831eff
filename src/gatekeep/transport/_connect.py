"""The connect stage: a connection to the group's listener within connect-timeout."""

from __future__ import annotations

import anyio

from gatekeep._channel import Channel
from gatekeep._errors import ConnectExpired, ConnectFailed
from gatekeep._group import Group
from gatekeep._host import OVERLOAD, Net
from gatekeep.transport._backoff import connect_pauses


async def connect_patiently(net: Net, group: Group, timeout: float) -> Channel:
    """Connect once the backlog, which was found full, has room again.

    `Net.connect` is our own: anyio's `connect_unix` hides a full backlog (trio returns a stream that breaks later, asyncio and
    uvloop hang until the deadline).

    Raises:
        ConnectExpired: the backlog stayed full for `timeout` seconds.
        ConnectFailed: the listener cannot be reached at all; trying again would not help.
    """
    for pause in connect_pauses(timeout):
        await anyio.sleep(pause)
        channel = connect_nowait(net, group)
        if channel is not None:
            return channel
    raise ConnectExpired(f"the listen-backlog of group {group.name} stayed full for {timeout:g} s")


def connect_nowait(net: Net, group: Group) -> Channel | None:
    """Connect at once; None when the backlog is full, or we are out of descriptors.

    Raises:
        ConnectFailed: as above.
    """
    try:
        return Channel(net, net.connect(group.address))
    except (BlockingIOError, ConnectionRefusedError):
        # EAGAIN is the full backlog of a non-blocking connect; mod_wsgi retries a refusal likewise.
        return None
    except OSError as error:
        if error.errno in OVERLOAD:
            return None
        raise ConnectFailed(f"cannot connect to group {group.name} at {group.address}: {error}") from error
