"""Reads and writes on the hop, each bounded by socket-timeout.

A timeout of Python's sockets costs a `poll()` before every call, for data that mostly is there already. Here the call comes
first (MSG_DONTWAIT: the accepted socket itself blocks) and the wait only where it must.

A wait that was in vain is followed by one more try, which decides. `poll()` calls a UNIX socket writable when three quarters
of its buffer are free (160 kB), but it takes something long before that (40 kB), and a front that reads slowly is not wedged.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from functools import partial
from select import POLLIN, POLLOUT, poll
from typing import TypeVar

T = TypeVar("T")

DONTWAIT = int(socket.MSG_DONTWAIT)

LONGEST_POLL = 2**31 - 1
"""Milliseconds: `poll()` takes a C int."""


class HopTimedOut(TimeoutError):
    """One read or write on the hop waited longer than socket-timeout."""


def receive(hop: socket.SocketType, size: int, timeout: float) -> bytes:
    """What comes next, at most `size` bytes; empty at the end of the stream.

    Args:
        timeout: seconds that it waits at most, `math.inf` for ever.

    Raises:
        HopTimedOut: nothing came in time.
        OSError: the connection is broken.
    """
    try:
        return hop.recv(size, DONTWAIT)
    except BlockingIOError:
        pass
    return _when_ready(partial(hop.recv, size, DONTWAIT), hop, POLLIN, timeout)


def send_all(hop: socket.SocketType, data: bytes, timeout: float) -> None:
    """Send all of the data. When this raises, part of it may have been sent.

    Args:
        timeout: seconds that it waits at most until the peer takes more, `math.inf` for ever.

    Raises:
        HopTimedOut: the peer took nothing in time.
        OSError: the connection is broken.
    """
    try:
        sent = hop.send(data, DONTWAIT)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        rest = memoryview(data)[sent:]
        while rest:
            sent = _when_ready(partial(hop.send, rest, DONTWAIT), hop, POLLOUT, timeout)
            rest = rest[sent:]


def send_file(hop: socket.SocketType, descriptor: int, offset: int, count: int, timeout: float) -> int:
    """Send `count` bytes of a file from the offset on. Returns how many there were: fewer at the file's end.

    There is no MSG_DONTWAIT for files: the hop must have been made non-blocking. When this raises, part may have been sent.

    Raises:
        HopTimedOut: the peer took nothing in time.
        OSError: the connection is broken, or the file cannot be read.
    """
    call = partial(os.sendfile, hop.fileno(), descriptor)
    try:
        sent = piece = call(offset, count)
    except BlockingIOError:
        sent, piece = 0, -1
    while sent < count and piece:
        piece = _when_ready(partial(call, offset + sent, count - sent), hop, POLLOUT, timeout)
        sent += piece
    return sent


def _when_ready(call: Callable[[], T], hop: socket.SocketType, event: int, timeout: float) -> T:
    """The result of a call that would have blocked just now."""
    waiter = poll()
    waiter.register(hop, event)
    milliseconds = None if timeout == math.inf else min(math.ceil(timeout * 1000), LONGEST_POLL)
    while True:
        ready = waiter.poll(milliseconds)
        try:
            return call()
        except BlockingIOError:
            if not ready:
                break
    doing = "reading" if event == POLLIN else "writing"
    raise HopTimedOut(f"socket-timeout: {doing} waited for the front for {timeout:g} s")
