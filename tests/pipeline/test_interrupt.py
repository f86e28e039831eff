"""The application does not end: it is interrupted, and its process replaced where that does not help."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from client import Client
from conftest import Site, wait_until
from crowd import Crowd

Start = Callable[..., Site]

FIRE = {"request_timeout": 3.0, "threads": 1, "processes": 1}
"""What does not hang is over before, on a busy machine too."""


def ask(site: Site, target: str) -> tuple[int, float]:
    with Client(site.address) as client:
        answer = client.get(target)
    record = site.record(target.partition("?")[0])
    return answer.status, record["duration"]


@pytest.mark.parametrize("wedge", ["busy", "recv", "recv-in-poll", "epoll"])
def test_a_wedged_request_is_interrupted_answered_504_and_its_process_serves_on(
    start: Start, wedge: str
) -> None:
    site = start(**FIRE, interrupt_timeout=20)
    before = site.served.statistics().processes
    with Client(site.address) as client:
        assert client.get(f"/wedge?{wedge}").status == 504
        record = site.record("/wedge")
        assert (record["outcome"], record["timer"], record["stage"]) == (
            "interrupted",
            "request-timeout",
            "run",
        )
        interrupted = site.log.wait_for("run.interrupted", request_id=record["request_id"])
        assert "in wedge" in interrupted["stack"]
        assert (interrupted["path"], interrupted["age"] >= 3.0) == ("/wedge", True)
        site.log.wait_for("run.recovered", request_id=record["request_id"])
    with Client(site.address) as client:
        assert client.get("/plain").status == 200
    assert site.served.statistics().processes == before


def test_siblings_are_not_disturbed_and_other_requests_of_the_thread_neither(start: Start) -> None:
    site = start(request_timeout=2.0, threads=3, processes=1, interrupt_timeout=20)
    results: list[int] = []
    slow = threading.Thread(target=lambda: results.append(ask(site, "/wedge?busy")[0]))
    slow.start()
    with Client(site.address) as client:
        while slow.is_alive():
            assert client.get("/plain").status == 200
    slow.join()
    assert results == [504]


def test_who_swallows_it_is_interrupted_again(start: Start) -> None:
    site = start(**FIRE, interrupt_timeout=20)
    assert ask(site, "/wedge?swallow-twice")[0] == 504
    site.log.wait_for("run.interrupted", count=3)
    assert [event["again"] for event in site.log.find(event="run.interrupted")][:3] == [False, True, True]


def test_a_finally_that_takes_its_time_is_not_cut_short(start: Start) -> None:
    site = start(**FIRE, interrupt_timeout=20)
    assert ask(site, "/wedge?slow-finally")[0] == 504
    assert len(site.log.find(event="run.interrupted")) == 1


def test_a_result_that_is_finished_in_spite_of_it_is_served(start: Start) -> None:
    site = start(**FIRE, interrupt_timeout=20)
    with Client(site.address) as client:
        answer = client.get("/wedge?finish")
    assert (answer.status, answer.body) == (200, b"finished")


@pytest.mark.parametrize("interrupt_timeout", [0, 0.5])
def test_what_cannot_be_interrupted_is_answered_504_and_its_process_replaced(
    start: Start, interrupt_timeout: float
) -> None:
    site = start(**FIRE, interrupt_timeout=interrupt_timeout, graceful_timeout=1, shutdown_timeout=1)
    before = site.served.statistics().processes
    with Client(site.address) as client:
        assert client.get("/wedge?sleep").status == 504
    record = site.record("/wedge")
    assert (record["outcome"], record["timer"]) == ("interrupted", "request-timeout")
    assert site.log.wait_for("run.given_up", request_id=record["request_id"])["blocked_in"] != ""
    site.log.wait_for("process.exited", pid=before[0])
    wait_until(lambda: site.served.statistics().processes not in ((), before))
    with Client(site.address) as client:
        assert client.get("/plain").status == 200


def test_a_sibling_gets_the_drains_time_to_finish(start: Start, tmp_path: Path) -> None:
    # T_fire is 6.8 s, for each from its own beginning.
    site = start(
        request_timeout=4,
        threads=2,
        processes=1,
        interrupt_timeout=0,
        graceful_timeout=60,
        shutdown_timeout=5,
    )
    with Crowd(site, tmp_path) as crowd:
        wedged = crowd.ask("/wedge?sleep")
        site.log.wait_for("pickup.claimed")
        threading.Event().wait(3.0)
        sibling = crowd.hold()
        assert wedged.read().status == 504
        site.log.wait_for("drain.started")
        assert [answer.status for answer in sibling.read()] == [200]
        records = [crowd.record_of(client) for client in (wedged, *sibling.clients)]
        assert records[0]["pid"] == records[1]["pid"]


def test_an_interrupted_stream_is_cut_visibly(start: Start) -> None:
    site = start(**FIRE, interrupt_timeout=20)
    with Client(site.address) as client:
        answer = client.get("/wedge?stream")
    assert (answer.status, answer.complete) == (200, False)
    record = site.record("/wedge")
    assert (record["outcome"], record["timer"]) == ("truncated", "request-timeout")


def test_the_time_of_a_slow_upload_is_not_the_applications(start: Start) -> None:
    site = start(**FIRE, interrupt_timeout=20, request_buffering=False)
    with Client(site.address) as client:
        client.send("POST /input?read HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n")
        for letter in b"abc":
            threading.Event().wait(1.2)
            client.send(bytes([letter]))
        assert client.read().status == 200


def test_a_request_whose_client_is_gone_is_cancelled_where_that_is_wanted(start: Start) -> None:
    site = start(processes=1, threads=1, cancel_on_disconnect=True)
    with Client(site.address) as client:
        client.send("GET /wedge?busy HTTP/1.1\r\nHost: t\r\n\r\n")
        site.log.wait_for("pickup.claimed")
        client.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset
    site.log.wait_for("run.cancelled")
    assert site.record("/wedge")["outcome"] == "client_gone"
    with Client(site.address) as client:
        assert client.get("/plain").status == 200, "the only thread is free"


def test_a_process_in_which_an_import_was_interrupted_is_replaced(start: Start) -> None:
    site = start(**FIRE, interrupt_timeout=20, graceful_timeout=5, shutdown_timeout=1)
    before = site.served.statistics().processes
    assert ask(site, "/wedge?import")[0] == 504
    drained = site.log.wait_for("drain.started")
    assert "import was interrupted" in drained["reason"]
    wait_until(lambda: site.served.statistics().processes not in ((), before))
    assert ask(site, "/plain")[0] == 200
