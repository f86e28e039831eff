"""The tree of errors: each knows its stage and its answer, and the tree that is printed is the tree that is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import attrs
import pytest

from gatekeep import CannotStart, GatekeepError, Outcome, Settings, SettingsError, Stage, _errors
from gatekeep._errors import (
    ClientLeft,
    HeadExpired,
    Refused,
    RequestFailed,
    RequestInterrupted,
    StartsFail,
    Stopped,
    Truncated,
)
from gatekeep.settings._group import GroupSettings
from gatekeep.settings._http import HttpSettings
from gatekeep.settings._script import ScriptSettings
from gatekeep.transport import _codec, _front  # noqa: F401  errors of their own are in the tree too


def below(error: type[Any]) -> Iterator[type[Any]]:
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
        if match := re.match(
            r"([│ ├└─]+|(?=GatekeepError$|RequestInterrupted ))([A-Z]\w+)(?: +(.*))?$", line
        ):
            depth = len(match[1]) // 4
            parents[depth] = match[2]
            found[match[2]] = parents.get(depth - 1, ""), match[3] or ""
    return found


def test_the_tree_that_is_printed_is_the_tree_that_is() -> None:
    tree = {name: parent for name, (parent, _) in printed().items()}
    interruptions = [error for error in below(RequestInterrupted) if error.__module__ == "gatekeep._errors"]
    assert tree == {"GatekeepError": "", "RequestInterrupted": ""} | {
        error.__name__: error.__bases__[0].__name__ for error in [*PUBLIC, *interruptions]
    }


def made(error: type[RequestFailed]) -> RequestFailed:
    """One of them, as it is raised: a plain refusal is told its status, a stop where it was met."""
    if error is ClientLeft:
        return ClientLeft("x", Stage.QUEUE)
    if error is StartsFail:
        return StartsFail("x", 2.5)
    if error is Stopped:
        return Stopped(Stage.RUN, started=False)
    if issubclass(error, Refused) and "status" not in vars(error):
        return error(413, "x")
    return error("x")  # type: ignore[call-arg]


@pytest.mark.parametrize("error", FAILURES)
def test_each_failure_knows_its_stage_status_and_outcome(error: type[RequestFailed]) -> None:
    failure = made(error)
    assert isinstance(failure.stage, Stage)
    assert failure.outcome in {str(outcome) for outcome in Outcome}
    assert failure.event == "" or re.fullmatch(rf"(?:{'|'.join(Stage)})\.[a-z_]+", failure.event)
    assert failure.status == 0 or HTTPStatus(failure.status) >= 400
    assert str(failure) == ("the gateway was stopped" if error is Stopped else "x")


@pytest.mark.parametrize("error", FAILURES)
def test_an_event_is_said_at_the_stage_it_is_named_after(error: type[RequestFailed]) -> None:
    assert error.event == "" or error.event.partition(".")[0] == error.stage


@pytest.mark.parametrize("error", [error for error in PUBLIC if issubclass(error, RequestFailed)])
def test_the_status_that_is_printed_is_the_status_that_is_answered(error: type[RequestFailed]) -> None:
    said = re.search(r"\((\d{3})\)$", printed()[error.__name__][1])
    if said:
        assert error.status == made(error).status == int(said[1])
    elif error not in (RequestFailed, Refused, Stopped):
        assert error.outcome in ("client_gone", "truncated"), "for those it depends on what is out already"


STATUSES = {
    "NotMounted": 404,
    "Unauthorized": 401,
    "Forbidden": 403,
    "ScriptFailed": 500,
    "BodyExpired": 408,
    "NoSpace": 507,
    "ClientGone": 0,
    "BodyLost": 400,
    "ClientLeft": 503,
    "ClientStalled": 0,
    "Overloaded": 503,
    "StartsFail": 503,
    "ConnectExpired": 503,
    "ConnectFailed": 503,
    "NeverClaimed": 503,
    "QueueExpired": 504,
    "QueueOverdue": 504,
    "HopExpired": 504,
    "Interrupted": 504,
    "ApplicationFailed": 500,
    "ProcessLost": 502,
    "Stopped": 503,
    "Truncated": 0,
}


def test_every_failure_has_the_status_that_it_should_have() -> None:
    ours = [error for error in FAILURES if error.__module__ == "gatekeep._errors"]
    assert {error.__name__: error.status for error in ours if not issubclass(error, Refused)} == STATUSES


def test_a_head_that_is_late_is_a_refusal_with_408() -> None:
    failure = HeadExpired("too slow")
    assert isinstance(failure, Refused)
    assert (failure.status, failure.reason, failure.stage) == (408, "too slow", Stage.PARSE)


@pytest.mark.parametrize(("started", "answer"), [(False, (503, "shed")), (True, (502, "lost"))])
@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.QUEUE, Stage.RUN, Stage.RESPOND])
def test_a_stop_is_answered_by_whether_the_request_had_started(
    stage: Stage, started: bool, answer: tuple[int, str]
) -> None:
    failure = Stopped(stage, started=started)
    assert (failure.stage, failure.status, failure.outcome) == (stage, *answer)


SETTINGS = {
    setting.replace("_", "-")
    for settings in (Settings, GroupSettings, HttpSettings, ScriptSettings)
    for setting in attrs.fields_dict(settings)
}


@pytest.mark.parametrize("error", FAILURES)
def test_a_timer_is_the_name_of_a_setting(error: type[RequestFailed]) -> None:
    assert error.timer == "" or error.timer in SETTINGS


def test_a_truncation_tells_the_timer_that_cut_it() -> None:
    assert (Truncated("x").timer, Truncated("x", "socket-timeout").timer) == ("", "socket-timeout")
    assert Truncated.timer == ""


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


@pytest.mark.parametrize(("pause", "seconds"), [(-3.0, 1), (0.0, 1), (0.25, 2), (29.5, 31)])
def test_whoever_is_turned_away_is_told_to_come_when_the_next_start_has_been_tried(
    pause: float, seconds: int
) -> None:
    assert StartsFail("x", pause).retry_after == seconds
