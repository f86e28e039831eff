"""Durations and sizes as people write them. Pure."""

from __future__ import annotations

import math
import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_STEP = re.compile(r"([0-9.]+)(ms|s|m|h|d)")

_BYTES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt])(i?b?)|b)", re.IGNORECASE)

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_WHOLE = re.compile(r"-?[0-9]+")


def parse_duration(text: str) -> float:
    """Seconds from `90`, `0.5`, `1m30s`, `500ms`, `2h` or `1d`.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return _finite(float(text), text)
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    return _finite(math.fsum(float(number) * _SECONDS[unit] for number, unit in _STEP.findall(text)), text)


def _finite(seconds: float, text: str) -> float:
    """So many digits that they come to no number mean nothing, and not for ever."""
    if seconds == math.inf:
        raise ValueError(text)
    return seconds


def parse_whole(text: str) -> int:
    """A whole number as people write it: `int()` takes `1_0`, `+5` and the digits of every script, too.

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def parse_size(text: str) -> int:
    """Bytes from `1024`, `64k`, `8MiB` or `1.5G`. Units are powers of 1024, as nginx and systemd have them; only those that are
    written as `kB` and `MB` are powers of 1000.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return int(text)
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(text)
    if found[2] is None:
        return int(found[1])
    unit = found[2].lower()
    factor = 1000 ** ("kmgt".index(unit) + 1) if found[3].lower() == "b" else _BYTES[unit]
    return int(found[1]) * factor if found[1].isdigit() else int(float(found[1]) * factor)


def show_duration(seconds: float) -> str:
    """Seconds as people read them: `0.25 s`, `45 s`, `156.6 s`, `2 h`."""
    if seconds == math.inf:
        return "for ever"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:.4g} s"


def show_size(size: int) -> str:
    """Bytes as people read them: `8190 B`, `64 KiB`, `1.5 GiB`."""
    for unit, length in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= length:
            return f"{size / length:.4g} {unit}"
    return f"{size} B"
