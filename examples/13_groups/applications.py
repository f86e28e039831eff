"""Three small applications. As a rule they would be three projects."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any


def shop(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What everybody sees."""
    return tell("the shop", environ, start_response)


def back_office(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What those see who work there."""
    return tell("the back office", environ, start_response)


def interface(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What programs see; `/hang` never comes to an end."""
    while environ["PATH_INFO"] == "/hang":
        pass
    return tell("the interface", environ, start_response)


def tell(what: str, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Who answers, and where."""
    group = environ["gatekeep.process_group"]
    text = f"{what}, at {environ['SCRIPT_NAME']!r}, in process {os.getpid()} of group {group}\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]
