"""What is said and counted of a request: the outcomes, the canonical record, and the logger that is handed in. Pure.

Event names are `stage.past_participle`. One `request.finished` at info stands for each request; each stage has an event at
debug; above debug a stage speaks only when something happened.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from gatekeep._stages import Stage


class Outcome(StrEnum):
    """How a request ended. The list is closed: every request has exactly one."""

    SERVED = "served"
    """The application's response reached the client whole."""
    APP_ERROR = "app_error"
    """The application raised before its head; the client got 500."""
    SHED = "shed"
    """No worker could be had in time, or its body could not be kept; the client got 503 or 507."""
    QUEUE_TIMEOUT = "queue_timeout"
    """It waited longer than queue-timeout; the client got 504."""
    REFUSED = "refused"
    """What the client sent is not acceptable, or came too slowly; it got 4xx, 501 or 505."""
    INTERRUPTED = "interrupted"
    """It ran past a timer; the client got 504."""
    LOST = "lost"
    """It had started and its process ended; the client got 502."""
    CLIENT_GONE = "client_gone"
    """Nobody was there to take the answer."""
    TRUNCATED = "truncated"
    """The response stopped short; the client could see that."""


class Action(StrEnum):
    """What was done about a request that came to no good end."""

    ANSWERED = "answered"
    """The client got a status of ours."""
    CLOSED = "closed"
    """The connection was closed inside the response, so that the client can tell."""
    DROPPED = "dropped"
    """Nobody was there to be told."""


class Logger(Protocol):
    """The part of a structlog logger that the library uses. It never configures one."""

    def debug(self, event: str, **fields: Any) -> Any: ...
    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...


DEBUG, INFO = 10, 20
"""The numbers that `logging` and structlog know these levels by."""


def says(log: Logger, level: int) -> bool:
    """Whether the logger passes events of that level on: what nobody reads need not be put together for every request."""
    asked = getattr(log, "is_enabled_for", None)
    return asked is None or bool(asked(level))


class SilentLogger:
    """For programs that embed the gateway and hand in no logger."""

    def debug(self, event: str, **fields: Any) -> None: ...
    def info(self, event: str, **fields: Any) -> None: ...
    def warning(self, event: str, **fields: Any) -> None: ...
    def error(self, event: str, **fields: Any) -> None: ...
    def is_enabled_for(self, level: int) -> bool:
        return False


def request_name(number: int) -> str:
    """The request's number as people see it: 16 hexadecimal digits. (Its end, while it is told, has the negative one.)"""
    return "%016x" % abs(number)  # noqa: UP031 (an f-string costs twice as much)


_PARSE = Stage.PARSE  # looking a member up in its class costs a tenth of a microsecond in Python 3.11


class Record:
    """One request's story, filled in as it goes; all stamps are seconds of the shared monotonic clock, 0.0 for never.

    Attributes:
        number: the request's number.
        client: whose request it is, as far as we believe what proxies tell.
        peer: whose connection it came over, where that is another's.
        began: its first byte was read. received: its head was complete. written: the (last) envelope went out.
        claimed: a worker took it. answered: the application's head arrived. ended: all is over.
        buffered: its body was there, where it was received before a worker was asked.
        stage: where it is, and at the end where it ended.
        timer, age, action: of a request that came to no good end: the setting that fired, how many seconds after `began`,
            and what was done about it.
        body_in, body_out: bytes of bodies, decoded, from and to the client.
        memory_growth: bytes by which its process's resident memory grew while it ran, where that is more than 1 MiB.
        more: further fields of the canonical event, by name; None where there are none.
    """

    __slots__ = (
        "action",
        "age",
        "answered",
        "attempts",
        "began",
        "body_in",
        "body_out",
        "buffered",
        "claimed",
        "client",
        "ended",
        "group",
        "memory_growth",
        "method",
        "more",
        "number",
        "outcome",
        "path",
        "peer",
        "pid",
        "protocol",
        "reason",
        "received",
        "stage",
        "status",
        "thread",
        "timer",
        "written",
    )

    def __init__(self, number: int, client: str, began: float) -> None:
        self.number = number
        self.client = client
        self.began = began
        self.received = self.buffered = self.written = self.claimed = self.answered = self.ended = (
            self.age
        ) = 0.0
        self.method = self.path = self.protocol = self.group = self.reason = self.timer = self.peer = ""
        self.action: Action | None = None
        self.stage = _PARSE
        self.outcome: Outcome | None = None
        self.more: dict[str, Any] | None = None
        self.status = self.pid = self.attempts = self.body_in = self.body_out = self.memory_growth = 0
        self.thread = -1

    def describe(self, method: str, path: str, protocol: str) -> None:
        """What was asked, as far as it is known."""
        self.method, self.path, self.protocol = method, path, protocol

    def note(self, more: dict[str, Any]) -> None:
        """Further fields of the canonical event."""
        self.more = more if self.more is None else self.more | more

    def failed(self, outcome: Outcome, reason: str, timer: str, action: Action, now: float) -> None:
        """It came to no good end."""
        self.outcome, self.reason, self.timer, self.action = outcome, reason, timer, action
        self.age = now - self.began

    def stage_times(self) -> dict[str, float]:
        """Seconds spent in each stage that was entered, in order; they add up to the whole."""
        marks = (
            (Stage.PARSE, self.received),
            (Stage.BODY, self.buffered),
            (Stage.CONNECT, self.written),
            (Stage.QUEUE, self.claimed),
            (Stage.RUN, self.answered),
            (Stage.RESPOND, self.ended),
        )
        times: dict[str, float] = {}
        last = self.began
        for stage, mark in marks:
            if not mark and stage is Stage.BODY:
                continue  # it was passed on as it came, or there was none
            if not mark:
                break
            times[stage] = round(mark - last, 6)
            last = mark
        if self.ended > last:
            times[self.stage] = round(times.get(self.stage, 0.0) + self.ended - last, 6)
        return times

    def fields(self) -> dict[str, Any]:
        """The canonical event's fields, as plain data."""
        fields = self._usual_fields()
        if self.action is not None:
            fields |= {"timer": self.timer, "age": round(self.age, 6), "action": self.action}
        if self.peer:
            fields["peer"] = self.peer
        if self.memory_growth:
            fields["memory_growth"] = self.memory_growth
        if self.more is not None:
            fields |= self.more
        return fields

    def _usual_fields(self) -> dict[str, Any]:
        return {
            "request_id": request_name(self.number),
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "protocol": self.protocol,
            "group": self.group,
            "status": self.status,
            "outcome": self.outcome,
            "stage": self.stage,
            "reason": self.reason,
            "pid": self.pid,
            "thread": self.thread,
            "attempts": self.attempts,
            "bytes_in": self.body_in,
            "bytes_out": self.body_out,
            "duration": round(self.ended - self.began, 6),
            "stages": self.stage_times(),
        }
