"""Whether the application's script has changed since it was loaded. The check of every pickup, so it must cost little.

"Each daemon worker checks the WSGI script file's modification time on every request dispatch."
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable
from types import ModuleType

PAUSE = 0.05
"""Seconds for which one look counts, where the request that comes is served anyway."""


TICK = 0.010
"""Seconds by which a file's modification time may lag behind the clock: the kernel takes its last tick's."""

PATIENCE = 1.0
"""Seconds that a thread waits while another one looks, where every request must be asked about."""


class Script:
    """The file that the application was loaded from. Made when it is loaded.

    Args:
        path: the file; empty where there is none, and then it never changes.
        began: when the load began, in seconds since the epoch.
        reload_required: the script's own word on whether it must be loaded again, called with the path (mod_wsgi's hook).
        pause: seconds for which one look counts.
    """

    def __init__(
        self, path: str, began: float, reload_required: Callable[[str], bool] | None, pause: float
    ) -> None:
        self._path = path
        self._version = _version_of(path)
        if (began - TICK) * 1e9 <= self._version <= time.time() * 1e9:
            self._version = 1  # it was written while it was loaded: nobody knows which version that was
        self._reload_required = reload_required
        self._pause = pause
        self._next_look = 0.0
        self._looking = threading.Lock()

    def has_changed(self) -> bool:
        """Whether there is another version now."""
        now = time.monotonic()
        if now < self._next_look or not self._version:
            return False
        if not self._looking.acquire(timeout=0 if self._pause else PATIENCE):
            return False
        try:
            self._next_look = now + self._pause
            return _version_of(self._path) not in (0, self._version) or self._asks_itself()
        finally:
            self._looking.release()

    def _asks_itself(self) -> bool:
        if self._reload_required is None:
            return False
        try:
            return bool(self._reload_required(self._path))
        except BaseException:
            # Whatever it raises, `sys.exit()` included: it is the script's own business, and no request's.
            traceback.print_exc()
            return False


def _version_of(path: str) -> int:
    """A file's modification time in nanoseconds; 0 where there is no such file (in the middle of a deployment, say)."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def watch_script(path: str, module: str, began: float, *, strict: bool) -> Script:
    """The script of an application that was loaded from a path, or as a module.

    Args:
        began: when that began, in seconds since the epoch.
        strict: whether every request must be asked about.
    """
    loaded = _module_of(path, module)
    hook = getattr(loaded, "reload_required", None)
    file = getattr(loaded, "__file__", None) or ""
    return Script(file, began, hook if callable(hook) else None, 0.0 if strict else PAUSE)


def _module_of(path: str, module: str) -> ModuleType | None:
    if not path:
        return sys.modules.get(module)
    full = os.path.abspath(path)
    return next(
        (each for each in tuple(sys.modules.values()) if getattr(each, "__file__", None) == full), None
    )


def module_folders() -> list[str]:
    """The folders of all loaded modules that are not installed, but somebody's own work."""
    files = (getattr(module, "__file__", None) for module in tuple(sys.modules.values()))
    folders = {os.path.dirname(os.path.realpath(file)) for file in files if isinstance(file, str)}
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    installed = tuple({*map(os.path.realpath, sysconfig.get_paths().values()), ours})
    return sorted(folder for folder in folders if not folder.startswith(installed))
