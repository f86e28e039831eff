"""Credentials as strangers send them, and scripts' answers: whatever has no meaning refuses, and nothing raises anything else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from gatekeep._errors import Forbidden, ScriptFailed
from gatekeep.transport import _auth
from gatekeep.transport._auth import Digest, basic_credentials, digest_matches, digest_of

LATIN = st.text(st.characters(max_codepoint=255))
SECRET = b"secret of ours...."


def basic(user_pass: bytes) -> str:
    return f"Basic {base64.b64encode(user_pass).decode()}"


# --- Basic


def test_the_example_of_rfc_7617() -> None:
    assert basic_credentials("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==") == ("Aladdin", "open sesame")
    assert basic_credentials("Basic dGVzdDoxMjPCow==") == ("test", "123£")


@pytest.mark.parametrize(
    ("sent", "user", "password"),
    [
        (b"a:", "a", ""),
        (b"a:b:c", "a", "b:c"),
        ("Jürgen:groß".encode(), "Jürgen", "groß"),
        ("Jürgen:groß".encode("latin-1"), "Jürgen", "groß"),
        ("日本:x".encode(), "日本", "x"),
        (b'DOMAIN\\"me:x', 'DOMAIN\\"me', "x"),
    ],
)
def test_a_user_and_a_password_are_told_apart(sent: bytes, user: str, password: str) -> None:
    assert basic_credentials(basic(sent)) == (user, password)
    assert basic_credentials(basic(sent).replace("Basic", " bASIC ")) == (user, password)


@pytest.mark.parametrize(
    "sent",
    [
        "", "Basic", "Basic ", "Basic\tYTpi", "Bearer YTpi", "BasicYTpi", "YTpi", "Basic YTpi,Basic YTpi", "Basic YTpi YTpi",
        "Basic YTp", "Basic YTp\xe9", "Basic YT-_", basic(b"no colon"), basic(b"a\0b:c"), basic(b"a:b\nc"),
        'Basic realm="x"',
    ],
)  # fmt: skip
def test_what_is_not_whole_and_plain_is_nobody(sent: str) -> None:
    assert basic_credentials(sent) is None


@given(LATIN | st.binary().map(basic))
def test_nothing_that_a_client_sends_raises_and_who_is_found_was_sent(sent: str) -> None:
    found = basic_credentials(sent)
    if found is not None:
        assert ":" not in found.user
        assert sent.strip().lower().startswith("basic ")
        token = base64.b64decode(sent.strip()[6:].strip())
        whole = f"{found.user}:{found.password}"
        assert token in (whole.encode(), whole.encode("latin-1", "replace"))
        assert not re.search(r"[\0-\x1f]", whole)


# --- Digest

RFC_7616 = (
    'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm={algorithm}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
    'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="{response}", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
RESPONSES = {
    "md5": "8ca523f5e9506fed4657c9700eebdbec",
    "sha-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
}
HASHES: dict[str, Callable[[bytes], Any]] = {"md5": hashlib.md5, "sha-256": hashlib.sha256}


def hash_of(algorithm: str, password: str = "Circle of Life") -> str:
    return str(HASHES[algorithm](f"Mufasa:http-auth@example.org:{password}".encode()).hexdigest())


def example_of(algorithm: str) -> str:
    return RFC_7616.format(algorithm=algorithm.upper(), response=RESPONSES[algorithm])


@pytest.mark.parametrize("algorithm", list(HASHES))
def test_the_example_of_rfc_7616(algorithm: str) -> None:
    digest = digest_of(example_of(algorithm))
    assert digest is not None
    assert (digest.user, digest.realm, digest.uri) == ("Mufasa", "http-auth@example.org", "/dir/index.html")
    assert digest_matches(digest, "GET", hash_of(algorithm), algorithm)
    assert digest_matches(digest, "GET", hash_of(algorithm).upper(), algorithm)
    assert not digest_matches(digest, "HEAD", hash_of(algorithm), algorithm)
    assert not digest_matches(digest, "GET", hash_of(algorithm, "circle of life"), algorithm)


@pytest.mark.parametrize("algorithm", list(HASHES))
@pytest.mark.parametrize("part", Digest._fields)
def test_of_all_that_is_signed_nothing_can_be_changed(part: str, algorithm: str) -> None:
    digest = digest_of(example_of(algorithm))
    assert digest is not None
    changed = digest._replace(**{part: getattr(digest, part) + "x"})
    # User and realm are in the hash that the script looks up for them.
    is_the_scripts = part in ("user", "realm")
    assert digest_matches(changed, "GET", hash_of(algorithm), algorithm) is is_the_scripts


@pytest.mark.parametrize("algorithm", list(HASHES))
def test_the_older_digest_without_qop_and_that_of_a_session_are_not_ours(algorithm: str) -> None:
    assert digest_of(example_of(algorithm).replace("qop=auth, ", "")) is None
    digest = digest_of(example_of(algorithm).replace("qop=auth,", "qop=auth-int,"))
    assert digest is not None
    assert not digest_matches(digest, "GET", hash_of(algorithm), algorithm)


@pytest.mark.parametrize(
    "change",
    [
        ('username="Mufasa"', "username*=UTF-8''Mufasa"),
        ('username="Mufasa"', 'username="Mufasa", username="Scar"'),
        ('username="Mufasa"', 'username="Mu\\fasa'),
        ('username="Mufasa"', 'USERNAME="Scar", username="Mufasa"'),
        ("nc=00000001,", ""),
        ("nc=00000001,", "nc=,"),
        ("nc=00000001,", "nc=0000 0001,"),
        ("nc=00000001,", "nc 00000001,"),
        ("Digest ", "Digest Digest "),
        ("Digest ", "Basic "),
        ("Digest ", "Digest\t"),
        ("/dir/index.html", '/dir/index.html"'),
    ],
)
def test_what_is_not_whole_is_nobody(change: tuple[str, str]) -> None:
    sent = example_of("md5").replace(*change)
    assert sent != example_of("md5")
    assert digest_of(sent) is None


def test_quotes_and_other_letters_in_a_users_name() -> None:
    sent = example_of("md5").replace('"Mufasa"', r'"D\\M\"u, f=\"x"')
    digest = digest_of(sent)
    assert digest is not None
    assert digest.user == r'D\M"u, f="x'
    for name in ("Jürgen", "日本"):
        digest = digest_of(example_of("md5").replace("Mufasa", name.encode().decode("latin-1")))
        assert digest is not None
        assert digest.user == name


@given(
    LATIN
    | LATIN.map(lambda text: f"Digest {text}")
    | st.builds(
        lambda at, text: example_of("md5")[:at] + text + example_of("md5")[at:], st.integers(0, 400), LATIN
    )
    | st.integers(0, 400).map(lambda at: example_of("md5")[:at])
)
@example('Digest username="\\')
@example('Digest username="a\\"')
@example("Digest " + "a" * 100_000)
@example('Digest a="' + "\\" * 100_000)
@example("Digest a=" + " " * 100_000 + "b")
def test_a_digest_of_whatever_does_not_raise_and_only_the_whole_one_is_granted(sent: str) -> None:
    digest = digest_of(sent)
    if digest is None:
        return
    granted = digest_matches(digest, "GET", hash_of("md5"), "md5")
    signed = digest_of(example_of("md5"))
    assert signed is not None
    assert not granted or digest._replace(user="", realm="") == signed._replace(user="", realm="")


# --- challenges


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_a_realm_is_quoted_in_challenges(realm: str) -> None:
    for challenge in (
        _auth.basic_challenge(realm),
        _auth.digest_challenge(realm, "n", "sha-256", stale=True),
    ):
        match = re.search(r'realm="((?:[^"\\]|\\.)*)"', challenge)
        assert match is not None
        assert re.sub(r"\\(.)", r"\1", match[1]) == realm


def test_a_challenge_says_what_is_asked_for() -> None:
    assert _auth.basic_challenge("Staff") == 'Basic realm="Staff", charset="UTF-8"'
    assert _auth.digest_challenge("Staff", "n", "md5", stale=False) == (
        'Digest realm="Staff", nonce="n", algorithm=MD5, qop="auth", charset="UTF-8"'
    )
    assert _auth.digest_challenge("Staff", "n", "sha-256", stale=True).endswith(", stale=true")


# --- what scripts return

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
    st.lists(st.one_of(st.none(), st.text(), st.binary(), st.integers()), max_size=3),
    st.dictionaries(st.text(), st.integers(), max_size=2), st.builds(object), st.just(ValueError("x")),
)  # fmt: skip


@given(ANYTHING)
def test_access_is_allowed_by_true_and_none_alone(result: object) -> None:
    allowed = False
    with contextlib.suppress(Forbidden, ScriptFailed):
        _auth.judge_access(result)
        allowed = True
    assert allowed is (result is True or result is None)


@pytest.mark.parametrize("result", [1, "True", 0, "", (True,), object(), float("nan")])
def test_access_that_answers_something_else_is_refused_with_403(result: object) -> None:
    with pytest.raises(ScriptFailed, match="allowed is True, False or None") as failed:
        _auth.judge_access(result)
    assert failed.value.status == 403


@given(ANYTHING, st.text(min_size=1))
def test_a_password_is_accepted_by_true_and_a_name_alone(result: object, user: str) -> None:
    try:
        granted = _auth.judge_password(result, user)
    except ScriptFailed:
        assert result is not True
        assert result is not False
        assert result is not None
        return
    if granted is not None:
        assert granted == (user if result is True else result)
        assert granted
    else:
        assert result is None or result is False


@pytest.mark.parametrize("result", ["", "a\nb", "\0", "\ud800", b"user", 1, [True]])
def test_a_user_that_is_no_text_for_a_field_is_none(result: object) -> None:
    with pytest.raises(ScriptFailed):
        _auth.judge_password(result, "user")


@pytest.mark.parametrize("algorithm", list(HASHES))
def test_a_realm_hash_that_is_a_password_or_of_another_algorithm_is_refused_and_not_shown(
    algorithm: str,
) -> None:
    _auth.check_hash(hash_of(algorithm), algorithm)
    other = next(name for name in HASHES if name != algorithm)
    for wrong in ("Circle of Life", hash_of(other), hash_of(algorithm) + "\n", f" {hash_of(algorithm)}"[:-1]):
        with pytest.raises(ScriptFailed) as failed:
            _auth.check_hash(wrong, algorithm)
        assert "Circle" not in str(failed.value)


@given(ANYTHING, st.sets(st.text(min_size=1), min_size=1, max_size=3))
@example(["staff"], {"staff"})
@example("staff", {"staff"})
@example(b"\xff", {"\ufffd"})
def test_groups_are_matched_whole(result: object, required: set[str]) -> None:
    granted = False
    with contextlib.suppress(Forbidden, ScriptFailed):
        _auth.judge_groups(result, required)
        granted = True
    if granted:
        assert isinstance(result, (list, dict))
        assert {os.fsdecode(name) for name in result} & required


def test_groups_may_come_in_any_iterable_and_as_bytes() -> None:
    for names in (["a", "staff"], ("staff",), {"staff": 1}, iter(["staff"]), {b"staff"}):
        _auth.judge_groups(names, ["staff"])
    with pytest.raises(Forbidden):
        _auth.judge_groups([], ["staff"])
    with pytest.raises(ScriptFailed, match="among its names"):
        _auth.judge_groups(["staff", None], ["staff"])


@given(ANYTHING)
def test_a_choice_is_a_name_or_none(result: object) -> None:
    environ = {"SERVER_NAME": "x"}
    try:
        choice = _auth.judge_choice("process_group", result, environ)
    except ScriptFailed:
        return
    assert result is None or isinstance(result, (str, bytes))
    assert (choice is None) is (result is None)


@pytest.mark.parametrize(
    ("result", "choice"),
    [
        ("web", "web"),
        (b"web", "web"),
        ("%{GLOBAL}", ""),
        ("%{SERVER}", "example.com:8000"),
        ("%{RESOURCE}", "example.com:8000|/shop"),
        (b"%{ENV:REMOTE_USER}", "grace"),
        ("100%", "100%"),
    ],
)
def test_choices_are_expanded_as_mod_wsgi_does(result: object, choice: str) -> None:
    environ = {
        "SERVER_NAME": "example.com", "SERVER_PORT": "8000", "SCRIPT_NAME": "/shop", "REMOTE_USER": "grace",
        "wsgi.errors": object(),
    }  # fmt: skip
    assert _auth.judge_choice("process_group", result, environ) == choice
    for wrong in ("%{HOST}", "%{ENV:NONE}", "%{ENV:wsgi.errors}", "%{GLOBAL}x", "%{"):
        with pytest.raises(ScriptFailed, match="allowed are"):
            _auth.judge_choice("process_group", wrong, environ)
