"""An application that gets stuck on purpose, in every way that an alarm, a timer or a client must cope with."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

StartResponse = Callable[..., Any]

_LONG = 1e6
"""Seconds that stand for ever."""


def wedge(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """A WSGI application. `?n=` is the way's number: seconds, for ever where none is given, or megabytes.

    * `/` answers `ok`; so do all others once they are over.
    * `/busy` computes. `/sleep` sleeps. `/recv` waits for a peer that says nothing. request-timeout ends the first at once, the
      last by shutting its socket; the one that sleeps only when it wakes.
    * `/lock` waits for a lock, `/swallow` swallows what would end it: they cost their process.
    * `/gil` holds the GIL as a C extension may, so that all of its process stands still (deadlock-timeout).
    * `/kill` kills its process, `/exit` ends it in an orderly way, `/raise` raises an exception.
    * `/stream` sends a line each tenth of a second, `/events` does so as an event stream, `/cut` fails in the middle of its
      response.
    * `/grow` keeps so many megabytes (memory-limit); 10 where none are given.
    """
    way = WAYS.get(environ["PATH_INFO"].strip("/"))
    if way is None:
        return _answer(start_response, "404 Not Found", f"the ways are /{' /'.join(WAYS)}")
    try:
        number = _number(environ["QUERY_STRING"])
    except ValueError:
        return _answer(start_response, "400 Bad Request", "n = a number from 0 up")
    return way(number, start_response) or _answer(start_response, "200 OK", "ok")


def _number(query: str) -> float | None:
    text = parse_qs(query, keep_blank_values=True).get("n")
    if text is None:
        return None
    number = float(text[0])
    if not 0 <= number < math.inf:
        raise ValueError(number)
    return number


def _answer(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain")])
    return [text.encode()]


def _nothing(number: float | None, _: StartResponse) -> None:
    pass


def _busy(seconds: float | None, _: StartResponse) -> None:
    until = _until(seconds)
    while time.monotonic() < until:
        pass


def _until(seconds: float | None) -> float:
    return math.inf if seconds is None else time.monotonic() + seconds


def _sleep(seconds: float | None, _: StartResponse) -> None:
    time.sleep(_LONG if seconds is None else seconds)


def _recv(seconds: float | None, _: StartResponse) -> None:
    """Ends with an error where somebody shuts the socket."""
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(seconds or None)
        try:
            if not here.recv(1):
                raise ConnectionError("the connection was shut")
        except TimeoutError:
            pass


def _lock(seconds: float | None, _: StartResponse) -> None:
    lock = Lock()
    lock.acquire()
    lock.acquire(timeout=-1 if seconds is None else seconds)


def _swallow(seconds: float | None, _: StartResponse) -> None:
    until = _until(seconds)
    while time.monotonic() < until:
        try:
            time.sleep(0.001)
        except BaseException:
            pass


def _gil(seconds: float | None, _: StartResponse) -> None:
    ctypes.PyDLL(None).sleep(int(_LONG if seconds is None else math.ceil(seconds)))


def _kill(_: float | None, __: StartResponse) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(_: float | None, __: StartResponse) -> None:
    os._exit(0)


def _raise(_: float | None, __: StartResponse) -> None:
    raise RuntimeError("raised on purpose")


def _stream(seconds: float | None, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return _lines(b"tick\n", seconds)


def _events(seconds: float | None, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return _lines(b"data: tick\n\n", seconds)


def _lines(line: bytes, seconds: float | None) -> Iterable[bytes]:
    until = _until(seconds)
    while time.monotonic() < until:
        yield line
        time.sleep(0.1)


def _cut(_: float | None, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
    return _half()


def _half() -> Iterable[bytes]:
    yield b"the first half of"
    raise RuntimeError("raised on purpose, inside the response")


_kept: list[bytes] = []


def _grow(megabytes: float | None, _: StartResponse) -> None:
    _kept.append(b"x" * int((10 if megabytes is None else megabytes) * 1e6))


WAYS: dict[str, Callable[[float | None, StartResponse], Iterable[bytes] | None]] = {
    "": _nothing,
    "busy": _busy,
    "sleep": _sleep,
    "recv": _recv,
    "lock": _lock,
    "swallow": _swallow,
    "gil": _gil,
    "kill": _kill,
    "exit": _exit,
    "raise": _raise,
    "stream": _stream,
    "events": _events,
    "cut": _cut,
    "grow": _grow,
}
