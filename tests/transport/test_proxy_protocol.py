"""The PROXY protocol, byte by byte."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from gatekeep.transport._proxy_protocol import (
    ANONYMOUS,
    LONGEST_BLOCK,
    SIGNATURE,
    Introduction,
    NotIntroduced,
    ProxyHeader,
    crc32c,
)

REST = b"GET / HTTP/1.1\r\n"
FOUR = Introduction(("192.0.2.1", 56324), ("198.51.100.1", "443"), False)
SIX = Introduction(("2001:db8::1", 56324), ("2001:db8::2", "443"), False)
LAST = Introduction(("255.255.255.255", 65535), ("255.255.255.255", "65535"), False)

LOCAL, PROXY = 0x20, 0x21
TCP4, UDP4, TCP6, UDP6, UNIX = 0x11, 0x12, 0x21, 0x22, 0x31


def block(command: int, family: int, payload: bytes, size: int | None = None) -> bytes:
    """A header of version 2."""
    return (
        SIGNATURE
        + bytes([command, family])
        + struct.pack("!H", len(payload) if size is None else size)
        + payload
    )


def addresses(told: Introduction) -> bytes:
    """Those of version 2."""
    assert told.client
    assert told.server
    pairs = told.client, (told.server[0], int(told.server[1]))
    return b"".join(ip_address(address).packed for address, _ in pairs) + struct.pack(
        "!HH", *(port for _, port in pairs)
    )


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def tls(bits: int) -> bytes:
    """PP2_TYPE_SSL with the protocol's version inside."""
    return tlv(0x20, bytes([bits]) + bytes(4) + tlv(0x21, b"TLSv1.3"))


def with_checksum(payload: bytes) -> bytes:
    """A header of version 2 with a checksum at its end."""
    blank = block(PROXY, TCP4, payload + tlv(0x03, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank))


def read(data: bytes, version: str = "auto") -> tuple[Introduction | None, bytes]:
    """What the header says, and what is behind it; the same whether it comes at once or byte by byte."""
    outcomes = [_outcome([data], version), _outcome([data[at : at + 1] for at in range(len(data))], version)]
    assert outcomes[0] == outcomes[1]
    if outcomes[0] == "refused":
        raise NotIntroduced
    return outcomes[0]


def _outcome(pieces: list[bytes], version: str) -> object:
    header = ProxyHeader(version)
    assert header.is_empty
    for at, piece in enumerate(pieces):
        try:
            told = header.receive(piece)
        except NotIntroduced:
            return "refused"
        assert header.is_empty == (not piece)
        if told is not None:
            return told, header.rest + b"".join(pieces[at + 1 :])
    return None, b""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", FOUR),
        (b"PROXY TCP6 2001:db8::1 2001:DB8:0::2 56324 443\r\n", SIX),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6401 56324 443\r\n", FOUR),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", LAST),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Introduction(("0.0.0.0", 0), ("0.0.0.0", "0"), False)),
        (b"PROXY UNKNOWN\r\n", ANONYMOUS),
        (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", ANONYMOUS),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 x\xff\0\r\n", ANONYMOUS),
    ],
)  # fmt: skip
def test_a_line_of_version_1_is_understood(line: bytes, told: Introduction) -> None:
    for rest in (b"", REST):
        assert read(line + rest) == (told, rest)
        assert read(line + rest, "v1") == (told, rest)
    with pytest.raises(NotIntroduced):
        read(line, "v2")


@pytest.mark.parametrize(
    "line",
    [
        *[b"PROXY\r\n", b"PROXY \r\n", b"PROXYTCP4 ", b"proxy TCP4 192.0.2.1 192.0.2.1 1 1\r\n", b" PROXY", b"PROXX"],
        *[b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n"],
        *[b"PROXY TCP4  192.0.2.1 198.51.100.1 1 1\r\n", b"PROXY TCP4 192.0.2.1\t198.51.100.1 1 1\r\n"],
        *[b"PROXY TCP4 192.0.2.01 198.51.100.1 1 1\r\n", b"PROXY TCP4 2001:db8::1 2001:db8::2 1 1\r\n"],
        *[b"PROXY TCP4 a b 1 1\r\n", b"PROXY TCP5 1 1 1 1\r\n", b"PROXY UDP4 192.0.2.1 192.0.2.1 1 1\r\n"],
        *[b"PROXY TCP6 192.0.2.1 198.51.100.1 1 1\r\n", b"PROXY TCP6 fe80::1%1 fe80::2 1 1\r\n", b"PROXY TCP6 [::1] ::2 1 1\r\n"],
        *[b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 1\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.1 1 080\r\n"],
        *[b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 1\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.1 1 123456\r\n"],
        *[b"PROXY UNKNOWN\n", b"PROXY UNKNOWN\rx", b"PROXY UNKNOWN a\nb\r\n", b"PROXY UNKNOWNx\r\n"],
        *[b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n", b"PROXY UNKNOWN " + b"f" * 200],
        *[REST, b"\r\n\r\n\r", b"\r\n\r\n\0\r\nQUIT\r", b"\x16\x03\x01", b"\0"],
    ],
)  # fmt: skip
def test_anything_else_is_no_header(line: bytes) -> None:
    with pytest.raises(NotIntroduced):
        read(line)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P",
        b"PROXY ",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 1\r",
        b"PROXY UNKNOWN " + b"f" * 92,
        b"\r\n\r\n\0\r\nQUIT\n",
    ],
)
def test_a_beginning_is_waited_for(data: bytes) -> None:
    assert read(data) == (None, b"")


@pytest.mark.parametrize(
    ("family", "payload", "told"),
    [
        (TCP4, addresses(FOUR), FOUR),
        (TCP6, addresses(SIX), SIX),
        (TCP4, addresses(FOUR) + tlv(0x04, b"xyz") + tlv(0xEE, b"") + tlv(0x02, b"example.com"), FOUR),
        (TCP4, addresses(FOUR) + tls(1), FOUR._replace(is_tls=True)),
        (TCP4, addresses(FOUR) + tls(7), FOUR._replace(is_tls=True)),
        (TCP4, addresses(FOUR) + tls(6), FOUR),
        (TCP4, addresses(FOUR) + tlv(0x04, bytes(LONGEST_BLOCK - 15)), FOUR),
        (UDP4, addresses(FOUR), ANONYMOUS),
        (UDP6, addresses(SIX), ANONYMOUS),
        (0x10, addresses(FOUR), ANONYMOUS),
        (UNIX, bytes(216), ANONYMOUS),
        (UNIX, bytes(216) + tls(1), ANONYMOUS._replace(is_tls=True)),
        (0x00, b"", ANONYMOUS),
        (0x00, b"whatever", ANONYMOUS),
        (0x01, b"whatever", ANONYMOUS),
    ],
)
def test_a_block_of_version_2_is_understood(family: int, payload: bytes, told: Introduction) -> None:
    header = block(PROXY, family, payload)
    for rest in (b"", REST):
        assert read(header + rest) == (told, rest)
    assert read(header, "v2") == (told, b"")
    with pytest.raises(NotIntroduced):
        read(header, "v1")


@pytest.mark.parametrize("family", [0x00, TCP4, TCP6, UNIX, 0xFF])
def test_of_a_connection_of_the_proxys_own_nothing_more_is_looked_at(family: int) -> None:
    for payload in (b"", b"anything", addresses(FOUR) + tls(1)):
        assert read(block(LOCAL, family, payload) + REST) == (ANONYMOUS, REST)


@pytest.mark.parametrize(
    "header",
    [
        block(0x22, TCP4, addresses(FOUR)),
        block(0x2F, TCP4, addresses(FOUR)),
        block(0x11, TCP4, addresses(FOUR)),
        block(0x31, TCP4, addresses(FOUR)),
        block(PROXY, 0x41, bytes(300)),
        block(PROXY, 0x13, addresses(FOUR)),
        block(PROXY, TCP4, addresses(FOUR)[:-1]),
        block(PROXY, TCP6, addresses(FOUR)),
        block(PROXY, UNIX, bytes(215)),
        block(PROXY, TCP4, b""),
        block(PROXY, TCP4, b"", LONGEST_BLOCK + 1),
        block(LOCAL, 0x00, b"", 65535),
        block(PROXY, TCP4, addresses(FOUR) + b"\x04"),
        block(PROXY, TCP4, addresses(FOUR) + b"\x04\0"),
        block(PROXY, TCP4, addresses(FOUR) + b"\x04\0\x05abcd"),
        block(PROXY, TCP4, addresses(FOUR) + tlv(0x20, bytes(4))),
        block(PROXY, TCP4, addresses(FOUR) + tlv(0x03, bytes(4))),
        block(PROXY, TCP4, addresses(FOUR) + tlv(0x03, bytes(3))),
    ],
)
def test_a_block_that_cannot_be_is_refused(header: bytes) -> None:
    with pytest.raises(NotIntroduced):
        read(header)


def test_a_checksum_must_be_right() -> None:
    payload = addresses(FOUR) + tls(1)
    header = with_checksum(payload)
    assert read(header + REST) == (FOUR._replace(is_tls=True), REST)
    for at in range(16, len(header) - 7):
        flipped = bytes([*header[:at], header[at] ^ 1, *header[at + 1 :]])
        with pytest.raises(NotIntroduced):
            read(flipped)


def test_the_checksum_is_castagnolis() -> None:
    # RFC 3720 appendix B.4, and the check value of every catalogue of CRCs.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


PORTS = st.integers(0, 65535)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), PORTS, PORTS, st.binary(max_size=40), st.data())
def test_what_a_proxy_writes_is_read_whatever_pieces_it_comes_in(
    client: IPv4Address | IPv6Address, port: int, server_port: int, rest: bytes, data: st.DataObject
) -> None:
    family = {4: TCP4, 6: TCP6}[client.version]
    line = f"PROXY TCP{client.version} {client} {client} {port} {server_port}\r\n".encode()
    packed = client.packed * 2 + struct.pack("!HH", port, server_port)
    mapped = client.ipv4_mapped if isinstance(client, IPv6Address) else None
    told = Introduction((str(mapped or client), port), (str(mapped or client), str(server_port)), False)
    for whole in (line + rest, block(PROXY, family, packed) + rest):
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=5)) | {0, len(whole)})
        assert _outcome([whole[a:b] for a, b in pairwise(cuts)], "auto") == (told, rest)


BEGINNINGS = st.sampled_from(
    [
        b"",
        b"PROXY ",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1",
        b"PROXY UNKNOWN",
        SIGNATURE,
        SIGNATURE + b"\x21\x11\0\x0c",
    ]
)


@given(BEGINNINGS, st.binary(max_size=130) | st.text("\r\n 0123456789.:", max_size=110).map(str.encode))
def test_any_bytes_have_one_verdict_whatever_pieces_they_come_in(beginning: bytes, more: bytes) -> None:
    try:
        read(beginning + more)
    except NotIntroduced:
        pass
