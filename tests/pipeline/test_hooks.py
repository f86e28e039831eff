"""What an application is told through its hooks, in real processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import TESTS, Site, start_site, wait_until
from crowd import complete_lines
from served import serve

Start = Callable[..., Site]

FIRE = 3.0
"""Seconds of request-timeout. What does not hang is over before, on a busy machine too."""


class Told:
    """What subscribers were told so far."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.touch()

    def __call__(self, *names: str) -> list[dict[str, Any]]:
        """Of those names."""
        lines = [json.loads(line) for line in complete_lines(self.file)]
        return [line for line in lines if line["name"] in names]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "told")


def start_hooked(
    stack: ExitStack, told: Told, app: str = "hooked:app", env: tuple[str, ...] = (), **options: Any
) -> Site:
    options = {"processes": 1, "threads": 1} | options
    return start_site(stack, app, env=[f"TOLD={told.file}", *env], **options)


@pytest.fixture
def start(told: Told) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: start_hooked(stack, told, **options)


def ask(site: Site, target: str) -> tuple[int, bytes]:
    with Client(site.address) as client:
        answer = client.get(target)
    return answer.status, answer.body


def last(told: Told, name: str, count: int = 1) -> dict[str, Any]:
    """The newest thing told of that name, once there are so many."""
    wait_until(lambda: len(told(name)) >= count)
    return told(name)[-1]


# --- the request's data ---------------------------------------------------------------------------------------------


def test_the_requests_data_is_one_dict_wherever_it_is_asked_for(start: Start, told: Told) -> None:
    site = start()
    for count in (1, 2):
        status, body = ask(site, "/data")
        seen = json.loads(body)
        assert status == 200
        assert seen["before"] == ["request_started"]  # the first subscriber's; nothing of the request before
        assert seen["after"] == {"request_started": "seen", "here": 1, "deep": 2, "thread": 3}
        assert "in a thread that the request's context was not handed to" in seen["refused"][0]
        assert last(told, "request_finished", count)["data"] == seen["after"] | {"closed": True}


# --- events of requests ---------------------------------------------------------------------------------------------


def test_a_request_is_told_of_when_it_starts_and_when_it_is_over(start: Start, told: Told) -> None:
    site = start()
    assert ask(site, "/plain") == (200, b"plain")
    record = site.record("/plain")
    wait_until(lambda: bool(told("last request_finished")))
    started, finished = told("request_started", "request_finished", "request_exception")
    assert (started["name"], finished["name"]) == ("request_started", "request_finished")
    for event in (started, finished):
        assert (event["id"], event["path"]) == (record["request_id"], "/plain")
        assert event["thread"] == "gatekeep-worker-0"
        assert event["ordered"]
        assert event["same"]
        assert 0 <= event["age"] < 60
    assert (finished["status"], finished["complete"]) == (200, True)
    assert 0 < finished["took"] < 60
    assert finished["sum"]


@pytest.mark.parametrize(
    ("path", "answer", "status", "kind", "text"),
    [
        ("/raise", 500, 0, "ValueError", "raised by the application"),
        ("/exit", 500, 0, "SystemExit", "3"),
        ("/cut", 201, 201, "ValueError", "raised late"),
        ("/hang", 504, 0, "Timeout", "the request has run longer than request-timeout allows"),
    ],
)
def test_what_the_application_raises_is_told_before_the_end(
    start: Start, told: Told, path: str, answer: int, status: int, kind: str, text: str
) -> None:
    site = start(request_timeout=FIRE)
    assert ask(site, path)[0] == answer
    wait_until(lambda: bool(told("last request_finished")))
    _, raised, finished = told("request_started", "request_exception", "request_finished")
    assert (raised["kind"], raised["text"], raised["traced"]) == (kind, text, True)
    assert raised["same"]
    assert (finished["status"], finished["complete"]) == (status, False)
    assert finished["data"] == {"request_started": "seen", "request_exception": "seen"}


def test_that_the_client_has_gone_is_nothing_that_the_application_raised(start: Start, told: Told) -> None:
    site = start()
    with Client(site.address) as client:
        client.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: bool(told("request_started")))
    finished = last(told, "request_finished")
    assert (finished["status"], finished["complete"]) == (200, False)
    assert told("request_exception") == []


# --- subscribers that misbehave -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["request_started", "request_finished"])
@pytest.mark.parametrize(
    ("how", "reason"), [("raise", "ValueError: raised by a subscriber"), ("exit", "SystemExit: 7")]
)
def test_what_a_subscriber_raises_is_logged_and_harms_nothing(
    start: Start, told: Told, when: str, how: str, reason: str
) -> None:
    site = start()
    assert ask(site, f"/plain?{when},{how}") == (200, b"plain")
    failed = site.log.wait_for("hook.failed", level="error")
    assert (failed["hook"], failed["told"], failed["reason"]) == ("misbehave", when, reason)
    assert failed["request_id"] == site.record("/plain")["request_id"]
    assert 'hooked.py", line' in failed["traceback"]
    last(told, "last request_finished")
    assert told(f"last {when}")
    assert ask(site, "/plain") == (200, b"plain")


@pytest.mark.parametrize("when", ["request_started", "request_finished"])
def test_a_child_that_a_subscriber_forks_ends(start: Start, told: Told, when: str) -> None:
    site = start()
    assert ask(site, f"/plain?{when},fork") == (200, b"plain")
    last(told, "last request_finished")
    assert len(told("request_started", "request_finished")) == 2
    assert site.log.find(event="hook.failed") == []


def test_one_that_hangs_before_the_request_is_interrupted_as_the_request_is(start: Start, told: Told) -> None:
    site = start(request_timeout=FIRE)
    assert ask(site, "/plain?request_started,hang")[0] == 504
    assert "in misbehave" in site.log.wait_for("run.interrupted")["stack"]
    assert last(told, "request_exception")["kind"] == "Timeout"
    assert ask(site, "/plain") == (200, b"plain")


def test_one_that_hangs_after_the_request_delays_no_client_and_is_interrupted(
    start: Start, told: Told
) -> None:
    site = start(request_timeout=FIRE)
    assert ask(site, "/plain?request_finished,hang") == (200, b"plain")
    request = site.record("/plain")["request_id"]
    assert "in misbehave" in site.log.wait_for("run.interrupted", request_id=request)["stack"]
    interrupted = site.log.wait_for("hook.interrupted", request_id=request)
    assert "in misbehave" in interrupted["traceback"]
    site.log.wait_for("run.recovered", request_id=request)
    assert told("last request_finished") == []  # who follows it is not told
    assert ask(site, "/plain") == (200, b"plain")
    assert site.log.find(event="process.exited") == []


def test_after_a_request_that_was_interrupted_subscribers_have_all_their_time(
    start: Start, told: Told
) -> None:
    site = start(request_timeout=FIRE)
    assert ask(site, "/hang?request_finished,hang")[0] == 504
    site.log.wait_for("hook.interrupted")
    assert [event["again"] for event in site.log.find(event="run.interrupted")] == [False, False]
    assert ask(site, "/plain") == (200, b"plain")


def test_one_that_cannot_be_had_back_costs_its_process(start: Start) -> None:
    site = start(request_timeout=FIRE, interrupt_timeout=0.5, graceful_timeout=1)
    assert ask(site, "/plain?request_finished,swallow") == (200, b"plain")
    site.log.wait_for("run.given_up")
    assert ask(site, "/plain") == (200, b"plain")
    assert site.log.wait_for("process.exited")["trigger"] == "request-timeout"


# --- the end of the process -----------------------------------------------------------------------------------------


def pid_of(site: Site) -> int:
    return int(site.log.wait_for("process.ready")["pid"])


def test_a_process_is_told_why_it_ends(start: Start, told: Told) -> None:
    site = start(maximum_requests=2)
    old = pid_of(site)
    for _ in range(4):
        ask(site, "/plain")
    wait_until(lambda: bool(told("process_stopping")))
    event = told("process_stopping")[0]  # its successor may have had two by now
    assert (event["trigger"], event["pid"]) == ("maximum-requests", old)
    assert event["reason"].startswith("it has had ")
    assert event["thread"] == "gatekeep-farewell"


@pytest.mark.parametrize(
    ("number", "trigger", "reason"),
    [
        (signal.SIGUSR1, "eviction", "SIGUSR1 at the process"),
        (signal.SIGTERM, "a signal to this process", "SIGTERM at the process"),
    ],
)
def test_a_signal_at_it_is_a_reason(start: Start, told: Told, number: int, trigger: str, reason: str) -> None:
    site = start()
    os.kill(pid_of(site), number)
    event = last(told, "process_stopping")
    assert (event["trigger"], event["reason"]) == (trigger, reason)


def test_a_reload_and_the_gateways_stop_are_reasons(told: Told) -> None:
    with ExitStack() as stack:
        site = start_hooked(stack, told)
        assert site.served.reload() == 1
        event = last(told, "process_stopping")
        assert (event["trigger"], event["reason"]) == ("reload", "a reload was asked for")
        site.log.wait_for("process.ready", count=2)
    event = last(told, "process_stopping", 2)
    assert (event["trigger"], event["reason"]) == ("stop", "the gateway stops")


def test_a_process_that_waited_for_its_successor_when_the_gateway_stopped_is_told_of_the_stop(
    tmp_path: Path, told: Told
) -> None:
    """What it was to be replaced for has not come about."""
    slow = tmp_path / "slow_the_second_time.py"
    slow.write_text(
        "import os, time\nfrom hooked import app\n"
        f"if os.path.exists({str(tmp_path / 'loaded')!r}): time.sleep(1000)\n"
        f"open({str(tmp_path / 'loaded')!r}, 'w').close()\n"
    )
    with ExitStack() as stack:
        folders = [str(TESTS), str(tmp_path)]
        site = start_hooked(stack, told, "slow_the_second_time:app", python_path=folders, shutdown_timeout=30)
        site.served.reload()
        site.log.wait_for("process.started", count=2)
    (event,) = told("process_stopping")
    assert event["trigger"] == "stop"


def test_requests_that_run_are_finished_after_the_news(start: Start, told: Told, tmp_path: Path) -> None:
    site = start(threads=2)
    gate = tmp_path / "gate"
    with Client(site.address) as client:
        client.send(b"GET /hold?%s HTTP/1.1\r\nHost: x\r\n\r\n" % str(gate).encode())
        wait_until(lambda: bool(told("last request_started")))
        site.served.reload()
        last(told, "last process_stopping")
        gate.touch()
        assert client.read().body == b"held"
    last(told, "last request_finished")


@pytest.mark.parametrize("how", ["raise", "exit", "fork"])
def test_a_subscriber_that_fails_at_the_end_hinders_nobody(start: Start, told: Told, how: str) -> None:
    site = start(env=(f"MISBEHAVE={how}",))
    site.served.reload()
    last(told, "last process_stopping")
    assert site.log.wait_for("process.exited")["end"] == "exit status 0"
    assert len(told("last process_stopping")) == 1
    assert len(site.log.find(event="hook.failed", told="process_stopping")) == (how != "fork")


@pytest.mark.usefixtures("long_last_words")
def test_one_that_hangs_at_the_end_is_waited_for_within_the_processes_time(start: Start, told: Told) -> None:
    site = start(env=("MISBEHAVE=hang",), graceful_timeout=1, shutdown_timeout=1)
    began = time.monotonic()
    site.served.reload()
    assert site.log.wait_for("process.exited")["end"] == "exit status 0"
    assert time.monotonic() - began > 1.5
    assert site.log.find(event="process.shutdown_timeout")


def test_a_process_whose_gateway_is_gone_is_told_so(told: Told) -> None:
    environment = {"TOLD": str(told.file)}
    with serve("hooked:app", "--processes", "1", python_path=[TESTS], env=environment) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert last(told, "process_stopping")["trigger"] == "gateway-gone"
        server.process.wait()
