"""The operating system's sockets, as the `Net` of a `Host`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import resource
import select
import socket
import stat
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gatekeep._host import Listener, Peer, Socket, Waiter
from gatekeep._waiters import AsyncioLoop, Hub, LoopWaiter, TrioLoop, TrioWaiter, is_asyncio
from gatekeep.settings._bind import Bind, BindKind, parse_bind

_UNIX, _STREAM = int(socket.AF_UNIX), socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class RealNet:
    """The system's sockets. Made inside the event loop that is to wait for them.

    Args:
        inherited: listening sockets that another gateway has opened, by the address that it opened them for.
    """

    def __init__(self, inherited: Mapping[str, Sequence[int]] = MappingProxyType({})) -> None:
        self._inherited = dict(inherited)
        self._others: list[int] = [fd for fds in inherited.values() for fd in fds]
        self._inherited_files: list[Bind] = []
        self._hub: Hub | None = None
        if hasattr(select, "epoll"):
            self._hub = Hub(AsyncioLoop() if is_asyncio() else TrioLoop())
            self.waiter: Callable[[Any], Waiter] = self._hub.waiter
        else:
            self.waiter = LoopWaiter if is_asyncio() else TrioWaiter
        self._unix: dict[Bind, tuple[int, int]] = {}

    def listen(self, bind: Bind, backlog: int) -> Sequence[tuple[Listener, str]]:
        if fds := self._inherited_for(bind):
            if bind.kind is BindKind.UNIX:
                self._inherited_files.append(bind)
            return [_inherited(fd) for fd in fds]
        if bind.kind is BindKind.FD:
            return [_inherited(bind.fd)]
        if bind.kind is BindKind.UNIX:
            return [self._listen_unix(bind, backlog)]
        return _listen_tcp(bind, backlog)

    def _inherited_for(self, bind: Bind) -> Sequence[int]:
        # What is spoken there may be new. (Two that differ in nothing else are possible where the system chooses the port.)
        names = [name for name in self._inherited if parse_bind(name).address == bind.address]
        name = str(bind) if str(bind) in names else next(iter(names), "")
        return self._inherited.pop(name, ())

    def _listen_unix(self, bind: Bind, backlog: int) -> tuple[socket.socket, str]:
        _remove_stale(bind.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(bind.path)
            sock.listen(backlog)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._remember(bind)
        return sock, bind.address

    def _remember(self, bind: Bind) -> None:
        status = os.stat(bind.path)
        self._unix[bind] = status.st_dev, status.st_ino

    def adopt(self) -> None:
        while self._inherited_files:
            with contextlib.suppress(OSError):  # somebody has removed it
                self._remember(self._inherited_files.pop())
        while self._others:
            os.close(self._others.pop())

    def disown(self) -> None:
        """What was listened on is another gateway's: nothing is removed."""
        self._unix.clear()

    def unlisten(self, bind: Bind) -> None:
        """Remove a UNIX socket's file, unless another program has put its own there."""
        identity = self._unix.pop(bind, None)
        if identity is None:
            return
        with contextlib.suppress(OSError):
            status = os.stat(bind.path)
            if (status.st_dev, status.st_ino) == identity:
                os.unlink(bind.path)

    def accept(self, listener: Listener) -> Peer:
        assert isinstance(listener, socket.socket)
        sock, address = listener.accept()
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            # CGI wants a name and a port that are not empty (PEP 3333); behind a UNIX socket they mean nothing.
            return Peer(sock, None, ("localhost", "80"))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = sock.getsockname()[:2]
        return Peer(sock, (address[0], address[1]), (host, str(port)))

    def connect(self, address: str) -> Socket:
        # The C type: what `socket.socket` adds to it costs a microsecond for each request.
        sock = socket.SocketType(_UNIX, _STREAM)
        error = sock.connect_ex(address)
        if error:
            sock.close()
            raise OSError(error, os.strerror(error))
        return sock

    def describe(self, address: str) -> str:
        try:
            path = os.readlink(address)
        except OSError:
            path = address
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            user = str(os.geteuid())
        return f"{path} as user {user}"

    def descriptors(self) -> int:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return 1 << 30 if limit == resource.RLIM_INFINITY else limit

    def unread(self, sock: Socket) -> int:
        assert isinstance(sock, socket.SocketType)
        try:
            return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
        except OSError:
            return 0  # not every system tells it for these sockets

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._hub is not None:
            self._hub.close()

    def abort(self, sock: Socket) -> None:
        assert isinstance(sock, socket.socket)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()


def _inherited(fd: int) -> tuple[socket.socket, str]:
    # A copy, so that closing ours leaves the descriptor's owner with his.
    sock = socket.socket(fileno=os.dup(fd))
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise OSError(errno.EINVAL, "it is no listening stream socket")
    sock.setblocking(False)
    return sock, _address(sock)


def _listen_tcp(bind: Bind, backlog: int) -> list[tuple[socket.socket, str]]:
    """One listener for every address that the host's name stands for; all on one port, also where that is chosen for us."""
    port = bind.port
    found = socket.getaddrinfo(bind.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners = []
    with contextlib.ExitStack() as on_failure:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = on_failure.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
            sock.listen(backlog)
            sock.setblocking(False)
            port = sock.getsockname()[1]
            listeners.append((sock, _address(sock)))
        on_failure.pop_all()
    return listeners


def _address(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        name = sock.getsockname()
        return f"unix:@{name[1:].decode('utf-8', 'replace')}" if isinstance(name, bytes) else f"unix:{name}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
