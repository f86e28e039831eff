"""Lines of an access log in a format of the user's: each atom, what is escaped, and what is no format."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gatekeep import SettingsError
from gatekeep._access_format import AccessFormat, Moment, escaped

COMBINED = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
GRANIANS = '[%(time)s] %(addr)s - "%(method)s %(path)s %(protocol)s" %(status)d %(dt_ms).3f'
EVENT = {
    "client": "192.0.2.7:51234",
    "user": "anna",
    "method": "GET",
    "path": "/report",
    "scheme": "https",
    "target": "/report?year=2026&all",
    "protocol": "HTTP/1.1",
    "status": 200,
    "pid": 8124,
    "bytes_out": 1234,
    "duration": 2.345678,
    "request_headers": {"referer": "https://example.com/", "user-agent": "curl/8.5", "x-id": "7"},
    "response_headers": {"content-type": "text/html"},
}
REFUSED = {
    "client": "unix", "method": "", "path": "", "protocol": "", "status": 400, "pid": 0, "bytes_out": 0, "duration": 0.0,
}  # fmt: skip
NOW = Moment(datetime(2026, 11, 24, 10, 0, 0, tzinfo=timezone(timedelta(hours=-3, minutes=-30))))


def line(text: str, event: dict[str, Any] = EVENT, **changes: Any) -> str:
    return AccessFormat(text).render({**event, **changes}, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%(h)s", "192.0.2.7"),
        ("%(l)s", "-"),
        ("%(u)s", "anna"),
        ("%(t)s", "[24/Nov/2026:10:00:00 -0330]"),
        ("%(r)s", "GET /report?year=2026&all HTTP/1.1"),
        ("%(m)s", "GET"),
        ("%(U)s", "/report"),
        ("%(q)s", "year=2026&all"),
        ("%(H)s", "HTTP/1.1"),
        ("%(s)s", "200"),
        ("%(s)d", "200"),
        ("%(B)s", "1234"),
        ("%(b)s", "1234"),
        ("%(f)s", "https://example.com/"),
        ("%(a)s", "curl/8.5"),
        ("%(T)s", "2"),
        ("%(M)s", "2345"),
        ("%(D)s", "2345678"),
        ("%(D)d", "2345678"),
        ("%(L)s", "2.345678"),
        ("%(L).2f", "2.35"),
        ("%(p)s", "<8124>"),
        ("%({X-Id}i)s", "7"),
        ("%({x-other}i)s", "-"),
        ("%({Content-Type}o)s", "text/html"),
        ("%({REMOTE_USER}e)s %({QUERY_STRING}e)s %({HTTP_X_ID}e)s", "anna year=2026&all 7"),
        ("%({wsgi.url_scheme}e)s", "https"),
        ("%(R)s", "GET /report?year=2026&all HTTP/1.1"),
        ("%(Uq)s", "/report?year=2026&all"),
        ("%(S)s", "https"),
        ("%(st)s", "OK"),
        (GRANIANS, '[2026-11-24 09:59:57 -0330] 192.0.2.7 - "GET /report HTTP/1.1" 200 2345.678'),
        ("%(dt_ms)s %(query_string)s %(scheme)s %(rbl)s", "2345.678 year=2026&all https 1234"),
        ("100%% %(m)s%%", "100% GET%"),
        ("%(m)6s|%(m)-6s|%(s)06d|%(a).4s|%(h)12.3s", "   GET|GET   |000200|curl|         192"),
        ("\t%(m)s\t", "\tGET\t"),
        ("no atoms", "no atoms"),
    ],
)
def test_an_atom_stands_for_what_it_does_elsewhere(text: str, expected: str) -> None:
    assert line(text) == expected


@pytest.mark.parametrize("name", [*"hlurmUHbfapS", "R", "Uq", "addr", "method", "path", "{x}i", "{x}o"])
def test_what_there_is_none_of_is_a_dash(name: str) -> None:
    assert line(f"%({name})s", REFUSED) == "-"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("%(B)s %(T)s %(D)s %(L)s", "0 0 0 0.000000"), ("%(q)s|", "|"), ("%(s)s %(st)s", "400 Bad Request")],
)
def test_numbers_are_numbers_and_an_empty_query_is_empty(text: str, expected: str) -> None:
    assert line(text, REFUSED) == expected


def test_a_client_without_an_answer_has_no_status() -> None:
    assert line("%(s)s %(s)d %(st)s", status=0) == "- 0 -"


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("unix", "-"),
        ("unknown", "-"),
    ],
)
def test_a_host_has_no_port(client: str, expected: str) -> None:
    assert line("%(h)s", client=client) == expected


def test_a_line_says_what_gunicorns_says_in_the_combined_format() -> None:
    assert line(COMBINED) == (
        '192.0.2.7 - anna [24/Nov/2026:10:00:00 -0330] "GET /report?year=2026&all HTTP/1.1" 200 1234 '
        '"https://example.com/" "curl/8.5"'
    )
    assert line(COMBINED, REFUSED) == '- - - [24/Nov/2026:10:00:00 -0330] "-" 400 - "-" "-"'


# --- what it needs of a record


@pytest.mark.parametrize(
    ("text", "url", "request_fields", "response_fields"),
    [
        ("%(h)s %(l)s %(u)s %(t)s %(m)s %(U)s %(s)s %(D)d %(p)s", False, [], []),
        (COMBINED, True, ["referer", "user-agent"], []),
        ("%(q)s", True, [], []),
        ("%(S)s", True, [], []),
        ("%({RAW_URI}e)s", True, [], []),
        ("%({X-Id}i)s %({x-id}i)s %({Set-Cookie}o)s", False, ["x-id"], ["set-cookie"]),
        ("%({HTTP_USER_AGENT}e)s", False, ["user-agent"], []),
    ],
)
def test_a_format_asks_for_what_it_needs_and_no_more(
    text: str, url: bool, request_fields: list[str], response_fields: list[str]
) -> None:
    its = AccessFormat(text)
    assert (its.needs_url, [*its.request_fields], [*its.response_fields]) == (
        url,
        request_fields,
        response_fields,
    )


# --- what is no format


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("%(h)s %h %(l)s", "'%h' is no atom"),
        ("100%", "'%' is no atom"),
        ("%(h)s %(u", "'%(u' has no closing bracket"),
        ("%(h)", "'%(h)' has neither s, d nor f behind its bracket"),
        ("%(a)r", "'%(a)r' has neither s, d nor f behind its bracket"),
        ("%(x)s", "%(x)s is unknown"),
        ("%()s", "%()s is unknown"),
        ("%(x)d", "%(x)d is unknown"),
        ("%(h)d", "%(h)d is no number"),
        ("%({user agent}i)s", "%({user agent}i)s is unknown"),
        ("%({}o)s", "%({}o)s is unknown"),
        ("%({x-*}i)s", "%({x-*}i)s is unknown"),
        ("%({x}z)s", "%({x}z)s is unknown"),
        ("%({HOME}e)s", "%({HOME}e)s is unknown"),
        ("%(method)", "'%(method)' has neither"),
    ],
)
def test_what_is_no_atom_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AccessFormat(text)
    said = str(caught.value)
    assert said.startswith(f"access-log-format = {text!r}: {complaint}")
    assert "; allowed is %%; %(X)s with X one of h l u t r m U q" in said
    assert "\n" not in said


@pytest.mark.parametrize("text", ["a\nb", "%(h)s\r\n", "\x1b[31m%(h)s", "\u202e", "\udcff"])
def test_a_format_has_no_control_characters(text: str) -> None:
    with pytest.raises(SettingsError, match="allowed is printable text, and tabs"):
        AccessFormat(text)


@given(st.text("%(){}hsdaxi .0-", max_size=12))
def test_any_text_is_a_format_or_refused(text: str) -> None:
    try:
        its = AccessFormat(text)
    except SettingsError:
        return
    assert its.render(EVENT, NOW).isprintable()


# --- what clients may say


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", "plain text"),
        ('say "hi"', r"say \"hi\""),
        ("end\\", r"end\\"),
        ("two\r\nlines\t", r"two\r\nlines\t"),
        ("\x1b[2J\x7f\x9b", r"\u001b[2J\u007f\u009b"),
        ("Müller 日本", "Müller 日本"),
        ("\u202egpj.exe\u2028", r"\u202egpj.exe\u2028"),
        ("\udcff\U000e0041", r"\udcff\udb40\udc41"),
    ],
)
def test_what_could_end_a_text_or_a_line_is_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected


@given(st.text())
def test_what_is_escaped_is_a_text_of_json_and_can_be_had_back(text: str) -> None:
    assert json.loads(f'"{escaped(text)}"') == json.loads(json.dumps(text))


ALL = COMBINED + ' "%({x}i)s" "%({x}o)s" "%(m)s" "%(U)s" "%(H)s" "%(S)s" "%(a).7s" "%(a)30s"'
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')


@given(st.lists(st.text(), min_size=10, max_size=10))
def test_no_client_forges_splits_or_colours_a_line(said: list[str]) -> None:
    method, path, target, protocol, scheme, user, *fields = said
    event = EVENT | {
        "method": method, "path": path, "target": target, "protocol": protocol, "scheme": scheme,
        "user": user.replace('"', ""),  # the only one that stands without quotation marks
        "request_headers": {"referer": fields[0], "user-agent": fields[1], "x": fields[2]},
        "response_headers": {"x": fields[3]},
    }  # fmt: skip
    rendered = line(ALL, event)
    assert rendered.isprintable()
    assert len(rendered.splitlines()) == 1
    assert len(QUOTED.findall(rendered)) == ALL.count('"') / 2
    assert '"' not in QUOTED.sub("", rendered)
