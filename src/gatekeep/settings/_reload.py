"""The settings for developers: processes that start again when a file changes. Pure."""

from __future__ import annotations

import attrs

from gatekeep.settings._spec import setting, several


@attrs.frozen(kw_only=True)
class ReloadSettings:
    """For development: processes that start again when a file changes."""

    reload: bool = setting(
        False, "For development: start again when a file changes, and show why where the import fails."
    )
    reload_dir: tuple[str, ...] = several(
        "reload-dir",
        "A folder to watch, beside the current one and those that modules were loaded from; repeatable.",
        item="folder",
        aliases=("--reload-dirs", "--reload-paths"),
    )
    reload_include: tuple[str, ...] = several(
        "reload-include",
        "Patterns of names of files whose changes count; repeatable.",
        default=("*.py",),
        item="pattern",
    )
    reload_exclude: tuple[str, ...] = several(
        "reload-exclude", "Patterns of names of files whose changes do not count; repeatable.", item="pattern"
    )
