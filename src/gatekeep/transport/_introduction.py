"""Connections that begin with a PROXY header: who may connect, and the wait for it. `_proxy_protocol` reads it."""

from __future__ import annotations

from collections.abc import Callable

from gatekeep._alarms import Alarm
from gatekeep._channel import Channel, WaitExpired
from gatekeep._events import Logger
from gatekeep._host import Peer
from gatekeep._statistics import Counters
from gatekeep._trust import Trust
from gatekeep.settings._http import HttpSettings
from gatekeep.transport._budget import Budget
from gatekeep.transport._forwarding import Once
from gatekeep.transport._proxies import shown
from gatekeep.transport._proxy_protocol import Introduction, NotIntroduced, ProxyHeader


class Introductions:
    """Who may introduce connections, and what is said of those that were not as they should be."""

    def __init__(self, settings: HttpSettings, counters: Counters, log: Logger) -> None:
        self._allowed = Trust(settings.proxy_allow_from)
        self._counters = counters
        self._once = Once(log)

    def may_connect(self, peer: Peer) -> bool:
        """Whether a peer may connect where the PROXY protocol is spoken. One that may not is counted and logged."""
        address = peer.client[0] if peer.client is not None else None
        if self._allowed.includes(address):
            return True
        self._refused(peer, "not_allowed", setting=f"--proxy-allow-from {address}")
        return False

    def failed(self, peer: Peer, reason: str) -> None:
        """A connection was closed for what came in the place of its header."""
        self._refused(peer, "malformed", reason=reason)

    def _refused(self, peer: Peer, why: str, **fields: object) -> None:
        self._counters.not_introduced += 1
        address = peer.client[0] if peer.client is not None else None
        self._once.warn(
            (address, why), f"proxy_protocol.{why}", peer=shown(peer.client), action="closed", **fields
        )


async def introduce(
    channel: Channel, header: ProxyHeader, alarm: Alarm, budget: Budget, now: Callable[[], float]
) -> Introduction | None:
    """Receive a connection's PROXY header; None where the peer says nothing at all, as one that only looks for an open port.

    Args:
        budget: how long it may take.

    Raises:
        NotIntroduced: what came is none, or not all of it came in time.
        OSError: as the socket does.
    """
    while True:
        alarm.set(budget.wait_from(now()))
        try:
            data = await channel.receive_next()
        except WaitExpired:
            if header.is_empty:
                return None
            raise NotIntroduced("it did not come within header-timeout") from None
        if not data:
            if header.is_empty:
                return None
            raise NotIntroduced("the connection ended inside it")
        budget.received(len(data), now())
        introduction = header.receive(data)
        if introduction is not None:
            return introduction
