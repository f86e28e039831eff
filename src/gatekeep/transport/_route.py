"""The route stage: which application a request is for, and how its path is split between the two. Pure.

As WSGIScriptAlias does it: the longest prefix wins, and it ends where a segment of the path does. SCRIPT_NAME is the prefix,
PATH_INFO the rest. Among mounts of different hosts a name goes before a pattern, and that before a mount for all hosts.

A path is compared in its normal form: `//shop` and `/x/../shop` are `/shop`, or what guards one spelling would let others pass.
The application is given the path as it came, unless the prefix was spelled in another way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Mount(NamedTuple, Generic[T]):
    """One entry of the table.

    Attributes:
        host: a name, `*.` and a domain for all names below it, or empty for all hosts; in lower case.
        prefix: a path's beginning without a slash at its end, so that the root is empty; as text, not as WSGI has it.
        target: what is mounted there.
    """

    host: str
    prefix: str
    target: T


class Place(NamedTuple, Generic[T]):
    """Where a request goes."""

    target: T
    script_name: str
    path_info: str


class Routes(Generic[T]):
    """The table of mounts.

    Attributes:
        sole: the target of all requests, where there is one for every host and path; else None.
    """

    def __init__(self, mounts: Iterable[Mount[T]]) -> None:
        table = (mount._replace(prefix=wsgi_text(mount.prefix)) for mount in mounts)
        self._mounts = sorted(table, key=_precedence)
        only = self._mounts[0] if len(self._mounts) == 1 else None
        self.sole = only.target if only is not None and not only.host and not only.prefix else None

    def find(self, host: str, path: str) -> Place[T] | None:
        """The place for a request; None where nothing is mounted.

        Args:
            host: as in the Host field, a port included; empty where there was none.
            path: decoded, beginning with a slash; its bytes as latin-1 text (PEP 3333).
        """
        host, normal = host_name(host), normalise(path)
        for mount in self._mounts:
            if _is_host_of(mount.host, host) and _is_below(mount.prefix, normal):
                whole = path if _is_below(mount.prefix, path) else normal
                return Place(mount.target, mount.prefix, whole[len(mount.prefix) :])
        return None


def wsgi_text(text: str) -> str:
    """A text's UTF-8 as latin-1 text, which is how PEP 3333 has paths."""
    return text.encode().decode("latin-1")


def _precedence(mount: Mount[T]) -> tuple[int, int, int]:
    kind = 2 if not mount.host else 1 if mount.host.startswith("*.") else 0
    return kind, -len(mount.host), -len(mount.prefix)


def _is_host_of(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return not pattern or pattern == host


def _is_below(prefix: str, path: str) -> bool:
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")


def host_name(host: str) -> str:
    """A Host field's name as it is compared: in lower case, without port and final dot."""
    name = host.lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].removesuffix(".")


def normalise(path: str) -> str:
    """A path without empty segments, `.` and `..`; a slash at its end stays."""
    if "//" not in path and "/." not in path:
        return path
    kept: list[str] = []
    last = ""
    for last in path.split("/"):
        if last == "..":
            del kept[-1:]
        elif last not in ("", "."):
            kept.append(last)
    ends = "/" if kept and last in ("", ".", "..") else ""
    return f"/{'/'.join(kept)}{ends}"
