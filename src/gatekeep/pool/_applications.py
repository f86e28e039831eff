"""The applications of a process: its group's own, those that are mounted beside it, and what dispatch scripts choose.

They share the interpreter, and with it all modules: beside each other, not isolated from each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gatekeep.pool._loader import Application, LoadError, load
from gatekeep.pool._script import Script, watch_script
from gatekeep.settings._app import AppTarget, parse_app

MOST = 100
"""How many a process may have beside those of the settings. Scripts name them, perhaps after what strangers send (`Host`)."""


class Applications:
    """Made when all that is known beforehand is loaded; `find` is for the worker threads.

    Args:
        targets: where they are, by the names that requests ask for them by; the group's own application first.
        reloading: "off", "on" or "strict" (script-reloading).

    Raises:
        LoadError: one of them cannot be had.
    """

    def __init__(self, targets: Mapping[str, AppTarget], reloading: str) -> None:
        self._loaded: dict[str, Application] = {}
        self._loading = threading.Lock()
        self._scripts: list[Script] = []
        for name, target in targets.items():
            began = time.time()
            self._loaded[name] = application = load(target)
            self._loaded.setdefault("", application)
            if reloading != "off":
                strict = reloading == "strict"
                self._scripts.append(watch_script(target.path, target.module, began, strict=strict))

        self._most = len(self._loaded) + MOST

    def find(self, name: str) -> Application:
        """The application of that name, empty for the group's own. One that is asked for the first time is loaded now; where
        that fails, what is returned raises the reason."""
        found = self._loaded.get(name)
        return found if found is not None else self._load(name)

    def _load(self, name: str) -> Application:
        with self._loading:
            if name not in self._loaded:
                try:
                    if len(self._loaded) >= self._most:
                        raise LoadError(
                            f"dispatch scripts have named {MOST} applications: there is no room for more"
                        )
                    separate, _, target = name.rpartition("\0")
                    self._loaded[name] = load(parse_app(target), separate)
                except LoadError as error:
                    return _raising(error)
            return self._loaded[name]

    def have_changed(self) -> bool:
        """Whether the file of one of them is another since it was loaded."""
        for script in self._scripts:  # noqa: SIM110 (a generator for each request costs more than the look)
            if script.has_changed():
                return True
        return False


def _raising(error: LoadError) -> Application:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        raise error

    return application
