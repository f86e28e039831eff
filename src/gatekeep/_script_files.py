"""Scripts of the front: loaded under a name of their own, and again when their file changes. Called in threads."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import threading
import time
import traceback
import zlib
from types import ModuleType
from typing import Any

from gatekeep.settings._script_target import ScriptTarget

LOOK = 0.05
"""Seconds for which one look at the file counts."""


class CannotLoad(Exception):
    """A script cannot be had: one line; `traceback` is its own, if it was at fault."""

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.details = details


class Script:
    """One script. A version that does not load is none, until the file changes: the one before does not decide in its place."""

    def __init__(self, target: ScriptTarget) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._version = -1
        self._next_look = 0.0
        self._module: Any = target.value
        self._failure: CannotLoad | None = None

    def function(self, name: str) -> Any:
        """The script's function of that name; None where it has none.

        Raises:
            CannotLoad: the script cannot be loaded.
        """
        if self._target.value is None:
            self._look()
        return getattr(self._module, name, None)

    def _look(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now >= self._next_look:
                path = self._path()
                version = _version_of(path)
                if version != self._version or version == 0:
                    self._load(path, version)
                self._next_look = now + LOOK
            if self._failure is not None:
                raise self._failure

    def _path(self) -> str:
        if self._target.path:
            return os.path.abspath(self._target.path)
        try:
            found = importlib.util.find_spec(self._target.module)
        except (ImportError, ValueError, AttributeError):
            found = None
        return found.origin or "" if found is not None else ""

    def _load(self, path: str, version: int) -> None:
        self._version, self._failure, self._module = version, None, None
        try:
            self._module = _loaded(path)
        except FileNotFoundError:
            self._failure = CannotLoad(f"there is no {self._target}")
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._failure = CannotLoad(f"{self._target} failed to load: {reason}", traceback.format_exc())


def _loaded(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise FileNotFoundError(path)
    name = f"_gatekeep_script_{zlib.crc32(os.fsencode(path)):08x}"
    # Not from the cache, which tells versions apart by the second.
    loader = _Uncached(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


class _Uncached(importlib.machinery.SourceFileLoader):
    def path_stats(self, path: str) -> Any:
        """There is nothing that a cached version could be compared with."""
        raise OSError


def _version_of(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
