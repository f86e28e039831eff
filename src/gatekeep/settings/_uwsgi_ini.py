"""The text of a `uwsgi.ini`: its section [uwsgi], with variables in their places. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

import attrs

from gatekeep._errors import SettingsError

_PLACES = re.compile(r"%\(([^()]+)\)|\$\(([^()]+)\)|%([a-zA-Z%])")
_LOGIC = re.compile(r"if-.*|endif|for|endfor|for-.*|ini|xml|yaml|yml|json|include|inherit|config")
_DEEPEST = 20
_LONGEST = 65536
"""Characters of a value: ten variables, each ten times the one before, are more than any memory."""


@attrs.frozen
class Said:
    """One line of the file; a key without a value says `true`."""

    key: str
    value: str
    line: int


@attrs.frozen
class IniText:
    """What is needed to read one.

    Attributes:
        path: the file's.
        folder: the present one.
        environment: variables for $(NAME).
        processors: how many there are.
    """

    path: str
    folder: str
    environment: Mapping[str, str]
    processors: int

    def parse(self, text: str) -> tuple[list[Said], frozenset[str]]:
        """What it says, in its order, and the keys that others refer to.

        Raises:
            SettingsError: it is no such file, refers to what there is not, or has includes or conditions.
        """
        raw = self._section(text)
        values = {each.key: each.value for each in reversed(raw)}
        used: set[str] = set()
        said = [attrs.evolve(each, value=self._expanded(each.value, values, used, each.line)) for each in raw]
        return said, frozenset(used)

    def _section(self, text: str) -> list[Said]:
        found: list[Said] = []
        is_ours = has_section = False
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip().lstrip("\ufeff")
            if not line or line.startswith((";", "#")):
                continue
            if line.startswith("["):
                is_ours = line == "[uwsgi]"
                has_section |= is_ours
                continue
            if not is_ours:
                continue
            key, equals, value = line.partition("=")
            key = key.strip().lower().replace("_", "-")
            if not key or " " in key:
                raise self._error(number, "a line KEY = VALUE is needed")
            if _LOGIC.fullmatch(key):
                raise self._error(
                    number, f"{key}: other files and conditions are not read: write down what they come to"
                )
            found.append(Said(key, value.strip() if equals else "true", number))
        if not has_section:
            raise SettingsError(f"{self.path}: there is no section [uwsgi] in it")
        return found

    def _expanded(
        self, value: str, values: Mapping[str, str], used: set[str], line: int, depth: int = 0
    ) -> str:
        if depth > _DEEPEST:
            raise self._error(line, "variables refer to themselves")

        def put(place: re.Match[str]) -> str:
            placeholder, variable, letter = place.groups()
            if letter is not None:
                return self._magic().get(letter, place[0])
            if variable is not None:
                if variable not in self.environment:
                    raise self._error(line, f"$({variable}): there is no such variable in the environment")
                return self.environment[variable]
            name = placeholder.strip().lower().replace("_", "-")
            if name not in values:
                raise self._error(line, f"%({placeholder}): there is nothing of that name in the file")
            used.add(name)
            return self._expanded(values[name], values, used, line, depth + 1)

        expanded = _PLACES.sub(put, value)
        if len(expanded) > _LONGEST:
            raise self._error(line, f"it comes to more than {_LONGEST} characters")
        return expanded

    def _magic(self) -> Mapping[str, str]:
        """uWSGI's magic variables."""
        file = posixpath.basename(self.path)
        folder = posixpath.dirname(self.path)
        return {
            "%": "%",
            "d": f"{folder}/",
            "c": posixpath.basename(folder),
            "p": self.path,
            "s": file,
            "n": posixpath.splitext(file)[0],
            "e": posixpath.splitext(file)[1].lstrip("."),
            "v": self.folder,
            "x": "uwsgi",
            "k": str(self.processors),
        }

    def _error(self, line: int, reason: str) -> SettingsError:
        return SettingsError(f"{self.path}:{line}: {reason}")


def last_of(said: Sequence[Said], *keys: str) -> str:
    """The last value that one of these keys has; empty for none."""
    found = [each.value for each in said if each.key in keys]
    return found[-1] if found else ""
