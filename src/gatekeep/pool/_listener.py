"""The group's listener, as one process's leader sees it."""

from __future__ import annotations

import errno
import os
import select
import socket
import time

OVERLOAD = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
OVERLOAD_PAUSE = 0.1
"""Seconds of rest when the process is out of descriptors: the connection stays where another process may take it."""


class Listener:
    """Waits for a connection in plain `poll()` and accepts it without blocking.

    So the accept itself needs the GIL, and a wedged process stops taking connections by itself. With a blocking accept 10 of
    24 requests stalled in a process that could not serve them, with EPOLLEXCLUSIVE 12, with poll none. The price: every idle
    process is woken for each connection.
    """

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(False)
        self._wake_reader, self._wake_writer = os.pipe()
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        self._poll.register(self._wake_reader, select.POLLIN)

    def wait(self) -> None:
        """Return when a connection may be there, or after `wake`. Only one thread may wait."""
        self._poll.poll()

    def accept_nowait(self) -> socket.socket | None:
        """The next connection, blocking; None when there is none (any more)."""
        try:
            hop, _ = self.socket.accept()
        except OSError as error:
            if error.errno in OVERLOAD:
                time.sleep(OVERLOAD_PAUSE)
            return None
        # The application may have called socket.setdefaulttimeout, which is not meant for our sockets.
        if hop.gettimeout() is not None:
            hop.settimeout(None)
        return hop

    def wake(self) -> None:
        """Make `wait` return, now and for ever."""
        os.write(self._wake_writer, b"\0")

    def close_in_child(self) -> None:
        """Close it in a child that the application forked: the parent's connections are none of its business."""
        os.close(self.socket.detach())
