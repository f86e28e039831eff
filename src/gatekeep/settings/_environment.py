"""Settings from environment variables: `GATEKEEP_` and the setting's name, and the few that all servers know. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gatekeep._errors import SettingsError
from gatekeep._trust import parse_network
from gatekeep.settings._bind import Bind, BindKind
from gatekeep.settings._declared import declared, nearest, plain_name
from gatekeep.settings._layers import Layer
from gatekeep.settings._spec import plain_type, value_of

PREFIX = "GATEKEEP_"
ARGUMENTS = "GATEKEEP_CMD_ARGS"
"""Flags, as on the command line: what container images need. gunicorn's GUNICORN_CMD_ARGS."""

_LINKS = re.compile(r"GATEKEEP_(SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes and Docker set in every container beside a service that is called gatekeep; GATEKEEP_PORT is an URL then."""

CONFIG, FROM = "GATEKEEP_CONFIG", "GATEKEEP_FROM"
APP, PROFILE = "GATEKEEP_APP", "GATEKEEP_PROFILE"

PORT, WEB_CONCURRENCY, FORWARDED_ALLOW_IPS = "PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"
"""Variables that other servers read, too; hosting platforms set the first two."""


def environment_layers(environment: Mapping[str, str], own: frozenset[str] = frozenset()) -> Iterator[Layer]:
    """What its variables say, one layer each, so that what is wrong is named as it was written.

    Args:
        own: names that are not meant for settings.

    Raises:
        SettingsError: one is unknown, or its value is none of the setting's.
    """
    seen: dict[str, str] = {}
    known = declared()
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in own or variable in (ARGUMENTS, CONFIG, FROM):
            continue
        if _is_link(variable, text) or (variable in (APP, PROFILE) and not text):
            continue
        name = plain_name(variable.removeprefix(PREFIX).lower())
        if text and seen.setdefault(name, variable) != variable:
            raise SettingsError(f"${variable}: ${seen[name]} says it already, by its other name")
        if variable in (APP, PROFILE):
            yield Layer(f"${variable}", {name: text})
        elif name in known:
            if text or plain_type(known[name][1]) is str:  # else it is empty, which is as good as not set
                yield _layer(variable, name, text)
        else:
            near = nearest(name, [*known, "app", "profile", "config"])
            hint = f"; did you mean ${PREFIX}{near.upper()}?" if near else ""
            raise SettingsError(f"${variable}: there is no such setting{hint}")


def _is_link(variable: str, text: str) -> bool:
    return bool(_LINKS.fullmatch(variable)) or (variable == f"{PREFIX}PORT" and "://" in text)


def _layer(variable: str, name: str, text: str) -> Layer:
    try:
        return Layer(f"${variable}", {name: value_of(declared()[name][1], text)})
    except SettingsError as error:
        raise SettingsError(f"${variable}: {error}") from None


def common_layers(environment: Mapping[str, str]) -> Iterator[Layer]:
    """What the variables say that other servers read, too, one layer each. An empty $FORWARDED_ALLOW_IPS trusts nobody, as with
    gunicorn and uvicorn; the others are as good as not set then.

    Raises:
        SettingsError: one is not what it should be.
    """
    if text := environment.get(PORT):
        yield Layer(f"${PORT}", {"binds": [Bind(BindKind.TCP, "0.0.0.0", _port(text))]})
    if text := environment.get(WEB_CONCURRENCY):
        yield Layer(f"${WEB_CONCURRENCY}", {"processes": _number(WEB_CONCURRENCY, text)})
    if (text := environment.get(FORWARDED_ALLOW_IPS)) is not None:
        networks = [
            parse_network(f"${FORWARDED_ALLOW_IPS}", item.strip()) for item in text.split(",") if item.strip()
        ]
        yield Layer(f"${FORWARDED_ALLOW_IPS}", {"trusted_proxies": networks})


def _port(text: str) -> int:
    number = _number(PORT, text)
    if number > 65535:
        raise SettingsError(f"${PORT} = {text!r}: allowed is 0 to 65535")
    return number


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise SettingsError(f"${name} = {text[:20]!r}: a number is needed")
    return int(text)
