"""What a daemon process logs: records over a socket to the gateway's logger, with the request they belong to.

`sys.stdout` and `sys.stderr` become streams that do the same, so that what the application prints, or writes through
`logging`, carries the request's id. The descriptors 1 and 2 stay what they were inherited as.
"""

from __future__ import annotations

import io
import select
import socket
import sys
import threading
import traceback
from contextvars import ContextVar
from typing import Any

from gatekeep._events import Logger, request_name
from gatekeep.lifecycle._control import LogRecord, encode_log

PATIENCE_MS = 100
"""How long a thread waits for room on the log socket before its record is dropped: a slow reader slows us, it cannot stop us."""

LONGEST = 60000
"""Bytes of one text; a packet, which may hold two, must fit into the socket's buffer."""

SUMMARY = 500
"""Characters of a text that shall be one line."""

current_request: ContextVar[int] = ContextVar("current_request", default=0)
"""The number of the request that this thread, or a task it started, works for; 0 outside of one."""


def sendable(text: str) -> str:
    """The text as UTF-8 can carry it, and not longer than a packet can (file names may hold lone surrogates, PEP 383)."""
    if text.isascii() and len(text) <= LONGEST:
        return text
    encoded = text.encode("utf-8", "backslashreplace")
    cut = encoded[:LONGEST].decode("utf-8", "ignore")
    return cut if len(encoded) <= LONGEST else cut + "…"


def one_line(text: str) -> str:
    """The text as one line of bounded length."""
    line = " ".join(text.split())
    return sendable(line if len(line) <= SUMMARY else line[:SUMMARY] + "…")


def summarise(error: BaseException) -> str:
    """The error's type and text in one line, whatever its own code makes of that."""
    try:
        return one_line(traceback.format_exception_only(error)[-1])
    except Exception:
        return f"{type(error).__qualname__} (it cannot be formatted)"


def format_error(error: BaseException) -> str:
    """The error's traceback, as far as it can be had."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:
        return "".join(traceback.format_tb(error.__traceback__)) + summarise(error)


class LogSocket:
    """A `gatekeep._events.Logger` whose records go to the gateway, in order; dropped and counted when nobody reads them."""

    def __init__(self, sock: socket.socket, *, debug: bool) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._debug = debug
        self._dropped = 0
        # A finalizer, or a signal's handler, may print while its thread is in here.
        self._mutex = threading.RLock()
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def reset_in_child(self) -> None:
        """In a forked child: nobody holds the lock, whoever held it in the parent."""
        self._mutex = threading.RLock()

    def debug(self, event: str, **fields: Any) -> None:
        if self._debug:
            self._send("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._send("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._send("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._send("error", event, fields)

    def _send(self, level: str, event: str, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, str):
                fields[name] = sendable(value)
        number = current_request.get()
        if number:
            fields.setdefault("request_id", request_name(number))
        with self._mutex:
            packet = encode_log(LogRecord(level, event, fields, self._dropped))
            if self._send_packet(packet):
                self._dropped = 0
            else:
                self._dropped += 1

    def _send_packet(self, packet: bytes) -> bool:
        try:
            self._socket.send(packet)
        except BlockingIOError:
            return bool(self._writable.poll(PATIENCE_MS)) and self._send_again(packet)
        except OSError:
            return False  # the gateway is gone, and so shall we be soon
        return True

    def _send_again(self, packet: bytes) -> bool:
        try:
            self._socket.send(packet)
        except OSError:
            return False
        return True


class DirectLog:
    """A logger for worker threads of the gateway's own process: says at once, in the thread, what `LogSocket` sends.

    Args:
        fields: what every record has.
    """

    def __init__(self, log: Logger, *, debug: bool, **fields: Any) -> None:
        self._log = log
        self._debug = debug
        self._fields = fields

    def debug(self, event: str, **fields: Any) -> None:
        if self._debug:
            self._log.debug(event, **self._complete(fields))

    def info(self, event: str, **fields: Any) -> None:
        self._log.info(event, **self._complete(fields))

    def warning(self, event: str, **fields: Any) -> None:
        self._log.warning(event, **self._complete(fields))

    def error(self, event: str, **fields: Any) -> None:
        self._log.error(event, **self._complete(fields))

    def _complete(self, fields: dict[str, Any]) -> dict[str, Any]:
        number = current_request.get()
        named = {"request_id": request_name(number)} if number else {}
        texts = {name: sendable(value) for name, value in fields.items() if isinstance(value, str)}
        return self._fields | named | fields | texts


class _Lines(io.RawIOBase):
    """Turns what is written into `app.output` records, one for every write that ends a line; each thread has its own line."""

    def __init__(self, log: Logger, name: str, fd: int) -> None:
        self._say = log.warning if name == "stderr" else log.info
        self._stream = name
        self._fd = fd
        self._unfinished: dict[int, bytes] = {}

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: Any) -> int:
        written = bytes(data)
        me = threading.get_ident()
        lines = self._unfinished.pop(me, b"") + written
        end = lines.rfind(b"\n") + 1
        if end < len(lines) < LONGEST:
            self._unfinished[me] = lines[end:]
        else:
            end = len(lines)
        text = lines[:end].decode("utf-8", "replace").rstrip("\n")
        if text:
            self._say("app.output", stream=self._stream, text=text)
        return len(written)

    def reset_in_child(self) -> None:
        """In a forked child: what the parent's threads have begun to write is theirs."""
        self._unfinished = {}

    def finish_line(self) -> None:
        """Say what this thread wrote without ending the line: its request is over."""
        if self._unfinished and threading.get_ident() in self._unfinished:
            self.write(b"\n")


class OutputStream(io.TextIOWrapper):
    """A text stream whose lines go to the log."""

    def __init__(self, log: Logger, name: str, fd: int) -> None:
        self.lines = _Lines(log, name, fd)
        # Unbuffered, as `python -u` does it: `print` and `logging` reach the log at once and in order.
        raw: Any = self.lines
        super().__init__(raw, "utf-8", "backslashreplace", line_buffering=True, write_through=True)


def capture_output(log: LogSocket) -> tuple[OutputStream, OutputStream]:
    """Put `OutputStream`s in the place of `sys.stdout` and `sys.stderr`."""
    output, errors = OutputStream(log, "stdout", 1), OutputStream(log, "stderr", 2)
    sys.stdout, sys.stderr = output, errors
    return output, errors
