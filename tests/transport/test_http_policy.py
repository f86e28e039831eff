"""The policy: what a well-formed request must not say."""

from __future__ import annotations

import pytest

from gatekeep._errors import Refused
from gatekeep.transport import _http_policy
from gatekeep.transport._codec import Framing, Head, Limits
from gatekeep.transport._http_policy import is_authority, judge, open_head

DEFAULT = Limits()


def judged(
    *fields: tuple[str, str],
    method: str = "GET",
    target: str = "/",
    version: str = "1.1",
    host: str | None = "a",
    limits: Limits = DEFAULT,
) -> Head:
    head = open_head(method, target, version, limits)
    judge(head, [*([("Host", host)] if host is not None else []), *fields], limits)
    return head


def status(*fields: tuple[str, str], **request: object) -> int:
    with pytest.raises(Refused) as refused:
        judged(*fields, **request)  # type: ignore[arg-type]
    return refused.value.status


# --- Host, RFC 9112 §3.2 with the grammar of RFC 3986 §3.2.2

GOOD_HOSTS = """
    a example.com EXAMPLE.com a.b.c. a-b_c~d 127.0.0.1 999.1.1.1 a:80 a: a:0 a:65535 a:00080 a%20b %e4 xn--e1afmkfd
    a!$&'()*+,;=b [::1] [::1]:80 [::1]: [1:2:3:4:5:6:7:8] [::ffff:1.2.3.4] [fe80::] [v1.a:b] [vF.~] [V1.a]:8080
"""
BAD_HOSTS = """
    a/b a?b a#b u@a a@ :80 : a:b a:-1 a:+1 a:1_0 a:65536 a:99999 a:000080 a:80:80 a% a%2 a%zz a\\b <a> a|b a^b `a` {a} "a"
    [ ] [] [::1 ::1] [::1]a [::1]:x [1] [:::] [::1::] [1:2:3:4:5:6:7:8:9] [::1.2.3] [::01.2.3.4] [fe80::1%eth0]
    [fe80::1%25eth0] [g::] [v.a] [v1.] [v1] [vg.a] [v1.a/b] [[::1]] [12345::]
"""
MORE_BAD_HOSTS = ["a b", "a\tb", "a, b", "\xe4", "\u0661", "a:\u0661"]


@pytest.mark.parametrize("host", GOOD_HOSTS.split())
def test_a_host_of_the_grammar_is_accepted(host: str) -> None:
    assert is_authority(host)
    assert judged(host=host).host == host


@pytest.mark.parametrize("host", BAD_HOSTS.split() + MORE_BAD_HOSTS)
def test_any_other_host_is_refused(host: str) -> None:
    assert not is_authority(host)
    assert status(host=host) == 400


def test_an_empty_host_is_accepted_and_says_nothing() -> None:
    assert judged(host="").host == ""


def test_a_host_is_needed_in_http_1_1_only() -> None:
    assert status(host=None) == 400
    assert judged(host=None, version="1.0").host == ""
    assert judged(host="b", version="1.0").host == "b"


def test_the_authority_of_the_target_counts() -> None:
    head = judged(host="b:2", target="http://a:1/c")
    assert (head.host, head.target) == ("a:1", "http://a:1/c")
    assert judged(host="", target="http://a/").host == "a"


# --- the target, RFC 9112 §3.2


@pytest.mark.parametrize(
    ("method", "target", "path", "query"),
    [
        ("GET", "/", "/", ""),
        ("GET", "/a%20b/../c?d=e?f", "/a%20b/../c", "d=e?f"),
        ("GET", "/?", "/", ""),
        ("GET", "//a/b", "//a/b", ""),
        ("GET", '/a|b\\c"<>^`{}', '/a|b\\c"<>^`{}', ""),
        ("OPTIONS", "*", "*", ""),
        ("GET", "http://a", "/", ""),
        ("GET", "HTTP://a?b", "/", "b"),
        ("GET", "https://[::1]:80/c/?d?", "/c/", "d?"),
        ("OPTIONS", "http://a", "*", ""),
        ("OPTIONS", "http://a/", "/", ""),
        ("OPTIONS", "http://a?", "*", ""),
        ("OPTIONS", "http://a?b", "/", "b"),
    ],
)
def test_a_target_is_cut_into_path_and_query(method: str, target: str, path: str, query: str) -> None:
    head = judged(method=method, target=target)
    assert (head.path, head.query) == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        "a",
        "a:80",
        "?",
        "*a",
        "**",
        "http:/a/",
        "http//a",
        "http://",
        "http:///",
        "http://?",
        "ftp://a/",
        "/#",
        "http://a/#b",
    ],
)
def test_a_target_in_no_form_is_refused(target: str) -> None:
    assert status(target=target) == 400


# --- the request line decides before the fields do


@pytest.mark.parametrize(
    ("method", "version", "target", "expected"),
    [
        ("CONNECT", "2.0", "#", 505),
        ("CONNECT", "0.9", "#", 400),
        ("CONNECT", "1.1", "#", 501),
        ("TRACE", "1.1", "#", 405),
        ("trace", "1.1", "#", 400),
        ("GET", "1.9", "/", 505),
        ("GET", "9.9", "/", 505),
    ],
)
def test_version_method_and_target_decide_in_this_order(
    method: str, version: str, target: str, expected: int
) -> None:
    assert status(method=method, version=version, target=target) == expected


def test_trace_may_be_allowed() -> None:
    assert judged(method="TRACE", limits=Limits(allow_trace=True)).method == "TRACE"


# --- framing

CHUNKED = ("Transfer-Encoding", "chunked")


def test_no_framing_field_means_no_body() -> None:
    head = judged()
    assert (head.framing, head.length) == (Framing.NONE, 0)


def test_a_content_length_frames_the_body() -> None:
    head = judged(("content-LENGTH", "007"))
    assert (head.framing, head.length) == (Framing.LENGTH, 7)


def test_chunked_frames_the_body() -> None:
    head = judged(("transfer-ENCODING", "CHUNKED"))
    assert (head.framing, head.length) == (Framing.CHUNKED, 0)


@pytest.mark.parametrize(
    "value", ["", "+1", "-1", "1.0", "1_0", "0x1", "1e2", " 1", "1 1", "1,1", "\u0661", "\xb2", "a", "1" * 19]
)
def test_a_length_that_is_not_up_to_18_digits_is_refused(value: str) -> None:
    assert status(("Content-Length", value)) == 400


def test_a_length_above_the_limit_is_refused_at_once() -> None:
    assert status(("Content-Length", "11"), limits=Limits(body=10)) == 413
    assert judged(("Content-Length", "10"), limits=Limits(body=10)).length == 10
    assert judged(("Content-Length", "9" * 18)).length == 10**18 - 1


def test_what_is_ambiguous_is_400_before_what_is_unknown_is_501() -> None:
    gzip = ("Transfer-Encoding", "gzip")
    assert status(gzip) == 501
    assert status(gzip, ("Content-Length", "1")) == 400
    assert status(gzip, CHUNKED) == 400
    assert status(gzip, version="1.0") == 400
    assert status(CHUNKED, ("Content-Length", "+1"), host="a") == 400


# --- Expect, RFC 9110 §10.1.1


def test_100_continue_is_expected_only_where_a_body_follows() -> None:
    expect = ("Expect", "100-CONTINUE")
    assert judged(expect, ("Content-Length", "1")).expect_continue
    assert judged(expect, CHUNKED).expect_continue
    assert not judged(expect).expect_continue
    assert not judged(expect, ("Content-Length", "0")).expect_continue
    assert not judged(expect, ("Content-Length", "1"), version="1.0").expect_continue


@pytest.mark.parametrize("value", ["", "100", "100-continue, x", "x", "100-continue;a=b"])
def test_another_expectation_is_417_in_http_1_1_and_ignored_in_1_0(value: str) -> None:
    assert status(("Expect", value)) == 417
    assert status(("Expect", "100-continue"), ("Expect", value)) == 417
    assert not judged(("Expect", value), version="1.0").expect_continue


# --- Connection, RFC 9112 §9.3


@pytest.mark.parametrize(
    ("version", "values", "expected"),
    [
        ("1.1", [], True),
        ("1.1", ["close"], False),
        ("1.1", ["Keep-Alive"], True),
        ("1.1", ["keep-alive, CLOSE"], False),
        ("1.1", ["upgrade", " close"], False),
        ("1.1", ["closed, not-close"], True),
        ("1.1", [""], True),
        ("1.0", [], False),
        ("1.0", ["keep-alive"], True),
        ("1.0", ["a,\tKeep-Alive ,b"], True),
        ("1.0", ["keep-alive", "close"], False),
        ("1.0", ["upgrade"], False),
    ],
)
def test_the_client_says_whether_it_goes_on(version: str, values: list[str], expected: bool) -> None:
    assert judged(*(("Connection", value) for value in values), version=version).keep_alive is expected


# --- what is dropped


@pytest.mark.parametrize(
    "name",
    [
        "X_Forwarded_For",
        "Content_Length",
        "_",
        "a_",
        "Proxy",
        "PROXY",
        "proxy",
        "Transfer_Encoding",
        "x" * 80 + "_",
    ],
)
def test_underscores_and_proxy_are_dropped_and_counted(name: str) -> None:
    head = judged((name, "1"), ("A", "b"), (name, "2"))
    assert head.fields == [("Host", "a"), ("A", "b")]
    assert head.dropped == 2
    assert head.framing is Framing.NONE


def test_other_names_are_kept_as_sent() -> None:
    fields = [("Proxy-Connection", "a"), ("x-proxy", "b"), ("X-FORWARDED-for", "c"), ("x" * 80, "d")]
    assert judged(*fields).fields == [("Host", "a"), *fields]


def test_strangers_cannot_grow_what_is_remembered_of_names() -> None:
    for number in range(3000):
        judged((f"X-{number}", ""), (f"X-{number}" + "a" * 100, ""))
    assert len(_http_policy._meanings) <= 1000
    assert not any(len(name) > 64 for name in _http_policy._meanings)
    assert judged(("PROXY", "late"), ("x_late", "")).dropped == 2
    assert status(("CONTENT-length", "x")) == 400
