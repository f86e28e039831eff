"""The scripts of a mount: who may ask, who asks, who serves it. They run in threads, under script-timeout, and fail closed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import attrs

from gatekeep._errors import Forbidden, RequestFailed, ScriptFailed, Unauthorized
from gatekeep._events import Logger
from gatekeep._host import Clock
from gatekeep._script_files import CannotLoad, Script
from gatekeep._script_threads import Expired, NoThread, Raised, ScriptPools, ScriptThreads
from gatekeep._stages import Stage
from gatekeep.settings._app import AppTarget
from gatekeep.settings._script import ScriptSettings
from gatekeep.settings._script_target import ACCESS, DISPATCH, GROUPS, ScriptTarget
from gatekeep.transport import _auth
from gatekeep.transport._dispatch import HopDispatch, Target
from gatekeep.transport._nonces import Nonces

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_LABEL = re.compile(r"[^\0\ud800-\udfff]{1,200}")

T = TypeVar("T")


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
        self,
        target: ScriptTarget,
        script: Script,
        threads: ScriptThreads,
        timeout: float,
        log: Logger,
        status: int,
    ) -> None:
        self.name = str(target)
        self._script = script
        self._threads = threads
        self._timeout = timeout
        self._log = log
        self._status = status
        self._told = ""

    async def ask(
        self, functions: Sequence[str], environ: Mapping[str, str], *arguments: str, judge: Callable[..., T]
    ) -> T:
        """What the script's functions return, as judged.

        Args:
            functions: those of them that it has are called with the environ and the arguments, in order; it must have one.
            judge: is given what they return, None for those that it has not. It is called in the thread: what is returned may be
                a generator, and take its time, too.

        Raises:
            ScriptFailed: it came to no result.
            RequestFailed: the judge's.
        """
        copy = dict(environ, **{"wsgi.errors": _Errors(self._log, self.name)})
        asked = " and ".join(functions)
        try:
            result = await self._threads.run(
                partial(self._call, functions, copy, arguments, judge), self._timeout
            )
        except Expired as error:
            self._log.error(
                "script.hangs", script=self.name, function=asked, stage=Stage.ROUTE,
                timer="script-timeout", timeout=self._timeout, stack=error.stack,
            )  # fmt: skip
            reason = f"{asked} of {self.name} took longer than script-timeout ({self._timeout:g} s)"
            raise ScriptFailed(reason, "script-timeout", self._status) from None
        except NoThread as error:
            raise ScriptFailed(f"{asked} of {self.name} was not asked: {error}", "", self._status) from None
        except Raised as raised:
            raise self._failed(asked, raised) from None
        self._told = ""
        return cast(T, result)

    def _call(
        self,
        functions: Sequence[str],
        environ: dict[str, Any],
        arguments: tuple[str, ...],
        judge: Callable[..., T],
    ) -> T:
        script = self._script.load(self._timeout)
        found = [getattr(script, function, None) for function in functions]
        if all(function is None for function in found):
            raise CannotLoad(f"{self.name} has no {' or '.join(functions)}")
        return judge(*[None if function is None else function(environ, *arguments) for function in found])

    def _failed(self, asked: str, raised: Raised) -> RequestFailed:
        error = raised.error
        if isinstance(error, (Forbidden, ScriptFailed)):
            return error
        if not isinstance(error, CannotLoad):
            self._log.error("script.failed", script=self.name, function=asked, traceback=raised.details)
            return ScriptFailed(f"{asked} of {self.name} raised {raised}", "", self._status)
        if str(error) != self._told:  # once, and not with each request
            self._told = str(error)
            self._log.error(
                "script.load_failed", script=self.name, reason=str(error), traceback=error.details
            )
        return ScriptFailed(str(error), "", self._status)


class Scripts:
    """Those of one mount.

    Args:
        target, app: where requests go, and the application there, where nobody says anything else.
        files: gives the script at a place: the same one wherever it is asked for.
        groups: what a dispatch script may choose from, by name.
    """

    def __init__(
        self,
        settings: ScriptSettings,
        target: Target,
        app: AppTarget | None,
        files: Callable[[ScriptTarget], Script],
        threads: ScriptPools,
        clock: Clock,
        log: Logger,
        groups: Mapping[str, Choice],
    ) -> None:
        def role(target: ScriptTarget | None, status: int = 500) -> _Role | None:
            if target is None:
                return None
            return _Role(target, files(target), threads.of(target), settings.patience, log, status)

        self._settings = settings
        self._target, self._app = target, app
        self._clock = clock
        self._groups = groups
        self._nonces = Nonces(os.urandom(16))
        self._access = role(settings.access_script, 403)
        self._users = role(settings.auth_script)
        self._members = role(settings.group_script)
        self._choices = role(settings.dispatch_script)

    async def decide(self, environ: dict[str, str], prefix: str) -> tuple[Target, dict[str, str]]:
        """Let them decide about a request.

        Args:
            prefix: what a proxy has taken from its path.

        Returns:
            where it goes, and its environ, with REMOTE_USER and AUTH_TYPE where it is known who asks.

        Raises:
            Unauthorized, Forbidden, ScriptFailed: they refuse it.
        """
        if self._access is not None:
            host = environ.get("REMOTE_ADDR", "")
            await self._access.ask(ACCESS, environ, host, judge=_auth.judge_access)
        if self._users is not None:
            user = await self._identify(self._users, environ, prefix)
            # Texts of an environ are bytes read as latin-1 (PEP 3333).
            name = user.encode("utf-8").decode("latin-1")
            environ = {**environ, "REMOTE_USER": name, "AUTH_TYPE": self._settings.auth_type.capitalize()}
            if self._members is not None:
                judge = partial(_auth.judge_groups, required=self._settings.require_groups)
                await self._members.ask(GROUPS, environ, user, judge=judge)
            environ.pop("HTTP_AUTHORIZATION", None)
        if self._choices is None:
            return self._target, environ
        return await self._choose(self._choices, environ), environ

    # --- who asks

    async def _identify(self, users: _Role, environ: dict[str, str], prefix: str) -> str:
        given = environ.get("HTTP_AUTHORIZATION", "")
        if self._settings.auth_type == "digest":
            return await self._identify_by_digest(users, environ, prefix, given)
        credentials = _auth.basic_credentials(given)
        if credentials is None:
            raise self._unauthorized("no credentials of the scheme Basic were sent")
        judge = partial(_auth.judge_password, user=credentials.user)
        user = await users.ask(("check_password",), environ, *credentials, judge=judge)
        if not user:  # nobody's name is empty, whatever a script says
            raise self._unauthorized("check_password does not accept its credentials")
        return user

    async def _identify_by_digest(
        self, users: _Role, environ: dict[str, str], prefix: str, given: str
    ) -> str:
        algorithm, digest = self._settings.digest_algorithm, _auth.digest_of(given)
        target = environ["REQUEST_URI"]
        if (
            digest is None
            or not digest.user
            or digest.realm != self._settings.auth_realm
            or digest.uri not in (target, prefix + target)
        ):
            raise self._unauthorized("no credentials of the scheme Digest were sent for it")
        ha1 = await users.ask(
            ("get_realm_hash",), environ, digest.user, digest.realm, judge=_auth.judge_realm_hash
        )
        if ha1 is not None:
            _auth.check_hash(ha1, algorithm)
        if ha1 is None or not _auth.digest_matches(digest, environ["REQUEST_METHOD"], ha1, algorithm):
            raise self._unauthorized("its digest is wrong")
        if not self._nonces.use(digest.nonce, int(digest.nc, 16), self._clock.now()):
            # Whoever knows the password need not be asked for it again, though the nonce is not ours, or not since a restart.
            raise self._unauthorized(
                "its nonce is too old, or was used with the same count before", stale=True
            )
        return digest.user

    def _unauthorized(self, reason: str, *, stale: bool = False) -> Unauthorized:
        realm = self._settings.auth_realm
        if self._settings.auth_type == "digest":
            nonce = self._nonces.make(self._clock.now())
            challenge = _auth.digest_challenge(realm, nonce, self._settings.digest_algorithm, stale=stale)
        else:
            challenge = _auth.basic_challenge(realm)
        return Unauthorized(reason, [("WWW-Authenticate", challenge)])

    # --- who serves it

    async def _choose(self, choices: _Role, environ: dict[str, str]) -> Target:
        def judge(*results: object) -> list[str | None]:
            return [
                _auth.judge_choice(function, result, environ)
                for function, result in zip(DISPATCH, results, strict=True)
            ]

        group, separate, attribute = await choices.ask(DISPATCH, environ, judge=judge)
        dispatch, own = self._target.dispatch, self._app
        if group is not None:
            if group not in self._groups:
                known = ", ".join(self._groups)
                raise ScriptFailed(f"process_group returned {group!r}: there are the groups {known}")
            dispatch, its_app = self._groups[group]
            own = self._app if self._target.app else its_app
            if own is None:
                raise ScriptFailed(
                    f"process_group returned {group!r}: that group has no application of its own"
                )
        if attribute is not None and (own is None or not _NAME.fullmatch(attribute)):
            raise ScriptFailed(
                f"callable_object returned {attribute!r}: allowed is a name in the application's module"
            )
        if separate and not _LABEL.fullmatch(separate):
            raise ScriptFailed(
                f"application_group returned {separate[:60]!r}: allowed are up to 200 characters"
            )
        if own is None or (attribute is None and not separate):
            return Target(dispatch, self._target.app)
        if attribute is not None:
            own = attrs.evolve(own, attribute=attribute, factory=False)
        return Target(dispatch, f"{separate}\0{own}" if separate else str(own))
