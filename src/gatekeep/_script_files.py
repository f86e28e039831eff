"""Scripts of the front: loaded under a name of their own, and again when their file changes. Called in threads."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
import zlib
from typing import Any

from gatekeep._source import load_source
from gatekeep.settings._script_target import ScriptTarget

LOOK = 0.05
"""Seconds for which one look at the file counts."""

RETRY = 1.0
"""Seconds after which a version that failed to load is tried again: what it lacked may have come."""


class CannotLoad(Exception):
    """A script cannot be had: one line; `details` is its own traceback, if it was at fault."""

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.details = details


class Script:
    """One script. A version that does not load is none, until the file changes: the one before does not decide in its place.

    Nobody waits at a lock while it loads, so that one which hangs there hangs one thread, and is given up when the file changes.
    """

    def __init__(self, target: ScriptTarget) -> None:
        self._target = target
        self._path = os.path.abspath(target.path) if target.path else ""  # wherever the program goes later
        self._lock = threading.Lock()
        self._version = _Version((), "")
        self._next_look = 0.0

    def load(self, patience: float) -> Any:
        """What has its functions: one version of the module, whatever becomes of the file meanwhile.

        Args:
            patience: seconds that loading it may take.

        Raises:
            CannotLoad: it cannot be loaded.
        """
        if self._target.value is not None:
            return self._target.value
        return self._present().module(str(self._target), patience)

    def _present(self) -> _Version:
        with self._lock:
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + LOOK
                self._path = self._path or _path_of(self._target.module)
                stamp = _stamp_of(self._path)
                if stamp != self._version.stamp or self._version.may_be_retried(now):
                    self._version = _Version(stamp, self._path)
            return self._version


class _Version:
    """One version of a script's file, loaded by whoever asks for it first."""

    def __init__(self, stamp: tuple[int, ...] | None, path: str) -> None:
        self.stamp = stamp
        self._path = path
        self._first = threading.Lock()
        self._done = threading.Event()
        self._began = time.monotonic()
        self._module: Any = None
        self._failure = ("", "")
        self._retry_at = float("inf")

    def may_be_retried(self, now: float) -> bool:
        return now >= self._retry_at

    def module(self, name: str, patience: float) -> Any:
        if self._first.acquire(blocking=False):  # and never released
            self._load(name)
        rest = self._began + patience - time.monotonic()
        if not self._done.wait(min(max(rest, 0.0), threading.TIMEOUT_MAX)):
            raise CannotLoad(f"{name} takes longer than script-timeout to load")
        if self._module is None:
            raise CannotLoad(*self._failure)  # a new one each time: a traceback grows wherever it is raised
        return self._module

    def _load(self, name: str) -> None:
        self._failure = f"{name} failed to load", ""
        try:
            self._module = load_source(_name_of(self._path), self._path)
        except FileNotFoundError as error:
            if error.filename == self._path:
                self._failure = f"there is no {name}", ""
            else:
                self._failed(name, error)
        except BaseException as error:  # a script may do anything, `sys.exit()` included
            self._failed(name, error)
        finally:
            if self._module is None:
                self._retry_at = time.monotonic() + RETRY
            self._done.set()

    def _failed(self, name: str, error: BaseException) -> None:
        # `format_exception_only` survives a message that raises itself.
        last = traceback.TracebackException.from_exception(error, capture_locals=False)
        line = list(last.format_exception_only())[-1 - len(getattr(error, "__notes__", ()))]
        self._failure = (
            f"{name} failed to load: {line.strip().partition(chr(10))[0]}",
            "".join(last.format()),
        )


def _name_of(path: str) -> str:
    return f"_gatekeep_script_{zlib.crc32(os.fsencode(path)):08x}"


def _path_of(module: str) -> str:
    """Where a module's file is, found without importing what it is in; empty where there is none.

    The present folder comes last, as the daemons have it too, and console scripts have not.
    """
    for start in (None, [os.getcwd()]):
        places, name, found = start, "", None
        for part in module.split("."):
            name = f"{name}.{part}" if name else part
            specs = (finder.find_spec(name, places) for finder in sys.meta_path)
            found = next((spec for spec in specs if spec is not None), None)
            if found is None:
                break
            places = list(found.submodule_search_locations or ())
        if found is not None and found.has_location:
            return found.origin or ""
    return ""


def _stamp_of(path: str) -> tuple[int, ...] | None:
    """What differs between two versions of a file, or between one that we may read and one that we may not."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
