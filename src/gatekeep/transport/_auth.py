"""What scripts' answers mean, and who a client says that it is: mod_wsgi's contracts, RFC 7617 (Basic), RFC 7616 (Digest). Pure.

Whatever has no meaning refuses.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gatekeep._errors import Forbidden, ScriptFailed


class Credentials(NamedTuple):
    """What a client sent with the scheme Basic."""

    user: str
    password: str


def basic_credentials(authorization: str) -> Credentials | None:
    """From an Authorization field's value, latin-1 text; None where it is another scheme, or makes no sense."""
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(token.strip().encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        return None
    text = _text_of(decoded)
    user, colon, password = text.partition(":")
    # "The user-id and password MUST NOT contain any control characters" (RFC 7617 section 2).
    return Credentials(user, password) if colon and not _UNFIT.search(text) else None


_UNFIT = re.compile(r"[\x00-\x1f\ud800-\udfff]")


def _text_of(sent: bytes) -> str:
    try:
        return sent.decode()  # what we ask for (RFC 7617 section 2.1)
    except UnicodeDecodeError:
        return sent.decode("latin-1")


def basic_challenge(realm: str) -> str:
    """The value of WWW-Authenticate."""
    return f'Basic realm="{_quoted(realm)}", charset="UTF-8"'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


# --- digest

_PARAMETER = re.compile(r'\s*([!#$%&\'*+\-.^_`|~\w]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_COUNT = re.compile("[0-9A-Fa-f]{8}")
_HASHES: Mapping[str, Callable[[bytes], Any]] = {
    "md5": functools.partial(hashlib.md5, usedforsecurity=False),
    "sha-256": hashlib.sha256,
}
_HASH_DIGITS = {"md5": 32, "sha-256": 64}


class Digest(NamedTuple):
    """What a client sent with the scheme Digest, as far as it is needed.

    Attributes:
        nc: how often the client has used the nonce, this time included: eight hexadecimal digits.
    """

    user: str
    realm: str
    nonce: str
    uri: str
    response: str
    qop: str
    nc: str
    cnonce: str


def digest_of(authorization: str) -> Digest | None:
    """From an Authorization field's value; None where it is another scheme, or lacks something."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() != "digest":
        return None
    found: dict[str, str] = {}
    position = 0
    while position < len(rest):
        match = _PARAMETER.match(rest, position)
        if match is None or match[1].lower() in found:
            return None
        quoted = match[2]
        found[match[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match[3]
        position = match.end()
    try:
        user = _text_of(found["username"].encode("latin-1"))
        named = [found[name] for name in ("realm", "nonce", "uri", "response", "qop", "nc", "cnonce")]
    except (KeyError, UnicodeEncodeError):
        return None
    digest = Digest(user, *named)
    return digest if _COUNT.fullmatch(digest.nc) and not _UNFIT.search(user) else None


def digest_matches(digest: Digest, method: str, ha1: str, algorithm: str) -> bool:
    """Whether the client knows the password.

    Args:
        ha1: the hash of user:realm:password, as `get_realm_hash` returns it.
    """
    ha2 = _hashed(f"{method}:{digest.uri}", algorithm)
    expected = _hashed(
        f"{ha1.lower()}:{digest.nonce}:{digest.nc}:{digest.cnonce}:{digest.qop}:{ha2}", algorithm
    )
    return digest.qop == "auth" and hmac.compare_digest(
        expected.encode(), digest.response.lower().encode("utf-8", "replace")
    )


def _hashed(text: str, algorithm: str) -> str:
    return str(_HASHES[algorithm](text.encode("utf-8", "surrogateescape")).hexdigest())


def digest_challenge(realm: str, nonce: str, algorithm: str, *, stale: bool) -> str:
    """The value of WWW-Authenticate."""
    name = algorithm.upper()
    end = ", stale=true" if stale else ""
    return f'Digest realm="{_quoted(realm)}", nonce="{nonce}", algorithm={name}, qop="auth", charset="UTF-8"{end}'


# --- what scripts return


def judge_access(result: object) -> None:
    """Of `allow_access`: True allows, None has no opinion, False forbids.

    Raises:
        Forbidden: it was False.
        ScriptFailed: it was anything else.
    """
    if result is False:
        raise Forbidden("allow_access has refused it")
    if result is not True and result is not None:
        raise ScriptFailed(
            f"allow_access returned {_shown(result)}: allowed is True, False or None", status=403
        )


def judge_password(result: object, user: str) -> str | None:
    """Of `check_password`: True grants, a text grants as that user, False denies, None knows no such user.

    Returns:
        the user; None where it is denied.

    Raises:
        ScriptFailed: it was anything else.
    """
    if result is True:
        return user
    if result is False or result is None:
        return None
    if isinstance(result, str) and result and not _UNFIT.search(result):
        return result
    raise ScriptFailed(
        f"check_password returned {_shown(result)}: allowed is True, False, None or a user's name"
    )


def judge_realm_hash(result: object) -> str | None:
    """Of `get_realm_hash`: the hash, or None where there is no such user.

    Raises:
        ScriptFailed: it was anything else.
    """
    if result is None or (isinstance(result, str) and result):
        return result
    raise ScriptFailed(f"get_realm_hash returned {_shown(result)}: allowed is a text or None")


def check_hash(ha1: str, algorithm: str) -> None:
    """Raise `ScriptFailed` if that is no hash of the algorithm: what else a script returns, strangers may guess."""
    digits = _HASH_DIGITS[algorithm]
    if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", ha1):
        # It is not shown: it may be the password.
        raise ScriptFailed(
            f"get_realm_hash returned no hash: digest-algorithm = {algorithm} needs {digits} hexadecimal digits"
        )


def judge_groups(result: object, required: Iterable[str]) -> None:
    """Of `groups_for_user`: names, one of which must be required.

    Raises:
        Forbidden: none is.
        ScriptFailed: it returned anything else.
    """
    if isinstance(result, (str, bytes)) or not isinstance(result, Iterable):
        raise ScriptFailed(f"groups_for_user returned {_shown(result)}: allowed are names of groups")
    wanted, is_in_one = frozenset(required), False
    for name in result:
        if not isinstance(name, (str, bytes)):
            raise ScriptFailed(f"groups_for_user returned {_shown(name)} among its names: allowed is text")
        is_in_one = is_in_one or _text(name) in wanted
    if not is_in_one:
        raise Forbidden("its user is in none of the groups that are required")


_EXPANDED = re.compile(r"%\{(?:(GLOBAL|SERVER|RESOURCE)|ENV:([^}]+))\}")


def judge_choice(
    function: str, result: object, environ: Mapping[str, object] = MappingProxyType({})
) -> str | None:
    """Of the functions of a dispatch script: a name, or None to leave it as it is.

    Instead of a name mod_wsgi's `%{GLOBAL}` (the empty one), `%{SERVER}`, `%{RESOURCE}` and `%{ENV:name}` (of the environ).

    Raises:
        ScriptFailed: it was anything else.
    """
    if result is None:
        return None
    if not isinstance(result, (str, bytes)) or not result:
        raise ScriptFailed(f"{function} returned {_shown(result)}: allowed is a name or None")
    text = _text(result)
    if not text.startswith("%{"):
        return text
    server = f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
    known = {"GLOBAL": "", "SERVER": server, "RESOURCE": f"{server}|{environ.get('SCRIPT_NAME', '')}"}
    match = _EXPANDED.fullmatch(text)
    value = (known.get(match[1]) if match[1] else environ.get(match[2])) if match else None
    if not isinstance(value, str):
        raise ScriptFailed(
            f"{function} returned {_shown(text)}: allowed are %{{GLOBAL}}, %{{SERVER}}, %{{RESOURCE}} and %{{ENV:variable}}"
        )
    return value


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def _shown(value: object) -> str:
    return type(value).__name__ if not isinstance(value, (str, bytes, bool, int, float)) else repr(value)[:60]
