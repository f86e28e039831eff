"""What proxies tell of a request, as far as they are believed: the client's address, scheme, host, port, path's prefix. Pure.

Each proxy writes whom it speaks for at the right end of the list, behind what it was told itself. So lists are walked from the
right: what stands there was written by our peer; if that is trusted, the address in it is who wrote what stands next; and so on
until an address is not trusted. That is the client. Whatever stands left of it the client has written itself, and is thrown away.

The rules:

* An untrusted peer's fields change nothing and the application does not see them. (`_trust.is_forwarding` is which.)
* A trusted peer is believed about the fields that are named in trusted-proxy-headers; the application sees what was believed of
  them. Others that mean the same are dropped, since the proxy does not write them. What means something else is passed on.
* An element that is no address ends the walk; the last good one stays. `unknown` and `_hidden` (RFC 7239 section 6) are in order,
  anything else is a doubt to be told.
* Proto, Host, Port and Prefix may be lists too (Apache's are). They count as many elements from the right as the walk has
  gone, or as there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from gatekeep._trust import HEADERS, Meaning, Trust, parse_address
from gatekeep.transport._codec import TOKEN
from gatekeep.transport._http_policy import is_authority, is_forwarding

Client = tuple[str, int | None]
Fields = Sequence[tuple[str, str]]


LONGEST_CHAIN = 64
"""Proxies that are followed. A client whose address is among the trusted ones could list thousands, each to be looked up."""


class Origin(NamedTuple):
    """Where a request comes from and what it was asked as.

    Attributes:
        client: its address and port, as far as they are known; None behind a UNIX socket.
        server: SERVER_NAME and SERVER_PORT.
        host: what stands in the place of Host, where a proxy has told it.
        script_name: the path's prefix that a proxy has taken away.
        fields: what the application sees; None: all that came.
    """

    client: Client | None
    server: tuple[str, str]
    scheme: str
    host: str = ""
    script_name: str = ""
    fields: Fields | None = None


class Doubt(NamedTuple):
    """A field of a trusted peer that says what cannot be."""

    header: str
    value: str


def shown(client: Client | None) -> str:
    """A client for the log."""
    if client is None:
        return "unix"
    address, port = client
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def strip(direct: Origin, fields: Fields) -> tuple[Origin, tuple[str, ...]]:
    """The origin of an untrusted peer's request: itself. And the names of the fields that were taken away."""
    kept = [field for field in fields if not is_forwarding(field[0])]
    taken = tuple(name for name, _ in fields if is_forwarding(name))
    return direct._replace(fields=kept), taken


def believe(
    direct: Origin, fields: Fields, trust: Trust, believed: tuple[str, ...]
) -> tuple[Origin, Sequence[Doubt]]:
    """The origin of a trusted peer's request.

    Args:
        direct: that of the connection.
        believed: the fields that count, in lower case; no two mean the same.
    """
    told, kept = _sort(fields, believed)
    if not told:
        return direct._replace(fields=kept), ()
    reading = _Reading(trust)
    # The walk first: how far it goes says which elements of the others count.
    for name in sorted(told, key=lambda name: Meaning.CLIENT not in HEADERS[name]):
        kept += reading.read(name, ",".join(told[name]))
    return reading.origin(direct, kept), reading.doubts


def _sort(fields: Fields, believed: tuple[str, ...]) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """What is said in the fields that are believed, and the fields that they leave as they are."""
    meanings = _meanings_of(believed)
    told: dict[str, list[str]] = {}
    kept = []
    for name, value in fields:
        if not is_forwarding(name):
            kept.append((name, value))
            continue
        plain = name.lower()
        if plain in believed:
            told.setdefault(plain, []).append(value)
        elif meanings.isdisjoint(HEADERS.get(plain, ())):
            kept.append((name, value))
    return told, kept


@lru_cache(8)
def _meanings_of(names: tuple[str, ...]) -> frozenset[Meaning]:
    return frozenset[Meaning]().union(*(HEADERS[name] for name in names))


class _Reading:
    """What was believed so far of one request's fields."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._steps = 1
        self._client: Client | None = None
        self._told: dict[Meaning, str] = {}
        self.doubts: list[Doubt] = []

    def read(self, name: str, value: str) -> Fields:
        """Read a field; the field as the application is to see it, if at all."""
        if name == "forwarded":
            kept = self._walk(_elements_of_forwarded(value), self._take_element, name)
        elif name == "x-forwarded-for":
            kept = self._walk(_elements(value), parse_node, name)
        else:
            kept = self._read_value(name, value)
        return [(name, kept)] if kept else []

    def _walk(self, elements: Sequence[str], node_of: Callable[[str], Node | None], name: str) -> str:
        """Follow the chain of proxies, the nearest first. Returns what was believed, in the field's own order."""
        believed: list[str] = []
        for self._steps, element in enumerate(elements[:LONGEST_CHAIN], 1):
            node = node_of(element)
            if node is None:
                self.doubts.append(Doubt(name, element))
                break
            believed.append(element)
            if node is HIDDEN:
                break
            self._client = node
            if not self._trust.includes(node[0]):
                break
        return ", ".join(reversed(believed))

    def _take_element(self, element: str) -> Node | None:
        pairs = parse_pairs(element)
        if pairs is None:
            return None
        for key, meaning in (("proto", Meaning.SCHEME), ("host", Meaning.HOST)):
            if key in pairs:
                self._take("forwarded", meaning, pairs[key], VALUES[key])
        return parse_node(pairs["for"]) if "for" in pairs else HIDDEN

    def _read_value(self, name: str, value: str) -> str:
        (meaning,) = HEADERS[name]
        elements = _elements(value)
        if not elements:
            return ""
        if meaning is Meaning.CLIENT:
            node = parse_node(elements[0]) if len(elements) == 1 else None
            if node is None:
                self.doubts.append(Doubt(name, value))
                return ""
            self._client = node if node is not HIDDEN else None
            return elements[0]
        element = elements[min(self._steps, len(elements)) - 1]
        return element if self._take(name, meaning, element, VALUES[name]) else ""

    def _take(self, name: str, meaning: Meaning, text: str, parse: Callable[[str], str | None]) -> bool:
        value = parse(text)
        if value is None:
            self.doubts.append(Doubt(name, text))
            return False
        self._told[meaning] = value
        return True

    def origin(self, direct: Origin, fields: Fields) -> Origin:
        """All of it put together."""
        host = self._told.get(Meaning.HOST, "")
        return Origin(
            client=self._client or direct.client,
            server=self._server(direct, host),
            scheme=self._told.get(Meaning.SCHEME, direct.scheme),
            host=host,
            script_name=self._told.get(Meaning.PREFIX, ""),
            fields=fields,
        )

    def _server(self, direct: Origin, host: str) -> tuple[str, str]:
        name, port = _split(host)
        name = self._told.get(Meaning.SERVER) or name or direct.server[0]
        port = self._told.get(Meaning.PORT) or port
        scheme = self._told.get(Meaning.SCHEME)
        if not port and (scheme or host):
            # Our own port has nothing to do with an address that a proxy tells: that has the scheme's own.
            port = "443" if (scheme or direct.scheme) == "https" else "80"
        return name, port or direct.server[1]


def _split(authority: str) -> tuple[str, str]:
    """A host, without its brackets, and a port, of what `is_authority` has let through."""
    if authority.endswith("]") or ":" not in authority:
        return authority.strip("[]"), ""
    name, _, port = authority.rpartition(":")
    return name.strip("[]"), port


# --- lists, nearest first

_reversed_element = re.compile(r'((?:[^",]|"[^"]*+"?)*+),?').match
"""One element of Forwarded, read backwards: from the right every quotation mark is in its place, whatever a client has left
open further left. Without escapes, which no address, scheme or host needs."""


def _elements(value: str) -> list[str]:
    elements = [element.strip(" \t") for element in value.split(",")]
    return [element for element in reversed(elements) if element]


def _elements_of_forwarded(value: str) -> list[str]:
    if '"' not in value:
        return _elements(value)
    backwards = value[::-1]
    elements, at = [], 0
    while at < len(backwards):
        match = _reversed_element(backwards, at)
        assert match is not None, "the expression matches nothing, too"
        elements.append(match[1][::-1].strip(" \t"))
        at = match.end()
    return [element for element in elements if element]


_PAIR = rf'({TOKEN}++)=(?:({TOKEN}++)|"([\t\x20!\x23-\x5b\x5d-\x7e]*+)")'
_pair = re.compile(rf"[ \t]*+(?:{_PAIR}[ \t]*+)?(?:;|\Z)").match


def parse_pairs(element: str) -> dict[str, str] | None:
    """The pairs of one element of Forwarded, by name in lower case; None where it is malformed, or a name comes twice."""
    pairs: dict[str, str] = {}
    at = 0
    while at < len(element):
        match = _pair(element, at)
        if match is None:
            return None
        name, token, quoted = match.groups()
        if name is not None:
            if name.lower() in pairs:
                return None
            pairs[name.lower()] = quoted if token is None else token
        at = match.end()
    return pairs


# --- values

Node = Client
HIDDEN: Node = ("", None)
"""A node that is meant not to be known."""

_LONGEST_NODE = 64
_SIX = "(?=[^:]*:)[0-9A-Fa-f:.]++"

_node = re.compile(
    rf"(?:\[({_SIX})\]|([0-9]++\.[0-9.]++))(?::(?:([0-9]{{1,5}})|_[\w.\-]++))?|({_SIX})", re.ASCII
).fullmatch
_hidden = re.compile(
    r"(?:unknown|_[\w.\-]++)(?::(?:[0-9]{1,5}|_[\w.\-]++))?", re.ASCII | re.IGNORECASE
).fullmatch


def parse_node(text: str) -> Node | None:
    """Address and port, the port None where it is not told; `HIDDEN`; None where it is malformed.

    Addresses come with or without a port; IPv6 then has brackets, and may have them without.
    """
    return _parse_node(text) if len(text) <= _LONGEST_NODE else None


@lru_cache(1024)
def _parse_node(text: str) -> Node | None:
    match = _node(text)
    if match is None:
        return HIDDEN if _hidden(text) else None
    six, four, port, bare = match.groups()
    if port is not None and int(port) > 65535:
        return None
    try:
        return str(parse_address(six or four or bare)), None if port is None else int(port)
    except ValueError:
        return None


def _scheme(text: str) -> str | None:
    return text.lower() if text.lower() in ("http", "https") else None


def _scheme_by_flag(text: str) -> str | None:
    return _FLAGS.get(text.lower())


_FLAGS = {"on": "https", "true": "https", "1": "https", "off": "http", "false": "http", "0": "http"}


def _host(text: str) -> str | None:
    return text if is_authority(text) else None


def _server_name(text: str) -> str | None:
    return _split(text)[0] if is_authority(text) else None


def _port(text: str) -> str | None:
    return text if re.fullmatch("[1-9][0-9]{0,4}", text) and int(text) <= 65535 else None


_prefix_of = re.compile(r"((?:/(?!\.{1,2}(?:/|$))[\w.~!$&'()*+;=:@\-]++)*+)/?", re.ASCII).fullmatch


def _prefix(text: str) -> str | None:
    # Escapes would have to be undone, and what comes of that be looked at again: no prefix needs them.
    match = _prefix_of(text)
    return match[1] if match else None


VALUES: Mapping[str, Callable[[str], str | None]] = {
    "proto": _scheme,
    "host": _host,
    "x-forwarded-proto": _scheme,
    "x-forwarded-scheme": _scheme,
    "x-scheme": _scheme,
    "x-url-scheme": _scheme,
    "x-forwarded-ssl": _scheme_by_flag,
    "x-forwarded-https": _scheme_by_flag,
    "x-https": _scheme_by_flag,
    "front-end-https": _scheme_by_flag,
    "x-forwarded-host": _host,
    "x-host": _host,
    "x-forwarded-server": _server_name,
    "x-forwarded-port": _port,
    "x-forwarded-prefix": _prefix,
    "x-script-name": _prefix,
    "x-forwarded-script-name": _prefix,
}
"""Makes of a value what CGI has for it; None: it cannot be. The names are those of fields, and Forwarded's own two."""
