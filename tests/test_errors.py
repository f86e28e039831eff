"""The tree of errors: each knows its stage and its answer, and the tree that is printed is the tree that is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from gatekeep import CannotStart, GatekeepError, Outcome, SettingsError, Stage, _errors
from gatekeep._errors import Refused, RequestFailed
from gatekeep.transport import _codec, _front  # noqa: F401  errors of their own are in the tree too


def below(error: type[GatekeepError]) -> Iterator[type[GatekeepError]]:
    for child in error.__subclasses__():
        yield child
        yield from below(child)


PUBLIC = [error for error in below(GatekeepError) if error.__module__ == "gatekeep._errors"]
FAILURES = [error for error in below(RequestFailed) if issubclass(error, RequestFailed)]


def printed() -> dict[str, tuple[str, str]]:
    """Each name in the tree at the top of `_errors.py`, with its parent and its line's last words."""
    found: dict[str, tuple[str, str]] = {}
    parents: dict[int, str] = {}
    for line in str(_errors.__doc__).splitlines():
        if match := re.match(r"([│ ├└─]+|(?=GatekeepError$))([A-Z]\w+)(?: +(.*))?$", line):
            depth = len(match[1]) // 4
            parents[depth] = match[2]
            found[match[2]] = parents.get(depth - 1, ""), match[3] or ""
    return found


def test_the_tree_that_is_printed_is_the_tree_that_is() -> None:
    tree = {name: parent for name, (parent, _) in printed().items()}
    assert tree == {"GatekeepError": ""} | {error.__name__: error.__bases__[0].__name__ for error in PUBLIC}


@pytest.mark.parametrize("error", FAILURES)
def test_each_failure_knows_its_stage_status_and_outcome(error: type[RequestFailed]) -> None:
    assert isinstance(error.stage, Stage)
    assert error.outcome in {str(outcome) for outcome in Outcome}
    assert error.event == "" or re.fullmatch(rf"(?:{'|'.join(Stage)})\.[a-z_]+", error.event)
    failure = error(413, "x") if issubclass(error, Refused) else error("x")
    assert failure.status == 0 or HTTPStatus(failure.status) >= 400
    assert str(failure) == "x"


@pytest.mark.parametrize("error", FAILURES)
def test_an_event_is_said_at_the_stage_it_is_named_after(error: type[RequestFailed]) -> None:
    assert error.event == "" or error.event.partition(".")[0] == error.stage


@pytest.mark.parametrize("error", [error for error in PUBLIC if issubclass(error, RequestFailed)])
def test_the_status_that_is_printed_is_the_status_that_is_answered(error: type[RequestFailed]) -> None:
    said = re.search(r"\((\d{3})\)$", printed()[error.__name__][1])
    if said:
        assert error.status == int(said[1])
    elif error is not Refused:
        assert error is RequestFailed or getattr(error, "status", None) in (0, 400)


def test_failures_of_one_kind_have_one_status() -> None:
    statuses = {error.outcome: set() for error in FAILURES}
    for error in FAILURES:
        if not issubclass(error, Refused) and error.__module__ == "gatekeep._errors" and error.status:
            statuses[error.outcome].add(error.status)
    assert statuses == {
        "refused": set(),
        "client_gone": {400},
        "shed": {503},
        "queue_timeout": {504},
        "app_error": {500},
        "lost": {502},
        "truncated": set(),
    }


@pytest.mark.parametrize("status", [413, HTTPStatus.REQUEST_ENTITY_TOO_LARGE])
def test_a_refusal_carries_its_own_status_and_reason(status: int) -> None:
    refusal = Refused(status, "a body of 9 bytes is declared")
    assert (refusal.status, type(refusal.status), refusal.reason) == (
        413,
        int,
        "a body of 9 bytes is declared",
    )


def test_a_gateway_that_cannot_start_tells_a_line_and_details() -> None:
    assert CannotStart("port in use").details == ""
    error = CannotStart("app failed to load", "Traceback ...")
    assert (str(error), error.details) == ("app failed to load", "Traceback ...")


def test_only_failures_of_requests_are_failures_of_requests() -> None:
    assert not issubclass(SettingsError, RequestFailed)
    assert not issubclass(CannotStart, RequestFailed)
    assert all(issubclass(error, Exception) for error in PUBLIC)
