"""What the operating system is to give a group's daemon processes: user, groups, umask, environment, priority. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from gatekeep._errors import SettingsError


@attrs.frozen(kw_only=True)
class ProcessOptions:
    """How a daemon process is started.

    Attributes:
        user, group: who it runs as, names or numbers; empty for whoever the gateway is.
        supplementary_groups: its further groups; where there are none, the user's own.
        umask: the permissions that files it makes do not get; None for the gateway's.
        environment: variables that are set beside the gateway's own, the last one of a name counts.
        nice: its priority, from -20 (all for it) to 19; None for the gateway's.
        home: the folder that it runs in; empty for the gateway's.
        virtual_memory_limit: bytes of address space that it may have, 0 for no limit of ours.
    """

    user: str = ""
    group: str = ""
    supplementary_groups: tuple[str, ...] = ()
    umask: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    nice: int | None = None
    home: str = ""
    virtual_memory_limit: int = 0


def parse_umask(text: str) -> int | None:
    """An umask from the octal number that people write; None for an empty text."""
    return int(text.removeprefix("0o"), 8) if text else None


def parse_variables(lang: str, locale: str, env: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """LANG and LC_ALL where they are given, then the variables that were given as `NAME=VALUE`."""
    words = [("LANG", lang), ("LC_ALL", locale)]
    named = [text.partition("=") for text in env]
    return (*((name, value) for name, value in words if value), *((name, value) for name, _, value in named))


_VARIABLE = re.compile(r"[^=\0]+=[^\0]*", re.DOTALL)


def check_variable(text: str) -> str:
    """The text, where it is `NAME=VALUE`.

    Raises:
        SettingsError: it is not.
    """
    if not _VARIABLE.fullmatch(text):
        raise SettingsError(f"env = {text!r}: allowed is NAME=VALUE")
    return text


def display_name(pattern: str, group: str) -> str:
    """What tools such as `ps` show of the group's processes; empty for their command line."""
    return pattern.replace("%{GROUP}", group)
