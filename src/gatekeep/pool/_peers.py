"""Who is at the other end of a socket, in words for the log. Linux only."""

from __future__ import annotations

import os
import socket
import struct
from itertools import islice

SYN_SENT = 2

MOST_CONNECTIONS = 50_000
"""Lines of /proc/net/tcp that are read at most: some 100 ms."""


def peer_of(sock: socket.SocketType) -> str:
    """The peer's address (`10.0.0.5:5432`, `[::1]:5432`, a path), also while it is still being connected to.

    Empty where there is no peer, or its address is not known.
    """
    try:
        peer = sock.getpeername()
    except OSError:
        return _connecting_to(sock) if is_connecting(sock) else ""
    if isinstance(peer, tuple):
        return _text(peer[0], peer[1])
    path = peer.decode("utf-8", "replace").replace("\0", "@") if isinstance(peer, bytes) else str(peer)
    return path or f"a UNIX socket of process {owner_of_peer(sock)}"


def is_connecting(sock: socket.SocketType) -> bool:
    """Whether a TCP connection waits for the peer's answer."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == SYN_SENT
    except OSError:
        return False


def is_connected(sock: socket.SocketType) -> bool:
    """Whether it has a peer."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def owner_of_peer(sock: socket.SocketType) -> int:
    """The process that made the other end of a UNIX connection: its listener, or the pair; 0 for other sockets."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) != socket.AF_UNIX:
        return 0
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iII", credentials)[0])


def _connecting_to(sock: socket.SocketType) -> str:
    """`getpeername` has no answer until it is connected; the kernel's table has. By inode, since the address may be anybody's."""
    inode = str(os.fstat(sock.fileno()).st_ino)
    is_ipv6 = sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET6
    try:
        with open("/proc/net/tcp6" if is_ipv6 else "/proc/net/tcp") as table:
            for line in islice(table, 1, MOST_CONNECTIONS):
                fields = line.split()
                if fields[9] == inode:
                    return _from_table(fields[2])
    except (OSError, IndexError):
        pass
    return ""


def _from_table(address: str) -> str:
    """`0100007F:1538` is 127.0.0.1:5432: words of 32 bits as this machine has them."""
    host, _, port = address.partition(":")
    words = [int(host[start : start + 8], 16) for start in range(0, len(host), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return _text(socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)), int(port, 16))


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
