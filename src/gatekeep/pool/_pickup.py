"""The pickup stage: read the envelope of a connection that was just accepted, and claim it, or let it go."""

from __future__ import annotations

import socket

import msgspec

from gatekeep._frames import HEADER, LIMIT
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind

READ_SIZE = 65536


class NotARequest(Exception):
    """What came is no envelope, or it stopped short: the front has given it up, or is no front of ours."""


def read_envelope(hop: socket.SocketType) -> _wire.Envelope:
    """Read the whole envelope.

    Raises:
        NotARequest: there is none.
        OSError: the connection broke.
    """
    data = _receive(hop)
    while len(data) < (size := _envelope_size(data)):
        data += _receive(hop)
    if len(data) > size:
        raise NotARequest("something follows the envelope before the claim")
    return _wire.decode_envelope(memoryview(data)[HEADER.size :])


def _receive(hop: socket.SocketType) -> bytes:
    data = hop.recv(READ_SIZE)
    if not data:
        raise NotARequest("the connection ended before the envelope did")
    return data


def _envelope_size(data: bytes) -> int:
    if len(data) < HEADER.size:
        return HEADER.size
    kind, length = HEADER.unpack_from(data)
    if kind != Kind.ENVELOPE or length > LIMIT:
        raise NotARequest(f"a frame of kind {kind} and {length} bytes where an envelope was due")
    return HEADER.size + int(length)


def claim(hop: socket.SocketType, pid: int, thread: int, now: float) -> bool:
    """Claim the request: the application may be entered only if this is true (see `transport/_claim`).

    A front that has given the request up, or is gone, makes the send fail, so there is no need to look first.
    """
    try:
        hop.sendall(_wire.encode(_wire.Go(pid, thread, now)))
    except OSError:
        return False
    return True


def pick_up(hop: socket.SocketType, pid: int, thread: int, now: float) -> _wire.Envelope | None:
    """Read and claim the request. None when nobody wants it run any more."""
    try:
        envelope = read_envelope(hop)
    except (OSError, NotARequest, msgspec.MsgspecError, ValueError, RecursionError):
        # The last three are what msgspec makes of bytes that are no envelope.
        return None
    return envelope if claim(hop, pid, thread, now) else None
