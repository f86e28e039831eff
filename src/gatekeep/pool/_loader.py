"""Finds the application. Runs once, before the process says that it is ready: on a daemon's main thread, or on one of its own in
the gateway's process."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from gatekeep import _source
from gatekeep.pool._log import sendable, summarise
from gatekeep.settings._app import AppTarget, parse_app

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

DEFAULT_NAMES = ("application", "app")
"""Looked for, in this order, where the target names none: PEP 3333's and mod_wsgi's word, then Flask's and FastAPI's."""


class LoadError(Exception):
    """The application cannot be had: one line for people; `traceback` is the application's own, if it was at fault."""

    def __init__(self, reason: str, traceback: str = "") -> None:
        super().__init__(reason)
        self.traceback = traceback


def load(target: AppTarget, separate: str = "") -> Application:
    """Import the target, unless it is here already, and return the application.

    Args:
        separate: a script is loaded once for each such name (mod_wsgi's application group); modules are shared nevertheless.

    Raises:
        LoadError: there is no such thing, it is not callable, or its code raised.
    """
    if target.callable is not None:
        return target.callable
    module = _module(target, separate)
    found = _attribute(module, target)
    if target.factory:
        found = _call_factory(found, target)
    if not callable(found):
        raise LoadError(f"{target} is not callable: it is of type {type(found).__name__}")
    called = found if isinstance(found, type) else type(found).__call__
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(called):
        raise LoadError(
            f"{target} is an ASGI application; WSGI is served here: wrap it in a2wsgi.ASGIMiddleware"
        )
    return found  # type: ignore[no-any-return]


def import_scripts(scripts: Iterable[str]) -> None:
    """Import modules and scripts' paths, in order.

    Raises:
        LoadError: there is no such thing, or its code raised.
    """
    for script in scripts:
        try:
            _module(parse_app(script))
        except LoadError as error:
            raise LoadError(f"import-scripts: {error}", error.traceback) from None


def _module(target: AppTarget, separate: str = "") -> ModuleType:
    try:
        return _import_path(target.path, separate) if target.path else importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if target.module and (target.module == missing or target.module.startswith(missing + ".")):
            places = f"looked in {', '.join(sys.path[:3])} and {len(sys.path[3:])} more"
            closed = ", ".join(folder for folder in sys.path if _is_closed(folder))
            why = f"; closed to this process's user: {closed}" if closed else ""
            raise LoadError(f"no module named {missing!r} ({places}{why})") from None
        raise _application_error(target, error) from error
    # An application may do anything while it is imported, `sys.exit()` included.
    except BaseException as error:
        raise _application_error(target, error) from error


def _is_closed(folder: str) -> bool:
    """Whether this user may not enter it: the import system passes such a folder over in silence."""
    try:
        os.stat(os.path.join(folder, "."))
    except PermissionError:
        return True
    except (OSError, ValueError):
        pass
    return False


def _import_path(path: str, separate: str) -> ModuleType:
    full = os.path.abspath(path)
    if not os.path.isfile(full):
        if _is_closed(os.path.dirname(full)):
            raise LoadError(f"the folder of {full} is closed to this process's user")
        raise LoadError(f"there is no file {full}")
    name = "_gatekeep_" + re.sub(r"\W", "_", os.path.basename(full).rpartition(".")[0])
    if separate:
        name += f"_{zlib.crc32(separate.encode()):08x}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ != full:
        name += f"_{zlib.crc32(os.fsencode(full)):08x}"  # the same file name in another folder
        loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded  # it was among the import-scripts, or has two applications
    return _source.load_source(name, full)


def _attribute(module: ModuleType, target: AppTarget) -> Any:
    names = (target.attribute,) if target.attribute else DEFAULT_NAMES
    for name in names:
        found: Any = module
        for part in name.split("."):
            try:
                found = getattr(found, part, None)
            except BaseException as error:  # a module may have a `__getattr__` of its own
                raise _application_error(target, error) from error
        if found is not None:
            return found
    raise LoadError(
        f"{target.path or target.module} has no {' or '.join(names)}; give it as {target.path or target.module}:NAME"
    )


def _call_factory(factory: Any, target: AppTarget) -> Any:
    if not callable(factory):
        raise LoadError(f"{target} is no factory: it is of type {type(factory).__name__}")
    try:
        return factory()
    except BaseException as error:
        raise _application_error(target, error) from error


def _application_error(target: AppTarget, error: BaseException) -> LoadError:
    if isinstance(error, LoadError):
        return error
    return LoadError(f"{target} failed to load: {summarise(error)}", sendable("".join(_own_frames(error))))


def _own_frames(error: BaseException) -> list[str]:
    """The traceback without our frames and the import system's at its top: the first that people read is theirs."""
    frames = error.__traceback__
    while frames is not None and _is_foreign(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return traceback.format_exception(type(error), error, frames)


def _is_foreign(filename: str) -> bool:
    return (
        filename in (__file__, _source.__file__)
        or filename.startswith("<frozen importlib")
        or "importlib" in filename
    )
