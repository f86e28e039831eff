"""Finds a request's head in what arrives, within the limits, and checks the syntax of every line of it. Pure.

Each byte is looked at a bounded number of times, however the client cuts its bytes into packets:

* A head that is whole when it is first looked at, and small, as nearly all are, is matched by two regular expressions
  (`_parse`). They have no nested repetition, and every repetition in them is possessive: `[ \\t]*` before a value of spaces
  would be tried at each of them (what slow clients did to gunicorn, #3721, puma, GHSA-c2f4-cvqm-65w2, and waitress,
  GHSA-73m2-3pwg-5fgc).
* Anything else is looked at line by line, byte for byte as it comes (`Lines`), and then parsed in the same way. What cannot
  be a head any more is refused at its first wrong byte, at the end of its first wrong line or at the limit, not when the
  client finds it convenient to end it: a TLS client, or one that says `GET /` and waits, gets its answer.

So both ways must come to the same verdict: it is that of the shortest beginning that is wrong. Only then comes
`_http_policy.judge` for the fields of a head that is complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from gatekeep._errors import Refused
from gatekeep.transport import _http_policy
from gatekeep.transport._codec import TOKEN, Head, Limits

Buffer = bytes | bytearray

# RFC 9112 §3, RFC 9110 §5.5 (without the controls that it lets a recipient retain).
_request_line = re.compile(rf"({TOKEN}++) ([!-~]++) HTTP/([0-9]\.[0-9])\r\n").match
_fields = re.compile(rf"^({TOKEN}++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)\r\n", re.MULTILINE).findall

_name = re.compile(rf"{TOKEN}++:".encode()).match

LineMatch = Callable[[Buffer, int], "re.Match[bytes] | None"]
REQUEST_LINE_BYTES: LineMatch = re.compile(rb"[\x20-\x7e]*+").match
LINE_BYTES: LineMatch = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+").match


class Bound(NamedTuple):
    """How long (bytes, without its end) a line may be, and the answer to a longer one."""

    size: int
    status: HTTPStatus
    reason: str


class Lines:
    """Finds the end of a line that may come in pieces, and looks at no byte of it twice.

    Attributes:
        seen: how much of the present line was looked at.
    """

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = 0

    def end(self, data: Buffer, line: int, bytes_of: LineMatch, bound: Bound) -> int:
        """Where the CRLF of the line that begins at `line` stands; -1 while it has not come.

        Raises:
            Refused: a byte that `bytes_of` does not take, a CR or LF without the other, or more bytes than `bound` has.
        """
        match = bytes_of(data, line + self.seen)
        assert match is not None, "the expression matches nothing, too"
        end = match.end()
        if end - line > bound.size:
            raise Refused(bound.status, bound.reason)
        ending = data[end : end + 2]
        if ending == b"\r\n":
            self.seen = 0
            return end
        if ending not in (b"", b"\r"):
            raise Refused(HTTPStatus.BAD_REQUEST, _describe(ending))
        self.seen = end - line
        return -1


def _describe(ending: Buffer) -> str:
    if ending[:1] == b"\r":
        return "a bare CR"
    if ending[:1] == b"\n":
        return "a bare LF"
    return f"the byte 0x{ending[0]:02x} in a line"


def check_field_line(data: Buffer, line: int) -> int:
    """Check that a name and a colon begin at `line`, and give the position after the colon.

    Raises:
        Refused: they do not.
    """
    match = _name(data, line)
    if match is not None:
        return match.end()
    if data[line : line + 1] in (b" ", b"\t"):
        raise Refused(HTTPStatus.BAD_REQUEST, "a folded line, or white space before the first field")
    raise Refused(HTTPStatus.BAD_REQUEST, "a line that is not a name, a colon, a value")


class HeadScanner:
    """Takes one head after the other out of a connection's bytes.

    Attributes:
        head: what is known of the head that is being scanned, once its request line is complete; else None.
        end: the position after the last head that was found.
    """

    __slots__ = (
        "_at_a_glance",
        "_count",
        "_field",
        "_glanced",
        "_last_bytes",
        "_last_head",
        "_limits",
        "_line",
        "_lines",
        "_request",
        "end",
        "head",
    )

    head: Head | None

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._request = Bound(
            min(limits.request_line, limits.head_size),
            HTTPStatus.REQUEST_URI_TOO_LONG,
            "the request line is too long",
        )
        self._field = Bound(
            limits.field_size, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a header field is too long"
        )
        # A head up to this size is not too large, and no line of it is.
        self._at_a_glance = min(limits.request_line, limits.field_size, limits.head_size)
        self._lines = Lines()
        # Clients that poll, health checks and balancers send the same head over and over: the same bytes, the same verdict.
        self._last_bytes = b""
        self._last_head: Head | None = None
        self.end = 0
        self.reset()

    def reset(self) -> None:
        """Begin with the next head."""
        self.head = None
        self._glanced = False
        self._count = 0
        self._line = 0

    def scan(self, data: Buffer, begin: int) -> Head | None:
        """The head that begins at `begin`; None while more bytes are needed.

        Until it is there, each call gets the same bytes and those that came since; where in `data` they stand may change.

        Raises:
            Refused: it is not acceptable, and the scanner is of no further use.
        """
        if not self._glanced:
            self._glanced = True
            if self._last_head is not None and data.startswith(self._last_bytes, begin):
                self.end = begin + len(self._last_bytes)
                self.head = self._last_head
                return self.head
            blank = data.find(b"\r\n\r\n", begin, begin + self._at_a_glance)
            if blank > 0:
                self.end = blank + 4
                head = self._parse(str(data[begin : blank + 2], "latin-1"))
                if head is not None:
                    self._last_bytes, self._last_head = bytes(data[begin : self.end]), head
                    return head
        return self._scan_lines(data, begin)

    def _parse(self, block: str) -> Head | None:
        """The head in a block of whole lines; None if one of them is malformed, or there are too many."""
        match = _request_line(block)
        if match is None:
            return None
        method, target, version = match.groups()
        head = _http_policy.open_head(method, target, version, self._limits)
        rest = match.end()
        fields = _fields(block, rest)
        # Each match begins where a line does and ends with a CRLF that it cannot cross. So as many matches as LFs are all
        # lines, from the first byte of each to its last, and no CR or LF is anywhere else.
        if len(fields) != block.count("\n", rest) or len(fields) > self._limits.fields:
            return None
        if " \r\n" in block or ("\t" in block and "\t\r\n" in block):
            fields = [(name, value.rstrip(" \t")) for name, value in fields]
        self.head = head
        _http_policy.judge(head, fields, self._limits)
        return head

    def _scan_lines(self, data: Buffer, begin: int) -> Head | None:
        while True:
            line = begin + self._line
            if self.head is None:
                end = self._lines.end(data, line, REQUEST_LINE_BYTES, self._request)
            else:
                end = self._lines.end(data, line, LINE_BYTES, self._field_bound())
            if end < 0:
                return None
            self._line = end + 2 - begin
            if self.head is None:
                self._take_request_line(str(data[line : end + 2], "latin-1"))
            elif end > line:
                self._take_field(data, line)
            else:
                return self._complete(data, begin)

    def _field_bound(self) -> Bound:
        room = self._limits.head_size - self._line
        if room < self._field.size:
            return Bound(room, self._field.status, "the head is too large")
        return self._field

    def _take_request_line(self, line: str) -> None:
        match = _request_line(line)
        if match is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "a malformed request line")
        method, target, version = match.groups()
        self.head = _http_policy.open_head(method, target, version, self._limits)

    def _take_field(self, data: Buffer, line: int) -> None:
        check_field_line(data, line)
        self._count += 1
        if self._count > self._limits.fields:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields")

    def _complete(self, data: Buffer, begin: int) -> Head:
        if self._line > self._limits.head_size:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too large")
        self.end = begin + self._line
        head = self._parse(str(data[begin : self.end - 2], "latin-1"))
        assert head is not None, "every line was checked"
        return head
