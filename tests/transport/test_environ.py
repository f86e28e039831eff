"""The CGI variables that an application gets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from gatekeep.transport import _environ
from gatekeep.transport._codec import Limits
from gatekeep.transport._codec_h11 import H11Codec
from gatekeep.transport._codec_strict import StrictCodec

SERVER = ("example.com", "8080")


def built(
    *lines: str,
    start: str = "GET / HTTP/1.1",
    host: str | None = "a",
    client: tuple[str, int] | None = ("192.0.2.1", 4711),
    scheme: str = "http",
    script_name: str = "",
) -> dict[str, str]:
    named = [] if host is None else [f"Host: {host}"]
    data = "".join(line + "\r\n" for line in [start, *named, *lines, ""]).encode("latin-1")
    environs = []
    for make in (StrictCodec, H11Codec):
        codec = make(Limits())
        codec.receive(data)
        head = codec.next_request()
        assert head is not None
        environs.append(
            _environ.build(head, scheme=scheme, client=client, server=SERVER, script_name=script_name)
        )
    assert environs[0] == environs[1]
    return environs[0]


def test_a_request_becomes_the_variables_of_cgi() -> None:
    assert built("Accept: b", start="PUT /c%20d?e=%20f HTTP/1.1", host="a:1") == {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/c d",
        "QUERY_STRING": "e=%20f",
        "REQUEST_URI": "/c%20d?e=%20f",
        "RAW_URI": "/c%20d?e=%20f",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "8080",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "4711",
        "HTTP_HOST": "a:1",
        "HTTP_ACCEPT": "b",
        "wsgi.url_scheme": "http",
    }


def test_a_unix_client_has_an_empty_address_and_no_port() -> None:
    environ = built(client=None)
    assert environ["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in environ


def test_the_scheme_is_the_callers() -> None:
    assert built(scheme="https")["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize(
    ("target", "script_name", "path"),
    [
        ("/", "", "/"),
        ("/a/b", "/a", "/b"),
        ("/a", "/a", ""),
        ("/a/", "/a", "/"),
        ("/%61/%2Fb", "/a", "//b"),
        ("/%C3%A9", "", "/\xc3\xa9"),
        ("/%00%0d%0A", "", "/\x00\r\n"),
        ("/%zz%2", "", "/%zz%2"),
        ("/%25%32%35", "", "/%25"),
        ("//a", "", "//a"),
        ("/a+b;c", "", "/a+b;c"),
        ("http://b/c%20d", "/c d", ""),
    ],
)
def test_the_path_is_decoded_once_and_cut_behind_the_mount(target: str, script_name: str, path: str) -> None:
    environ = built(start=f"GET {target} HTTP/1.1", script_name=script_name)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path)
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == target


def test_options_of_the_server_has_an_asterisk_as_path() -> None:
    asterisk = built(start="OPTIONS * HTTP/1.1")
    assert (asterisk["PATH_INFO"], asterisk["REQUEST_URI"]) == ("/", "*")


@pytest.mark.parametrize(
    ("start", "host", "expected"),
    [
        ("GET / HTTP/1.1", "a:80", "a:80"),
        ("GET http://b:1/ HTTP/1.1", "a", "b:1"),
        ("GET http://b/ HTTP/1.1", "", "b"),
        ("GET / HTTP/1.1", "", None),
        ("GET / HTTP/1.0", None, None),
        ("GET http://b/ HTTP/1.0", None, "b"),
    ],
)
def test_the_host_is_the_authority_that_counts(start: str, host: str | None, expected: str | None) -> None:
    assert built(start=start, host=host).get("HTTP_HOST") == expected


def test_a_body_of_a_length_has_content_length() -> None:
    environ = built("Content-Length: 12", "content-TYPE: text/plain")
    assert environ["CONTENT_LENGTH"] == "12"
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert "HTTP_CONTENT_LENGTH" not in environ
    assert "HTTP_CONTENT_TYPE" not in environ


def test_a_chunked_body_has_none_and_says_why() -> None:
    environ = built("Transfer-Encoding: chunked")
    assert "CONTENT_LENGTH" not in environ
    assert environ["HTTP_TRANSFER_ENCODING"] == "chunked"


def test_a_chunked_body_that_is_here_has_a_length_and_no_coding() -> None:
    environ = built("Transfer-Encoding: chunked", "Content-Type: text/plain")
    whole = _environ.with_length(environ, 7)
    assert whole["CONTENT_LENGTH"] == "7"
    assert environ == {key: value for key, value in whole.items() if key != "CONTENT_LENGTH"} | {
        "HTTP_TRANSFER_ENCODING": "chunked"
    }


def test_without_a_body_neither_is_there() -> None:
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE"} & built().keys()


def test_a_repeated_field_is_joined_in_order() -> None:
    environ = built(
        "Accept: b", "X-A: 1", "accept: c", "ACCEPT:", "Cookie: d=1", "cookie: e=2", "Cookie: f=3"
    )
    assert environ["HTTP_ACCEPT"] == "b,c,"
    assert environ["HTTP_COOKIE"] == "d=1; e=2; f=3"


def test_of_several_content_types_the_first_counts() -> None:
    assert built("Content-Type: a/b", "content-type: c/d")["CONTENT_TYPE"] == "a/b"


def test_values_are_latin_1() -> None:
    assert built("X-A: \x80\xff")["HTTP_X_A"] == "\x80\xff"


def test_no_field_can_pass_for_another_or_for_a_variable_of_ours() -> None:
    environ = built(
        "Proxy: http://evil",
        "PROXY: http://evil",
        "X_Forwarded_For: evil",
        "x-forwarded_for: evil",
        "X-Forwarded-For: good",
        "Content_Length: 5",
        "Content_Type: evil",
        "REMOTE_ADDR: evil",
        "REMOTE_USER: evil",
        "Remote-User: evil",
        "wsgi.url_scheme: https",
        "HTTPS: on",
        "Path-Info: evil",
    )
    assert environ["HTTP_X_FORWARDED_FOR"] == "good"
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["PATH_INFO"] == "/"
    assert {key for key in environ if "evil" in environ[key]} == {"HTTP_REMOTE_USER", "HTTP_PATH_INFO"}
    assert not {"HTTP_PROXY", "REMOTE_USER", "HTTPS", "CONTENT_LENGTH", "CONTENT_TYPE"} & environ.keys()


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.text("aA-_.x1!proxyPROXY", min_size=1, max_size=8), st.text("ab, ", max_size=4)),
        max_size=12,
    )
)
def test_whatever_the_names_what_they_make_begins_with_http(fields: list[tuple[str, str]]) -> None:
    own = built().keys()
    environ = built(*(f"{name}: {value}" for name, value in fields))
    assert all(key.startswith("HTTP_") for key in environ.keys() - own)
    assert "HTTP_PROXY" not in environ


def test_strangers_cannot_grow_what_is_remembered_of_names() -> None:
    for number in range(0, 3000, 50):
        built(*(f"X-{n}: " for n in range(number, number + 50)), "X" * 100 + ":")
    assert len(_environ._keys) <= 1000
    assert not any(len(name) > 64 for name in _environ._keys)
    environ = built("X-late: a", "x-LATE: b")
    assert environ["HTTP_X_LATE"] == "a,b"
