"""All that a gateway is told, from wherever it comes: a file, the environment, the command line, in rising order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep._handover import VARIABLE
from gatekeep._options import options_of, typed_foreign, typed_layer
from gatekeep._trust import parse_network
from gatekeep.settings._bind import Bind, BindKind
from gatekeep.settings._declared import plain_name
from gatekeep.settings._env_file import read_variables
from gatekeep.settings._environment import ARGUMENTS, CONFIG, FROM, environment_layers
from gatekeep.settings._file import find_file, read_file
from gatekeep.settings._foreign import Translation
from gatekeep.settings._foreign_variables import unread
from gatekeep.settings._layers import Layer, server_settings_from, settings_from
from gatekeep.settings._server import ServerSettings
from gatekeep.settings._settings import Settings
from gatekeep.settings._understood import Note, replacement


@attrs.frozen
class Configuration:
    """What was found.

    Attributes:
        file: the file that was read, absolute; empty where there was none.
        notes: what should be said of it, as events of the log with their fields.
        translation: what a configuration of another server came to, where one was named.
    """

    settings: Settings
    server: ServerSettings
    file: str = ""
    notes: tuple[Note, ...] = attrs.field(default=(), eq=False)
    translation: Translation | None = attrs.field(default=None, eq=False)


@attrs.frozen
class Sources:
    """Where to look. The folder and the environment are those that the program was started with.

    Attributes:
        options: what was typed, as click has parsed it.
        inherited: sockets that somebody else has opened for us, which count where nothing else is said.
    """

    options: Mapping[str, Any]
    environment: Mapping[str, str]
    folder: str
    inherited: Sequence[Bind] = ()

    def read(self, enter: Callable[[str], None] = lambda folder: None) -> Configuration:
        """Read all of it, again where that was done before.

        Args:
            enter: called with each folder to change to.

        Raises:
            SettingsError: something is unknown or not allowed; it names the place.
        """
        typed, lines = self._typed()
        spoken = [*environment_layers(self.environment, frozenset({VARIABLE})), *lines, typed]
        chdir = server_settings_from(_replaced(spoken)[0]).chdir
        self._enter(chdir, enter)
        path, shown = self._file(os.path.join(self.folder, chdir))
        translation = self.translated()
        if translation is not None:
            translation.check()
        found = [read_file(path, shown)] if path else []
        _check_prefix(typed, found)
        theirs = [] if translation is None else [translation.layer]
        layers, notes = _replaced([*self._defaults(), *theirs, *found, *spoken])
        notes += [
            *self._foreign_notes(),
            *(translation.notes if translation else ()),
            *unread(self.environment),
        ]
        server = server_settings_from(layers)
        if path or translation:
            self._enter(server.chdir, enter)
        if not any("app" in layer.values or layer.groups or layer.mounts for layer in layers):
            raise SettingsError(
                "app is needed: name it (mysite.wsgi:application), or put it into gatekeep.toml"
            )
        _check_binds(layers)
        settings = self._with_variables(settings_from(layers), server.env_file)
        _check_spool(settings.http.spool_dir, layers)
        if server.access_log and server.access_log_format:
            settings = _with_fields(settings, server.access_log_format)
        used = {bind.address for bind in (*settings.binds, *settings.health_binds)}
        if unused := [str(bind) for bind in self.inherited if bind.address not in used]:
            reason = "the settings say where to listen"
            notes.append(("socket.unused", {"addresses": unused, "reason": reason}))
        return Configuration(settings, server, path and os.path.abspath(path), tuple(notes), translation)

    def translated(self) -> Translation | None:
        """What the configuration of another server came to, whether it can be served or not; None where none was named.

        Raises:
            SettingsError: it cannot be read.
        """
        path = self._named("from_file", FROM)
        if not path:
            return None
        from gatekeep.settings._foreign_file import read_foreign  # few come from another server at each start

        return read_foreign(path, self.folder, self.environment)

    def _typed(self) -> tuple[Layer, list[Layer]]:
        text = self.environment.get(ARGUMENTS, "")
        return typed_layer(self.options), [typed_layer(options_of(text), f"${ARGUMENTS}")] if text else []

    def _foreign_notes(self) -> list[Note]:
        """What should be said of flags of other servers."""
        text = self.environment.get(ARGUMENTS, "")
        every = [*([options_of(text)] if text else []), self.options]
        return [note for options in every for note in typed_foreign(options).notes]

    def _file(self, present: str) -> tuple[str, str]:
        """The file's path, and its name for people; empty where there is none.

        Args:
            present: where it is looked for if none is named: not where the program is, which a file may have sent elsewhere.
        """
        chosen = self._named("config", CONFIG)
        if chosen.startswith(("python:", "file:")) or chosen.endswith((".py", ".ini")):
            raise SettingsError(
                f"config = {chosen!r}: allowed is a TOML file; another server's configuration is --from FILE"
            )
        if chosen:
            path = os.path.join(self.folder, chosen)
            return path, path
        name = find_file(present)
        return (os.path.join(present, name), name) if name else ("", "")

    def _named(self, option: str, variable: str) -> str:
        """A file that was named on the command line, or in the environment; empty where none was."""
        lines = self.environment.get(ARGUMENTS, "")
        return (
            self.options.get(option)
            or (lines and options_of(lines)[option])
            or self.environment.get(variable, "")
        )

    def _with_variables(self, settings: Settings, files: Sequence[str]) -> Settings:
        """The settings with what files of variables say, where nothing else says it."""
        variables = [pair for file in files for pair in read_variables(os.path.join(self.folder, file))]
        added = tuple(f"{name}={value}" for name, value in variables if name not in self.environment)
        if not files:
            return settings
        if all(group.is_embedded for group in settings.groups):
            raise SettingsError(
                f"env-file = {files[0]!r}: there are no processes to give it to; set these variables for gatekeep itself"
            )
        return attrs.evolve(
            settings,
            groups=[
                group if group.is_embedded else attrs.evolve(group, env=(*added, *group.env))
                for group in settings.groups
            ],
        )

    def _enter(self, folder: str, enter: Callable[[str], None]) -> None:
        if folder:
            enter(os.path.join(self.folder, folder))

    def _defaults(self) -> list[Layer]:
        """What counts where nothing else is said, as with other servers."""
        layers = []
        if self.inherited:
            layers.append(Layer("", {"binds": list(self.inherited)}))
        elif text := self.environment.get("PORT"):
            layers.append(Layer("$PORT", {"binds": [Bind(BindKind.TCP, "0.0.0.0", _port(text))]}))
        if text := self.environment.get("WEB_CONCURRENCY"):
            layers.append(Layer("$WEB_CONCURRENCY", {"processes": _number("WEB_CONCURRENCY", text)}))
        if (text := self.environment.get("FORWARDED_ALLOW_IPS")) is not None:
            layers.append(
                Layer("$FORWARDED_ALLOW_IPS", {"trusted_proxies": _networks("FORWARDED_ALLOW_IPS", text)})
            )
        return layers


def _with_fields(settings: Settings, access_log_format: str) -> Settings:
    """The settings, with records that have what the format of their lines needs."""
    from gatekeep._access_format import AccessFormat

    its, http = AccessFormat("access-log-format", access_log_format), settings.http
    http = attrs.evolve(
        http,
        log_url=http.log_url or its.needs_url,
        log_request_headers=(*http.log_request_headers, *its.request_fields),
        log_response_headers=(*http.log_response_headers, *its.response_fields),
    )
    return attrs.evolve(settings, http=http)


def _check_prefix(typed: Layer, found: Sequence[Layer]) -> None:
    """A prefix that was typed would hide the file's whole table of mounts."""
    for layer in found:
        if typed.mounts and layer.mounts is not None:
            prefix = typed.mounts[0]["path"]
            raise SettingsError(f"root-path = {prefix!r}: {layer.place} has a table of mounts: say it there")


def _check_binds(layers: Sequence[Layer]) -> None:
    """Raise `SettingsError` if the highest place that says where to listen says: nowhere. (A gateway in a program may.)"""
    for layer in reversed(layers):
        for name, value in layer.values.items():
            if plain_name(name) == "binds":
                if value in ([], ()):
                    raise SettingsError(f"{layer.place}: bind = {value!r}: at least one address is needed")
                return


def _check_spool(folder: str, layers: Sequence[Layer]) -> None:
    """Raise `SettingsError` unless temporary files can be made there: each larger request would be answered 507."""
    if not folder or (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        return
    places = [
        layer.place for layer in layers if any(plain_name(name) == "spool_dir" for name in layer.values)
    ]
    place = f"{places[-1]}: " if places and places[-1] else ""
    why = "it may not be written to" if os.path.isdir(folder) else "there is no such folder"
    raise SettingsError(f"{place}spool-dir = {folder!r}: {why}")


def _replaced(layers: Sequence[Layer]) -> tuple[list[Layer], list[Note]]:
    """The layers with other servers' values in our words, and what is to be said of that."""
    notes: list[Note] = []
    result = []
    for layer in layers:
        values = dict(layer.values)
        for name, value in layer.values.items():
            used = replacement(plain_name(name), value)
            if used != value:
                notes.append(("setting.replaced", {"setting": name, "value": value, "used": used}))
                values[name] = used
        result.append(attrs.evolve(layer, values=values))
    return result, notes


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise SettingsError(f"${name} = {text[:20]!r}: a number is needed")
    return int(text)


def _port(text: str) -> int:
    number = _number("PORT", text)
    if number > 65535:
        raise SettingsError(f"$PORT = {text!r}: allowed is 0 to 65535")
    return number


def _networks(name: str, text: str) -> list[str]:
    """Networks with commas between them; none at all for nobody, as with gunicorn and uvicorn."""
    return [parse_network(f"${name}", item.strip()) for item in text.split(",") if item.strip()]
