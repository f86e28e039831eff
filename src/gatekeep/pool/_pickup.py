"""The pickup stage: read the envelope of a connection that was just accepted, and claim it, or let it go."""

from __future__ import annotations

import socket

import msgspec

from gatekeep._frames import FrameError
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind

READ_SIZE = 65536


class NotARequest(Exception):
    """What came is no envelope, or it stopped short: the front has given it up, or is no front of ours."""


def read_envelope(hop: socket.socket) -> _wire.Envelope:
    """Read the whole envelope.

    Raises:
        NotARequest: there is none.
        OSError: the connection broke.
    """
    decoder = _wire.worker_decoder()
    while (item := decoder.next_frame()) is None:
        data = hop.recv(READ_SIZE)
        if not data:
            raise NotARequest("the connection ended before the envelope did")
        decoder.feed(data)
    kind, payload = item
    if kind != Kind.ENVELOPE or not decoder.is_between_frames():
        raise NotARequest(f"a frame of kind {kind} where an envelope was due")
    return _wire.decode_envelope(payload)


def is_given_up(hop: socket.socket) -> bool:
    """Whether the front has closed its end. It never shuts its sending side otherwise, so an end of stream says just that.

    Only an optimisation: the claim decides.
    """
    try:
        return hop.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def claim(hop: socket.socket, pid: int, thread: int, now: float) -> bool:
    """Claim the request: the application may be entered only if this is true (see `transport/_claim`)."""
    try:
        hop.sendall(_wire.encode(_wire.Go(pid, thread, now)))
    except OSError:
        return False
    return True


def pick_up(hop: socket.socket, pid: int, thread: int, now: float) -> _wire.Envelope | None:
    """Read and claim the request. None when nobody wants it run any more."""
    try:
        envelope = read_envelope(hop)
        if is_given_up(hop) or not claim(hop, pid, thread, now):
            return None
    except (OSError, NotARequest, FrameError, msgspec.MsgspecError):
        return None
    return envelope
