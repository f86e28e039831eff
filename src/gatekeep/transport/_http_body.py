"""Decodes a request's body, by Content-Length or in chunks, strictly. Pure.

A decoder is given the connection's bytes and where to begin, and gives back the body in them and the position up to which it
has used them; what it did not use it must be given again, with more. It never holds bytes itself, works by the chunk and not
by the byte, and what it gives of a large read is one copy, or the read itself.

What it refuses, others have taken: `0x1` and `+1` as sizes, a bare LF after a size, two bytes of anything after a chunk,
extensions and trailers without end. A proxy that reads such a body in another way than we do is how requests are smuggled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Protocol

from gatekeep._errors import Refused
from gatekeep.transport._codec import TOKEN, Framing, Head, Limits
from gatekeep.transport._http_head import LINE_BYTES, Bound, Buffer, Lines, check_field_line

SIZE_LINE = Bound(256, HTTPStatus.BAD_REQUEST, "a chunk's size line is too long")
TRAILERS = 100
TRAILER_BYTES = 8192
"""How many trailer fields there may be, and how much of them; they are dropped, so nobody needs more (a header's limits)."""

# RFC 9112 §7.1. The white space that a recipient should tolerate before and in extensions (§7.1.1) is refused: nobody sends it
# in good faith, and parsers differ on it.
_EXTENSION = (
    rf';{TOKEN}++(?:=(?:{TOKEN}++|"(?:[\t !\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t -\x7e\x80-\xff])*+"))?+'
)
_size_line = re.compile(rf"([0-9A-Fa-f]{{1,16}})(?:{_EXTENSION})*+\r\n".encode("latin-1")).match
_plain_size_line = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n").match

_FORBIDDEN_TRAILERS = (b"content-length", b"transfer-encoding", b"host")


class Decoder(Protocol):
    """One body.

    Attributes:
        complete: its end was reached.
    """

    complete: bool

    def decode(self, data: Buffer, start: int) -> tuple[bytes, int]:
        """The body in `data` from `start` on, and the position up to which `data` was used.

        Raises:
            Refused: it is malformed or too large; the decoder is of no further use.
        """


def decoder_for(head: Head, limits: Limits) -> Decoder:
    """The decoder for a request's body."""
    if head.framing is Framing.CHUNKED:
        return ChunkedDecoder(limits.body)
    return LengthDecoder(head.length)


class LengthDecoder:
    """A body of so many bytes."""

    __slots__ = ("_left", "complete")

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0

    def decode(self, data: Buffer, start: int) -> tuple[bytes, int]:
        """See `Decoder`."""
        piece = data[start : start + self._left]
        self._left -= len(piece)
        self.complete = self._left == 0
        return bytes(piece), start + len(piece)


class _At(Enum):
    """Where in a chunked body the decoder stands; each leads to the one after it, and CHUNK_END also back to SIZE."""

    SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    END = auto()


class ChunkedDecoder:
    """A body in chunks (RFC 9112 §7.1).

    Args:
        limit: the most bytes of body, 0 for no limit.
    """

    __slots__ = ("_at", "_left", "_limit", "_lines", "_total", "_trailer_bytes", "_trailers", "complete")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._at = _At.SIZE
        self._lines = Lines()
        self._left = 0
        self._total = 0
        self._trailers = 0
        self._trailer_bytes = 0
        self.complete = False

    def decode(self, data: Buffer, start: int) -> tuple[bytes, int]:
        """See `Decoder`."""
        pieces: list[Buffer] = []
        while self._at is not _At.END:
            before = start, self._at
            start = _STEPS[self._at](self, data, start, pieces)
            if before == (start, self._at):
                break
        self.complete = self._at is _At.END
        return b"".join(pieces), start

    def _size(self, data: Buffer, start: int, pieces: list[Buffer]) -> int:
        if self._lines.seen == 0:
            start = self._whole_chunks(data, start, pieces)
        end = self._lines.end(data, start, LINE_BYTES, SIZE_LINE)
        if end < 0:
            return start
        match = _size_line(data, start)
        if match is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "a malformed chunk size or chunk extension")
        self._left = int(match[1], 16)
        self._count(self._left)
        self._at = _At.CHUNK if self._left else _At.TRAILER
        return end + 2

    def _whole_chunks(self, data: Buffer, start: int, pieces: list[Buffer]) -> int:
        """Take the chunks that are there from size to end and have nothing to look at. Tiny chunks cost the more of them."""
        while (match := _plain_size_line(data, start)) is not None:
            size = int(match[1], 16)
            begin = match.end()
            end = begin + size
            if not size or data[end : end + 2] != b"\r\n":
                break
            self._count(size)
            pieces.append(data[begin:end])
            start = end + 2
        return start

    def _count(self, size: int) -> None:
        self._total += size
        if self._limit and self._total > self._limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of more than {self._limit} bytes")

    def _chunk(self, data: Buffer, start: int, pieces: list[Buffer]) -> int:
        piece = data[start : start + self._left]
        if piece:  # joined with nothing else, it is not copied
            pieces.append(piece)
        self._left -= len(piece)
        if not self._left:
            self._at = _At.CHUNK_END
        return start + len(piece)

    def _chunk_end(self, data: Buffer, start: int, pieces: list[Buffer]) -> int:
        ending = data[start : start + 2]
        if ending == b"\r\n":
            self._at = _At.SIZE
            return start + 2
        if ending not in (b"", b"\r"):
            raise Refused(HTTPStatus.BAD_REQUEST, "a chunk is longer than its size")
        return start

    def _trailer(self, data: Buffer, start: int, pieces: list[Buffer]) -> int:
        room = Bound(
            TRAILER_BYTES - self._trailer_bytes,
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the trailers are too large",
        )
        end = self._lines.end(data, start, LINE_BYTES, room)
        if end == start:
            self._at = _At.END
        if end > start:
            self._take_trailer(data, start)
            self._trailer_bytes += end + 2 - start
        return start if end < 0 else end + 2

    def _take_trailer(self, data: Buffer, line: int) -> None:
        """RFC 9110 §6.5.1: never for framing or routing. None of them is merged into the header."""
        colon = check_field_line(data, line) - 1
        if data[line:colon].lower() in _FORBIDDEN_TRAILERS:
            raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length, Transfer-Encoding or Host in a trailer")
        self._trailers += 1
        if self._trailers > TRAILERS:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many trailer fields")


_STEPS: dict[_At, Callable[[ChunkedDecoder, Buffer, int, list[Buffer]], int]] = {
    _At.SIZE: ChunkedDecoder._size,
    _At.CHUNK: ChunkedDecoder._chunk,
    _At.CHUNK_END: ChunkedDecoder._chunk_end,
    _At.TRAILER: ChunkedDecoder._trailer,
}
