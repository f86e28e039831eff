"""`wsgi.input`: the request's body, from the envelope or piece by piece from the hop."""

from __future__ import annotations

import io
import socket
from typing import Any

from gatekeep._frames import FrameError
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind

READ_SIZE = 262144


class BodyCut(ConnectionError):
    """The client's connection ended inside the request's body: what was read is not the whole."""


class HopReader(io.RawIOBase):
    """Reads BODY frames until BODY_END, as a raw stream; `io.BufferedReader` makes the rest of PEP 3333's methods of it."""

    def __init__(self, hop: socket.SocketType) -> None:
        self._hop = hop
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
            self._next_piece()
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _next_piece(self) -> None:
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
            data = self._hop.recv(READ_SIZE)
        except OSError as error:
            raise BodyCut(f"the request's body ended early: {error}") from error
        if not data:
            raise BodyCut("the request's body ended early: the client has gone, or sent what is no body")
        self._decoder.feed(data)


def body_stream(envelope: _wire.Envelope, hop: socket.SocketType) -> io.BufferedIOBase:
    """The stream that becomes `wsgi.input`."""
    if envelope.streamed:
        return io.BufferedReader(HopReader(hop), READ_SIZE)
    return io.BytesIO(envelope.body)
