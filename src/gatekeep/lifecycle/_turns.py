"""Planned changes, one process at a time. Pure.

A group of N processes then has N that serve and at most one more, whatever is due at the same moment. Who has the turn keeps
it until its old process is gone: that is what bounds the memory.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Who may be replaced now.

    Attributes:
        holder: that one; None where nobody waits.
    """

    def __init__(self) -> None:
        self.holder: T | None = None
        self._waiting: deque[T] = deque()

    def ask(self, who: T) -> T | None:
        """It is due. Returns it if its turn is now."""
        if who is not self.holder and who not in self._waiting:
            self._waiting.append(who)
        return self._next()

    def done(self, who: T) -> T | None:
        """It is gone, or needs no turn any more. Returns whose turn comes with that."""
        if who is self.holder:
            self.holder = None
        elif who in self._waiting:
            self._waiting.remove(who)
        return self._next()

    def _next(self) -> T | None:
        if self.holder is None and self._waiting:
            self.holder = self._waiting.popleft()
            return self.holder
        return None
