"""Who is believed, and what about: networks of peers, and the fields in which proxies tell whom they speak for. Pure.

A field is known here by its name in lower case. What several fields mean alike, only one of them can be believed for: the proxy
writes one, and the others come from whoever talks to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import MappingProxyType

from gatekeep._errors import SettingsError

EVERYONE = "*"
LOOPBACK = ("127.0.0.1", "::1")


class Meaning(StrEnum):
    """What a proxy can tell about a request."""

    CLIENT = "the client's address"
    SCHEME = "the scheme"
    HOST = "the host"
    SERVER = "the server's name"
    PORT = "the port"
    PREFIX = "the path's prefix"


HEADERS: Mapping[str, frozenset[Meaning]] = MappingProxyType(
    {
        "forwarded": frozenset({Meaning.CLIENT, Meaning.SCHEME, Meaning.HOST}),
        "x-forwarded-for": frozenset({Meaning.CLIENT}),
        "x-real-ip": frozenset({Meaning.CLIENT}),
        "x-client-ip": frozenset({Meaning.CLIENT}),
        "x-forwarded-proto": frozenset({Meaning.SCHEME}),
        "x-forwarded-scheme": frozenset({Meaning.SCHEME}),
        "x-scheme": frozenset({Meaning.SCHEME}),
        "x-url-scheme": frozenset({Meaning.SCHEME}),
        "x-forwarded-ssl": frozenset({Meaning.SCHEME}),
        "x-forwarded-https": frozenset({Meaning.SCHEME}),
        "x-https": frozenset({Meaning.SCHEME}),
        "front-end-https": frozenset({Meaning.SCHEME}),
        "x-forwarded-host": frozenset({Meaning.HOST}),
        "x-host": frozenset({Meaning.HOST}),
        "x-forwarded-server": frozenset({Meaning.SERVER}),
        "x-forwarded-port": frozenset({Meaning.PORT}),
        "x-forwarded-prefix": frozenset({Meaning.PREFIX}),
        "x-script-name": frozenset({Meaning.PREFIX}),
        "x-forwarded-script-name": frozenset({Meaning.PREFIX}),
    }
)
"""The fields that can be believed: mod_wsgi's, and those that others use for the same."""


def is_forwarding(name: str) -> bool:
    """Whether a field (its name in lower case) is a proxy's to send. All of X-Forwarded-* are, also those of which we make
    nothing: applications take X-Forwarded-User for a login."""
    return name in HEADERS or name.startswith("x-forwarded-")


def parse_header(setting: str, text: str) -> str:
    """A field's name as it is kept.

    Raises:
        SettingsError: it is not one of `HEADERS`.
    """
    name = text.lower()
    if name not in HEADERS:
        raise SettingsError(f"{setting} = {text!r}: allowed is any of {', '.join(HEADERS)}")
    return name


def check_headers(setting: str, names: Iterable[str]) -> None:
    """See to it that no two fields that are believed tell the same.

    Raises:
        SettingsError: two do, and a client could send the one that the proxy leaves alone.
    """
    known: dict[Meaning, str] = {}
    for name in names:
        for meaning in sorted(HEADERS[name]):
            other = known.setdefault(meaning, name)
            if other != name:
                raise SettingsError(
                    f"{setting} = '{other},{name}': both tell {meaning}; allowed is the one that your proxy sets"
                )


# --- networks

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_network(setting: str, text: str) -> str:
    """An address, a network or `*`, as it is kept.

    Raises:
        SettingsError: it is none of these.
    """
    if text == EVERYONE:
        return text
    allowed = "allowed is an address, a network (10.0.0.0/8) or *"
    try:
        if "%" in text:
            raise ValueError("a zone means something on one machine only")
        network = _plain_network(ip_network(text))
    except ValueError:
        raise SettingsError(f"{setting} = {text!r}: {allowed}{_suggestion(text)}") from None
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _suggestion(text: str) -> str:
    if text.partition(":")[0] == "unix":
        return "; UNIX sockets are always trusted"
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return ""
    if "%" in text:
        return ""
    return f"; the network is {network}, the address {text.partition('/')[0]}"


def _plain_network(network: Network) -> Network:
    # An IPv4 peer of an IPv6 socket is taken for what it is, so networks of such peers are, too.
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        number = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((number, network.prefixlen - 96))
    return network


def parse_address(text: str) -> Address:
    """The address, an IPv4 address where it is one in IPv6's clothes (`::ffff:192.0.2.1`).

    Raises:
        ValueError: it is none.
    """
    address = ip_address(text)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


class Trust:
    """The peers that are believed.

    Args:
        items: addresses, networks and `*`, from `parse_network`.
    """

    def __init__(self, items: Iterable[str]) -> None:
        items = tuple(items)
        self._everyone = EVERYONE in items
        self._networks = [ip_network(item) for item in items if item != EVERYONE]
        # Behind a proxy the same few addresses are asked about over and over.
        self._lookup = lru_cache(1024)(self._find)

    def includes(self, address: str | None) -> bool:
        """Whether the peer with that address is one of them. None is the peer of a UNIX socket: on this machine, and let in by
        the socket's permissions, so it always is."""
        return address is None or self._everyone or self._lookup(address)

    def _find(self, text: str) -> bool:
        try:
            address = parse_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def trusts_everyone(items: Iterable[str]) -> str:
    """The item by which anybody is believed; empty where there is none."""
    for item in items:
        if item == EVERYONE or item.endswith("/0"):
            return item
    return ""
