"""In the place of a group's listener, where the worker threads live in the front's own process.

A request needs something that both an event loop and a blocked thread can wait for, with room for a little and no more. The
kernel has that: a pair of connected sockets, made for the request and handed over here. There is no address, no connect and
no queue of the kernel's; all that a worker does with a hop it does with its end of the pair.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque

_ENDED = select.POLLHUP | select.POLLERR


class End(socket.SocketType):
    """One end of a pair. Its `close` ends the conversation even where a child that somebody has forked holds a copy of it."""

    def close(self) -> None:
        """Shut both directions and close it."""
        try:
            self.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end has done so already
        super().close()


def make_pair() -> tuple[End, End]:
    """The front's end, which does not block, and a worker's.

    Raises:
        OSError: the system has no room for it.
    """
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # The C type: what `socket.socket` adds to it costs microseconds for each request.
    front, worker = (End(socket.AF_UNIX, socket.SOCK_STREAM, 0, end.detach()) for end in pair)
    front.settimeout(0)
    worker.settimeout(None)  # the host may have called socket.setdefaulttimeout, which is not meant for ours
    return front, worker


class Inbox:
    """What waits for a worker thread, in order of arrival. Has the methods that `_threads.Crew` asks of a `Listener`.

    Args:
        limit: how many may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ends: deque[End] = deque()
        self._mutex = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._closed = False

    def connect(self) -> End:
        """The front's end of a new pair, whose other one waits for a worker.

        Raises:
            BlockingIOError: as many wait as may.
            OSError: the system has no room for it.
        """
        with self._mutex:
            if len(self._ends) >= self._limit:
                self._drop_ended()
            if self._closed or len(self._ends) >= self._limit:
                raise BlockingIOError
            front, worker = make_pair()
            self._ends.append(worker)
        self._ring()
        return front

    def _drop_ended(self) -> None:
        """What the front has given up needs no worker: where all of them are stuck it would stand here for ever."""
        looker = select.poll()
        ends = {end.fileno(): end for end in self._ends}
        for number in ends:
            looker.register(number, 0)
        for number, event in looker.poll(0):
            if event & _ENDED:
                ends.pop(number).close()
        self._ends = deque(ends.values())

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            pass  # it was rung before, and nobody has heard it since

    def wait(self, *, busy: bool) -> None:
        """Return when something may be there, after `wake`, or for no reason. Only one thread may wait.

        Args:
            busy: not of interest: there is no other process to leave it to.
        """
        if not self._ends and not self._closed:
            self._bell.acquire()

    def accept_nowait(self) -> End | None:
        """A worker's end of the pair that has waited longest; None when none waits (any more)."""
        with self._mutex:
            return self._ends.popleft() if self._ends else None

    def wake(self) -> None:
        """Take nothing more, and make `wait` return, now and for ever."""
        self._closed = True
        self._ring()

    def close(self) -> None:
        """Let go of what still waits."""
        self.wake()
        while (end := self.accept_nowait()) is not None:
            end.close()

    def close_in_child(self) -> None:
        """Close it in a child that was forked, without a word to the other ends: they are the parent's."""
        for end in self._ends:
            socket.close(end.detach())
