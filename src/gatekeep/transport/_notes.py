"""What is told of a request beyond the usual, where the settings ask for it: its URL, and fields of both heads. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gatekeep.settings._http import HttpSettings
from gatekeep.transport._codec import Head


def notes_of(settings: HttpSettings) -> Notes | None:
    """What is asked for; None where nothing is, so that it costs nothing."""
    asked = settings.log_url or settings.log_request_headers or settings.log_response_headers
    return Notes(settings) if asked else None


class Notes:
    """Takes down what the settings ask for."""

    def __init__(self, settings: HttpSettings) -> None:
        self._url = settings.log_url
        self._request = frozenset(settings.log_request_headers)
        self._response = frozenset(settings.log_response_headers)

    def of_request(self, head: Head, scheme: str = "") -> dict[str, Any]:
        """Fields of the canonical event.

        Args:
            scheme: empty where it is not known, in a request that is refused for its head.
        """
        noted: dict[str, Any] = {}
        if self._url:
            noted = {"scheme": scheme, "target": head.target}
        if self._request:
            noted["request_headers"] = _chosen(head.fields, self._request)
        return noted

    def of_response(self, fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """The same of the application's response, without what the front adds."""
        return {"response_headers": _chosen(fields, self._response)} if self._response else {}


def text_of(value: str) -> str:
    """What bytes that were read as latin-1 mean to people: they mostly were UTF-8."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _chosen(fields: Iterable[tuple[str, str]], names: frozenset[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for name, value in fields:
        key = name.lower()
        if key in names:
            text = text_of(value)
            chosen[key] = f"{chosen[key]}, {text}" if key in chosen else text
    return chosen
