"""All that a gateway is told, from wherever it comes: a file, the environment, the command line, in rising order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep._handover import VARIABLE
from gatekeep._options import options_of, typed_layer
from gatekeep._trust import parse_network
from gatekeep.settings._bind import Bind, parse_bind
from gatekeep.settings._environment import ARGUMENTS, CONFIG, environment_layers
from gatekeep.settings._file import find_file, read_file
from gatekeep.settings._layers import Layer, server_settings_from, settings_from
from gatekeep.settings._server import ServerSettings
from gatekeep.settings._settings import Settings

_REPLACED = {("http", "httptools"): "strict"}
"""Values that other servers have, and what is meant by them here."""


@attrs.frozen
class Configuration:
    """What was found.

    Attributes:
        file: the file that was read, absolute; empty where there was none.
        notes: what should be said of it, as events of the log with their fields.
    """

    settings: Settings
    server: ServerSettings
    file: str = ""
    notes: tuple[tuple[str, Mapping[str, Any]], ...] = attrs.field(default=(), eq=False)


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
        self._enter(server_settings_from(spoken).chdir, enter)
        path = self._file()
        layers = [*self._defaults(), *([read_file(path)] if path else []), *spoken]
        layers, notes = _replaced(layers)
        server = server_settings_from(layers)
        if path:
            path = os.path.abspath(path)
            self._enter(server.chdir, enter)
        if not any("app" in layer.values or layer.groups or layer.mounts for layer in layers):
            raise SettingsError(
                "app is needed: name it (mysite.wsgi:application), or put it into gatekeep.toml"
            )
        settings = settings_from(layers)
        if self.inherited and [bind.address for bind in settings.binds] != [
            bind.address for bind in self.inherited
        ]:
            unused = {
                "addresses": list(map(str, self.inherited)),
                "reason": "the settings say where to listen",
            }
            notes.append(("socket.unused", unused))
        return Configuration(settings, server, path, tuple(notes))

    def _typed(self) -> tuple[Layer, list[Layer]]:
        text = self.environment.get(ARGUMENTS, "")
        return typed_layer(self.options), [typed_layer(options_of(text), f"${ARGUMENTS}")] if text else []

    def _file(self) -> str:
        lines = self.environment.get(ARGUMENTS, "")
        chosen = (
            self.options["config"]
            or (lines and options_of(lines)["config"])
            or self.environment.get(CONFIG, "")
        )
        return os.path.join(self.folder, chosen) if chosen else find_file()

    def _enter(self, folder: str, enter: Callable[[str], None]) -> None:
        if folder:
            enter(os.path.join(self.folder, folder))

    def _defaults(self) -> list[Layer]:
        """What counts where nothing else is said, as with other servers."""
        layers = []
        if self.inherited:
            layers.append(Layer("", {"binds": list(self.inherited)}))
        elif text := self.environment.get("PORT"):
            layers.append(Layer("$PORT", {"binds": [parse_bind(f"0.0.0.0:{_number('PORT', text)}")]}))
        if text := self.environment.get("WEB_CONCURRENCY"):
            layers.append(Layer("$WEB_CONCURRENCY", {"processes": _number("WEB_CONCURRENCY", text)}))
        if (text := self.environment.get("FORWARDED_ALLOW_IPS")) is not None:
            layers.append(
                Layer("$FORWARDED_ALLOW_IPS", {"trusted_proxies": _networks("FORWARDED_ALLOW_IPS", text)})
            )
        return layers


def _replaced(layers: Sequence[Layer]) -> tuple[list[Layer], list[tuple[str, Mapping[str, Any]]]]:
    """The layers with other servers' values in our words, and what is to be said of that."""
    notes: list[tuple[str, Mapping[str, Any]]] = []
    result = []
    for layer in layers:
        values = dict(layer.values)
        for name, value in layer.values.items():
            used = _REPLACED.get((name, value)) if isinstance(value, str) else None
            if used is not None:
                notes.append(("setting.replaced", {"setting": name, "value": value, "used": used}))
                values[name] = used
        result.append(attrs.evolve(layer, values=values))
    return result, notes


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise SettingsError(f"${name} = {text[:20]!r}: a number is needed")
    return int(text)


def _networks(name: str, text: str) -> list[str]:
    """Networks with commas between them; none at all for nobody, as with gunicorn and uvicorn."""
    return [parse_network(f"${name}", item.strip()) for item in text.split(",") if item.strip()]
