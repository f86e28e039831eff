"""Which requests go to which application. Pure."""

from __future__ import annotations

import re

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._app import AppTarget, target_of
from gatekeep.settings._script import ScriptSettings
from gatekeep.settings._spec import Spec, setting, text_of

_PREFIX = re.compile(r"(/(?!\.{1,2}(?:/|$))[^/\0?#\ud800-\udfff]+)*")
_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\]")


def _prefix(value: object) -> str:
    text = text_of("path", value)
    plain = text.removesuffix("/")
    if not _PREFIX.fullmatch(plain):
        raise SettingsError(
            f"path = {text!r}: allowed is a path's beginning, such as / or /shop, without //, /./, /../, ? and #"
        )
    return plain


def _host(value: object) -> str:
    text = text_of("host", value).lower().removesuffix(".")
    if text and not _HOST.fullmatch(text):
        raise SettingsError(
            f"host = {value!r}: allowed is a host's name without a port, such as www.example.com or *.example.com"
        )
    return text


def _app(value: object) -> AppTarget | None:
    return None if value is None else target_of(value)


@attrs.frozen(kw_only=True)
class MountSettings(ScriptSettings):
    """One entry of the table that leads a request to its application."""

    path: str = attrs.field(
        default="/",
        converter=_prefix,
        metadata={
            "spec": Spec(
                "The beginning of the paths that it is for: the application's SCRIPT_NAME. The longest that fits counts.",
                precedent="mod_wsgi's WSGIScriptAlias",
            )
        },
    )
    host: str = attrs.field(
        default="",
        converter=_host,
        metadata={
            "spec": Spec(
                "The host that it is for, *.example.com for all below it. Empty: whatever host is asked for."
            )
        },
    )
    group: str = setting("", "The process group; may be left out where there is one only.")
    app: AppTarget | None = attrs.field(
        default=None,
        converter=_app,
        metadata={"spec": Spec("Another application than the group's own, in the same processes.")},
    )

    def __str__(self) -> str:
        return f"{self.host}{self.path or '/'}"
