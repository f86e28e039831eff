"""Settings from a file: `gatekeep.toml`, or `[tool.gatekeep]` in `pyproject.toml`."""

from __future__ import annotations

import os
import tomllib
from typing import Any

from gatekeep._errors import SettingsError
from gatekeep.settings._layers import Layer

OWN_NAME = "gatekeep.toml"
PROJECT = "pyproject.toml"


def find_file() -> str:
    """The file that is read where none is named: in the present folder; empty where there is none."""
    if os.path.isfile(OWN_NAME):
        return OWN_NAME
    if os.path.isfile(PROJECT):
        try:
            if _of_project(_parsed(PROJECT)) is not None:
                return PROJECT
        except SettingsError:
            pass  # another tool's affair
    return ""


def read_file(path: str) -> Layer:
    """What a file says.

    Raises:
        SettingsError: it cannot be read, is no TOML, or has tables where values belong.
    """
    values: Any = _parsed(path)
    if os.path.basename(path) == PROJECT:
        values = _of_project(values)
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: there is no table [tool.gatekeep] in it")
    groups = _tables(path, values.pop("groups", {}), "groups")
    mounts = values.pop("mounts", None)
    if mounts is not None and not (
        isinstance(mounts, list) and all(isinstance(each, dict) for each in mounts)
    ):
        raise SettingsError(f"{path}: mounts: a list of tables is needed: [[mounts]]")
    plain = {name: _value(path, name, value) for name, value in values.items()}
    return Layer(path, plain, groups, mounts)


def _of_project(values: dict[str, Any]) -> Any:
    """What is at [tool.gatekeep]; None where there is no such place."""
    tool = values.get("tool")
    return tool.get("gatekeep") if isinstance(tool, dict) else None


def _parsed(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"config = {path!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: it is no TOML: {error}") from error


def _tables(path: str, value: object, name: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise SettingsError(f"{path}: {name}: tables are needed: [{name}.NAME]")
    return {
        group: {key: _value(f"{path}: {name}.{group}", key, each) for key, each in table.items()}
        for group, table in value.items()
    }


def _value(place: str, name: str, value: object) -> object:
    """Variables may be written as a table."""
    if not isinstance(value, dict):
        return value
    if name != "env":
        raise SettingsError(f"{place}: {name}: a value is needed, not a table")
    for key, each in value.items():
        if isinstance(each, bool) or not isinstance(each, (str, int, float)):
            raise SettingsError(f"{place}: env.{key} = {each!r}: a text or a number is needed")
    return [f"{key}={each}" for key, each in value.items()]
