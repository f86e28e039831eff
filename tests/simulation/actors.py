"""Everybody in the world but the gateway: generators that yield before each of their system calls."""

from __future__ import annotations

from collections.abc import Callable, Generator
from math import inf


class Wait:
    """What an actor waits for: a condition, a time, or the loop's next deadline exactly."""

    __slots__ = ("at_deadline", "ready", "until")

    def __init__(
        self, ready: Callable[[], object] | None = None, until: float = inf, *, at_deadline: bool = False
    ) -> None:
        self.ready = ready
        self.until = until
        self.at_deadline = at_deadline


NOW = Wait(until=-inf)
"""Only others may run before the next step."""

Steps = Generator[Wait, None, None]


class Actor:
    """Somebody who acts by himself."""

    __slots__ = ("name", "steps", "wait")

    def __init__(self, name: str, steps: Steps) -> None:
        self.name = name
        self.steps = steps
        self.wait = NOW
