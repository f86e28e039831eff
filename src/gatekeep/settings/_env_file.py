"""Files of variables: NAME=VALUE lines, as `uvicorn --env-file` and docker read them."""

from __future__ import annotations

import re

from gatekeep._errors import SettingsError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*)")
_DOUBLE, _SINGLE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?'), re.compile(r"'([^']*)'\s*(?:#.*)?")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read_variables(path: str) -> list[tuple[str, str]]:
    """What a file says, in its order.

    Raises:
        SettingsError: it cannot be read, or has a line that is none of these.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse_variables(file.read(), path)
    except OSError as error:
        raise SettingsError(f"env-file = {path!r}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"env-file = {path!r}: it is no text in UTF-8") from None


def parse_variables(text: str, place: str) -> list[tuple[str, str]]:
    """The variables of a file's text. `export` may stand before a name; values may be quoted, in double quotes with backslashes;
    `#` begins a comment at a line's beginning, and after white space. Nothing is expanded.

    Raises:
        SettingsError: a line is none of these; `place` and its number are named, the line is not: it may be a secret.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().lstrip("\ufeff")
        if not line or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line)
        value = _value(parts[2]) if parts else None
        if parts is None or value is None or "\0" in line:
            raise SettingsError(f"{place}:{number}: allowed is NAME=VALUE, NAME='VALUE' or NAME=\"VALUE\"")
        found.append((parts[1], value))
    return found


def _value(text: str) -> str | None:
    """None where a quote has no end."""
    if text.startswith('"'):
        double = _DOUBLE.fullmatch(text)
        return double and _ESCAPE.sub(lambda each: _ESCAPES.get(each[1], each[1]), double[1])
    if text.startswith("'"):
        single = _SINGLE.fullmatch(text)
        return single and single[1]
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()
