"""Reads configuration files of other servers: `gunicorn.conf.py` and `uwsgi.ini`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from gatekeep._errors import SettingsError
from gatekeep.settings import _gunicorn, _uwsgi
from gatekeep.settings._foreign import Translation
from gatekeep.settings._gunicorn import NAMES, Opaque
from gatekeep.settings._uwsgi_ini import IniText

RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_gunicorn_runner.py")

PATIENCE = 30.0
"""Seconds that a gunicorn.conf.py may run."""


def read_foreign(path: str, folder: str, environment: Mapping[str, str]) -> Translation:
    """What the file of another server comes to here.

    Args:
        path: relative to `folder`, which a `gunicorn.conf.py` runs in, with this environment.

    Raises:
        SettingsError: it is no such file, cannot be read, or has a value that cannot be.
    """
    full = os.path.join(folder, path)
    ending = os.path.splitext(path)[1]
    if ending not in (".py", ".ini"):
        raise SettingsError(f"from = {path!r}: {_HINTS.get(ending, _ALLOWED)}")
    if not os.path.isfile(full):
        raise SettingsError(f"from = {path!r}: there is no such file in {folder}")
    return (
        _read_gunicorn(full, folder, environment)
        if ending == ".py"
        else _read_uwsgi(full, folder, environment)
    )


_ALLOWED = "allowed is gunicorn's configuration (gunicorn.conf.py) or uWSGI's (uwsgi.ini)"
_INI = f"uWSGI's configuration is read as .ini alone; {_ALLOWED}"
_HINTS = {
    ".toml": f"gatekeep's own file is -c; {_ALLOWED}",
    ".xml": _INI,
    ".yaml": _INI,
    ".yml": _INI,
    ".json": _INI,
}


def _read_uwsgi(path: str, folder: str, environment: Mapping[str, str]) -> Translation:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise SettingsError(f"from = {path!r}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"from = {path!r}: it is no text in UTF-8") from None
    said, used = IniText(path, folder, environment, os.cpu_count() or 1).parse(text)
    return _uwsgi.translate(said, used, path)


def _read_gunicorn(path: str, folder: str, environment: Mapping[str, str]) -> Translation:
    """In a process of its own: what the file does to that one (monkey-patching, threads) shall not happen to ours."""
    command = [sys.executable, "-P", RUNNER, path, ",".join(NAMES)]
    try:
        done = subprocess.run(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SettingsError(f"{path}: it has run for {PATIENCE:g} s without an end") from None
    except OSError as error:
        raise SettingsError(f"{path}: it cannot be run: {error.strerror}") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise SettingsError(
            f"{path}: it ended its process (exit status {done.returncode}) before it was read"
        ) from None
    if "error" in answer:
        place = f"{path}:{answer['line']}" if answer["line"] else path
        raise SettingsError(f"{place}: {answer['error']}")
    said = {name: _value(value) for name, value in answer["said"].items()}
    variables = [f"{name}={value}" for name, value in answer["environment"].items()]
    return _gunicorn.translate(said, path, variables)


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "!opaque" in value:
        return Opaque(value["!opaque"], value["callable"])
    return value
