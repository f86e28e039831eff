"""Settings of the scripts that decide about requests, of one mount or of all. Pure."""

from __future__ import annotations

from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._script_target import (
    ACCESS,
    AUTHENTICATION,
    DISPATCH,
    GROUPS,
    ScriptTarget,
    script_setting,
)
from gatekeep.settings._spec import never_if_zero, setting, several


def _group_name(text: str) -> str:
    if not text or not text.isprintable():
        raise SettingsError(f"require-groups = {text!r}: allowed is a group's name")
    return text


@attrs.frozen(kw_only=True)
class ScriptSettings:
    """Scripts that decide about requests, before anything of their bodies is read.

    Raises:
        SettingsError: a value is not allowed, or something is missing that another setting needs.
    """

    access_script: ScriptTarget | None = script_setting(
        "access-script",
        ACCESS,
        "A script whose allow_access(environ, host) says who may ask at all; else 403.",
        aliases=("--host-access-script",),
        precedent="mod_wsgi",
    )
    auth_script: ScriptTarget | None = script_setting(
        "auth-script",
        AUTHENTICATION,
        "A script whose check_password(environ, user, password), or get_realm_hash(environ, user, realm), knows users; else 401.",
        aliases=("--auth-user-script",),
        precedent="mod_wsgi",
    )
    auth_type: str = setting(
        "basic",
        "How clients prove who they are: basic sends the password, which needs TLS; digest does not.",
        choices=("basic", "digest"),
        precedent="mod_wsgi-express",
    )
    auth_realm: str = setting(
        "Restricted",
        "What browsers show beside the question for a password.",
        pattern=r"[ -~]{1,256}",
        described="1 to 256 printable ASCII characters",
    )
    digest_algorithm: str = setting(
        "md5",
        "What get_realm_hash returns: the hash of user:realm:password. sha-256 is safer, but not every client knows it.",
        choices=("md5", "sha-256"),
        precedent="Apache",
    )
    group_script: ScriptTarget | None = script_setting(
        "group-script",
        GROUPS,
        "A script whose groups_for_user(environ, user) names a user's groups; needs auth-script and require-groups.",
        aliases=("--auth-group-script",),
        precedent="mod_wsgi",
    )
    require_groups: tuple[str, ...] = several(
        "require-groups",
        "A group that a user must be in, or in another one of these; else 403; repeatable.",
        _group_name,
        item="group",
        aliases=("--auth-group",),
    )
    dispatch_script: ScriptTarget | None = script_setting(
        "dispatch-script",
        DISPATCH,
        "A script whose process_group(environ), application_group(environ), callable_object(environ) say who serves a request.",
        precedent="mod_wsgi",
    )
    script_timeout: float = setting(
        5.0,
        "How long a script that decides may take: to load, and with each request; then 500, or 403 for access. 0: for ever.",
        unit="seconds",
        least=0,
    )

    @group_script.validator
    def _needs_users(self, attribute: attrs.Attribute[Any], value: ScriptTarget | None) -> None:
        if value is None and self.require_groups:
            raise SettingsError("require-groups: group-script is needed, which knows who is in a group")
        if value is not None and self.auth_script is None:
            raise SettingsError(f"group-script = '{value}': auth-script is needed, which knows users")
        if value is not None and not self.require_groups:
            raise SettingsError(f"group-script = '{value}': require-groups is needed, or it decides nothing")

    @property
    def patience(self) -> float:
        """script-timeout in seconds, `math.inf` for never."""
        return never_if_zero(self.script_timeout)

    @property
    def has_scripts(self) -> bool:
        """Whether any script has a say."""
        return any(
            script is not None for script in (self.access_script, self.auth_script, self.dispatch_script)
        )
