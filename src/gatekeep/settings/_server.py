"""The settings of the `gatekeep` program itself, which the library does not know. Pure."""

from __future__ import annotations

import attrs

from gatekeep.settings._spec import setting


@attrs.frozen(kw_only=True)
class ServerSettings:
    """How the program runs and what it logs."""

    loop: str = setting(
        "auto",
        "The event loop of the front; auto is uvloop where it is installed.",
        choices=("auto", "asyncio", "uvloop", "trio"),
    )
    chdir: str = setting(
        "",
        "Change to this folder first.",
        pattern=r"[^\0]*",
        described="a folder's path",
        aliases=("--working-dir",),
    )
    log_level: str = setting(
        "info", "What is logged: nothing below this.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "auto", "auto is console on a terminal, json otherwise.", choices=("auto", "console", "json")
    )
    access_log: bool = setting(True, "Whether each request is logged when it has ended.")
