"""What several places say, put together: a profile, a file, the environment, the command line, in rising order. Pure.

A setting of a group may be said for all groups or for one. What a higher place says for all goes before what a lower one says for
one; within one place the single group goes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._declared import declared, declared_of_mounts, plain_name, unknown
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._http import HttpSettings
from gatekeep.settings._mount import MountSettings
from gatekeep.settings._profiles import DEFAULT_PROFILE, PROFILES
from gatekeep.settings._reload import ReloadSettings
from gatekeep.settings._script import ScriptSettings
from gatekeep.settings._server import ServerSettings
from gatekeep.settings._settings import Settings
from gatekeep.settings._spec import dashed

DEFAULT_GROUP = "default"

T = TypeVar("T")


@attrs.frozen
class Layer:
    """What one place says. Names may be written with `-` or `_`.

    Attributes:
        place: the place's name for people; empty where what is wrong needs none (an argument of a call, a flag).
        values: settings by name; those of groups are meant for all of them. `app` is the application.
        groups: settings of single groups, by the group's name.
        mounts: the table of mounts; None where the place has none.
    """

    place: str
    values: Mapping[str, Any] = attrs.field(factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    mounts: Sequence[Mapping[str, Any]] | None = None


@attrs.frozen
class _Said:
    """A value, and where it was said."""

    value: Any
    place: str


def settings_from(layers: Sequence[Layer]) -> Settings:
    """The settings of a gateway that these places describe, the lowest first.

    Raises:
        SettingsError: a setting is unknown or its value is not allowed; its place is named.
    """
    layers = _with_profile(layers)
    general = _general(layers)
    place = _last_place(layer.place for layer in layers if layer.groups)
    mapped = _last_place(layer.place for layer in layers if layer.mounts is not None)
    tables = {
        "groups": _Said(_groups(layers), place or mapped),
        "mounts": _Said(_mounts(layers), mapped or place),
    }
    return _built(
        Settings,
        _share(general, Settings) | tables,
        http=_built(HttpSettings, _share(general, HttpSettings)),
        reload=_built(ReloadSettings, _share(general, ReloadSettings)),
    )


def server_settings_from(layers: Sequence[Layer]) -> ServerSettings:
    """Those of the program itself.

    Raises:
        SettingsError: as `settings_from`.
    """
    return _built(ServerSettings, _share(_general(layers), ServerSettings))


def _with_profile(layers: Sequence[Layer]) -> list[Layer]:
    """The profile that was chosen comes before everything else."""
    chosen, place = DEFAULT_PROFILE, ""
    for layer in layers:
        if "profile" in layer.values:
            chosen, place = layer.values["profile"], layer.place
    if not isinstance(chosen, str) or chosen not in PROFILES:
        raise _located(SettingsError(f"profile = {chosen!r}: allowed is one of {', '.join(PROFILES)}"), place)
    return [Layer(f"profile {chosen}", PROFILES[chosen]), *layers]


def _general(layers: Sequence[Layer]) -> dict[str, _Said]:
    """What is said for all, by declared name."""
    known = declared()
    said: dict[str, _Said] = {}
    for layer in layers:
        seen: set[str] = set()
        for name, value in layer.values.items():
            plain = plain_name(name)
            if plain in ("app", "profile"):
                continue
            if plain not in known:
                raise _located(unknown(name, known), layer.place)
            _once(plain, seen, layer.place)
            said[plain] = _Said(value, layer.place)
    return said


def _once(name: str, seen: set[str], place: str) -> None:
    if name in seen:
        raise _located(SettingsError(f"{dashed(name)} is given twice, by two names"), place)
    seen.add(name)


def _share(said: Mapping[str, _Said], owner: type) -> dict[str, _Said]:
    known = declared()
    return {name: each for name, each in said.items() if known[name][0] is owner}


# --- groups and mounts


def _groups(layers: Sequence[Layer]) -> list[GroupSettings]:
    names = list(dict.fromkeys(name for layer in layers for name in layer.groups))
    said = _general(layers).get("name")
    if said and names:
        reason = f"groups have the names of their tables: {', '.join(names)}"
        raise _located(SettingsError(f"name = {said.value!r}: {reason}"), said.place)
    names = names or [said.value if said else DEFAULT_GROUP]
    return [_group(name, layers, is_only=len(names) == 1) for name in names]


def _group(name: str, layers: Sequence[Layer], *, is_only: bool) -> GroupSettings:
    place = _last_place(layer.place for layer in layers if name in layer.groups or "name" in layer.values)
    said: dict[str, _Said] = {"name": _Said(name, place)}
    for layer in layers:
        said |= {key: each for key, each in _share(_general([layer]), GroupSettings).items() if key != "name"}
        if "app" in layer.values:
            if not is_only:
                reason = "with several groups each needs its own: say it there"
                raise _located(SettingsError(f"app = {str(layer.values['app'])!r}: {reason}"), layer.place)
            said["app"] = _Said(layer.values["app"], layer.place)
        said |= _own(name, layer)
    return _built(GroupSettings, said)


def _own(group: str, layer: Layer) -> dict[str, _Said]:
    """What a place says for this group alone."""
    known = [name for name, (owner, _) in declared().items() if owner is GroupSettings and name != "name"]
    place = f"{layer.place}: groups.{group}" if layer.place else f"groups.{group}"
    said: dict[str, _Said] = {}
    seen: set[str] = set()
    for name, value in layer.groups.get(group, {}).items():
        plain = plain_name(name)
        if plain not in known and plain != "app":
            if plain == "name":
                raise _located(SettingsError(f"name = {value!r}: its name is that of the table"), place)
            if plain in declared():
                reason = "is no setting of a group: it is said for the whole gateway"
                raise _located(SettingsError(f"{dashed(name)} {reason}"), place)
            raise _located(unknown(name, [*known, "app"]), place)
        _once(plain, seen, place)
        said[plain] = _Said(value, place)
    return said


def _mounts(layers: Sequence[Layer]) -> list[MountSettings]:
    """The table of the highest place that has one; what is said of scripts in general is meant for all its entries."""
    general = _share(_general(layers), ScriptSettings)
    for layer in reversed(layers):
        if layer.mounts is not None:
            return [_mount(index, mount, layer.place, general) for index, mount in enumerate(layer.mounts, 1)]
    return [_built(MountSettings, general)] if general else []


def _mount(index: int, mount: Mapping[str, Any], place: str, general: Mapping[str, _Said]) -> MountSettings:
    place = f"{place}: mounts, number {index}" if place else f"mounts, number {index}"
    known = declared_of_mounts()
    said = dict(general)
    seen: set[str] = set()
    for name, value in mount.items():
        plain = name.replace("-", "_")
        if plain not in known:
            raise _located(unknown(name, known), place)
        _once(plain, seen, place)
        said[plain] = _Said(value, place)
    return _built(MountSettings, said)


# --- building


def _built(owner: type[T], said: Mapping[str, _Said], **sections: Any) -> T:
    """The instance; an error that names one of the values names the value's place, too."""
    try:
        return owner(**{name: each.value for name, each in said.items()}, **sections)
    except SettingsError as error:
        named = re.split(r"[^\w-]", str(error), maxsplit=1)[0]
        for name, each in said.items():
            if named in (dashed(name), dashed(name).removesuffix("s")):
                raise _located(error, each.place) from None
        raise


def _last_place(places: Iterable[str]) -> str:
    """The highest of those that say something; empty where none does."""
    return next(reversed([*places]), "")


def _located(error: SettingsError, place: str) -> SettingsError:
    return SettingsError(f"{place}: {error}") if place else error
