"""`gatekeep check`: whether the settings make sense, the applications load in real daemon processes, and the scripts here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import anyio
import attrs

from gatekeep._errors import CannotStart
from gatekeep._events import SilentLogger
from gatekeep._gateway import Gateway
from gatekeep._groups import share_module_path
from gatekeep._script_files import CannotLoad, Script
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._script import ScriptSettings
from gatekeep.settings._script_target import ACCESS, DISPATCH, GROUPS, ScriptTarget
from gatekeep.settings._settings import Settings, apps_of

OUTPUT_LINES = 50
"""The last lines that an application has written, shown where it does not load."""


@attrs.frozen
class Loaded:
    """A group's applications have been loaded.

    Attributes:
        load_time: seconds that it took.
    """

    group: str
    apps: tuple[str, ...]
    load_time: float


class _Listener(SilentLogger):
    """Hears how long a load took, and what the application wrote meanwhile."""

    def __init__(self) -> None:
        self.load_time = 0.0
        self.output: deque[str] = deque(maxlen=OUTPUT_LINES)

    def info(self, event: str, **fields: Any) -> None:
        if event == "process.ready":
            self.load_time = fields["load_time"]
        if event == "process.started":
            self.output.clear()  # it is tried again, and says the same again
        if event == "app.output":
            self.output.append(str(fields["text"]))

    def warning(self, event: str, **fields: Any) -> None:
        self.info(event, **fields)

    def is_enabled_for(self, level: int) -> bool:
        return True


def load_all(settings: Settings) -> list[Loaded]:
    """Load each group's applications in a daemon process of its own, which nobody can reach, and end it.

    Raises:
        CannotStart: one of them does not load; its group is named.
        SettingsError: there is no such user, group or folder.
    """
    share_module_path(settings)
    return [_load(settings, group) for group in settings.groups]


def _load(settings: Settings, group: GroupSettings) -> Loaded:
    log = _Listener()
    alone = attrs.evolve(
        settings,
        binds=(),
        health_binds=(),
        groups=(attrs.evolve(group, processes=min(group.processes, 1)),),
        mounts=tuple(mount for mount in settings.mounts if mount.group in (group.name, "")),
        reload=attrs.evolve(settings.reload, reload=False),
    )

    async def start_and_stop() -> None:
        async with Gateway(alone, logger=log).serving(listen=False) as served:
            served.hurry()

    try:
        anyio.run(start_and_stop)
    except CannotStart as error:
        # A process that ends of itself may have said why, and nothing else does.
        details = error.details or "\n".join(log.output)
        raise CannotStart(f"group {group.name}: {error}", details) from None
    return Loaded(group.name, tuple(map(str, apps_of(group, settings))), log.load_time)


# --- scripts that decide about requests


def load_scripts(settings: Settings) -> list[str]:
    """Load the scripts of all mounts as the gateway does: in this process, each once. Returns their names.

    Raises:
        CannotStart: one cannot be loaded within its script-timeout, or has none of the functions that are asked for.
    """
    share_module_path(settings)
    files: dict[str, Script] = {}
    for mount in settings.mount_table:
        for setting, target, functions in _roles(mount):
            script = files.setdefault(str(target), Script(target))
            try:
                module = _in_time(script, mount.patience, str(target))
                if not any(hasattr(module, function) for function in functions):
                    raise CannotLoad(f"{target} has no {' or '.join(functions)}")
            except CannotLoad as error:
                raise CannotStart(f"{setting} of {mount}: {error}", error.details) from None
    return list(files)


def _roles(settings: ScriptSettings) -> Iterator[tuple[str, ScriptTarget, tuple[str, ...]]]:
    """The scripts that are set: the setting's name, the script, and the functions of which it must have one."""
    asked = "get_realm_hash" if settings.auth_type == "digest" else "check_password"
    for name, target, functions in (
        ("access-script", settings.access_script, ACCESS),
        ("auth-script", settings.auth_script, (asked,)),
        ("group-script", settings.group_script, GROUPS),
        ("dispatch-script", settings.dispatch_script, DISPATCH),
    ):
        if target is not None:
            yield name, target, functions


def _in_time(script: Script, patience: float, name: str) -> Any:
    """The script's module. One that hangs while it loads hangs a thread that nobody waits for.

    Raises:
        CannotLoad: it cannot be loaded.
    """
    found: list[Any] = []

    def load() -> None:
        try:
            found.append(script.load(patience))
        except CannotLoad as error:
            found.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(min(patience, threading.TIMEOUT_MAX))
    if not found:
        raise CannotLoad(f"{name} takes longer than script-timeout to load")
    if isinstance(found[0], CannotLoad):
        raise found[0]
    return found[0]
