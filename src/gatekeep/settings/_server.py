"""The settings of the `gatekeep` program itself, which the library does not know. Pure."""

from __future__ import annotations

import attrs

from gatekeep._access_format import AccessFormat
from gatekeep.settings._spec import setting, several


def _check_access_format(text: str) -> None:
    if text:
        AccessFormat(text)


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
    log_file: str = setting(
        "-",
        "The file that the log is appended to; SIGUSR1 opens it again (logrotate). - is standard output.",
        pattern=r"[^\0]+",
        described="a file's path",
        aliases=("--error-logfile", "--error-log"),
    )
    pid_file: str = setting(
        "",
        "A file that holds the pid of the gateway while it serves.",
        pattern=r"[^\0]*",
        described="a file's path",
        aliases=("-p", "--pid"),
    )
    env_file: tuple[str, ...] = several(
        "env-file",
        "A file of NAME=VALUE lines, variables for the application's processes; env, and variables that are set already, "
        "override it. Repeatable.",
        item="file",
        aliases=("--env-files",),
    )
    access_log: bool = setting(True, "Whether each request is logged when it has ended.")
    access_log_format: str = setting(
        "",
        'The form of a request\'s line, in gunicorn\'s atoms: %(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s". '
        "Empty: that of log-format.",
        check=_check_access_format,
        aliases=("--access-logformat", "--access-log-fmt"),
    )
