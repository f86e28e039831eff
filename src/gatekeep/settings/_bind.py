"""Where to listen. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._spec import items_of, text_of


class BindKind(StrEnum):
    """What an address is."""

    TCP = "tcp"
    UNIX = "unix"
    FD = "fd"


@attrs.frozen
class Bind:
    """One address to listen on. Make it with `parse_bind`.

    Attributes:
        proxy_protocol: what its connections begin with; empty: as the setting of that name says.
    """

    kind: BindKind
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    proxy_protocol: str = ""

    def __str__(self) -> str:
        return self.address + (f",proxy-protocol={self.proxy_protocol}" if self.proxy_protocol else "")

    @property
    def address(self) -> str:
        """Where it is, without what is said there."""
        if self.kind is BindKind.UNIX:
            return f"unix:{self.path}"
        if self.kind is BindKind.FD:
            return f"fd://{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


_TCP = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?)\]|(?P<host>(?![0-9]+$)[^:\[\]/]*))(?::(?P<port>[0-9]{1,5}))?"
)

_UNNAMEABLE = re.compile("[\0\ud800-\udfff]")
"""What stands in no address that others are told: bytes that are no UTF-8 are surrogates in Python's texts."""

DEFAULT_PORT = 8000

PROXY_PROTOCOLS = ("off", "v1", "v2", "auto")
_BIND = re.compile(rf"(.*?)(?:,proxy-protocol=({'|'.join(PROXY_PROTOCOLS)}))?", re.DOTALL)


def parse_bind(text: str, name: str = "bind") -> Bind:
    """`host:port`, `:port`, `host`, `[::1]:port`, `unix:/path` or `fd://N`, as gunicorn and hypercorn have it.

    `,proxy-protocol=off|v1|v2|auto` may follow.

    Raises:
        SettingsError: it is none of these; `name` is the setting's.
    """
    parts = _BIND.fullmatch(text)
    assert parts is not None, "the expression matches anything"
    return attrs.evolve(_parse_address(parts[1], text, name), proxy_protocol=parts[2] or "")


def _parse_address(text: str, given: str, name: str) -> Bind:
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path[2:] if path.startswith("//") else path
        if path and not _UNNAMEABLE.search(path):
            return Bind(BindKind.UNIX, path=path)
    elif text.startswith("fd://"):
        if text[5:].isascii() and text[5:].isdigit() and len(text) < 15:
            return Bind(BindKind.FD, fd=int(text[5:]))
    elif (found := _TCP.fullmatch(text)) and text:
        port = int(found["port"]) if found["port"] else DEFAULT_PORT
        if port <= 65535:
            return Bind(BindKind.TCP, host=found["six"] or found["host"] or "0.0.0.0", port=port)
    raise SettingsError(
        f"{name} = {given!r}: allowed is host:port (port 0 to 65535), [ipv6]:port, unix:/path or fd://N"
        + (f", then ,proxy-protocol={'|'.join(PROXY_PROTOCOLS)}" if ",proxy" in given else "")
    )


def binds_of(value: Bind | str | Iterable[Bind | str], name: str = "bind") -> tuple[Bind, ...]:
    return tuple(
        item if isinstance(item, Bind) else parse_bind(text_of(name, item), name) for item in items_of(value)
    )


def health_binds_of(value: Bind | str | Iterable[Bind | str]) -> tuple[Bind, ...]:
    return binds_of(value, "health-bind")
