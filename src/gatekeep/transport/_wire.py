"""What front and worker say to each other over the hop: one UNIX connection a request.

    front → worker   ENVELOPE  BODY*  BODY_END
    worker → front   GO  HEAD  DATA*  END          the application ran
                     GO  HEAD  LAST                it ran, and its whole response is small
                     GO  (HEAD DATA*)  FAIL        it ran and failed
                     REJECT                        this worker will not run it; another may
                     EXPIRED                       it waited too long; nobody will run it

`GO` is a claim: the application is entered only if sending it succeeded (see `_claim`). No BODY goes out before it, and the
front never shuts its sending side, so an end of stream at the worker always means that the front has given the request up.
Structured payloads are MessagePack arrays. Pure.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial

import msgspec

from gatekeep._frames import HEADER, Decoder, frame

SMALL_BODY = 16384
"""A request body of at most this many bytes, complete with the read of the head, travels inside the envelope."""


class Kind(IntEnum):
    """The kinds of frames."""

    ENVELOPE = 1
    BODY = 2
    BODY_END = 3
    GO = 16
    REJECT = 17
    EXPIRED = 18
    HEAD = 19
    DATA = 20
    END = 21
    FAIL = 22
    LAST = 23
    """DATA and END in one: the whole of a small body, which most have. Each frame costs front and worker half a microsecond."""


class Envelope(msgspec.Struct, array_like=True):
    """A request, as the worker needs it.

    Attributes:
        request: its number; also its name in every log line (`gatekeep._events.request_name`).
        began: when its first byte was read, on the same clock as `stamp`.
        stamp: when an envelope of this request was first written, in seconds of the clock that all processes of the host share.
        wall: the same instant in seconds since the epoch.
        attempt: 1 for the first.
        environ: the CGI part of the WSGI environ, latin-1 text as PEP 3333 has it.
        body: the whole body, where it is small and complete; else empty.
        streamed: whether BODY frames and BODY_END follow `GO`.
        app: which of the process's applications is asked for; empty for the group's own.
    """

    request: int
    began: float
    stamp: float
    wall: float
    attempt: int
    environ: dict[str, str]
    body: bytes
    streamed: bool
    app: str = ""


class Go(msgspec.Struct, array_like=True):
    """The claim: this thread of this process runs the request, from `stamp` on (the shared clock)."""

    pid: int
    thread: int
    stamp: float


class Head(msgspec.Struct, array_like=True):
    """Status and header fields of the application's response, checked by the worker.

    Attributes:
        grown: bytes by which the process's resident memory grew meanwhile, where that is worth telling.
    """

    status: int
    reason: str
    fields: list[tuple[str, str]]
    grown: int = 0


class End(msgspec.Struct, array_like=True):
    """The application is done and its `close()` was called, at `stamp` (the shared clock).

    Attributes:
        grown: as in `Head`, since that.
    """

    stamp: float
    grown: int = 0


class Fail(msgspec.Struct, array_like=True):
    """The application raised, or broke its contract. `message` is one line; the traceback is in the log already.

    Attributes:
        timer: the setting that fired, where the application was interrupted or given up.
    """

    message: str
    stamp: float
    timer: str = ""


_encode, _header = msgspec.msgpack.Encoder().encode, HEADER.pack
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
decode_go = msgspec.msgpack.Decoder(Go).decode
decode_head = msgspec.msgpack.Decoder(Head).decode
decode_end = msgspec.msgpack.Decoder(End).decode
decode_fail = msgspec.msgpack.Decoder(Fail).decode

BODY_END = frame(Kind.BODY_END)
REJECT = frame(Kind.REJECT)
EXPIRED = frame(Kind.EXPIRED)

_KINDS: dict[type[msgspec.Struct], int] = {
    Envelope: int(Kind.ENVELOPE),
    Go: int(Kind.GO),
    Head: int(Kind.HEAD),
    End: int(Kind.END),
    Fail: int(Kind.FAIL),
}


def encode(message: msgspec.Struct) -> bytes:
    """One structured message as a frame."""
    payload = _encode(message)
    return _header(_KINDS[type(message)], len(payload)) + payload


worker_decoder = partial(Decoder, frozenset({int(Kind.BODY)}))
"""For what the front sends."""

front_decoder = partial(Decoder, frozenset({int(Kind.DATA)}))
"""For what a worker sends."""
