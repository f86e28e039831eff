"""The pickup stage: read the envelope of a connection that was just accepted, and claim it, discard it, or let it go."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable

import msgspec

from gatekeep._events import Logger, SilentLogger, request_name
from gatekeep._frames import HEADER, LIMIT
from gatekeep._stages import Stage
from gatekeep.pool._hop import HopTimedOut, receive
from gatekeep.pool._verdict import EXPIRED, REJECT, judge
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind

READ_SIZE = 65536

_SILENT = SilentLogger()

# A plain number: a look into an enumeration costs more than the comparison (until Python 3.12).
_ENVELOPE = int(Kind.ENVELOPE)


class NotARequest(Exception):
    """What came is no envelope, or it stopped short: the front has given it up, or is no front of ours."""


def read_envelope(hop: socket.SocketType, timeout: float = math.inf) -> _wire.Envelope:
    """Read the whole envelope. Each read waits `timeout` seconds at most.

    Raises:
        NotARequest: there is none.
        HopTimedOut: a read waited too long.
        OSError: the connection broke.
    """
    data = _receive(hop, timeout)
    while len(data) < (size := _envelope_size(data)):
        data += _receive(hop, timeout)
    if len(data) > size:
        raise NotARequest("something follows the envelope before the claim")
    return _wire.decode_envelope(data[HEADER.size :])


def _receive(hop: socket.SocketType, timeout: float) -> bytes:
    data = receive(hop, READ_SIZE, timeout)
    if not data:
        raise NotARequest("the connection ended before the envelope did")
    return data


def _envelope_size(data: bytes) -> int:
    if len(data) < HEADER.size:
        return HEADER.size
    kind, length = HEADER.unpack_from(data)
    if kind != _ENVELOPE or length > LIMIT:
        raise NotARequest(f"a frame of kind {kind} and {length} bytes where an envelope was due")
    return HEADER.size + int(length)


def claim(hop: socket.SocketType, pid: int, thread: int, now: float) -> bool:
    """Claim the request: the application may be entered only if this is true (see `transport/_claim`).

    A front that has given the request up, or is gone, makes the send fail, so there is no need to look first.
    """
    return _say(hop, _wire.encode(_wire.Go(pid, thread, now)))


def _say(hop: socket.SocketType, verdict: bytes) -> bool:
    """The first that is sent over this hop, and a few bytes: there is room for it, so this waits for nobody."""
    try:
        hop.sendall(verdict)
    except OSError:
        return False
    return True


def pick_up(
    hop: socket.SocketType,
    pid: int,
    thread: int,
    accepted: float,
    *,
    queue_timeout: float = math.inf,
    socket_timeout: float = math.inf,
    rejects: Callable[[], bool] = lambda: False,
    log: Logger = _SILENT,
) -> _wire.Envelope | None:
    """Read and claim the request. None when nobody shall run it: it has waited too long, or nobody wants it any more.

    Args:
        pid, thread, accepted: what the front is told of the worker: who it is and since when it has the connection.
        queue_timeout: seconds that the request may have waited, `math.inf` for ever.
        socket_timeout: seconds that one read may wait, `math.inf` for ever.
        rejects: whether this process must not run it, because its code is outdated.
    """
    try:
        envelope = read_envelope(hop, socket_timeout)
    except HopTimedOut as error:
        # Nothing is known of the request but that this thread could not serve another one for so long.
        log.warning("pickup.timed_out", stage=Stage.PICKUP, timer="socket-timeout", reason=str(error))
        return None
    except (OSError, NotARequest, msgspec.MsgspecError, ValueError, RecursionError):
        # The last three are what msgspec makes of bytes that are no envelope.
        return None
    now = time.monotonic()
    verdict = judge(envelope, now, queue_timeout, is_outdated=rejects())
    if verdict is EXPIRED:
        _discard(hop, envelope, now, log)
        return None
    if verdict is REJECT:
        _say(hop, _wire.REJECT)
        return None
    return envelope if claim(hop, pid, thread, accepted) else None


def _discard(hop: socket.SocketType, envelope: _wire.Envelope, now: float, log: Logger) -> None:
    _say(hop, _wire.EXPIRED)
    # The front warns of it.
    name, age = request_name(envelope.request), round(now - envelope.stamp, 3)
    log.debug("pickup.discarded", request_id=name, age=age, attempt=envelope.attempt)
