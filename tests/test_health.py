"""The judgement behind /readyz, and the form in which probes are answered."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from gatekeep._health import WEDGED_AFTER, GroupState, Verdict, livez, obstacle, readyz
from gatekeep.transport._probes import Answer, Health, not_found

NOW = 1000.0
LONG_AGO = NOW - WEDGED_AFTER - 0.1
JUST_NOW = NOW - WEDGED_AFTER + 0.1

IDLE = GroupState(
    "default",
    processes=2,
    ready=2,
    suspect=0,
    waiting=0,
    standing=0,
    is_full=False,
    oldest=NOW,
    last_claim=-math.inf,
    occupied=math.inf,
)


def group(**known: Any) -> GroupState:
    """An idle group, but for this."""
    return attrs.evolve(IDLE, **known)


# --- one group


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"ready": 1, "suspect": 1},
        {"ready": 1},
        {"last_claim": 5.0},
        {"oldest": JUST_NOW, "standing": 1},
        {"oldest": LONG_AGO, "last_claim": JUST_NOW, "waiting": 2000, "standing": 4},
        {"oldest": NOW - WEDGED_AFTER},
        {"occupied": JUST_NOW},
        {"occupied": NOW - WEDGED_AFTER},
    ],
    ids=[
        "idle",
        "one process is suspected",
        "one process is missing",
        "its last request was long ago",
        "a request waits since just now",
        "old requests wait, others are served",
        "a request waits for just as long as it may",
        "every thread is busy since just now",
        "every thread is busy for just as long as it may",
    ],
)
def test_a_group_serves_while_something_moves_or_nobody_waits(known: dict[str, Any]) -> None:
    assert obstacle(group(**known), NOW) == ""


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"ready": 0}, "no process is ready"),
        ({"ready": 0, "suspect": 2}, "no ready process gives a sign of life"),
        ({"is_full": True}, "as many requests wait as max-waiting allows"),
        ({"oldest": NOW - 7.2, "standing": 1}, "requests wait and none was claimed for 7 s"),
        ({"oldest": NOW - 40, "last_claim": NOW - 6}, "requests wait and none was claimed for 6 s"),
        ({"oldest": NOW - 6, "last_claim": NOW - 40}, "requests wait and none was claimed for 6 s"),
        ({"occupied": NOW - 31}, "every thread has been busy with one request for 31 s"),
    ],
)
def test_a_group_that_would_not_serve_says_why(known: dict[str, Any], said: str) -> None:
    assert obstacle(group(**known), NOW) == said


def test_what_is_most_wrong_is_said() -> None:
    everything = {"is_full": True, "oldest": 0.0, "occupied": 0.0}
    assert obstacle(group(ready=0, **everything), NOW) == "no process is ready"


# --- the gateway


def said(verdict: Verdict) -> Any:
    return json.loads(verdict.body)


def test_a_gateway_that_runs_is_live() -> None:
    assert (livez().status, said(livez())) == (200, {"status": "ok"})


def test_a_gateway_whose_groups_serve_is_ready() -> None:
    verdict = readyz([group(), group(name="api")], NOW, is_stopping=False)
    assert (verdict.status, said(verdict)) == (200, {"status": "ok"})


def test_one_that_is_not_says_why_and_what_is_known() -> None:
    state = group(ready=0, suspect=1, waiting=12, standing=3)
    verdict = readyz([state], NOW, is_stopping=False)
    assert verdict.status == 503
    reason = "no ready process gives a sign of life"
    described = {"ready": 0, "processes": 2, "suspect": 1, "waiting": 12, "standing": 3, "reason": reason}
    assert said(verdict) == {"status": "unavailable", "reason": reason, "groups": {"default": described}}


def test_one_group_that_does_not_serve_is_enough_and_is_named() -> None:
    verdict = readyz([group(), group(name="api", ready=0)], NOW, is_stopping=False)
    assert (verdict.status, said(verdict)["reason"]) == (503, "group api: no process is ready")
    reasons = {name: state["reason"] for name, state in said(verdict)["groups"].items()}
    assert reasons == {"default": "", "api": "no process is ready"}


@pytest.mark.parametrize("known", [{}, {"ready": 0}])
def test_one_that_stops_is_not_ready_however_well_its_groups_are(known: dict[str, Any]) -> None:
    verdict = readyz([group(**known)], NOW, is_stopping=True)
    assert (verdict.status, said(verdict)["reason"]) == (503, "stopping")


# --- the answers


def health(*groups: GroupState) -> Health:
    return Health(lambda: groups, lambda: NOW)


def ask(path: str, method: str = "GET", groups: Sequence[GroupState] = (IDLE,)) -> Answer:
    return health(*groups).probes("/live", "/ready")[path](method)


@pytest.mark.parametrize("path", ["/live", "/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_probe_is_answered_with_json_that_nobody_keeps(path: str, method: str) -> None:
    fields = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    assert ask(path, method) == (200, fields, b'{"status":"ok"}')


@pytest.mark.parametrize("path", ["/live", "/ready"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "get", "TRACE"])
def test_any_other_method_is_not_allowed(path: str, method: str) -> None:
    answer = ask(path, method)
    assert (answer.status, dict(answer.fields)["Allow"]) == (405, "GET, HEAD")


def test_liveness_does_not_ask_how_the_groups_are() -> None:
    dead = group(ready=0)
    assert ask("/live", groups=[dead]).status == 200
    assert ask("/ready", groups=[dead]).status == 503


@pytest.mark.parametrize(
    ("paths", "probes"),
    [(("", ""), []), (("/a", ""), ["/a"]), (("", "/b"), ["/b"]), (("/a", "/b"), ["/a", "/b"])],
)
def test_an_empty_path_is_no_probe(paths: tuple[str, str], probes: list[str]) -> None:
    assert list(health().probes(*paths)) == probes


def test_all_probes_of_a_gateway_learn_of_its_stop() -> None:
    one = health(IDLE)
    (probe,) = one.probes("", "/b").values()
    assert probe("GET").status == 200
    one.is_stopping = True
    assert probe("GET").status == 503


def test_what_is_no_probe_is_not_found() -> None:
    assert not_found("GET").status == 404
