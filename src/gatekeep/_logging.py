"""The command's log: structlog events, as JSON lines or for people at a terminal, written by a thread.

Nothing blocks the event loop, log writing included (standard output may be a pipe that nobody reads): lines go through a bounded
queue to a thread; what finds the queue full is dropped, counted and reported. The library itself takes a logger and never
configures one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any

import msgspec
import structlog

from gatekeep._access_format import AccessFormat, Moment
from gatekeep._events import Logger

QUEUE = 20000
"""Lines that may wait for a slow reader before the next ones are dropped."""

QUEUE_BYTES = 16 << 20
"""Bytes that may wait likewise."""

REST = 0.005
"""Seconds between two writes: under load the thread is woken 200 times a second, not once for each line."""

LOOKS = 20
"""Looks at whether all is written when the log is closed: while this whole process is paused, one of them is missed, not all."""

REQUEST_FINISHED = "request.finished"

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LineWriter:
    """Writes lines to a descriptor from a thread of its own; the logger that structlog wraps."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self._bell = threading.Event()
        self._queued = self._written = 0  # bytes so far, each counted by one thread
        self._dropped = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="gatekeep-log", daemon=True)
        self._thread.start()

    def msg(self, line: bytes) -> None:
        """Queue a line. Never blocks."""
        if len(self._lines) >= QUEUE or self._queued - self._written > QUEUE_BYTES:
            self._dropped += 1
            return
        self._queued += len(line)
        self._lines.append(line)
        if not self._bell.is_set():
            self._bell.set()

    debug = info = warning = error = msg

    def close(self, timeout: float) -> None:
        """Write what is queued, unless that takes longer than `timeout` seconds."""
        self._closing = True
        self._bell.set()
        for _ in range(LOOKS):
            self._thread.join(timeout / LOOKS)

    def _run(self) -> None:
        while not self._closing or self._lines:
            self._bell.wait()
            self._bell.clear()
            self._write_all()
            if not self._closing:
                time.sleep(REST)

    def _write_all(self) -> None:
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        taken = sum(map(len, lines))
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            lines.append(b'{"event":"log.dropped","level":"warning","count":%d}' % dropped)
        if not lines:
            return
        self._write(memoryview(b"\n".join(lines) + b"\n"))
        self._written += taken

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                time.sleep(REST)  # somebody has made our standard output non-blocking
            except OSError:
                return  # its reader is gone: the gateway serves on


def _level_and_time(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    name = event.pop("event")
    return {"timestamp": f"{stamp}.{int(now * 1e6) % 1000000:06d}Z", "level": method, "event": name, **event}


_encode = msgspec.json.Encoder(enc_hook=str).encode


def _to_json(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    return _encode(event)


class AccessRenderer:
    """A request's line in a format of the user's; all other events as `others` renders them.

    Args:
        text: access-log-format.
    """

    def __init__(self, text: str, others: Any) -> None:
        self._format = AccessFormat(text)
        self._others = others
        self._second, self._moment = 0, Moment(datetime.now().astimezone())

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
        if event["event"] != REQUEST_FINISHED:
            rendered: bytes = self._others(logger, method, event)
            return rendered
        second = int(time.time())
        if second != self._second:
            self._second, self._moment = second, Moment(datetime.fromtimestamp(second).astimezone())
        return self._format.render(event, self._moment).encode()


class ConsoleRenderer:
    """For people: a line an event, a request's line short, tracebacks below."""

    def __init__(self, *, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=22, sort_keys=False)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
        event["timestamp"] = event["timestamp"][11:23]
        traceback = event.pop("traceback", "")
        if event["event"] == REQUEST_FINISHED:
            event = _short_request(event)
        shown = {key: _printable(value) for key, value in event.items() if value != ""}
        line: str = self._render(logger, method, shown)
        if traceback:
            line += "\n" + _printable(traceback.rstrip("\n"))
        return line.encode("utf-8", "backslashreplace")


def _short_request(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    kept = ("timestamp", "level", "event")
    short = {key: event[key] for key in kept}
    short["status"] = event["status"]
    short["request"] = f"{event['method']} {event['path']}".strip()
    short["ms"] = round(event["duration"] * 1000, 1)
    short["bytes"] = event["bytes_out"]
    if event["outcome"] != "served":
        short |= {"outcome": event["outcome"], "stage": event["stage"], "reason": event["reason"]}
    return short | {"pid": event["pid"], "id": event["request_id"]}


def _printable(value: Any) -> Any:
    """A text in which nothing moves the cursor: a client or an application said it. Only lines and tabs stay as they are."""
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in value)


def _without_access(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if event["event"] == REQUEST_FINISHED:
        raise structlog.DropEvent
    return event


def make_logger(
    level: str, log_format: str, fd: int, *, access: bool = True, access_format: str = ""
) -> tuple[Logger, LineWriter]:
    """A logger that writes to a descriptor, and its writer, to be closed last.

    Args:
        level: debug, info, warning or error: what is below it costs nothing.
        log_format: `json`, `console`, or `auto`: console on a terminal, JSON otherwise.
        access: whether each request's canonical event is written.
        access_format: the format of that event's line (`_access_format`); empty for the same as all other lines.

    Raises:
        SettingsError: access_format is none.
    """
    writer, is_terminal = LineWriter(fd), os.isatty(fd)
    if log_format == "auto":
        log_format = "console" if is_terminal else "json"
    renderer: Any = ConsoleRenderer(colors=is_terminal) if log_format == "console" else _to_json
    if access_format:
        renderer = AccessRenderer(access_format, renderer)
    logger = structlog.wrap_logger(
        writer,
        processors=[*([] if access else [_without_access]), _level_and_time, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=True,
    )
    return logger.bind(), writer
