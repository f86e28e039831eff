"""A logger that keeps what it is told, for tests that ask about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from gatekeep._events import DEBUG, INFO

Event = dict[str, Any]

SHOWN = 100
"""Events, the newest ones, that a failure shows."""


class EventMissing(AssertionError):
    """An event that was waited for did not come; the message has what came instead."""


class Events:
    """A `gatekeep._events.Logger`. Any thread may tell it something, and ask.

    Args:
        debug: whether events at debug are kept.
    """

    def __init__(self, *, debug: bool) -> None:
        self._level = DEBUG if debug else INFO
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def is_enabled_for(self, level: int) -> bool:
        """As structlog's loggers: what is not wanted is not put together."""
        return level >= self._level

    def debug(self, event: str, **fields: Any) -> None:
        if self._level == DEBUG:
            self._add("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._add("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._add("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._add("error", event, fields)

    def _add(self, level: str, event: str, fields: dict[str, Any]) -> None:
        with self._changed:
            self._events.append({"event": event, "level": level, **fields})
            self._changed.notify_all()

    def all(self) -> list[Event]:
        """What came so far, the oldest first."""
        with self._changed:
            return list(self._events)

    def find(self, name: str | None, fields: dict[str, Any]) -> list[Event]:
        """Those of that name, or any, with those fields."""
        with self._changed:
            return self._find(name, fields)

    def _find(self, name: str | None, fields: dict[str, Any]) -> list[Event]:
        return [
            event
            for event in self._events
            if name in (None, event["event"])
            and all(key in event and event[key] == value for key, value in fields.items())
        ]

    def wait_for(self, name: str, fields: dict[str, Any], count: int, timeout: float) -> Event:
        """The newest one of that name with those fields, once there are `count` of them.

        Raises:
            EventMissing: they did not come within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(found := self._find(name, fields)) < count:
                if (
                    not self._changed.wait(max(0.0, deadline - time.monotonic()))
                    and time.monotonic() >= deadline
                ):
                    raise EventMissing(self._what_is_missing(name, fields, count, len(found), timeout))
        return found[-1]

    def _what_is_missing(self, name: str, fields: Event, count: int, found: int, timeout: float) -> str:
        what = name + "".join(f" {key}={value!r}" for key, value in fields.items())
        instead = f"{found} of {count} came" if count > 1 else "it did not come"
        return f"{what}: {instead} within {timeout:g} s. The events:\n{describe(self._events)}"


def describe(events: Iterable[Event]) -> str:
    """Events as lines for people; what has lines of its own (tracebacks, stacks) stands below."""
    every = list(events)
    left_out = [f"({len(every) - SHOWN} before these)"] if len(every) > SHOWN else []
    return "\n".join([*left_out, *(_line(event) for event in every[-SHOWN:])]) or "(none)"


def _line(event: Event) -> str:
    fields = {key: value for key, value in event.items() if key not in ("event", "level") and value != ""}
    long = {key: value for key, value in fields.items() if isinstance(value, str) and "\n" in value}
    short = " ".join(f"{key}={value}" for key, value in fields.items() if key not in long)
    blocks = ("\n    ".join([f"{key}:", *value.splitlines()]) for key, value in long.items())
    return "\n  ".join([f"{event['level']:<7} {event['event']} {short}".rstrip(), *blocks])
