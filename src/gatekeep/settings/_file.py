"""Settings from a file: `gatekeep.toml`, or `[tool.gatekeep]` in `pyproject.toml`."""

from __future__ import annotations

import os
import re
import tomllib
from typing import Any

from gatekeep._errors import SettingsError
from gatekeep.settings._layers import Layer

OWN_NAME = "gatekeep.toml"
PROJECT = "pyproject.toml"


def find_file(folder: str = "") -> str:
    """The name of the file that is read where none is named; empty where there is none in the folder (the present one).

    What is there by our own name is meant for us, whatever it is: a link that leads nowhere, a folder, as Docker makes one where
    the file to be mounted is missing, is refused when it is read, and does not pass for no settings at all.
    """
    if os.path.lexists(os.path.join(folder, OWN_NAME)):
        return OWN_NAME
    path = os.path.join(folder, PROJECT)
    if os.path.isfile(path):
        try:
            if _of_project(_parsed(path, PROJECT)) is not None:
                return PROJECT
        except SettingsError:
            if _names_us(path):
                return PROJECT
            # otherwise another tool's affair
    return ""


def _names_us(path: str) -> bool:
    """Whether a file that is no TOML has a table for us all the same."""
    try:
        with open(path, "rb") as file:
            return _OUR_TABLE.search(file.read()) is not None
    except OSError:
        return False


_OUR_TABLE = re.compile(rb"^\s*\[+\s*tool\s*\.\s*[\"']?gatekeep\b", re.MULTILINE)


def read_file(path: str, shown: str = "") -> Layer:
    """What a file says.

    Args:
        shown: its name for people, where that is not its path.

    Raises:
        SettingsError: it cannot be read, is no TOML, or has tables where values belong.
    """
    values: Any = _parsed(path, shown or path)
    is_project, path = os.path.basename(path) == PROJECT, shown or path
    if is_project:
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


def _parsed(path: str, shown: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.loads(file.read().decode("utf-8-sig"))  # editors of Windows begin with a mark
    except OSError as error:
        raise SettingsError(f"config = {shown!r}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{shown}: it is no TOML: it is no text in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{shown}: it is no TOML: {error}") from error


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
        if "=" in key:
            raise SettingsError(f"{place}: env.{key}: allowed is a name without =")
        if isinstance(each, bool) or not isinstance(each, (str, int, float)):
            raise SettingsError(f"{place}: env.{key} = {each!r}: a text or a number is needed")
    return [f"{key}={each}" for key, each in value.items()]
