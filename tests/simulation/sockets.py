"""Sockets as the kernel has them: what each end holds, what a close does to the other, when a waiter is woken.

`test_conformance` runs the same checks on these and on the system's own. The facts, of AF_UNIX streams on Linux:

* An end holds what its peer sent: data comes first, then an error (told once), then the end of the stream.
* SHUT_RD reaches the peer: its sends fail with EPIPE. What it sent before stays readable.
* Closing with unread data gives the peer ECONNRESET, after what it was sent; closing without is an end of stream.
* A description is closed when its last descriptor is: a forked child keeps it open.
* A listener takes backlog + 1 connections; they are whole before they are accepted, and reset when it is closed.

TCP differs: SHUT_RD tells the peer nothing, the first send to a closed peer succeeds, and a reset may overtake data.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from gatekeep._host import SHUT_RD, SHUT_WR, Ended, ignore_end

if TYPE_CHECKING:
    from .world import World

GATEWAY = "gateway"
"""The owner of the descriptors of front and supervisor: before each of their calls others may run."""

CAPACITY = 65536


class Kind(Enum):
    """What sort of connection it is."""

    UNIX = auto()
    PACKET = auto()
    TCP = auto()


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class End:
    """One end of a connection, as the kernel holds it; descriptors (`SimSocket`) refer to it."""

    peer: End

    def __init__(self, world: World, name: str, kind: Kind, capacity: int) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.capacity = capacity
        self.incoming = bytearray()
        self.packets: deque[bytes] = deque()
        self.no_more_in = False
        self.no_more_out = False
        self.error = 0
        self.descriptors = 0
        self.released = False
        self.waiter: SimWaiter | None = None
        self.last_arrival = 0
        self.cut_off = self.was_shut = False
        self.holder = ""

    # --- what can be done without waiting

    def readable(self) -> bool:
        return bool(self.incoming or self.packets or self.no_more_in or self.error)

    def writable(self) -> bool:
        """What poll says: not before three quarters of the buffer are free, and not for the peer's SHUT_RD alone."""
        hung_up = self.no_more_in and self.no_more_out
        return hung_up or bool(self.error) or self._held() * 4 <= self.peer.capacity

    def ended(self) -> Ended:
        """What epoll says of the peer's end: EPOLLRDHUP alone, or EPOLLHUP or EPOLLERR too."""
        if self.error or (self.no_more_in and self.no_more_out):
            return Ended.BROKEN
        return Ended.SENDING if self.no_more_in else Ended.NOT

    def _held(self) -> int:
        """How much the peer has not read yet."""
        return sum(map(len, self.peer.packets)) if self.kind is Kind.PACKET else len(self.peer.incoming)

    def _room(self) -> int:
        return self.peer.capacity - self._held()

    # --- the calls

    def send(self, data: bytes | memoryview) -> int:
        if self.kind is Kind.TCP and self.error:
            raise self._take_error()
        if self.no_more_out:
            raise _error(errno.EPIPE)
        if self.kind is Kind.TCP and self.peer.released:
            self.reset()  # it goes out, and what comes back says that nobody is there
            return len(data)
        if self.kind is Kind.PACKET:
            return self._send_packet(bytes(data))
        room = self._room()
        if data and room <= 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        self.peer.incoming += data[:room]
        self.peer.last_arrival = self.world.calls
        self.peer.arrived()
        return min(room, len(data))

    def _send_packet(self, data: bytes) -> int:
        if self._room() < len(data):
            raise BlockingIOError(errno.EAGAIN, "full")
        self.peer.packets.append(data)
        self.peer.arrived()
        return len(data)

    def recv(self, size: int, flags: int) -> bytes:
        if self.packets:
            return self.packets.popleft()[:size]
        if self.incoming:
            data = bytes(self.incoming[:size])
            if not flags & socket.MSG_PEEK:
                del self.incoming[:size]
                self.peer.made_room()
            return data
        if self.error:
            raise self._take_error()
        if self.no_more_in:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing there")

    def _take_error(self) -> OSError:
        number, self.error = self.error, 0
        return _error(number)

    def shutdown(self, how: int) -> None:
        if self.kind is Kind.TCP and (self.no_more_out and self.no_more_in and self.peer.released):
            raise _error(errno.ENOTCONN)
        if how == SHUT_RD:
            self.no_more_in = self.was_shut = True
            self.cut_off = bool(self.incoming) and self.last_arrival < self.world.calls
            if self.kind is not Kind.TCP:
                self.peer.no_more_out = True
        elif how == SHUT_WR:
            self.no_more_out = self.peer.no_more_in = True
        self.arrived()
        self.peer.arrived()

    def release(self) -> None:
        """The last descriptor was closed."""
        unread = bool(self.incoming or self.packets)
        self.released = self.no_more_in = self.no_more_out = True
        self.incoming.clear()
        self.packets.clear()
        self.peer.no_more_in = True
        if unread:
            self.peer.reset()
        elif self.kind is not Kind.TCP:
            self.peer.no_more_out = True
        self.peer.arrived()

    def reset(self) -> None:
        """The peer has closed without an orderly end."""
        if self.released:
            return
        self.error = errno.ECONNRESET
        self.no_more_in = self.no_more_out = True
        if self.kind is Kind.TCP and self.world.random.random() < 0.5:
            self.incoming.clear()  # other systems than Linux throw away what was not read yet
        self.arrived()

    # --- waiting

    def arrived(self) -> None:
        """Something came, or an end: epoll has an event."""
        if self.waiter is not None:
            self.waiter.happened()

    def made_room(self) -> None:
        """The peer has read: whoever waits to write may go on."""
        if self.waiter is not None:
            self.waiter.may_write()


class Listener:
    """A listening socket as the kernel holds it."""

    def __init__(self, world: World, name: str, kind: Kind, backlog: int) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.backlog = backlog
        self.waiting: deque[End] = deque()
        self.descriptors = 0
        self.released = False
        self.waiter: SimWaiter | None = None
        self.connections = 0

    def readable(self) -> bool:
        return bool(self.waiting)

    def writable(self) -> bool:
        return False

    def ended(self) -> Ended:
        return Ended.NOT

    def connect(self, owner: str) -> SimSocket:
        """A connection that waits to be accepted."""
        if self.released:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
        if len(self.waiting) > self.backlog:
            raise BlockingIOError(errno.EAGAIN, "the backlog is full")
        self.connections += 1
        ours, theirs = pair(self.world, f"{self.name}{self.connections}", self.kind)
        self.waiting.append(theirs)
        if self.waiter is not None:
            self.waiter.happened()
        return SimSocket(ours, owner)

    def accept(self, owner: str) -> SimSocket:
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody waits")
        end = self.waiting.popleft()
        end.holder = owner
        return SimSocket(end, owner)

    def release(self) -> None:
        self.released = True
        while self.waiting:
            end = self.waiting.popleft()
            end.peer.reset()
            end.release()


def pair(world: World, name: str, kind: Kind) -> tuple[End, End]:
    """Two connected ends, without descriptors."""
    capacity = world.capacity()
    one, other = End(world, f"{name}>", kind, capacity), End(world, f"{name}<", kind, capacity)
    one.peer, other.peer = other, one
    return one, other


class Descriptor:
    """One process's handle. Before each call of the gateway's, others may run."""

    _object: End | Listener

    def __init__(self, held: End | Listener, owner: str) -> None:
        self.owner = owner
        self.closed = False
        self._object = held
        held.descriptors += 1
        held.world.opened(self)

    def __repr__(self) -> str:
        return f"<{self._object.name} of {self.owner}>"

    @property
    def name(self) -> str:
        return self._object.name

    @property
    def world(self) -> World:
        return self._object.world

    def readable(self) -> bool:
        return self._object.readable()

    def is_awaited(self) -> bool:
        """Whether a task of the gateway's waits for it."""
        return self._object.waiter is not None and self._object.waiter.is_waiting()

    def _enter(self, call: str) -> None:
        if self.owner == GATEWAY:
            self.world.before_call()
        if self.closed:
            raise OSError(errno.EBADF, f"{call} on the closed {self._object.name}")

    def close(self) -> None:
        if self.owner == GATEWAY:
            self.world.before_call()
        if self.closed:
            return
        if self.owner == GATEWAY and self.is_awaited():
            self.world.violation(f"{self.name} was closed while a task waits for it")
        self.closed = True
        self.world.note(self.owner, "close", self._object.name)
        if self.owner == GATEWAY and isinstance(self._object, End):
            self.world.gives_up(self._object)
        self.world.closed(self)
        self._object.descriptors -= 1
        if not self._object.descriptors:
            self._object.release()


class SimSocket(Descriptor):
    """A descriptor of a connection, with the methods and errors of a non-blocking `socket.socket`."""

    _object: End

    @property
    def end(self) -> End:
        return self._object

    def writable(self) -> bool:
        return self._object.writable()

    def blocks_no_more(self) -> bool:
        """Whether a blocking send that found no room would go on: unlike poll it notices the peer's SHUT_RD."""
        return self._object.writable() or self._object.no_more_out

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self._enter("recv")
        return self._told("recv", lambda: self._object.recv(size, flags))

    def send(self, data: bytes | memoryview, /) -> int:
        self._enter("send")
        return self._told("send", lambda: self._object.send(data))

    def sendall(self, data: bytes) -> None:
        """For small frames only, such as a worker's claim: they fit, or the connection is broken."""
        assert self.send(data) == len(data)

    def shutdown(self, how: int, /) -> None:
        self._enter("shutdown")
        self._told("shut_rd" if how == SHUT_RD else "shut_wr", lambda: self._object.shutdown(how))

    def abort(self) -> None:
        """Close with a reset (SO_LINGER and a time of 0): only TCP knows that."""
        if self._object.kind is Kind.TCP and self._object.descriptors == 1:
            self._object.peer.reset()
        self.close()

    def dup(self, owner: str) -> SimSocket:
        """Another descriptor of the same: what fork does."""
        return SimSocket(self._object, owner)

    def _told(self, call: str, function: Callable[[], bytes | int | None]) -> Any:
        note = self.world.note
        try:
            result = function()
        except OSError as error:
            note(self.owner, call, self._object.name, errno.errorcode[error.errno or 0])
            raise
        note(self.owner, call, self._object.name, len(result) if isinstance(result, bytes) else result)
        return result


def port_of(sock: SimSocket) -> int:
    """The port from which a client has connected."""
    return 1024 + int(sock.name.strip("client<>"))


class SimListener(Descriptor):
    """A descriptor of a listener."""

    _object: Listener

    @property
    def listener(self) -> Listener:
        return self._object

    def accept(self, owner: str = "") -> SimSocket:
        self._enter("accept")
        accepted = self._object.accept(owner or self.owner)
        self.world.note(self.owner, "accept", accepted.name)
        return accepted

    def dup(self, owner: str) -> SimListener:
        return SimListener(self._object, owner)


class SimWaiter:
    """Waits for a socket of the gateway's as the real host's hub does: edge-triggered, one registration, the end told apart.

    An end is told by the event loop, one turn or more after the kernel has it: what the gateway does meanwhile it does in
    ignorance.
    """

    def __init__(self, sock: SimSocket | SimListener) -> None:
        self._socket = sock
        self._object = held = sock._object
        self._world = held.world
        self._closed = False
        self._reader: anyio.Event | None = None
        self._writer: anyio.Event | None = None
        self._readable = held.readable()
        self._reported = Ended.NOT
        self.ended = Ended.NOT
        self.on_end: Callable[[], None] = ignore_end
        assert held.waiter is None, f"{held.name} has a waiter"
        held.waiter = self
        self._report_end()

    # --- what the kernel tells

    def happened(self) -> None:
        """An event: a waiting reader is woken, a later one finds it."""
        first, second = self._wake_reader, self._report_end
        if self._world.random.random() < 0.5:
            first, second = second, first
        first()
        second()
        self.may_write()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.is_set():
            self._world.wake(self._reader)
        else:
            self._readable = True

    def may_write(self) -> None:
        if self._writer is not None and self._object.writable():
            self._world.wake(self._writer)

    def _report_end(self) -> None:
        ended = self._object.ended()
        if ended > self._reported:
            self._reported = ended
            self._world.call_soon(self._tell_end)

    def _tell_end(self) -> None:
        if not self._closed:
            # What epoll says is the state when it is asked.
            self.ended = self._object.ended()
            self._world.changed = self._world.time.now
            self._world.note("loop", "ended", self._object.name, self.ended.name)
            self.on_end()

    # --- what the gateway waits for

    def is_waiting(self) -> bool:
        """Whether a task waits."""
        return self._reader is not None or self._writer is not None

    async def wait_readable(self) -> None:
        self._enter(self._reader)
        if self._readable or self.ended or self._world.wakes_too_early():
            self._readable = False
            await checkpoint()
            return
        self._reader = event = anyio.Event()
        try:
            await event.wait()
        finally:
            self._reader = None

    async def wait_writable(self) -> None:
        self._enter(self._writer)
        if self.ended:
            self._world.call_soon(self._tell_end)  # the changed registration reports again what is the case
        if self._object.writable() or self._world.wakes_too_early():
            await checkpoint()
            return
        self._writer = event = anyio.Event()
        try:
            await event.wait()
        finally:
            self._writer = None

    def _enter(self, waiting: anyio.Event | None) -> None:
        name = self._object.name
        self._world.before_call()
        assert not self._closed, f"{name} was forgotten"
        assert not self._socket.closed, f"{name} is closed"
        assert waiting is None, f"two tasks wait for {name}"

    def interrupt(self) -> None:
        if self._reader is not None:
            self._world.wake(self._reader)

    def close(self) -> None:
        if self.is_waiting():
            self._world.violation(f"{self._object.name} was forgotten while a task waits for it")
        self._closed = True
        self.on_end = ignore_end
        if self._object.waiter is self:
            self._object.waiter = None
