"""Nonces of Digest challenges (RFC 7616): they tell their age, nobody else can make them, and each count is good once. Pure.

Nothing is kept of a nonce until somebody who knows a password has used it. Then it is known which of its counts (nc) came:
whoever has overheard a request cannot send it again. Counts may come in any order, since clients have several connections.
"""

from __future__ import annotations

import hashlib
import hmac

NONCE_LIFE = 300.0
"""Seconds after which a client must answer a new challenge (it does so by itself, without asking the user)."""

WINDOW = 128
"""How far a count may lie behind the highest one that came with its nonce."""

KEPT = 10_000
"""Nonces whose counts are kept, the latest to be used first; what is older than one that was forgotten counts as too old."""


def make_nonce(now: float, secret: bytes, serial: int = 0) -> str:
    """A nonce.

    Args:
        serial: what tells it from others of the same moment.
    """
    text = f"{now:.3f}-{serial}"
    return f"{text}-{_signature(text, secret)}"


def nonce_made(nonce: str, secret: bytes) -> float | None:
    """When it was made; None where it is none of ours."""
    text, _, signature = nonce.rpartition("-")
    if not hmac.compare_digest(_signature(text, secret).encode(), signature.encode("utf-8", "replace")):
        return None
    return float(text.rpartition("-")[0])


def _signature(text: str, secret: bytes) -> str:
    return hmac.new(secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]


class Nonces:
    """Those of one place that asks for passwords."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._serial = 0
        self._used: dict[str, _Counts] = {}
        self._forgotten = -1.0

    def make(self, now: float) -> str:
        """A new one: no two clients have the same, or one would use up the other's counts."""
        self._serial += 1
        return make_nonce(now, self._secret, self._serial)

    def use(self, nonce: str, count: int, now: float) -> bool:
        """Whether a client that has proved to know the password may use this nonce with this count. It may do so once."""
        made = nonce_made(nonce, self._secret)
        if made is None or now - made > NONCE_LIFE:
            return False
        counts = self._used.get(nonce)
        if counts is None:
            if made <= self._forgotten:
                return False  # its counts may be among those that were forgotten
            self._forget(now)
            counts = self._used[nonce] = _Counts(made)
        return counts.take(count)

    def _forget(self, now: float) -> None:
        while self._used:
            nonce, oldest = next(iter(self._used.items()))
            if now - oldest.made <= NONCE_LIFE:
                if len(self._used) < KEPT:
                    return
                self._forgotten = max(self._forgotten, oldest.made)
            del self._used[nonce]


class _Counts:
    """Which counts of a nonce came: the highest, and as bits which of those before it."""

    __slots__ = ("_came", "_highest", "made")

    def __init__(self, made: float) -> None:
        self.made = made
        self._highest = 0
        self._came = 1  # there is no zeroth

    def take(self, count: int) -> bool:
        ahead = count - self._highest
        if ahead > 0:
            self._highest = count
            self._came = (self._came << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
            return True
        if -ahead >= WINDOW or self._came >> -ahead & 1:
            return False
        self._came |= 1 << -ahead
        return True
