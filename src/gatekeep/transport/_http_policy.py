"""What a well-formed request must not say: the verdict on its request line and on the fields that we act on. Pure.

`_http_head` has checked the syntax of every line before; here their meaning is judged. Where several things are wrong at once
the first of these decides: the version, the method, the target, Host, the framing (what is malformed or ambiguous before what
is only unknown to us), the declared length, Expect.

Numbers are `1*DIGIT` of bounded length before `int` sees them: it would also take `+4`, `1_0`, and digits of other scripts.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address
from typing import NoReturn

from gatekeep import _trust
from gatekeep._errors import Refused
from gatekeep.transport._codec import TOKEN, Framing, Head, Limits, tokens

_VERSIONS = {"1.1": "HTTP/1.1", "1.0": "HTTP/1.0"}

_absolute_form = re.compile(r"https?://([^/?]*+)([^?]*+)\??(.*+)", re.IGNORECASE).fullmatch


def open_head(method: str, target: str, version: str, limits: Limits) -> Head:
    """Judge a request line and begin the head with it.

    Args:
        method: a token.
        target: one or more visible ASCII characters.
        version: a digit, a dot, a digit.

    Raises:
        Refused: 505 for a version above 1.1, 501 for CONNECT, 405 for TRACE unless it is allowed, 400 for HTTP/0.x and for
            a target in none of the forms of RFC 9112 §3.2.
    """
    spoken = _VERSIONS.get(version)
    if spoken is None:
        _refuse_version(version)
    if method == "CONNECT":
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "CONNECT: this is no tunnel")
    if method == "TRACE" and not limits.allow_trace:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "TRACE is not allowed")
    if "#" in target:
        raise Refused(HTTPStatus.BAD_REQUEST, "a fragment in the request-target")
    if target[0] == "/":
        path, _, query = target.partition("?")
        return Head(method, target, spoken, "", path, query)
    if target == "*" and method == "OPTIONS":
        return Head(method, target, spoken, "", "*", "")
    return Head(method, target, spoken, *_split_absolute(method, target))


def _refuse_version(version: str) -> NoReturn:
    if version[0] == "0":
        raise Refused(HTTPStatus.BAD_REQUEST, f"HTTP/{version} has no request line like this")
    raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"HTTP/{version} is not spoken here")


def _split_absolute(method: str, target: str) -> tuple[str, str, str]:
    """Authority, path and query of a target in absolute-form."""
    match = _absolute_form(target)
    if match is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "a request-target in no form that RFC 9112 §3.2 knows")
    authority, path, query = match.groups()
    # RFC 9110 §4.2.1: such a URI without a host is invalid, whereas an empty Host field is not.
    if not is_authority(authority):
        raise Refused(HTTPStatus.BAD_REQUEST, "the authority of the request-target is malformed")
    if path or query or method != "OPTIONS":
        return authority, path or "/", query
    # RFC 9112 §3.2.4: this is how a proxy is asked for OPTIONS of the server itself.
    return authority, "*", ""


# --- the fields

_DROPPED, _FORWARDING = "dropped", "forwarding"

# What the gateway acts on; "" is everything else.
_MEANINGS = {
    name: name for name in ("host", "content-length", "transfer-encoding", "connection", "expect")
} | {
    # CGI would make HTTP_PROXY of it, which HTTP clients inside the application take for a setting (CVE-2016-5385).
    "proxy": _DROPPED
}

_COMMON = """
    Host Connection Accept Accept-Charset Accept-Encoding Accept-Language Authorization Cache-Control Content-Encoding
    Content-Language Content-Length Content-Type Cookie DNT Date Expect Forwarded From If-Match If-Modified-Since
    If-None-Match If-Range If-Unmodified-Since Keep-Alive Max-Forwards Origin Pragma Priority Proxy-Authorization
    Proxy-Connection Range Referer Save-Data Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode
    Sec-Fetch-Site Sec-Fetch-User Sec-GPC TE Trailer Transfer-Encoding Upgrade Upgrade-Insecure-Requests User-Agent Via
    X-CSRFToken X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto X-Real-IP X-Request-ID
    X-Requested-With
"""
COMMON_NAMES = _COMMON.split()
"""The names of fields that clients and proxies send all the time."""

# By exact spelling. Strangers choose the names, so it is bounded, and the common ones are in it before they come.
_meanings: dict[str, str] = {}
_NAMES_KEPT = 1000
_NAME_KEPT = 64


def _learn(name: str) -> str:
    plain = name.lower()
    meaning = _FORWARDING if _trust.is_forwarding(plain) else _MEANINGS.get(plain, "")
    if "_" in name:
        # CGI maps "-" and "_" to the same character: X_Forwarded_For would pass for X-Forwarded-For (nginx and Apache 2.4
        # drop them for this; mod_wsgi CVE-2022-2255 is what happens otherwise).
        meaning = _DROPPED
    if len(_meanings) < _NAMES_KEPT and len(name) <= _NAME_KEPT:
        _meanings[name] = meaning
    return meaning


for _name in COMMON_NAMES:
    _learn(_name)
    _learn(_name.lower())


def judge(head: Head, fields: list[tuple[str, str]], limits: Limits) -> None:
    """Judge the fields and complete the head with them.

    Args:
        head: from `open_head`.
        fields: names that are tokens, values without control characters and outer white space; kept by the head.

    Raises:
        Refused: 400, 413, 417 or 501.
    """
    special: dict[str, list[str]] = {}
    for name, value in fields:
        meaning = _meanings.get(name)
        if meaning is None:
            meaning = _learn(name)
        if meaning:
            special.setdefault(meaning, []).append(value)
    head.fields = fields
    if _DROPPED in special:
        head.fields = [field for field in fields if not is_dropped(field[0])]
        head.dropped = len(special[_DROPPED])
    head.is_forwarded = _FORWARDING in special
    _judge_host(head, special.get("host", []))
    _judge_connection(head, special.get("connection"))
    if "transfer-encoding" in special:
        _judge_coding(head, special)
    elif "content-length" in special:
        _judge_length(head, special["content-length"], limits)
    if "expect" in special:
        _judge_expectation(head, special["expect"])


def is_dropped(name: str) -> bool:
    """Whether fields of this name are kept from the application."""
    meaning = _meanings.get(name)
    return (_learn(name) if meaning is None else meaning) == _DROPPED


def is_forwarding(name: str) -> bool:
    """Whether fields of this name tell what a proxy knows (`_trust.is_forwarding`)."""
    meaning = _meanings.get(name)
    return (_learn(name) if meaning is None else meaning) == _FORWARDING


def _judge_host(head: Head, hosts: list[str]) -> None:
    if len(hosts) != 1:
        if hosts:
            raise Refused(HTTPStatus.BAD_REQUEST, "more than one Host")
        if head.version == "HTTP/1.1":
            raise Refused(HTTPStatus.BAD_REQUEST, "no Host")
        return
    host = hosts[0]
    if host and not is_authority(host):
        raise Refused(HTTPStatus.BAD_REQUEST, "a malformed Host")
    head.host = head.host or host


def _judge_connection(head: Head, values: list[str] | None) -> None:
    if values is None:
        head.keep_alive = head.version == "HTTP/1.1"
        return
    options = tokens(",".join(values))
    wanted = head.version == "HTTP/1.1" or "keep-alive" in options
    head.keep_alive = wanted and "close" not in options


def _judge_coding(head: Head, special: dict[str, list[str]]) -> None:
    """RFC 9112 §6.1 and §6.3, the strict readings of them."""
    codings = special["transfer-encoding"]
    if "content-length" in special:
        raise Refused(HTTPStatus.BAD_REQUEST, "both Transfer-Encoding and Content-Length")
    if len(codings) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "more than one Transfer-Encoding")
    if head.version == "HTTP/1.0":
        raise Refused(HTTPStatus.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
    coding = codings[0]
    if coding.lower() != "chunked":
        if _is_list_of_codings(coding):
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, "a transfer coding other than chunked")
        raise Refused(HTTPStatus.BAD_REQUEST, "a malformed Transfer-Encoding")
    head.framing = Framing.CHUNKED


_is_token = re.compile(rf"{TOKEN}++").fullmatch
_is_length = re.compile(r"[0-9]{1,18}").fullmatch


def _is_list_of_codings(value: str) -> bool:
    # str.strip() and str.split() without arguments would take \x85 and \xa0 for white space.
    names = [member.partition(";")[0].strip(" \t") for member in value.split(",")]
    return value.isascii() and all(map(_is_token, names))


def _judge_length(head: Head, lengths: list[str], limits: Limits) -> None:
    if len(lengths) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "more than one Content-Length")
    if _is_length(lengths[0]) is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "a malformed Content-Length")
    head.framing = Framing.LENGTH
    head.length = int(lengths[0])
    if limits.body and head.length > limits.body:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of {head.length} bytes is declared")


def _judge_expectation(head: Head, expectations: list[str]) -> None:
    # RFC 9110 §10.1.1: to be ignored in HTTP/1.0.
    if head.version == "HTTP/1.0":
        return
    if any(expectation.lower() != "100-continue" for expectation in expectations):
        raise Refused(HTTPStatus.EXPECTATION_FAILED, "an expectation other than 100-continue")
    head.expect_continue = head.framing is Framing.CHUNKED or head.length > 0


# --- the authority: Host, and what stands in its place in an absolute target

# RFC 3986 §3.2.2 and §3.2.3 without userinfo (RFC 9110 §4.2.4). An IPv4 address is a reg-name to this grammar. No http URI has
# an empty host (RFC 9110 §4.2.1), so a port alone is refused though the grammar of Host would have it.
_authority = re.compile(
    r"(?:([\w\-.~!$&'()*+,;=%]++)|\[([0-9A-Fa-f:.]{2,45})\]|\[v[0-9A-Fa-f]++\.[\w\-.~!$&'()*+,;=:]++\])"
    r"(?::([0-9]{0,5}))?",
    re.ASCII | re.IGNORECASE,
).fullmatch
_bad_escape = re.compile(r"%(?![0-9A-Fa-f]{2})").search


def is_authority(text: str) -> bool:
    """Whether `text` is a host that is not empty, with or without a port (RFC 3986 §3.2, port 0 to 65535)."""
    match = _authority(text)
    if match is None:
        return False
    name, address, port = match.groups()
    if port and int(port) > 65535:
        return False
    if address is not None:
        return _is_ipv6(address)
    return name is None or "%" not in name or _bad_escape(name) is None


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
