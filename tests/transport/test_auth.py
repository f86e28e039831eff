"""What scripts' answers mean, and who a client says that it is."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gatekeep._errors import Forbidden, ScriptFailed
from gatekeep.transport import _auth
from gatekeep.transport._auth import Credentials

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=20)
FIELD = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80)


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@given(TEXT.filter(lambda user: ":" not in user), TEXT)
def test_credentials_arrive_as_they_were_typed(user: str, password: str) -> None:
    assert _auth.basic_credentials(basic(f"{user}:{password}".encode())) == Credentials(user, password)


def test_a_password_may_have_colons_and_what_is_no_utf_8_is_latin_1() -> None:
    assert _auth.basic_credentials(basic(b"a:b:c")) == Credentials("a", "b:c")
    assert _auth.basic_credentials(basic(b"\xe4:\xf6")) == Credentials("\xe4", "\xf6")
    assert _auth.basic_credentials(basic(b":")) == Credentials("", "")
    assert _auth.basic_credentials(basic(b"a:b").replace("Basic", "bAsIc")) == Credentials("a", "b")


@pytest.mark.parametrize(
    "field",
    ["", "Basic", "Basic ", "Basic a", "Basic YTpi!", "Basic YQ==", "Bearer YTpi", "YTpi", "Basic \xe4"],
)
def test_what_is_no_basic_credentials_is_none(field: str) -> None:
    assert _auth.basic_credentials(field) is None


@given(FIELD | FIELD.map("Basic ".__add__) | FIELD.map("Digest ".__add__))
def test_no_field_makes_them_raise(field: str) -> None:
    _auth.basic_credentials(field)
    _auth.digest_of(field)


def test_a_realm_is_quoted() -> None:
    assert _auth.basic_challenge('a"b\\c') == 'Basic realm="a\\"b\\\\c", charset="UTF-8"'


# --- digest

RFC_7616 = (
    'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm={algorithm}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
    'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="{response}", opaque="FQ"'
)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("md5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("sha-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_example_of_rfc_7616_is_understood(algorithm: str, response: str) -> None:
    digest = _auth.digest_of(RFC_7616.format(algorithm=algorithm.upper(), response=response))
    assert digest is not None
    text = b"Mufasa:http-auth@example.org:Circle of Life"
    ha1 = hashlib.new(algorithm.replace("-", ""), text).hexdigest()
    assert _auth.digest_matches(digest, "GET", ha1, algorithm)
    assert not _auth.digest_matches(digest, "POST", ha1, algorithm)
    assert not _auth.digest_matches(digest, "GET", ha1[1:] + "0", algorithm)
    assert not _auth.digest_matches(digest._replace(uri="/other"), "GET", ha1, algorithm)
    assert not _auth.digest_matches(digest._replace(qop="auth-int"), "GET", ha1, algorithm)


@pytest.mark.parametrize("name", ["username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce"])
def test_a_digest_that_lacks_something_or_says_it_twice_is_none(name: str) -> None:
    whole = RFC_7616.format(algorithm="MD5", response="x")
    assert _auth.digest_of(whole.replace(f"{name}=", "x-", 1)) is None
    assert _auth.digest_of(f'{whole}, {name}="again"') is None


# --- what scripts return

ODD: list[Any] = [0, 1, "", b"", 7.5, [], {}, object, NotImplemented]


def test_access_is_allowed_refused_or_left_open() -> None:
    _auth.judge_access(True)
    _auth.judge_access(None)
    with pytest.raises(Forbidden):
        _auth.judge_access(False)


@pytest.mark.parametrize("result", [*ODD, "yes"], ids=repr)
def test_any_other_word_on_access_refuses(result: Any) -> None:
    with pytest.raises(
        ScriptFailed, match=r"^allow_access returned .*: allowed is True, False or None$"
    ) as failed:
        _auth.judge_access(result)
    assert failed.value.status == 403


def test_a_password_is_right_wrong_unknown_or_makes_somebody_else_of_its_user() -> None:
    assert _auth.judge_password(True, "a") == "a"
    assert _auth.judge_password(False, "a") is None
    assert _auth.judge_password(None, "a") is None
    assert _auth.judge_password("b", "a") == "b"


@pytest.mark.parametrize("result", [*ODD, b"b"], ids=repr)
def test_any_other_word_on_a_password_refuses(result: Any) -> None:
    with pytest.raises(ScriptFailed, match=r"^check_password returned "):
        _auth.judge_password(result, "a")


@pytest.mark.parametrize("result", [False, True, *ODD], ids=repr)
def test_a_realms_hash_is_a_text_or_none(result: Any) -> None:
    assert _auth.judge_realm_hash(None) is None
    assert _auth.judge_realm_hash("abc") == "abc"
    with pytest.raises(ScriptFailed, match=r"^get_realm_hash returned "):
        _auth.judge_realm_hash(result)


def test_one_of_the_groups_must_be_required() -> None:
    _auth.judge_groups(["a", "b"], ["b", "c"])
    _auth.judge_groups((name for name in (b"b",)), ["b"])
    for names in ([], ["a"], ("B",)):
        with pytest.raises(Forbidden):
            _auth.judge_groups(names, ["b"])


@pytest.mark.parametrize("result", [None, True, "b", b"b", 7, ["b", 7]], ids=repr)
def test_what_is_no_list_of_groups_refuses(result: Any) -> None:
    with pytest.raises(ScriptFailed, match=r"^groups_for_user returned "):
        _auth.judge_groups(result, ["b"])


def test_a_choice_is_a_name_or_none() -> None:
    assert _auth.judge_choice("process_group", None) is None
    assert _auth.judge_choice("process_group", b"api") == _auth.judge_choice("process_group", "api") == "api"
    for result in (True, False, *ODD):
        with pytest.raises(ScriptFailed, match=r"^process_group returned "):
            _auth.judge_choice("process_group", result)
