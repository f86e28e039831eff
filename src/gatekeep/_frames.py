"""Framing of the hop and of the control socket: one byte of kind, four bytes of length, the payload.

Pure: bytes in, frames out. What the payload means is told by `transport/_wire` (the hop) and `lifecycle/_control`.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

HEADER = Struct("!BI")
"""Kind and length of a frame, in network order."""

_HEADER_SIZE = HEADER.size
_read_header = HEADER.unpack_from

READ_SIZE = 124 << 10
"""Bytes of bodies that one read from a hop takes at most: just less than what malloc gets from the system for each read and gives
back after it (128 KiB). A read of 256 KiB that found a small response cost ten times as much."""

LIMIT = 4 << 20
"""No structured frame is larger (bytes): the front's limits on a request's head end far below it."""


class FrameError(Exception):
    """The peer sent what is no frame. Between our own processes that is a fault of ours, or another program's socket."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame, ready to be written."""
    return HEADER.pack(kind, len(payload)) + payload


class Decoder:
    """Takes bytes as they come and gives frames back.

    Args:
        streamed: kinds whose payload is passed on piece by piece as it arrives, because it may be large and has no structure.
            Where the pieces are cut means nothing.
        limit: the longest payload (bytes) of every other kind.
    """

    __slots__ = ("_buffer", "_kind", "_left", "_limit", "_position", "_streamed")

    def __init__(self, streamed: frozenset[int] = frozenset(), limit: int = LIMIT) -> None:
        self._streamed = streamed
        self._limit = limit
        self._buffer = b""
        self._position = 0
        self._kind = 0
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        if self._position == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._position :] + data
        self._position = 0

    def is_between_frames(self) -> bool:
        """Whether everything that was fed has been given back, so that an end here cuts no frame."""
        return self._left == 0 and self._position == len(self._buffer)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """All frames, and pieces of streamed ones, that are there now.

        Raises:
            FrameError: a frame is longer than the limit.
        """
        while (item := self.next_frame()) is not None:
            yield item

    def next_frame(self) -> tuple[int, bytes] | None:
        """The next frame, or piece of a streamed one; None while more bytes are needed."""
        start = self._position
        if self._left:
            return self._piece(start)
        body = start + _HEADER_SIZE
        buffer = self._buffer
        there = len(buffer)
        if there < body:
            return None
        kind, length = _read_header(buffer, start)
        end = body + length
        if end <= there and length <= self._limit:
            self._position = end
            return kind, buffer[body:end]
        if kind in self._streamed:
            self._kind, self._left, self._position = kind, length, body
            return self._piece(body)
        if length > self._limit:
            raise FrameError(f"a frame of kind {kind} and {length} bytes, the limit is {self._limit}")
        return None

    def _piece(self, start: int) -> tuple[int, bytes] | None:
        piece = self._buffer[start : start + self._left]
        if not piece:
            return None
        self._position = start + len(piece)
        self._left -= len(piece)
        return self._kind, piece
