"""What flags of other servers come to: settings, remarks, or a refusal. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._declared import declared
from gatekeep.settings._foreign_flags import (
    EXTRA_FILES,
    PREFIXES,
    REPLACED,
    Fate,
    ForeignFlag,
    Takes,
    foreign_flags,
)
from gatekeep.settings._spec import Alias, dashed, value_of

Note = tuple[str, Mapping[str, Any]]
"""An event of the log, and its fields."""


@cache
def foreign_aliases() -> Mapping[str, tuple[str, Alias]]:
    """Flags by which settings are understood, with the setting's name."""
    return {
        flag: (name, alias)
        for name, (_, attribute) in declared().items()
        for alias in attribute.metadata["spec"].foreign
        for flag in alias.flags
    }


def takes_of(flag: str) -> tuple[Takes, bool]:
    """What follows one of these flags, and whether it may be given repeatedly."""
    if flag in foreign_aliases():
        name, _ = foreign_aliases()[flag]
        takes = Takes.NOTHING if flag.startswith("--no-") else Takes.ONE
        return takes, bool(declared()[name][1].metadata["spec"].item)
    if flag in foreign_flags():
        return foreign_flags()[flag].takes, foreign_flags()[flag].takes is Takes.ONE
    return Takes.ONE, flag == EXTRA_FILES


def all_flags() -> Iterator[str]:
    """Every flag of another server that is no flag of ours."""
    yield from foreign_aliases()
    yield from foreign_flags()
    yield from PREFIXES
    yield EXTRA_FILES


@attrs.frozen
class Understood:
    """What flags of other servers come to.

    Attributes:
        values: settings by name.
        path: where the application is mounted; empty where nothing was said of it.
        notes: what should be said of them.
    """

    values: Mapping[str, Any]
    path: str = ""
    notes: tuple[Note, ...] = ()


def understood(typed: Mapping[str, Any]) -> Understood:
    """What they mean.

    Args:
        typed: the flags, with their texts, lists of texts, or True.

    Raises:
        SettingsError: one is refused.
    """
    values: dict[str, Any] = {}
    notes: list[Note] = []
    path = ""
    for flag, value in typed.items():
        texts = (
            [value] if isinstance(value, str) else list(value) if isinstance(value, (tuple, list)) else [""]
        )
        if flag in foreign_aliases():
            name, alias = foreign_aliases()[flag]
            if name in values:
                raise SettingsError(f"{dashed(name)} is given twice, by two names")
            values[name] = _aliased(flag, name, alias, texts)
            if alias.note:
                notes.append(differs(flag, name, alias.note))
        elif flag in foreign_flags():
            for text in texts:
                notes += _judged(foreign_flags()[flag], flag, text)
            values.update(foreign_flags()[flag].sets)
        elif flag == EXTRA_FILES:
            values |= watched(texts)
        else:
            path = prefix_of(flag, texts[-1])
            if path and PREFIXES[flag]:
                notes.append(differs(flag, "mounts", PREFIXES[flag]))
    return Understood(values, path, tuple(notes))


def _aliased(flag: str, name: str, alias: Alias, texts: Sequence[str]) -> Any:
    attribute = declared()[name][1]
    if takes_of(flag)[0] is Takes.NOTHING:
        return value_of(attribute, alias.value)
    read = [alias.read(text) for text in texts]
    if attribute.metadata["spec"].item:
        return [each for item in read for each in ([item] if isinstance(item, str) else item)]
    return value_of(attribute, str(read[-1]))


def _judged(foreign: ForeignFlag, flag: str, text: str) -> list[Note]:
    fate, reason = foreign.judge(text)
    named = f"{flag} {text}" if text and foreign.words else flag
    if fate is Fate.REFUSED:
        raise SettingsError(f"{named}: {reason}")
    return [("setting.ignored", {"setting": named, "reason": reason})] if fate is Fate.IGNORED else []


def differs(flag: str, name: str, note: str) -> Note:
    """What is said of a flag that means something else here."""
    return "setting.differs", {"setting": flag, "used": dashed(name), "meaning": note}


def prefix_of(flag: str, text: str) -> str:
    """The path of a mount; empty for none.

    Raises:
        SettingsError: it is no path.
    """
    if text and not text.startswith("/"):
        raise SettingsError(f"{flag} = {text!r}: allowed is a path's beginning, such as /shop")
    return text.rstrip("/")


def watched(paths: Sequence[str]) -> dict[str, list[str]]:
    """Settings that have single files watched, too."""
    folders = dict.fromkeys(posixpath.dirname(path) or "." for path in paths)
    names = dict.fromkeys(posixpath.basename(path) for path in paths)
    patterns: tuple[str, ...] = declared()["reload_include"][1].default or ()
    return {"reload_dir": [*folders], "reload_include": [*patterns, *names]}


def replacement(name: str, value: object) -> object:
    """Another server's value of a setting in our word; the value itself where it is ours, or nobody's."""
    if not isinstance(value, str):
        return value
    plain = value.lower() if name == "log_level" else value
    return REPLACED.get((name, plain), plain)


def described_note(event: str, fields: Mapping[str, Any]) -> str:
    """A note in a line for people."""
    if event == "environment.unread":
        rest = [f"use {fields['use']}"] if "use" in fields else []
        return "; ".join(
            [f"${fields['variable']} is not read", *rest, *([fields["reason"]] if "reason" in fields else [])]
        )
    if event == "setting.differs":
        return f"{fields['setting']} is taken as {fields['used']}: {fields['meaning']}"
    if event == "setting.replaced":
        return f"{dashed(fields['setting'])} = {fields['value']!r} is taken as {fields['used']!r}"
    return f"{fields['setting']} is ignored: {fields['reason']}" if event == "setting.ignored" else event
