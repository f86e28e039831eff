"""Lines of an access log in a format of the user's, with the atoms that gunicorn, hypercorn and granian know. Pure.

A format is text for Python's `%`: `%(h)s "%(r)s" %(s)s %(D)d`, with flags, width and precision. What comes from outside is
escaped as in a JSON string, so that no value can end its quotation marks or its line, or talk to a terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from gatekeep._errors import SettingsError

Event = Mapping[str, Any]
"""The fields of `request.finished`."""

Text = Callable[[Event, "Moment"], str]
Number = Callable[[Event], float]

SETTING = "access-log-format"

NOTHING = "-"
"""What stands for a value that there is none of."""

FIELD_NAME = re.compile(r"[!#$%&'+\-.^_`|~0-9A-Za-z]{1,256}")
"""A field that may be logged: a token (RFC 9110 section 5.6.2) without an asterisk: nobody shall log passwords by asking for
everything."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_ATOM = re.compile(
    r"%\((?P<name>[^()]*)\)(?P<flags>[-+ 0]*)(?P<width>[0-9]{0,3})(?:\.(?P<precision>[0-9]{1,3}))?(?P<kind>[sdif])"
)
_BEGIN = re.compile(r"%(?:\([^()]*\)?)?.?")
"""What is shown of something that should have been an atom."""


class Moment:
    """When a request has ended, as formats write it: worked out once for all that end in the same second.

    Args:
        now: the local time, with its zone.

    Attributes:
        common: the same in the common log format.
    """

    __slots__ = ("common", "now")

    def __init__(self, now: datetime) -> None:
        self.now = now
        # Not by strftime alone: a month's name is the locale's there.
        self.common = f"[{now.day:02d}/{_MONTHS[now.month - 1]}/{now.year:04d}:{now:%H:%M:%S %z}]"


# --- what the atoms stand for


def _host(event: Event) -> str:
    client: str = event["client"]
    if client in ("unix", "unknown"):
        return ""
    if client.startswith("["):
        return client[1:].partition("]")[0]
    return client.partition(":")[0] if client.count(":") == 1 else client


def _target(event: Event) -> str:
    return str(event.get("target") or event["path"])


def _query(event: Event) -> str:
    return _target(event).partition("?")[2]


def _request_line(event: Event) -> str:
    if not event["method"]:
        return ""  # what came was none
    return f"{event['method']} {_target(event)} {event['protocol']}"


def _beginning(event: Event, ended: Moment) -> str:
    return f"{ended.now - timedelta(seconds=event['duration']):%Y-%m-%d %H:%M:%S %z}"


def _phrase(event: Event) -> str:
    try:
        return HTTPStatus(event["status"]).phrase
    except ValueError:
        return ""


def _of(read: Callable[[Event], Any]) -> Text:
    """An atom that does not depend on the time; `NOTHING` for what is empty, or zero."""
    return lambda event, _: str(read(event) or NOTHING)


def _field(of: str, name: str) -> Text:
    return _of(lambda event: event.get(of, {}).get(name))


_TEXTS: Mapping[str, Text] = {
    # gunicorn
    "h": _of(_host),
    "l": lambda event, ended: NOTHING,
    "u": _of(lambda event: event.get("user")),
    "t": lambda event, ended: ended.common,
    "r": _of(_request_line),
    "m": _of(lambda event: event["method"]),
    "U": _of(lambda event: event["path"]),
    "q": lambda event, ended: _query(event),
    "H": _of(lambda event: event["protocol"]),
    "s": _of(lambda event: event["status"]),
    "b": _of(lambda event: event["bytes_out"]),
    "f": _field("request_headers", "referer"),
    "a": _field("request_headers", "user-agent"),
    "L": lambda event, ended: f"{event['duration']:.6f}",
    "p": _of(lambda event: event["pid"] and f"<{event['pid']}>"),
    # hypercorn
    "R": _of(_request_line),
    "Uq": _of(_target),
    "S": _of(lambda event: event.get("scheme")),
    "st": _of(_phrase),
    # granian
    "addr": _of(_host),
    "time": _beginning,
    "path": _of(lambda event: event["path"]),
    "query_string": lambda event, ended: _query(event),
    "method": _of(lambda event: event["method"]),
    "scheme": _of(lambda event: event.get("scheme")),
    "protocol": _of(lambda event: event["protocol"]),
    "status": _of(lambda event: event["status"]),
    "dt_ms": lambda event, ended: f"{event['duration'] * 1000:.3f}",
}

_NUMBERS: Mapping[str, Number] = {
    "s": lambda event: event["status"],
    "status": lambda event: event["status"],
    "B": lambda event: event["bytes_out"],
    "rbl": lambda event: event["bytes_out"],
    "T": lambda event: int(event["duration"]),
    "M": lambda event: int(event["duration"] * 1000),
    "D": lambda event: round(event["duration"] * 1_000_000),
    "L": lambda event: event["duration"],
    "dt_ms": lambda event: event["duration"] * 1000,
}

_OF_THE_URL = frozenset({"r", "R", "q", "Uq", "S", "query_string", "scheme"})
"""Atoms that need more of the URL than its path, which is all that a record has by default (log-url)."""

_VARIABLES = {
    "remote_addr": "h",
    "remote_user": "u",
    "request_method": "m",
    "server_protocol": "H",
    "query_string": "q",
    "raw_uri": "Uq",
    "request_uri": "Uq",
    "wsgi.url_scheme": "S",
}
"""Variables of a request's environ, and the atoms that stand for them. The front knows these and HTTP_*; the rest is in the
application's process."""

ALLOWED = (
    "%%; %(X)s with X one of h l u t r m U q H s B b f a T M D L p (gunicorn), R Uq S st (hypercorn), addr time dt_ms status "
    "path query_string method scheme protocol rbl (granian); %({Field}i)s of the request, %({Field}o)s of the response; "
    f"%({{V}}e)s with V one of HTTP_* {' '.join(sorted(name.upper() for name in _VARIABLES if '.' not in name))}"
)


# --- formats


class AccessFormat:
    """One format.

    Args:
        text: what access-log-format says.

    Attributes:
        needs_url: whether it needs `target` or `scheme` in the record (log-url).
        request_fields, response_fields: the header fields that it needs in the record, in lower case (log-request-headers,
            log-response-headers). Dicts, since they keep the order and have each once.

    Raises:
        SettingsError: an atom does not exist or is not written as one, or the text is not printable.
    """

    def __init__(self, text: str) -> None:
        self._complaint = f"{SETTING} = {text!r}"
        self.needs_url = False
        self.request_fields: dict[str, None] = {}
        self.response_fields: dict[str, None] = {}
        self._pieces: list[Text] = []
        if not text.replace("\t", "").isprintable():
            raise SettingsError(f"{self._complaint}: allowed is printable text, and tabs")
        self._parse(text)

    def render(self, event: Event, ended: Moment) -> str:
        """A request's line, without its end.

        Args:
            ended: when the request has ended.
        """
        return "".join([piece(event, ended) for piece in self._pieces])

    def _parse(self, text: str) -> None:
        place = 0
        while (found := text.find("%", place)) >= 0:
            self._add_literal(text[place:found])
            if text.startswith("%%", found):
                self._add_literal("%")
                place = found + 2
            elif atom := _ATOM.match(text, found):
                self._pieces.append(self._piece(atom))
                place = atom.end()
            else:
                raise self._refused(_broken(text, found))
        self._add_literal(text[place:])

    def _add_literal(self, text: str) -> None:
        if text:
            self._pieces.append(lambda event, ended: text)

    def _piece(self, atom: re.Match[str]) -> Text:
        name, width = atom["name"], f"{atom['flags']}{atom['width']}"
        if atom["kind"] != "s":
            number = _NUMBERS.get(name)
            if number is None:
                raise self._refused(f"{atom[0]} is {'unknown' if self._text(name) is None else 'no number'}")
            precision = f".{atom['precision']}" if atom["precision"] else ""
            return lambda event, ended: f"%{width}{precision}{atom['kind']}" % number(event)
        read = self._text(name)
        if read is None:
            raise self._refused(f"{atom[0]} is unknown")
        return _written(read, width, int(atom["precision"]) if atom["precision"] else None)

    def _text(self, name: str) -> Text | None:
        """What reads the value of that atom; None where there is none."""
        if name.startswith("{") and name[-2:] in ("}i", "}o", "}e"):
            return self._bracketed(name[1:-2].lower(), name[-1])
        self.needs_url |= name in _OF_THE_URL
        if name == "f":
            self.request_fields["referer"] = None
        elif name == "a":
            self.request_fields["user-agent"] = None
        number = _NUMBERS.get(name)
        if name not in _TEXTS and number is not None:
            return lambda event, ended: str(number(event))
        return _TEXTS.get(name)

    def _bracketed(self, name: str, kind: str) -> Text | None:
        if kind == "e":
            if name.startswith("http_"):
                return self._bracketed(name[5:].replace("_", "-"), "i")
            return self._text(_VARIABLES[name]) if name in _VARIABLES else None
        if not FIELD_NAME.fullmatch(name):
            return None
        if kind == "i":
            self.request_fields[name] = None
            return _field("request_headers", name)
        self.response_fields[name] = None
        return _field("response_headers", name)

    def _refused(self, what: str) -> SettingsError:
        return SettingsError(f"{self._complaint}: {what}; allowed is {ALLOWED}")


def _broken(text: str, place: int) -> str:
    shown = _BEGIN.match(text, place)
    assert shown is not None
    if not text.startswith("%(", place):
        return f"'{shown[0]}' is no atom"
    if ")" not in shown[0]:
        return f"'{shown[0]}' has no closing bracket"
    return f"'{shown[0]}' has neither s, d nor f behind its bracket"


def _written(read: Text, width: str, precision: int | None) -> Text:
    # The precision is applied before escaping: half an escape would swallow the quotation mark behind it.
    if not width and precision is None:
        return lambda event, ended: escaped(read(event, ended))
    return lambda event, ended: f"%{width}s" % escaped(read(event, ended)[:precision])


_are_plain = re.compile(r"[ !#-\[\]-~]*+").fullmatch


def escaped(text: str) -> str:
    r"""A text as it may stand between quotation marks: a `\` before each `"` and `\`, and what is not printable as `\n` or
    `\u001b`."""
    if _are_plain(text):
        return text
    return "".join(
        [each if each.isprintable() and each not in '"\\' else json.dumps(each)[1:-1] for each in text]
    )
