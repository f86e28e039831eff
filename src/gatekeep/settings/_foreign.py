"""What a configuration file of another server comes to: settings, and a report of each thing that it says. Pure."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._app import AppTarget
from gatekeep.settings._declared import declared, singular
from gatekeep.settings._foreign_flags import Fate
from gatekeep.settings._layers import Layer
from gatekeep.settings._spec import dashed, plain_type, value_of
from gatekeep.settings._understood import Note, replacement

WIDTH, LEFT, LONGEST = 100, 34, 60
"""Columns of the report: all, what the file says, the most that is shown of a value."""

_WORDS = {
    Fate.SET: "",
    Fate.SAME: "as always here: ",
    Fate.IGNORED: "ignored: ",
    Fate.REFUSED: "not supported: ",
}


@attrs.frozen
class Entry:
    """One thing that a file says.

    Attributes:
        name, value: as the file has them; the value is empty where it should not be shown.
        text: what it became, as gatekeep.toml would have it, or the reason why it did not.
        note: how the meaning differs.
        used: our setting.
    """

    name: str
    value: str
    fate: Fate
    text: str
    note: str = ""
    used: str = ""

    @property
    def said(self) -> str:
        """What the file says."""
        return f"{self.name} = {self.value}" if self.value else self.name


@attrs.frozen
class Translation:
    """A file in our words.

    Attributes:
        file: its path.
        server: whose it is.
        entries: all that it says, in its order.
        values, mounts: as a layer has them.
        remarks: what should be known beside that.
    """

    file: str
    server: str
    entries: tuple[Entry, ...]
    values: Mapping[str, Any]
    mounts: Sequence[Mapping[str, Any]] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def layer(self) -> Layer:
        """The settings."""
        return Layer(self.file, self.values, mounts=self.mounts)

    @property
    def notes(self) -> Iterator[Note]:
        """What should be said of it in the log."""
        for entry in self.entries:
            if entry.fate is Fate.IGNORED:
                yield "setting.ignored", {"setting": entry.name, "file": self.file, "reason": entry.text}
            elif entry.note:
                meaning = {"used": dashed(entry.used), "meaning": entry.note}
                yield "setting.differs", {"setting": entry.name, "file": self.file, **meaning}

    def check(self) -> None:
        """Raise `SettingsError` if it says something that must not be left out."""
        if refused := [entry for entry in self.entries if entry.fate is Fate.REFUSED]:
            reasons = dict.fromkeys(entry.text for entry in refused)
            told = [
                f"{', '.join(each.said for each in refused if each.text == reason)}: {reason}"
                for reason in reasons
            ]
            raise SettingsError(f"{self.file}: {'; '.join(told)}")


class Translator:
    """Collects what a file says."""

    def __init__(self, file: str, server: str) -> None:
        self.file, self._server = file, server
        self._entries: list[Entry] = []
        self._values: dict[str, Any] = {}
        self._said_at: dict[str, int] = {}
        self.mounts: list[dict[str, Any]] = []

    def set(self, name: str, shown: str, setting: str, value: object, note: str = "") -> None:
        """It is that setting of ours; the last of several counts, unless the setting takes several.

        Raises:
            SettingsError: the value is none of the setting's.
        """
        try:
            value = as_value(setting, value)
        except SettingsError as error:
            raise SettingsError(f"{self.file}: {name} = {shown}: {error}") from None
        if _takes_several(setting):
            self._values[setting] = [*self._values.get(setting, ()), *_list(value)]
        else:
            if setting in self._said_at:
                former = self._entries[self._said_at[setting]]
                self._entries[self._said_at[setting]] = attrs.evolve(
                    former, fate=Fate.IGNORED, text="another one that is said below counts", note=""
                )
            self._said_at[setting] = len(self._entries)
            self._values[setting] = value
        if setting == "env":
            shown, value = "", [f"{str(each).partition('=')[0]}=..." for each in _list(value)]
        self._entries.append(
            Entry(name, shown, Fate.SET, f"{dashed(singular(setting))} = {in_toml(value)}", note, setting)
        )

    def mount(self, name: str, shown: str, note: str = "", **mount: str) -> None:
        """An application is mounted there."""
        self.mounts.append(mount)
        table = ", ".join(f"{key} = {in_toml(value)}" for key, value in mount.items())
        self._entries.append(Entry(name, shown, Fate.SET, f"[[mounts]] {table}", note, "mounts"))

    def other(self, name: str, shown: str, fate: Fate, reason: str) -> None:
        """It is no setting of ours."""
        self._entries.append(Entry(name, shown, fate, reason))

    def translation(self, *remarks: str) -> Translation:
        """All of it."""
        mounts = self.mounts or None
        serves_root = any(each["path"] == "/" and "host" not in each for each in self.mounts)
        if mounts and "app" in self._values and all("app" in each for each in mounts) and not serves_root:
            mounts = [{"path": "/"}, *mounts]  # the application itself, which uWSGI has there
        return Translation(
            self.file, self._server, tuple(self._entries), self._values, mounts,
            tuple(remark for remark in remarks if remark),
        )  # fmt: skip

    def says(self, setting: str) -> bool:
        """Whether something became that setting."""
        return setting in self._values


def as_value(setting: str, value: object) -> object:
    """A value as the setting takes it, from what another server takes for it.

    Raises:
        SettingsError: it is none of the setting's.
    """
    if setting == "app":
        return value
    attribute = declared()[setting][1]
    value = replacement(setting, value)
    if setting == "umask" and type(value) is int:
        return f"{value:04o}"
    if isinstance(value, bool) and setting == "proxy_protocol":
        return "auto" if value else "off"
    kind = plain_type(attribute)
    if kind is str and type(value) in (int, float):
        return str(value)
    if kind in (int, float, bool) and isinstance(value, str):
        return value_of(attribute, value)
    if kind is bool and type(value) is int:
        return value_of(attribute, str(value))
    return value


def _takes_several(setting: str) -> bool:
    return setting != "app" and bool(declared()[setting][1].metadata["spec"].item)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def in_toml(value: object) -> str:
    """A value as gatekeep.toml would have it."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(in_toml, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(str(value) if isinstance(value, AppTarget) else value, ensure_ascii=False, default=str)


# --- for people


def render(translation: Translation) -> str:
    """What each setting of the file became, as text for people with a line's end."""
    return "\n".join(_printable(line.rstrip()) for line in _lines(translation)) + "\n"


def _lines(translation: Translation) -> Iterator[str]:
    yield f"{translation.file}, in the words of gatekeep.toml"
    for entry in translation.entries:
        yield from _entry(entry)
    for remark in translation.remarks:
        yield from textwrap.wrap(f"! {remark}", WIDTH, subsequent_indent="    ")
    counts = Counter(entry.fate for entry in translation.entries)
    words = {
        Fate.SET: "taken over",
        Fate.SAME: "as always here",
        Fate.IGNORED: "ignored",
        Fate.REFUSED: "not supported",
    }
    told = [f"{counts[fate]} {word}" for fate, word in words.items() if counts[fate]]
    yield f"{sum(counts.values())} settings: {', '.join(told)}" if told else "it says nothing"


def _entry(entry: Entry) -> Iterator[str]:
    said = entry.said if len(entry.said) <= LONGEST else entry.said[: LONGEST - 3] + "..."
    head = f"  {said}"
    if len(head) >= LEFT:
        yield head
        head = ""
    text = f"{_WORDS[entry.fate]}{entry.text}" + (f"; {entry.note}" if entry.note else "")
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=head.ljust(LEFT), subsequent_indent=" " * (LEFT + 2), break_on_hyphens=False
    )  # fmt: skip


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)
