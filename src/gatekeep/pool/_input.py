"""`wsgi.input`: the request's body, from the envelope or piece by piece from the hop."""

from __future__ import annotations

import io
import math
import socket
from typing import Any

from gatekeep._errors import RequestInterrupted
from gatekeep._frames import READ_SIZE, FrameError
from gatekeep.pool._hop import receive
from gatekeep.pool._region import Region
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind


class BodyCut(ConnectionError):
    """The request's body ended early, or nothing came of it for socket-timeout: what was read is not the whole."""


class HopReader(io.RawIOBase):
    """Reads BODY frames until BODY_END, as a raw stream; `io.BufferedReader` makes the rest of PEP 3333's methods of it.

    A body that is cut stays cut: `io.BufferedReader` has dropped what it had read before the error, so whatever came later
    would be taken for what follows that.
    """

    def __init__(
        self, hop: socket.SocketType, timeout: float = math.inf, region: Region | None = None
    ) -> None:
        self._hop = hop
        self._region = region or Region()
        self._timeout = timeout
        self._cut = ""
        self._decoder = _wire.worker_decoder()
        self._piece = memoryview(b"")
        self._complete = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end of the body, and ever after.

        Raises:
            BodyCut: the body will never be complete.
        """
        if not self._piece and not self._complete:
            try:
                with self._region:
                    self._next_piece()
            except RequestInterrupted:
                # `io.BufferedReader` drops what it has read before: who reads on must not get a body with a hole.
                self._cut = "the request was interrupted while it read its body"
                self._piece, self._complete = memoryview(b""), False
                raise
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _next_piece(self) -> None:
        if self._cut:
            raise BodyCut(self._cut)
        try:
            self._read_piece()
        except BodyCut as error:
            self._cut = str(error)
            raise

    def _read_piece(self) -> None:
        while not self._piece and not self._complete:
            item = self._next_frame()
            if item is None:
                self._receive()
            elif item[0] == Kind.BODY:
                self._piece = memoryview(item[1])
            elif item[0] == Kind.BODY_END:
                self._complete = True
            else:
                raise BodyCut(f"a frame of kind {item[0]} inside the request's body")

    def _next_frame(self) -> tuple[int, bytes] | None:
        try:
            return self._decoder.next_frame()
        except FrameError as error:
            raise BodyCut(str(error)) from error

    def _receive(self) -> None:
        try:
            data = receive(self._hop, READ_SIZE, self._timeout)
        except OSError as error:
            raise BodyCut(f"the request's body ended early: {error}") from error
        if not data:
            raise BodyCut("the request's body ended early: the client has gone, or sent what is no body")
        self._decoder.feed(data)


def body_stream(
    envelope: _wire.Envelope,
    hop: socket.SocketType,
    timeout: float = math.inf,
    region: Region | None = None,
) -> io.BufferedIOBase:
    """The stream that becomes `wsgi.input`. One read from the hop waits `timeout` seconds at most."""
    if envelope.streamed:
        return io.BufferedReader(HopReader(hop, timeout, region), READ_SIZE)
    return io.BytesIO(envelope.body)
