"""All that a gateway is told, from wherever it comes: a file, the environment, the command line, in rising order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from gatekeep._access_format import AccessFormat
from gatekeep._errors import SettingsError
from gatekeep._handover import VARIABLE
from gatekeep._options import options_of, typed_foreign, typed_layer
from gatekeep.settings._bind import Bind
from gatekeep.settings._declared import plain_name
from gatekeep.settings._env_file import read_variables
from gatekeep.settings._environment import ARGUMENTS, CONFIG, FROM, PORT, common_layers, environment_layers
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
        typed = [typed_layer(options, place) for place, options in self._typed()]
        spoken = [*environment_layers(self.environment, frozenset({VARIABLE})), *typed]
        chdir = server_settings_from(_replaced(spoken)[0]).chdir
        self._enter(chdir, enter)
        path, shown = self._file(os.path.join(self.folder, chdir))
        translation = self.translated()
        if translation is not None:
            translation.check()
        found = [read_file(path, shown)] if path else []
        _check_prefix(typed[-1], found)
        theirs = [] if translation is None else [translation.layer]
        layers, replaced = _replaced([*self._defaults(), *theirs, *found, *spoken])
        server = server_settings_from(layers)
        if path or translation:
            self._enter(server.chdir, enter)
        settings = self._settings(layers, server)
        notes = (*replaced, *self._foreign_notes(translation), *self._unused(settings))
        return Configuration(settings, server, path and os.path.abspath(path), notes, translation)

    def _settings(self, layers: Sequence[Layer], server: ServerSettings) -> Settings:
        """The gateway's settings, with what follows from those of the program."""
        _check_app(layers)
        _check_binds(layers)
        settings = self._with_variables(settings_from(layers), server.env_file)
        _check_spool(settings.http.spool_dir, layers)
        if server.access_log and server.access_log_format:
            return _with_fields(settings, AccessFormat(server.access_log_format))
        return settings

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

    def _typed(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The flags, with the place where they stand (empty for the command line), in rising order."""
        text = self.environment.get(ARGUMENTS, "")
        return [*([(f"${ARGUMENTS}", options_of(text))] if text else []), ("", self.options)]

    def _foreign_notes(self, translation: Translation | None) -> Iterator[Note]:
        """What should be said of flags, files and variables of other servers."""
        for _, options in self._typed():
            yield from typed_foreign(options).notes
        if translation is not None:
            yield from translation.notes
        yield from unread(self.environment)

    def _unused(self, settings: Settings) -> Iterator[Note]:
        """What should be said of sockets that nobody asked for."""
        used = {bind.address for bind in (*settings.binds, *settings.health_binds)}
        if unused := [str(bind) for bind in self.inherited if bind.address not in used]:
            reason = "the settings say where to listen"
            yield "socket.unused", {"addresses": unused, "reason": reason}

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
        typed = (options.get(option) for _, options in reversed(self._typed()))
        return next(filter(None, typed), "") or self.environment.get(variable, "")

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
        """What counts where nothing else is said. Sockets that are there already go before $PORT."""
        if not self.inherited:
            return [*common_layers(self.environment)]
        return [Layer("", {"binds": list(self.inherited)}), *common_layers({**self.environment, PORT: ""})]


def _with_fields(settings: Settings, lines: AccessFormat) -> Settings:
    """The settings, with records that have what a format of their lines needs."""
    http = settings.http
    http = attrs.evolve(
        http,
        log_url=http.log_url or lines.needs_url,
        log_request_headers=(*http.log_request_headers, *lines.request_fields),
        log_response_headers=(*http.log_response_headers, *lines.response_fields),
    )
    return attrs.evolve(settings, http=http)


def _check_app(layers: Sequence[Layer]) -> None:
    """Raise `SettingsError` unless some place says what to serve."""
    if not any("app" in layer.values or layer.groups or layer.mounts for layer in layers):
        raise SettingsError("app is needed: name it (mysite.wsgi:application), or put it into gatekeep.toml")


def _check_prefix(typed: Layer, found: Sequence[Layer]) -> None:
    """Raise `SettingsError` if a prefix was typed that would hide the file's whole table of mounts."""
    for layer in found:
        if typed.mounts and layer.mounts is not None:
            prefix = typed.mounts[0]["path"]
            raise SettingsError(f"root-path = {prefix!r}: {layer.place} has a table of mounts: say it there")


def _check_binds(layers: Sequence[Layer]) -> None:
    """Raise `SettingsError` if the highest place that says where to listen says nowhere. (A gateway in a program may.)"""
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
