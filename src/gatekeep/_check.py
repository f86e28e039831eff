"""`gatekeep check`: whether the settings make sense, and the applications load in real daemon processes."""

from __future__ import annotations

from typing import Any

import anyio
import attrs

from gatekeep._errors import CannotStart
from gatekeep._events import SilentLogger
from gatekeep._gateway import Gateway
from gatekeep._groups import apps_of, share_module_path
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._settings import Settings


@attrs.frozen
class Loaded:
    """A group's applications have been loaded.

    Attributes:
        load_time: seconds that it took.
    """

    group: str
    apps: tuple[str, ...]
    load_time: float


class _LoadTimes(SilentLogger):
    """Hears how long a load took."""

    def __init__(self) -> None:
        self.load_time = 0.0

    def info(self, event: str, **fields: Any) -> None:
        if event == "process.ready":
            self.load_time = fields["load_time"]

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
    log = _LoadTimes()
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
        raise CannotStart(f"group {group.name}: {error}", error.details) from None
    return Loaded(group.name, tuple(map(str, apps_of(group, settings))), log.load_time)
