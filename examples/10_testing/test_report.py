"""What the report does on a real gateway: with real timeouts, and processes that really end."""

from __future__ import annotations

from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from gatekeep.testing import StartServer, wedge


def status_of(url: str) -> int:
    try:
        with urlopen(url, timeout=30) as response:
            return response.status
    except HTTPError as error:
        with error:
            return error.code


def test_a_report_adds_up(gatekeep_server: StartServer) -> None:
    server = gatekeep_server("report:application")
    with urlopen(server.url + "/report?rows=4") as response:
        assert response.read() == b"the sum of 4 rows is 10\n"
    assert server.wait_for_event("request.finished")["outcome"] == "served"


def test_one_that_takes_too_long_is_ended_and_leaves_no_file(
    gatekeep_server: StartServer, tmp_path: Path
) -> None:
    server = gatekeep_server(
        "report:application", request_timeout=0.5, threads=1, env=[f"REPORT_FOLDER={tmp_path}"]
    )
    assert status_of(server.url + "/report?rows=100000") == 504
    assert "in add_up" in server.wait_for_event("run.interrupted", path="/report")["stack"]
    server.wait_for_event("run.recovered")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("way", "event"),
    [("/lock", "run.given_up"), ("/gil", "process.deadlocked"), ("/kill", "process.lost_request")],
)
def test_an_alarm_would_hear_of_it(gatekeep_server: StartServer, way: str, event: str) -> None:
    server = gatekeep_server(wedge, request_timeout=0.5, interrupt_timeout=0.5, deadlock_timeout=2, threads=1)
    assert status_of(server.url + way) in (502, 504)
    assert server.wait_for_event(event)["level"] == "error"
