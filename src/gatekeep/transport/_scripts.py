"""The scripts of a mount: who may ask, who asks, who serves it. They run in threads, under script-timeout, and fail closed."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import attrs

from gatekeep._errors import ScriptFailed, Unauthorized
from gatekeep._events import Logger
from gatekeep._host import Clock
from gatekeep._script_files import CannotLoad, Script
from gatekeep._script_threads import Expired, NoThread, Raised, ScriptThreads
from gatekeep._stages import Stage
from gatekeep.settings._app import AppTarget
from gatekeep.settings._script import ScriptSettings
from gatekeep.settings._script_target import ScriptTarget
from gatekeep.transport import _auth
from gatekeep.transport._dispatch import HopDispatch, Target

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_LABEL = re.compile(r"[^\0]{1,200}")


class Choice(NamedTuple):
    """A group that a dispatch script may choose."""

    dispatch: HopDispatch
    app: AppTarget | None


class _Errors:
    """`wsgi.errors` for scripts: what they write there is logged."""

    def __init__(self, log: Logger, script: str) -> None:
        self._log, self._script = log, script

    def write(self, text: str) -> int:
        if text.strip():
            self._log.warning("script.said", script=self._script, text=text.rstrip())
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None: ...


class _Role:
    """One script in one role.

    Args:
        status: what a request gets that it does not decide about.
    """

    def __init__(
        self, target: ScriptTarget, threads: ScriptThreads, timeout: float, log: Logger, status: int = 500
    ) -> None:
        self._script = Script(target)
        self._threads = threads
        self._timeout = timeout
        self._log = log
        self._status = status
        self._told: CannotLoad | None = None
        self.name = str(target)

    async def ask(
        self, function: str, environ: Mapping[str, str], *arguments: str, needed: bool = True
    ) -> Any:
        """What the script's function returns; None where it has no such function and needs none.

        Raises:
            ScriptFailed: it came to no result.
        """
        copy = dict(environ, **{"wsgi.errors": _Errors(self._log, self.name)})
        call = partial(self._call, function, copy, arguments, needed)
        try:
            return await self._threads.run(call, self._timeout)
        except Expired as error:
            self._log.error(
                "script.hangs", script=self.name, function=function, stage=Stage.ROUTE,
                timer="script-timeout", timeout=self._timeout, stack=error.stack,
            )  # fmt: skip
            reason = f"{function} of {self.name} took longer than script-timeout ({self._timeout:g} s)"
            raise ScriptFailed(reason, "script-timeout", self._status) from None
        except NoThread as error:
            raise ScriptFailed(
                f"{function} of {self.name} was not asked: {error}", "", self._status
            ) from None
        except Raised as raised:
            raise self._failed(function, raised.error) from None

    def _failed(self, function: str, error: BaseException) -> ScriptFailed:
        if not isinstance(error, CannotLoad):
            text = "".join(traceback.format_exception(error))
            self._log.error("script.failed", script=self.name, function=function, traceback=text)
            return ScriptFailed(f"{function} of {self.name} raised {type(error).__name__}", "", self._status)
        if error is not self._told:  # once for each version
            self._told = error
            self._log.error(
                "script.load_failed", script=self.name, reason=str(error), traceback=error.details
            )
        return ScriptFailed(str(error), "", self._status)

    def _call(self, function: str, environ: dict[str, Any], arguments: tuple[str, ...], needed: bool) -> Any:
        found: Callable[..., Any] | None = self._script.function(function)
        if found is None:
            if needed:
                raise CannotLoad(f"{self.name} has no {function}")
            return None
        return found(environ, *arguments)


class Scripts:
    """Those of one mount.

    Args:
        groups: what a dispatch script may choose from, by name.
    """

    def __init__(
        self,
        settings: ScriptSettings,
        threads: ScriptThreads,
        clock: Clock,
        log: Logger,
        groups: Mapping[str, Choice],
    ) -> None:
        def role(target: ScriptTarget | None, status: int = 500) -> _Role | None:
            return None if target is None else _Role(target, threads, settings.patience, log, status)

        self._settings = settings
        self._clock = clock
        self._groups = groups
        self._secret = os.urandom(16)
        self._access = role(settings.access_script, 403)
        self._users = role(settings.auth_script)
        self._members = role(settings.group_script)
        self._choices = role(settings.dispatch_script)

    async def decide(
        self, environ: dict[str, str], target: Target, app: AppTarget | None
    ) -> tuple[Target, dict[str, str]]:
        """Let them decide about a request.

        Args:
            target, app: where it goes where nobody says anything else.

        Returns:
            where it goes, and its environ, with REMOTE_USER and AUTH_TYPE where it is known who asks.

        Raises:
            Unauthorized, Forbidden, ScriptFailed: they refuse it.
        """
        if self._access is not None:
            host = environ.get("REMOTE_ADDR", "")
            _auth.judge_access(await self._access.ask("allow_access", environ, host))
        if self._users is not None:
            user = await self._identify(self._users, environ)
            environ = {**environ, "REMOTE_USER": user, "AUTH_TYPE": self._settings.auth_type.capitalize()}
            if self._members is not None:
                names = await self._members.ask("groups_for_user", environ, user)
                _auth.judge_groups(names, self._settings.require_groups)
            del environ["HTTP_AUTHORIZATION"]
        if self._choices is not None:
            target = await self._choose(self._choices, environ, target, app)
        return target, environ

    # --- who asks

    async def _identify(self, users: _Role, environ: dict[str, str]) -> str:
        given = environ.get("HTTP_AUTHORIZATION", "")
        if self._settings.auth_type == "digest":
            return await self._identify_by_digest(users, environ, given)
        credentials = _auth.basic_credentials(given)
        if credentials is None:
            raise self._unauthorized("no credentials of the scheme Basic were sent")
        result = await users.ask("check_password", environ, *credentials)
        user = _auth.judge_password(result, credentials.user)
        if not user:  # nobody's name is empty, whatever a script says
            raise self._unauthorized("check_password does not accept its credentials")
        return user

    async def _identify_by_digest(self, users: _Role, environ: dict[str, str], given: str) -> str:
        algorithm, digest = self._settings.digest_algorithm, _auth.digest_of(given)
        if (
            digest is None
            or digest.realm != self._settings.auth_realm
            or digest.uri != environ["REQUEST_URI"]
        ):
            raise self._unauthorized("no credentials of the scheme Digest were sent for it")
        ha1 = _auth.judge_realm_hash(await users.ask("get_realm_hash", environ, digest.user, digest.realm))
        if ha1 is None or not _auth.digest_matches(digest, environ["REQUEST_METHOD"], ha1, algorithm):
            raise self._unauthorized("its digest is wrong")
        age = _auth.nonce_age(digest.nonce, self._clock.wall(), self._secret)
        if age is None or age > _auth.NONCE_LIFE:
            raise self._unauthorized("its nonce is too old", stale=age is not None)
        return digest.user

    def _unauthorized(self, reason: str, *, stale: bool = False) -> Unauthorized:
        realm = self._settings.auth_realm
        if self._settings.auth_type == "digest":
            nonce = _auth.make_nonce(self._clock.wall(), self._secret)
            challenge = _auth.digest_challenge(realm, nonce, self._settings.digest_algorithm, stale=stale)
        else:
            challenge = _auth.basic_challenge(realm)
        return Unauthorized(reason, [("WWW-Authenticate", challenge)])

    # --- who serves it

    async def _choose(
        self, choices: _Role, environ: dict[str, str], target: Target, app: AppTarget | None
    ) -> Target:
        async def ask(function: str) -> str | None:
            return _auth.judge_choice(function, await choices.ask(function, environ, needed=False))

        group = await ask("process_group")
        separate = await ask("application_group")
        attribute = await ask("callable_object")
        dispatch, own = target.dispatch, app
        if group is not None:
            if group not in self._groups:
                known = ", ".join(self._groups)
                raise ScriptFailed(f"process_group returned {group!r}: there are the groups {known}")
            dispatch, its_app = self._groups[group]
            own = app if target.app else its_app
        if attribute is not None and (own is None or not _NAME.fullmatch(attribute)):
            raise ScriptFailed(
                f"callable_object returned {attribute!r}: allowed is a name in the application's module"
            )
        if separate is not None and not _LABEL.fullmatch(separate):
            raise ScriptFailed(
                f"application_group returned {separate[:60]!r}: allowed are up to 200 characters"
            )
        if own is None or (attribute is None and separate is None):
            return Target(dispatch, target.app)
        if attribute is not None:
            own = attrs.evolve(own, attribute=attribute, factory=False)
        return Target(dispatch, f"{separate or ''}\0{own}" if separate else str(own))
