"""The answers to health probes: which path asks what, and in which form it is told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from gatekeep import _health
from gatekeep._health import GroupState, Verdict
from gatekeep.transport._exchange import error_body


class Answer(NamedTuple):
    """A complete response of the gateway's own."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes


Probe = Callable[[str], Answer]
"""Answers a request with that method."""


class Health:
    """What the gateway says of itself. All of its addresses share it.

    Args:
        look: what is known of each group now.
        now: the clock that those stamps are of.

    Attributes:
        is_stopping: whether it has been told to stop, though it may still serve for a while.
    """

    def __init__(self, look: Callable[[], Sequence[GroupState]], now: Callable[[], float]) -> None:
        self.is_stopping = False
        self._look = look
        self._now = now

    def probes(self, livez_path: str, readyz_path: str) -> dict[str, Probe]:
        """The probes by their paths; an empty path is none."""
        probes = {livez_path: self._livez, readyz_path: self._readyz}
        return {path: probe for path, probe in probes.items() if path}

    def _livez(self, method: str) -> Answer:
        return _answer(method, _health.livez)

    def _readyz(self, method: str) -> Answer:
        return _answer(method, self._judge)

    def _judge(self) -> Verdict:
        return _health.readyz(self._look(), self._now(), is_stopping=self.is_stopping)


def not_found(_: str) -> Answer:
    """For every other path of an address that is for nothing but probes."""
    return _text(HTTPStatus.NOT_FOUND)


def _answer(method: str, ask: Callable[[], Verdict]) -> Answer:
    if method not in ("GET", "HEAD"):
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
    status, body = ask()
    return Answer(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")], body)


def _text(status: HTTPStatus, *fields: tuple[str, str]) -> Answer:
    return Answer(int(status), [("Content-Type", "text/plain; charset=utf-8"), *fields], error_body(status))
