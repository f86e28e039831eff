"""How long a client may keep us waiting for what it sends. Pure.

A fixed limit cuts the honest client on a slow line, or lets one hold a connection with a byte a minute. So the limit is a budget
that waiting spends and arriving bytes restore, at the least rate that is tolerated (Apache's `RequestReadTimeout`, which
mod_wsgi-express sets to 15 s and 500 bytes/s). Unlike there it never exceeds what it began with: whoever has sent a gigabyte
could be silent for weeks.
"""

from __future__ import annotations

import math


class Budget:
    """One client's budget for one head or one body. Time in which nobody waits for the client costs it nothing.

    Args:
        timeout: seconds that it may keep us waiting; `math.inf` for ever.
        rate: bytes that restore one second; 0 for nothing does.
        most: seconds that it may keep us waiting in all, whatever arrives.
    """

    __slots__ = ("_left", "_most", "_rate", "_since", "_timeout")

    def __init__(self, timeout: float, rate: float, most: float = math.inf) -> None:
        self._left = self._timeout = timeout
        self._rate = rate or math.inf
        self._most = most
        self._since = 0.0

    def wait_from(self, now: float) -> float:
        """We begin to wait. Returns when the patience is over."""
        self._since = now
        return now + min(self._left, self._most)

    def received(self, count: int, now: float) -> None:
        """The wait has brought so many bytes."""
        waited = now - self._since
        self._most -= waited
        self._left = min(self._timeout, self._left - waited + count / self._rate)
