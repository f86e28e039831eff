"""What the gateway asks of the operating system, as one small object that is handed in. Pure: the protocols only.

The races that lose requests live between two system calls of the front, where another process moves. So everything that front
and supervisor ask of the system goes through a `Host`: `_host_real` is the system, the tests' simulated world is the other.
Sockets are the system's own, non-blocking, with the names and errors of `socket.socket`: the seam costs nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Any, Protocol, TypeVar

import attrs

from gatekeep._process_options import ProcessOptions
from gatekeep.settings._bind import Bind

T = TypeVar("T")

SHUT_RD = 0
SHUT_WR = 1
"""The arguments of `Socket.shutdown`, as `socket` has them."""

OVERLOAD = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The system has run out of something for a moment: wait, and try again."""

MSG_PEEK = 2
"""For `Socket.recv`: leave in place what is returned."""


class Socket(Protocol):
    """A connected, non-blocking stream socket; the methods and errors are those of `socket.socket`."""

    def recv(self, size: int, flags: int = 0, /) -> bytes: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Listener(Protocol):
    """A listening, non-blocking socket."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Ended(IntEnum):
    """What is known of the peer's end of a connection."""

    NOT = 0
    SENDING = 1
    """It sends no more. It may be gone, or has shut this direction only: both look the same."""
    BROKEN = 2
    """It was reset, or both directions are shut."""


def ignore_end() -> None:
    """For a waiter whose socket's end interests nobody."""


DUMP_SIGNAL = 50
"""Has a daemon process write the stacks of its threads. One of Linux's real-time signals (34 to 64): applications have their own
uses for the others."""


class Waiter(Protocol):
    """Waits for one socket. At most one task may wait for each direction.

    Attributes:
        ended: how far the peer has ended the connection, where the system tells it without a wait.
        on_end: called when that changes.

    An event may be reported only once: whoever waits again must first have read (or accepted) all that there was, that is
    until `BlockingIOError`, or until a read came short of the size that was asked for.
    """

    ended: Ended
    on_end: Callable[[], None]

    def wait_readable(self) -> Awaitable[None]:
        """Return when a `recv` or `accept` may succeed; it may also be too early."""

    def wait_writable(self) -> Awaitable[None]:
        """Return when a `send` may succeed; it may also be too early."""

    def interrupt(self) -> None:
        """Make a `wait_readable` that is going on return, though there may be nothing to read."""

    def close(self) -> None:
        """Forget the socket. Must be called before the socket is closed, when nobody waits."""


@attrs.frozen
class Peer:
    """A client's connection, just accepted.

    Attributes:
        socket: the connection.
        client: address and port of the other end; None on a UNIX socket.
        server: address and port (text, as CGI has them) of our end.
    """

    socket: Socket
    client: tuple[str, int] | None
    server: tuple[str, str]


class SocketNet(Protocol):
    """What a connection is waited for with, whatever it is."""

    def waiter(self, socket: Socket | Listener) -> Waiter:
        """The waiter for a socket; its one registration with the event loop lives in it."""

    def unread(self, socket: Socket) -> int:
        """How much of what was sent over a UNIX socket its peer has not read yet; 0 means that it has read all, or is gone."""

    def abort(self, socket: Socket) -> None:
        """Close with a reset instead of an orderly end."""


class HopNet(SocketNet, Protocol):
    """Connections to the workers of a group."""

    def connect(self, address: str) -> Socket:
        """A connection to a group's listener.

        Raises:
            BlockingIOError: its backlog is full.
            OSError: as `connect` does.
        """

    def describe(self, address: str) -> str:
        """An address of `connect` and who we are, for people: "/run/user/33/…/default.sock as user www-data"."""


class Net(HopNet, Protocol):
    """Sockets."""

    def listen(self, bind: Bind, backlog: int) -> Sequence[tuple[Listener, str]]:
        """Listeners for one bind (a name may stand for several addresses), each with its address as people see it.

        Raises:
            OSError: as `bind` and `listen` do.
        """

    def unlisten(self, bind: Bind) -> None:
        """Remove what `listen` left behind in the file system."""

    def adopt(self) -> None:
        """What another gateway has listened on is this one's now, and not before: one that fails to start removes nothing. What
        it has not asked for it listens on no more."""

    def disown(self) -> None:
        """What was listened on is another gateway's now: `unlisten` shall remove nothing."""

    def accept(self, listener: Listener) -> Peer:
        """The next connection that waits.

        Raises:
            BlockingIOError: none does.
            OSError: as `accept` does.
        """

    def descriptors(self) -> int:
        """How many descriptors this process may have."""


@attrs.frozen
class Usage:
    """What a process uses: seconds of CPU since its start, bytes of resident memory."""

    cpu_time: float
    memory: int


class Process(Protocol):
    """A daemon process that was started."""

    @property
    def pid(self) -> int: ...
    @property
    def control(self) -> Socket: ...
    @property
    def log(self) -> Socket: ...

    def wait(self) -> Awaitable[str]:
        """Wait for its end and tell it in words: "exit status 1", "killed by SIGKILL". Only one task may wait."""

    def terminate(self) -> None:
        """Send SIGTERM; nothing happens when it has ended."""

    def kill(self) -> None:
        """Send SIGKILL; nothing happens when it has ended."""

    def ask_dump(self) -> bool:
        """Have it write the stacks of its threads, whatever they do. False when it cannot: it has not come to that yet, or
        does not take the signal."""

    def read_dump(self) -> str:
        """What it has written since it was asked last."""

    def usage(self) -> Usage | None:
        """What it uses now; None where that is not told."""

    def close(self) -> None:
        """Release what is held for it (its sockets too)."""


class GroupHome(Protocol):
    """What the processes of one group share, and what survives each of them: the listener and the scoreboard."""

    @property
    def address(self) -> str:
        """What `Net.connect` takes."""

    @property
    def board(self) -> memoryview:
        """The scoreboard's memory, zeroed."""

    def close(self) -> None:
        """Close and remove both."""


class Processes(Protocol):
    """Daemon processes."""

    def open_group(self, name: str, backlog: int, board_size: int) -> GroupHome:
        """Make a group's listener and scoreboard.

        Raises:
            OSError: the system refused.
        """

    def open_console(self) -> Listener | None:
        """A listener that only this user can reach, for the gateway's control socket. None where the host has no place for one.

        Close it when nobody waits for it any more.

        Raises:
            OSError: the system refused.
        """

    def spawn(self, home: GroupHome, options: ProcessOptions) -> Awaitable[Process]:
        """Start a daemon process with exec.

        Raises:
            OSError: the system refused.
        """


class Clock(Protocol):
    """Time. The event loop's own clock is used for nothing but cancel scopes."""

    def now(self) -> float:
        """Seconds of the monotonic clock that all processes of this host share."""

    def wall(self) -> float:
        """Seconds since the epoch."""


class Chance(Protocol):
    """What must not be predictable, or only in a test."""

    def bits(self, count: int) -> int:
        """That many random bits."""


class SpoolFile(Protocol):
    """A temporary file without a name, made when it is first written to.

    Every method blocks, and may be called from several threads at once, also after `close`.
    """

    def pwrite(self, data: bytes | memoryview, offset: int, /) -> int:
        """Write at an offset: how much of it, as `os.pwrite` does.

        Raises:
            OSError: the file cannot be made or written, or is closed.
        """

    def pread(self, size: int, offset: int, /) -> bytes:
        """Read at an offset, as `os.pread` does.

        Raises:
            OSError: it cannot be read, or is closed.
        """

    def close(self) -> None:
        """Give the file back, when nobody is inside another method any more."""


class Host(Protocol):
    """The operating system, as far as the gateway asks it for anything."""

    @property
    def net(self) -> Net: ...
    @property
    def processes(self) -> Processes: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def chance(self) -> Chance: ...

    def spool_file(self, folder: str) -> SpoolFile:
        """A temporary file in a folder; empty means the system's place for such files. Blocks on nothing yet."""

    def run_blocking(self, function: Callable[..., T], *args: Any) -> Awaitable[T]:
        """Call what may block, in a thread of the gateway's own (not of anyio's shared forty), and return its result."""
