"""All settings by the names that people type. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._http import HttpSettings
from gatekeep.settings._mount import MountSettings
from gatekeep.settings._reload import ReloadSettings
from gatekeep.settings._script import ScriptSettings
from gatekeep.settings._server import ServerSettings
from gatekeep.settings._settings import Settings
from gatekeep.settings._spec import dashed

ALIASED = {"bind": "binds", "health_bind": "health_binds", "workers": "processes"}
_NOT_OPTIONS = frozenset({"app", "groups", "mounts"})

attrs.resolve_types(ServerSettings)
attrs.resolve_types(ScriptSettings)


@cache
def declared() -> Mapping[str, tuple[type, attrs.Attribute[Any]]]:
    """Every setting that is an option, by name, with the class that holds it. `http` and `reload` mean the
    settings of these names, not their sections."""
    found: dict[str, tuple[type, attrs.Attribute[Any]]] = {}
    for owner in (Settings, GroupSettings, HttpSettings, ReloadSettings, ServerSettings, ScriptSettings):
        for attribute in attrs.fields(owner):
            if attribute.name not in _NOT_OPTIONS and "spec" in attribute.metadata:
                found[attribute.name] = owner, attribute
    return found


@cache
def declared_of_mounts() -> Mapping[str, attrs.Attribute[Any]]:
    """Every setting of a mount."""
    return {attribute.name: attribute for attribute in attrs.fields(MountSettings)}


def plain_name(name: str) -> str:
    """The declared name of what people type with `-` or `_`, in the singular or the plural."""
    plain = name.replace("-", "_")
    return ALIASED.get(plain, plain)


def singular(name: str) -> str:
    """A declared name with the word that people type, which is singular; the reverse of `plain_name`."""
    return {"binds": "bind", "health_binds": "health_bind"}.get(name, name)


def check_known(names: Iterable[str]) -> None:
    """Raise `SettingsError` if one of them is no setting of a gateway; those of the program around it are none."""
    known = {name: owner for name, (owner, _) in declared().items() if owner is not ServerSettings}
    for name in names:
        if plain_name(name) not in known and name != "profile":
            raise unknown(name, [*known, "profile"])


@cache
def _of_other_servers() -> Mapping[str, str]:
    """Settings by the long flags that other servers have for them."""
    found: dict[str, str] = {}
    for name, (_, attribute) in declared().items():
        spec = attribute.metadata["spec"]
        flags = [*spec.aliases, *(flag for alias in spec.foreign for flag in alias.flags if not alias.value)]
        found |= {flag.removeprefix("--"): name for flag in flags if flag.startswith("--")}
    return found | dict.fromkeys(("host", "port", "uds", "fd"), "binds")


def unknown(name: str, known: Iterable[str]) -> SettingsError:
    """The error that names a setting which does not exist, and the nearest one that does."""
    near = nearest(name, known)
    hint = f"; did you mean {dashed(near)}?" if near else ""
    return SettingsError(f"unknown setting {dashed(name)}{hint}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of these names, or of others that are understood for them, that is most like it; empty where none is.

    Another server's name of a setting (`timeout`, `max_requests`) is that setting's, whatever else it is like.
    """
    names = [*known]
    name = name.lower()
    theirs = _of_other_servers().get(name.replace("_", "-"), "")
    if theirs in names:
        return singular(theirs)
    others = [each for each, plain in ALIASED.items() if plain in names]
    return next(iter(difflib.get_close_matches(name.replace("-", "_"), [*names, *others], n=1)), "")
