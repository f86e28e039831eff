"""The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte. Pure.

HAProxy's proxy-protocol.txt, read strictly. The header is always there and never guessed at: whoever could leave it out could
also write one. What it says is believed, so only peers that are allowed to (proxy-allow-from) may connect at all.

* A header that gives no address (LOCAL, UNKNOWN, a family without internet addresses) leaves the connection its own. It is the
  proxy's own, as for a health check, or that of a client whom nobody knows.
* PP2_TYPE_SSL with its bit for TLS says that the client came by https. A checksum (PP2_TYPE_CRC32C) that is there must be right.
* Other TLVs are passed over.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from gatekeep._errors import GatekeepError
from gatekeep._trust import parse_address

LINE = b"PROXY "
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSIONS = {"v1": (LINE,), "v2": (SIGNATURE,), "auto": (LINE, SIGNATURE)}

LONGEST_LINE = 107
"""Bytes, its end included, as the specification has it."""

LONGEST_BLOCK = 4096
"""Bytes after the first 16 of version 2; addresses need 216 at most, and TLVs with a client's certificate some hundreds."""


class NotIntroduced(GatekeepError):
    """A connection does not begin with a PROXY header that we accept."""


class Introduction(NamedTuple):
    """What a header says.

    Attributes:
        client: the client's address and port; None where it does not tell, and then the connection's own count.
        server: address and port (text) that the client connected to.
        is_tls: whether the client speaks TLS with the proxy.
    """

    client: tuple[str, int] | None
    server: tuple[str, str] | None
    is_tls: bool


ANONYMOUS = Introduction(None, None, False)


class ProxyHeader:
    """Takes the header off a connection's first bytes.

    Args:
        version: a key of `VERSIONS`.

    Attributes:
        rest: what came behind the header.
    """

    def __init__(self, version: str) -> None:
        self._beginnings = VERSIONS[version]
        self._data = b""
        self.rest = b""

    @property
    def is_empty(self) -> bool:
        """Whether not a byte has come."""
        return not self._data

    def receive(self, data: bytes) -> Introduction | None:
        """Take more bytes: what the header says, or None while it is not complete.

        Raises:
            NotIntroduced: what came is no such header, whatever will follow.
        """
        self._data += data
        begun = [beginning for beginning in self._beginnings if _may_be(self._data, beginning)]
        if not begun:
            raise NotIntroduced(f"it begins with {self._data[:16]!r}")
        if len(self._data) < len(begun[0]):
            return None
        return self._receive_line() if begun[0] is LINE else self._receive_block()

    def _receive_line(self) -> Introduction | None:
        end = self._data.find(b"\r\n", 0, LONGEST_LINE)
        if end < 0:
            if len(self._data) >= LONGEST_LINE:
                raise NotIntroduced(f"a line of more than {LONGEST_LINE} bytes")
            if b"\n" in self._data or b"\r" in self._data[:-1]:
                raise NotIntroduced("a bare CR or LF")
            return None
        self.rest = self._data[end + 2 :]
        return _parse_line(self._data[:end])

    def _receive_block(self) -> Introduction | None:
        if len(self._data) < 16:
            return None
        size = int.from_bytes(self._data[14:16], "big")
        if size > LONGEST_BLOCK:
            raise NotIntroduced(f"a header of {16 + size} bytes")
        version, command = divmod(self._data[12], 16)
        if version != 2 or command > 1:
            raise NotIntroduced(f"version {version}, command {command}")
        if len(self._data) < 16 + size:
            return None
        self.rest = self._data[16 + size :]
        return _parse_block(self._data[: 16 + size]) if command else ANONYMOUS


def _may_be(data: bytes, beginning: bytes) -> bool:
    return data.startswith(beginning) or beginning.startswith(data)


# --- version 1

_PORT = rb"(0|[1-9][0-9]{0,4})"
_line = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]++) ([0-9A-Fa-f:.]++) " + _PORT + b" " + _PORT).fullmatch
_unknown = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*+)?").fullmatch


def _parse_line(line: bytes) -> Introduction:
    if _unknown(line):
        return ANONYMOUS
    match = _line(line)
    if match is None:
        raise NotIntroduced(f"a malformed line {line!r}")
    family, *texts = (group.decode() for group in match.groups())
    kind = IPv4Address if family == "4" else IPv6Address
    try:
        source, target = (str(parse_address(str(kind(text)))) for text in texts[:2])
    except ValueError as error:
        raise NotIntroduced(f"a malformed address: {error}") from None
    ports = int(texts[2]), int(texts[3])
    if max(ports) > 65535:
        raise NotIntroduced(f"a port above 65535 in {line!r}")
    return Introduction((source, ports[0]), (target, str(ports[1])), False)


# --- version 2

_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_SIZES = {_UNSPECIFIED: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_STREAM, _DATAGRAM = 1, 2

_CHECKSUM, _TLS = 0x03, 0x20
_CLIENT_SPEAKS_TLS = 0x01


def _parse_block(header: bytes) -> Introduction:
    family, transport = divmod(header[13], 16)
    if family not in _SIZES or transport > _DATAGRAM:
        raise NotIntroduced(f"the address family {family}, transport {transport}")
    if family == _UNSPECIFIED:
        return ANONYMOUS  # what follows cannot be told apart
    size = _SIZES[family]
    if len(header) < 16 + size:
        raise NotIntroduced(f"{len(header) - 16} bytes where the addresses alone are {size}")
    is_tls = _read_tlvs(header, 16 + size)
    if family == _UNIX or transport != _STREAM:
        return ANONYMOUS._replace(is_tls=is_tls)
    width = 4 if family == _INET else 16
    source, target, source_port, target_port = struct.unpack_from(f"!{width}s{width}sHH", header, 16)
    return Introduction((_text(source), source_port), (_text(target), str(target_port)), is_tls)


def _text(packed: bytes) -> str:
    return str(parse_address(str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))))


def _read_tlvs(header: bytes, at: int) -> bool:
    """Check them. Whether they say that the client speaks TLS."""
    is_tls = False
    while at < len(header):
        if at + 3 > len(header):
            raise NotIntroduced("a TLV without its length")
        kind, size = header[at], int.from_bytes(header[at + 1 : at + 3], "big")
        value, at = header[at + 3 : at + 3 + size], at + 3 + size
        if at > len(header):
            raise NotIntroduced(f"a TLV of {size} bytes that goes past the end")
        if kind == _TLS:
            if size < 5:
                raise NotIntroduced(f"a TLV about TLS of {size} bytes")
            is_tls = bool(value[0] & _CLIENT_SPEAKS_TLS)
        elif kind == _CHECKSUM:
            blanked = header[: at - size] + bytes(size) + header[at:]
            if size != 4 or int.from_bytes(value, "big") != crc32c(blanked):
                raise NotIntroduced("the checksum is wrong")
    return is_tls


def crc32c(data: bytes) -> int:
    """The CRC of RFC 3720 appendix B.4 (Castagnoli)."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _crc_table() -> tuple[int, ...]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)
