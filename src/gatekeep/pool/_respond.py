"""The worker's side of the respond stage: `start_response`, `write`, and the frames that they become."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from gatekeep._frames import HEADER
from gatekeep.pool._disconnected import Disconnected
from gatekeep.pool._hop import HopTimedOut, send_all, send_file
from gatekeep.pool._memory import LENGTHY, Memory
from gatekeep.pool._region import Region
from gatekeep.transport import _wire
from gatekeep.transport._wire import Kind

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

SENDFILE_SIZE = 1 << 20
JOIN_SIZE = 65536
LONGEST_HEAD = 1 << 20
"""Bytes; clients and proxies give up far below."""

_DATA, _LAST = int(Kind.DATA), int(Kind.LAST)

_STATUS = re.compile(r"([2-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ILLEGAL = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_BODILESS = frozenset({204, 304})


class ContractBroken(Exception):
    """The application did what PEP 3333 forbids; it is answered like any other error of the application."""


class HopLost(Exception):
    """The response cannot reach the front any more: its end of the hop is gone, or it took nothing for socket-timeout."""


class FileCut(Exception):
    """A file could not be read as far as it was promised: the frame that was begun cannot be finished."""


_HOP_ERRORS = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF})


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): iterates over a file in blocks.

    Returned unchanged by the application, a plain file goes to the hop without passing through this process's memory.
    """

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        while block := self.filelike.read(self.block_size):
            yield block

    def plain_file(self) -> tuple[int, int, int] | None:
        """Descriptor, offset and rest of a plain file; None for all whose `read` may give other bytes than their descriptor."""
        file = self.filelike
        if type(file) is io.BufferedReader:
            raw = file.raw
        elif type(file) is io.FileIO:
            raw = file
        else:
            return None
        if type(raw) is not io.FileIO:
            return None
        status = os.fstat(raw.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        offset = file.tell()
        return raw.fileno(), offset, max(0, status.st_size - offset)


class Responder:
    """One response on its way to the front.

    Once a frame was begun and not finished (a timeout, a file that became shorter, an exception that another thread sent into
    this one) nothing follows it: the front would take that for the frame's missing part.

    Args:
        timeout: seconds that one write may wait for the front, `math.inf` for ever.
        memory: whose growth is told with the response.

    Attributes:
        timed_out: whether a write waited longer.
        started: whether the head has gone out.
        called: whether `start_response` was called.
        excess: bytes that the application produced beyond its own Content-Length, and that were cut.
    """

    __slots__ = (
        "_bodiless",
        "_head_only",
        "_hop",
        "_in_frame",
        "_left",
        "_memory",
        "_region",
        "_status",
        "called",
        "ended",
        "excess",
        "fields",
        "started",
        "timed_out",
        "timeout",
    )

    def __init__(
        self,
        hop: socket.SocketType,
        method: str,
        timeout: float = math.inf,
        region: Region | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._hop = hop
        self._memory = memory
        self._region = region or Region()
        self.ended = False
        self._in_frame = False
        self.timeout = timeout
        self.timed_out = False
        self._head_only = method == "HEAD"
        self._bodiless = False
        self._left: int | None = None
        self._status: tuple[int, str] = (0, "")
        self.fields: list[tuple[str, str]] = []
        self.called = False
        self.started = False
        self.excess = 0

    @property
    def sent_status(self) -> int:
        """The status of the head that has gone out; 0 before."""
        return self._status[0] if self.started else 0

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's `start_response`.

        Raises:
            ContractBroken: it was called before without `exc_info`, or status or fields are not what they must be.
        """
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: avoid a circular reference through the traceback
        elif self.called:
            raise ContractBroken("start_response was called a second time without exc_info")
        self._status, self.fields, self._left = _checked(status, headers)
        self._bodiless = self._head_only or self._status[0] in _BODILESS
        self.called = True
        return self.write

    def write(self, data: bytes) -> None:
        """A block of the body, on its way when this returns (PEP 3333: no block is delayed).

        Raises:
            ContractBroken: it is not bytes, or `start_response` was not called.
            HopLost: nobody wants it.
        """
        if not isinstance(data, bytes):
            raise ContractBroken(f"the body consists of bytes, not of {type(data).__name__}")
        if data:
            with self._region:
                head = [] if self.started else [self._head(self._grown(time.monotonic()))]
                self._send(head + self._frame(data))

    def end(self, now: float, blocks: list[bytes] | tuple[bytes, ...] = ()) -> None:
        """The response is complete. `blocks` are what is left of it, known as a whole: all goes in one write if it is small.

        The application has been left (`Region.leave`): nobody interrupts this.

        Raises:
            ContractBroken: `start_response` was not called, a block is not bytes, or less came than was declared.
            HopLost: nobody wants it.
        """
        for block in blocks:
            if not isinstance(block, bytes):
                raise ContractBroken(f"the body consists of bytes, not of {type(block).__name__}")
        size = sum(map(len, blocks))
        if self.started or size > JOIN_SIZE:
            self._end_in_frames(now, blocks, size)
        else:
            self._check_whole(size)
            head = self._head(self._grown(now))
            body = self._within(b"".join(blocks))
            self._send([head, HEADER.pack(_LAST, len(body)), body])
        self.ended = True

    def _end_in_frames(self, now: float, blocks: list[bytes] | tuple[bytes, ...], size: int) -> None:
        parts: list[bytes] = []
        grown = self._grown(now)
        if not self.started:
            self._check_whole(size)
            parts.append(self._head(grown))
            grown = 0
        for block in blocks:
            parts += self._frame(block)
        if self._left and not self._bodiless:
            self._send(parts)
            raise ContractBroken(f"the body ended {self._left} bytes short of its Content-Length")
        parts.append(_wire.encode(_wire.End(now, grown)))
        self._send(parts)

    def _grown(self, now: float) -> int:
        """What the request added to the process's memory, as far as it was not told yet."""
        if self._memory is None or now - self._region.began < LENGTHY:
            return 0
        return self._memory.growth()

    def _check_whole(self, size: int) -> None:
        """Nothing has gone out and all of the body is known: what is wrong with it can still be a 500."""
        if size or not self._head_only:  # to HEAD an application may answer with nothing, whatever GET gets
            self._declare(size)
        if self._left is not None and size < self._left and not self._bodiless:
            raise ContractBroken(f"the body has {size} bytes, its Content-Length says {self._left}")

    def _declare(self, length: int) -> None:
        """All of the body is known, so its length is (PEP 3333, "Handling the Content-Length Header")."""
        if self._left is None and self.called and self._status[0] not in _BODILESS:
            self._left = length
            self.fields = [*self.fields, ("Content-Length", str(length))]

    def fail(self, message: str, now: float, timer: str = "") -> None:
        """The response will not be complete."""
        with self._region:
            self._send([_wire.encode(_wire.Fail(message, now, timer))])

    def is_unwanted(self) -> bool:
        """Whether the front has ended the hop: nobody waits for the response any more."""
        return Disconnected(self._hop)()

    def give_up(self, message: str, now: float, timer: str) -> None:
        """Tell the front so in the thread's place, which is inside the application and may stay there (`Region.give_up`).

        Whatever the thread does later, nothing follows.
        """
        if not self._in_frame:
            self._in_frame = True
            try:
                self._hop.send(_wire.encode(_wire.Fail(message, now, timer)), socket.MSG_DONTWAIT)
            except OSError:
                pass  # the front is gone, or does not read; its own timers will end it

    def _frame(self, data: bytes) -> list[bytes]:
        data = self._within(data)
        return [HEADER.pack(_DATA, len(data)), data] if data else []

    def _within(self, data: bytes) -> bytes:
        """What of the data belongs to the response."""
        if self._bodiless:
            return b""
        if self._left is None:
            return data
        if len(data) > self._left:
            self.excess += len(data) - self._left
            data = data[: self._left]
        self._left -= len(data)
        return data

    def _head(self, grown: int) -> bytes:
        if not self.called:
            raise ContractBroken("start_response was not called before the body")
        head = _encoded(_wire.Head(*self._status, self.fields, grown))
        self.started = True
        return head

    def _send(self, parts: list[bytes], *, finish: bool = True) -> None:
        """Send whole frames; or, if they are not to be finished, the beginning of one."""
        if self._in_frame:
            raise HopLost("what was sent before ends inside a frame")
        self._in_frame = True
        try:
            if sum(map(len, parts)) <= JOIN_SIZE:
                send_all(self._hop, b"".join(parts), self.timeout)
            else:
                for part in parts:
                    send_all(self._hop, part, self.timeout)
        except OSError as error:
            raise self._lost(error) from error
        self._in_frame = not finish

    def _lost(self, error: OSError) -> HopLost:
        if isinstance(error, HopTimedOut):
            self.timed_out = True
        return HopLost(str(error))

    def send_file(self, descriptor: int, offset: int, size: int) -> None:
        """A plain file's content, straight from the kernel.

        Raises:
            HopLost: nobody wants it.
            FileCut: the file became shorter meanwhile, or cannot be read; nothing more can be said over this hop.
        """
        if not self.started:
            with self._region:
                self._declare(size)
                self._send([self._head(self._grown(time.monotonic()))])
        if self._bodiless:
            return
        if self._left is not None:
            self.excess += max(0, size - self._left)
            size = min(size, self._left)
            self._left -= size
        self._stop_blocking()
        end = offset + size
        while offset < end:
            count = min(SENDFILE_SIZE, end - offset)
            with self._region:
                self._send([HEADER.pack(_DATA, count)], finish=False)
                self._send_range(descriptor, offset, count)
                self._in_frame = False
            offset += count

    def _stop_blocking(self) -> None:
        try:
            self._hop.setblocking(False)
        except OSError as error:
            raise self._lost(error) from error

    def _send_range(self, descriptor: int, offset: int, count: int) -> None:
        try:
            sent = send_file(self._hop, descriptor, offset, count, self.timeout)
        except OSError as error:
            if isinstance(error, HopTimedOut) or error.errno in _HOP_ERRORS:
                raise self._lost(error) from error
            raise FileCut(f"the file could not be read while it was sent: {error}") from error
        if sent < count:
            raise FileCut("the file became shorter while it was sent")


Fields = list[tuple[str, str]]

# Applications repeat themselves, so the last head is remembered: in one tuple, since threads share it.
_last_checked: tuple[str, Fields, tuple[tuple[int, str], Fields, int | None]]
_last_checked = "200 OK", [], ((200, "OK"), [], None)
_last_encoded = _wire.Head(200, "OK", []), _wire.encode(_wire.Head(200, "OK", []))


def _checked(status: str, headers: Fields) -> tuple[tuple[int, str], Fields, int | None]:
    """Status, fields and Content-Length, checked. The fields are a copy: what the application adds to its own later is not."""
    global _last_checked
    known_status, known_fields, checked = _last_checked
    if status != known_status or headers != known_fields:
        parsed, length = _checked_status(status), _checked_fields(headers)
        fields = list(headers)
        checked = parsed, fields, length
        _last_checked = status, fields, checked
    return checked


def _encoded(head: _wire.Head) -> bytes:
    global _last_encoded
    known, frame = _last_encoded
    if head != known:
        frame = _wire.encode(head)
        if len(frame) > LONGEST_HEAD:
            raise ContractBroken(f"a response head of {len(frame)} bytes")
        _last_encoded = head, frame
    return frame


_known_statuses: dict[str, tuple[int, str]] = {}
"""Those that were checked before, as code and reason."""

MOST_KNOWN, LONGEST_KNOWN = 1000, 64
"""How many statuses and names are kept, and of how many characters: an application may make them from data."""


def _checked_status(status: object) -> tuple[int, str]:
    if not isinstance(status, str):
        raise ContractBroken(f"the status is a str, not {type(status).__name__}")
    return _known_statuses.get(status) or _parse_status(status)


def _parse_status(status: str) -> tuple[int, str]:
    found = _STATUS.fullmatch(status)
    if not found:
        raise ContractBroken(f"the status is like '200 OK', not {status!r}")
    parsed = int(found[1]), found[2] or ""
    if len(_known_statuses) < MOST_KNOWN and len(status) <= LONGEST_KNOWN:
        _known_statuses[status] = parsed
    return parsed


_known_names: set[str] = set()
"""Names that were checked before: an application uses a few, over and over."""


def _checked_fields(fields: object) -> int | None:
    """Check header fields: nothing in them may break out of its line. Returns the Content-Length, if there is one."""
    if not isinstance(fields, list):
        raise ContractBroken(f"the header fields are a list, not {type(fields).__name__}")
    length = None
    for item in fields:
        if not isinstance(item, tuple) or len(item) != 2:
            raise ContractBroken(f"a header field is a tuple of name and value, not {item!r}")
        name, value = item
        if not isinstance(name, str) or not isinstance(value, str):
            raise ContractBroken(f"a header field's name and value are str, not {item!r}")
        if name not in _known_names:
            _check_name(name)
        # The methods answer for nearly all values, in a fraction of the expression's time.
        if not (value.isascii() and value.isprintable()) and _ILLEGAL.search(value):
            raise ContractBroken(
                f"the value of {name} holds control characters or such beyond latin-1: {value!r}"
            )
        if len(name) == 14 and name.lower() == "content-length":
            if length is not None or not _is_length(value):
                raise ContractBroken(f"Content-Length: {value!r} is not one decimal number, given once")
            length = int(value)
    return length


def _is_length(value: str) -> bool:
    return value.isascii() and value.isdecimal() and len(value) <= 18


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ContractBroken(f"{name!r} is no name of a header field")
    if len(_known_names) < MOST_KNOWN and len(name) <= LONGEST_KNOWN:
        _known_names.add(name)
