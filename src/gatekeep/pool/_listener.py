"""The group's listener, as one process's leader sees it.

The problem: a connection should wake one idle process, never one that cannot serve it, and nobody in vain. The facts:

* The accept itself must need the GIL, so that a wedged process stops taking connections by itself: wait first, then accept
  without blocking. (With a blocking accept 10 of 24 requests stalled in a process that could not serve them.)
* `poll()` wakes every process that waits. Nothing stalls, but with 16 idle processes a request costs twice as much as with 2.
* `EPOLLEXCLUSIVE` wakes one, and passes over a process in which nobody waits. But when the one that it wakes is wedged before it
  can accept, nobody else hears of the connection (12 of 24 requests stalled).

So an idle process waits exclusively while connections keep coming, and looks by itself when it has heard nothing for a
moment: what a wedged process was woken for is late by that moment and no more. A process without traffic, and one that runs
requests already, waits in plain `poll()`: it is told of every connection, and costs nothing meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import sys
import time

from gatekeep._host import OVERLOAD

OVERLOAD_PAUSE = 0.1
"""Seconds of rest when the process is out of descriptors: the connection stays where another process may take it."""

_UNIX, _STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM)

LOST = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EINVAL})
"""The application has closed descriptors that were not its own: this process can never serve again, another one can."""

LOOK_AGAIN = 0.010
"""Seconds without news after which a process that waits exclusively looks for itself."""

TRAFFIC = 0.05
"""Seconds after the last connection seen for which connections are said to keep coming."""

WATCHED = 2
"""Descriptors that a process waits for. Without the number Python makes room for a thousand events, for each wait."""

TURN = 64
"""Accepts after which a process goes to the end of the kernel's queue of exclusive waiters: the first one gets most."""


class Listener:
    """Waits for connections and accepts them; used by one thread at a time."""

    def __init__(self, fd: int) -> None:
        # The C type: what `socket.socket` adds to it costs several microseconds for each connection.
        self.socket = socket.SocketType(fileno=fd)
        self.socket.setblocking(False)
        self._wake_reader, self._wake_writer = os.pipe()
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        self._poll.register(self._wake_reader, select.POLLIN)
        self._exclusive = self._make_exclusive()
        self._seen = 0.0
        self._accepted = 0

    def _make_exclusive(self) -> select.epoll | None:
        if not hasattr(select, "EPOLLEXCLUSIVE"):
            return None
        epoll = select.epoll()
        epoll.register(self.socket, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        epoll.register(self._wake_reader, select.EPOLLIN)
        return epoll

    def wait(self, *, busy: bool) -> None:
        """Return when a connection may be there, after `wake`, or for no reason. Only one thread may wait.

        Args:
            busy: whether this process runs requests, so that others come first.
        """
        if busy or self._exclusive is None or time.monotonic() - self._seen > TRAFFIC:
            self._poll.poll()
            self._seen = time.monotonic()
        elif self._exclusive.poll(LOOK_AGAIN, WATCHED):
            self._seen = time.monotonic()

    def accept_nowait(self) -> socket.SocketType | None:
        """The next connection, blocking; None when there is none (any more)."""
        try:
            fd, _ = self.socket._accept()  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno in OVERLOAD:
                time.sleep(OVERLOAD_PAUSE)
            elif error.errno in LOST:
                print(
                    f"gatekeep: the listener was closed under us ({error}): this process ends",
                    file=sys.stderr,
                )
                os._exit(1)
            return None
        hop = socket.SocketType(_UNIX, _STREAM, 0, fd if fd > 2 else _above_standard(fd))
        # The application may have called socket.setdefaulttimeout, which is not meant for our sockets.
        if hop.gettimeout() is not None:
            hop.settimeout(None)
        self._accepted += 1
        if self._accepted % TURN == 0:
            self._take_turn()
        return hop

    def _take_turn(self) -> None:
        if self._exclusive is not None:
            self._exclusive.unregister(self.socket)
            self._exclusive.register(self.socket, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def wake(self) -> None:
        """Make `wait` return, now and for ever."""
        os.write(self._wake_writer, b"\0")

    def close_in_child(self) -> None:
        """Close it in a child that the application forked: the parent's connections are none of its business."""
        if self._exclusive is not None:
            self._exclusive.close()
        os.close(self.socket.detach())


def _above_standard(fd: int) -> int:
    """The same connection under a number that no standard stream has: an application may have closed one of these."""
    higher = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return higher
