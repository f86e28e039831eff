"""Variables of other servers that are set and not read here: who moves should not lose a limit silently. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gatekeep.settings._declared import declared, singular
from gatekeep.settings._foreign_flags import EXTRA_FILES, PREFIXES, foreign_flags
from gatekeep.settings._spec import dashed
from gatekeep.settings._understood import Note, foreign_aliases
from gatekeep.settings._uwsgi import UWSGI

PREFIXED = ("GUNICORN_", "UVICORN_", "GRANIAN_", "HYPERCORN_", "UWSGI_", "PUMA_")
"""How they begin."""

_THEIR_OWN = frozenset({"GUNICORN_FD", "GUNICORN_PID", "UWSGI_ORIGINAL_PROC_NAME", "UWSGI_RELOADS"})
"""Those that these servers set themselves, for their processes."""

_KNOWN = {
    "GUNICORN_CMD_ARGS": "$GATEKEEP_CMD_ARGS, which takes gunicorn's flags, too",
    "UVICORN_APP": "$GATEKEEP_APP",
    "GRANIAN_APP": "$GATEKEEP_APP",
    "GRANIAN_LOG_ENABLED": "$GATEKEEP_LOG_LEVEL",
    "GRANIAN_LOG_ACCESS_ENABLED": "$GATEKEEP_ACCESS_LOG",
    "PUMA_PERSISTENT_TIMEOUT": "$GATEKEEP_KEEP_ALIVE_TIMEOUT",
    "PUMA_MIN_THREADS": "$GATEKEEP_THREADS",
    "PUMA_MAX_THREADS": "$GATEKEEP_THREADS",
    "PUMA_WORKERS": "$GATEKEEP_PROCESSES",
}

_BINDS = frozenset({"--host", "--port", "--uds", "--fd"})


def unread(environment: Mapping[str, str]) -> Iterator[Note]:
    """One remark for each that is set; their values are not named, which may be secrets."""
    for variable, value in environment.items():
        if value and variable.startswith(PREFIXED) and variable not in _THEIR_OWN:
            use, reason = _KNOWN.get(variable, ""), ""
            if not use:
                use, reason = _instead(variable)
            yield (
                "environment.unread",
                {
                    "variable": variable,
                    **({"use": use} if use else {}),
                    **({"reason": reason} if reason else {}),
                },
            )


def _instead(variable: str) -> tuple[str, str]:
    """Our variable or flag for another server's, or why there is none."""
    server, _, name = variable.partition("_")
    plain = name.lower().replace("_", "-")
    if server == "UWSGI":
        rule = UWSGI.get(plain)
        if rule is None:
            return "", ""
        return (_variable(rule.setting, rule.unit), "") if rule.setting else ("", rule.reason)
    return _of_flag(f"--{plain}")


def _of_flag(flag: str) -> tuple[str, str]:
    if flag in _BINDS:
        return "$GATEKEEP_BIND", ""
    if flag in PREFIXES or flag in (EXTRA_FILES, "--factory"):
        return flag, ""
    if flag in foreign_aliases():
        name, alias = foreign_aliases()[flag]
        return _variable(name, alias.unit), ""
    if flag in foreign_flags():
        return "", foreign_flags()[flag].reason
    for name, (_, attribute) in declared().items():
        if flag == f"--{dashed(name)}" or flag in attribute.metadata["spec"].aliases:
            return _variable(name, ""), ""
    return "", ""


def _variable(name: str, unit: str) -> str:
    return f"$GATEKEEP_{singular(name).upper()}" + (f", with the unit: {unit}" if unit else "")
