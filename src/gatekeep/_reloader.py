"""For development: notices that a file has changed (`--reload`)."""

from __future__ import annotations

import fnmatch
import os
import threading
from collections.abc import Callable, Iterable

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from gatekeep._errors import SettingsError
from gatekeep.settings._reload import ReloadSettings

try:
    import watchfiles
except ImportError:
    watchfiles = None  # type: ignore[assignment]

IGNORED = frozenset(
    {
        "__pycache__",
        ".git",
        ".hg",
        ".svn",
        ".tox",
        ".venv",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        "node_modules",
    }
)
"""Folders in which nothing is watched."""

DEBOUNCE = 200
"""Milliseconds in which what changes counts as one change: an editor's save, a checkout."""


class Wanted:
    """Which files count. Pure.

    Args:
        include, exclude: patterns of file names (`*.py`), or of whole paths where they have a slash; `exclude` comes first.
    """

    def __init__(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        self._include, self._exclude = tuple(include), tuple(exclude)

    def __call__(self, change: object, path: str) -> bool:
        """Whether a changed path counts."""
        if not IGNORED.isdisjoint(path.split(os.sep)):
            return False
        return not _matches(path, self._exclude) and _matches(path, self._include)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    name = os.path.basename(path)
    return any(fnmatch.fnmatch(path if "/" in pattern else name, pattern) for pattern in patterns)


class Reloader:
    """Watches folders until it is cancelled.

    Args:
        folders: where, to begin with.
        changed: called with the paths that have changed.

    Raises:
        SettingsError: the library that watches is not installed, or a folder does not exist.
    """

    def __init__(
        self, settings: ReloadSettings, folders: Iterable[str], changed: Callable[[list[str]], None]
    ) -> None:
        if watchfiles is None:
            raise SettingsError('reload = True: this needs the library watchfiles (the extra "reload")')
        self._wanted = Wanted(settings.reload_include, settings.reload_exclude)
        self._folders = {os.path.realpath(folder): None for folder in (*folders, *settings.reload_dir)}
        if missing := [folder for folder in self._folders if not os.path.isdir(folder)]:
            raise SettingsError(f"reload-dir = {missing[0]!r}: there is no such folder")
        self._changed = changed
        self._watchers: TaskGroup | None = None

    def add(self, folders: Iterable[str]) -> None:
        """Watch these, too: modules were loaded from them."""
        new = [folder for folder in folders if os.path.isdir(folder) and not self._covers(folder)]
        self._folders |= dict.fromkeys(new)
        if new and self._watchers is not None:
            # A watcher of its own: what changes while one is replaced would go unnoticed.
            self._watchers.start_soon(self._watch, new)

    def _covers(self, folder: str) -> bool:
        return any(folder == each or folder.startswith(each + os.sep) for each in self._folders)

    async def run(self) -> None:
        """Watch."""
        async with anyio.create_task_group() as self._watchers:
            self._watchers.start_soon(self._watch, list(self._folders))

    async def _watch(self, folders: list[str]) -> None:
        stop = threading.Event()
        changes = watchfiles.watch(
            *folders,
            watch_filter=self._wanted,
            debounce=DEBOUNCE,
            stop_event=stop,
            raise_interrupt=False,
        )
        # Not `awatch`, which would keep one of the forty threads that all of the program around us shares.
        thread = anyio.CapacityLimiter(1)
        try:
            while found := await anyio.to_thread.run_sync(
                next, changes, None, limiter=thread, abandon_on_cancel=True
            ):
                self._changed(sorted(path for _, path in found))
        finally:
            stop.set()  # a thread that we have left looks at it every 50 ms
