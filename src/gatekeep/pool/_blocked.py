"""What a thread of this process is blocked in, and how to end it. Linux only.

An exception that is sent to a thread reaches it only when it runs Python. A thread in `recv` on a peer that says nothing never
does. `shutdown(2)` on that one socket makes the call return, and the exception fires. (`close` would not: the call goes on.)

Whose descriptor is it? The number that the kernel tells is a moment old, and may name another file by now. So the number is
duplicated, the thread is looked at again, and only when it has slept in one call all the while is the duplicate shut.

What stays: an application that closes a socket on which another of its threads waits leaves that thread in the call, with a
number that the next socket gets. Most of those are told apart (see `_can_be_meant`; epoll keeps the inode), not all: an idle
connection in the same mode as the lost one looks the same.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Collection, Iterable
from contextlib import ExitStack, closing
from select import poll

import attrs

from gatekeep.pool._peers import is_connected, is_connecting, owner_of_peer, peer_of
from gatekeep.pool._syscalls import Call, Wait, current_call, waits_of, why_not

__all__ = ["Blocked", "is_supported", "look", "shut", "why_not"]

FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
STREAMS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)

Identity = tuple[int, int]


@attrs.frozen
class Blocked:
    """The system call in which a thread is blocked.

    Attributes:
        call: its name: `recvfrom`, `poll`, `clock_nanosleep`.
        descriptors: what it waits for; of very many only some.
        peers: the addresses at the other ends of those that are connections, or are being connected.
    """

    call: str
    descriptors: tuple[int, ...]
    peers: tuple[str, ...]


def is_supported() -> bool:
    """Whether this system tells what a thread is blocked in; `why_not()` says why it does not."""
    return not why_not()


def look(tid: int) -> Blocked | None:
    """What the thread is blocked in. None when it runs, or waits for something that has no name here, such as a lock.

    Never waits, never raises.

    Args:
        tid: the thread's native id (`threading.get_native_id()`).
    """
    with ExitStack() as stack:
        try:
            asleep = _observe(tid, stack)
        except OSError:
            return None
        return None if asleep is None else asleep.describe(asleep.waits, asleep.copies)


def shut(tid: int, never: Collection[int] = ()) -> Blocked | None:
    """Shut the connections that the thread is blocked on, so that its call returns. Never waits, never raises.

    Only connections are shut, and those that TCP is making: no pipe, no file, no listener. (A UNIX socket that waits for room
    at its listener would not be woken.) A thread that waits in `poll`, `select` or `epoll` loses all the stream connections
    that it waits for, except UNIX connections that this process made with itself: those wake event loops, and one that has
    lost its own spins while it cleans up. (So a thread that waits there for another thread of its process is not reached.)

    Send the thread its exception first. Then it has it before it can use, or give to another thread, what was shut.

    Args:
        tid: the thread's native id.
        never: descriptors that must not be shut, nor any other descriptor of the same sockets.

    Returns:
        The call, with the descriptors that were shut; None when there were none. The thread may not sleep any more by then.
    """
    with ExitStack() as stack:
        try:
            asleep = _observe(tid, stack)
        except OSError:
            return None
        if asleep is None:
            return None
        ours = _identities(never)
        chosen = [
            copy
            for copy in asleep.copies
            if copy.wait.number not in never and copy.identity not in ours and _may_be_shut(asleep.call, copy)
        ]
        done = [copy for copy in chosen if copy.shut()]
        return asleep.describe([copy.wait for copy in done], done) if done else None


@attrs.frozen
class _Copy:
    """A duplicate of a socket that a thread waits for."""

    wait: Wait
    sock: socket.SocketType
    identity: Identity
    peer: str

    def shut(self) -> bool:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False  # the peer was quicker
        return True


@attrs.frozen
class _Asleep:
    """A thread in a call, and duplicates of the sockets among the descriptors that it waits for."""

    call: Call
    waits: list[Wait]
    copies: list[_Copy]

    def describe(self, waits: Iterable[Wait], copies: Iterable[_Copy]) -> Blocked:
        numbers = tuple(wait.number for wait in waits)
        return Blocked(self.call.name, numbers, tuple(copy.peer for copy in copies if copy.peer))


def _observe(tid: int, stack: ExitStack) -> _Asleep | None:
    """See a thread asleep, and hold the sockets that it waits for until the stack is closed. None when it does not hold still."""
    call = current_call(tid)
    if call is None:
        return None
    waits = waits_of(call)
    copies = [copy for wait in waits if (copy := _duplicate(wait, stack)) is not None]
    again = current_call(tid)
    if again is None or again.stamp != call.stamp:
        return None
    return _Asleep(call, waits, [copy for copy in copies if _is_still(copy)])


def _duplicate(wait: Wait, stack: ExitStack) -> _Copy | None:
    """Hold the socket; None for another file, or where the number has gone."""
    try:
        if not stat.S_ISSOCK(os.fstat(wait.number).st_mode):
            return None
        number = os.dup(wait.number)
    except OSError:
        return None
    status = os.fstat(number)
    if not stat.S_ISSOCK(status.st_mode):
        # In between it became another file. To close any descriptor of a file drops all the locks that the process has on it
        # (SQLite's, for example), so this one stays open.
        return None
    # Family and type need not be true, and SOCK_NONBLOCK keeps Python from touching the mode, which the application's own
    # descriptor shares: it would, where the application has called `socket.setdefaulttimeout`.
    sock = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, number)
    stack.enter_context(closing(sock))
    return _Copy(wait, sock, (status.st_dev, status.st_ino), peer_of(sock))


def _is_still(copy: _Copy) -> bool:
    """Whether the number names the socket that was duplicated, and the one that the call was told of."""
    try:
        status = os.fstat(copy.wait.number)
    except OSError:
        return False
    return copy.identity == (status.st_dev, status.st_ino) and copy.wait.inode in (0, status.st_ino)


def _identities(numbers: Iterable[int]) -> set[Identity]:
    found = set()
    for number in numbers:
        try:
            status = os.fstat(number)
        except OSError:
            continue
        found.add((status.st_dev, status.st_ino))
    return found


def _may_be_shut(call: Call, copy: _Copy) -> bool:
    try:
        return _is_connection(copy.sock, call.is_direct) and _can_be_meant(call, copy)
    except OSError:
        return False


def _is_connection(sock: socket.SocketType, is_direct: bool) -> bool:
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) not in FAMILIES:
        return False
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    if not is_direct:
        is_stream = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) in STREAMS
        if not is_stream or owner_of_peer(sock) == os.getpid():
            return False
    return is_connected(sock) or is_connecting(sock)


def _can_be_meant(call: Call, copy: _Copy) -> bool:
    """Whether a thread can be asleep in this call on this socket: not on one in non-blocking mode, nor on one that is ready."""
    if call.is_direct and fcntl.fcntl(copy.sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK:
        return False
    if not copy.wait.events:
        return True
    looker = poll()
    looker.register(copy.sock.fileno(), copy.wait.events)
    return not looker.poll(0)
