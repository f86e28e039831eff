"""A process in which no Python runs any more: the GIL is held, or it was stopped. Judged by the gateway, from outside."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client import Client
from conftest import Site, wait_until
from crowd import Crowd

Start = Callable[..., Site]

JUDGED_WITHIN = 100.0
"""Seconds. A gateway that was late itself begins each silence anew, and on a busy machine it is now and then."""


def ask_behind(site: Site, target: str) -> threading.Thread:
    """Ask for it in a thread; what it gets stands in the log."""

    def ask() -> None:
        with Client(site.address, JUDGED_WITHIN) as client:
            client.get(target)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


class Load:
    """Clients that ask for `/plain`, one request after the other, until told to stop."""

    def __init__(self, site: Site, clients: int) -> None:
        self.statuses: list[int] = []
        self._over = False
        self._threads = [threading.Thread(target=self._ask, args=(site,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, site: Site) -> None:
        with Client(site.address, JUDGED_WITHIN) as client:
            while not self._over:
                self.statuses.append(client.get("/plain").status)
                time.sleep(0.005)

    def stop(self) -> None:
        self._over = True
        for thread in self._threads:
            thread.join(JUDGED_WITHIN)


def test_a_held_gil_in_one_of_two_processes_costs_its_started_requests_and_nobody_else(
    start: Start, tmp_path: Path
) -> None:
    site = start(processes=2, threads=2, deadlock_timeout=6)
    site.log.wait_for("process.ready", count=2)
    with Crowd(site, tmp_path, JUDGED_WITHIN) as crowd:
        # Two requests in one process, one in the other, where the wedge finds a thread: each of them is known to run.
        hold = crowd.hold(3)
        wait_until(
            lambda: sum(process.running for process in site.gateway._groups[0].status().processes) == 3
        )
        wedge = crowd.ask("/wedge?gil-1000")
        site.log.wait_for("pickup.claimed", count=4)
        load = Load(site, clients=4)
        try:
            site.log.wait_for("process.suspect")
            answers = hold.read()
            assert wedge.read().status == 502
        finally:
            load.stop()
    record = site.record("/wedge")
    assert (record["outcome"], record["stage"]) == ("lost", "run")
    pid = record["pid"]
    assert site.log.wait_for("process.suspect", pid=pid)["silent"] >= 2
    deadlocked = site.log.wait_for("process.deadlocked", pid=pid)
    assert deadlocked["timer"] == "deadlock-timeout"
    assert "hold_gil" in deadlocked["stacks"]
    site.log.wait_for("process.exited", pid=pid)
    lost = site.log.find(event="process.lost_request", pid=pid)
    mine = [event for event in lost if event["request_id"] == record["request_id"]]
    assert [(event["method"], event["path"]) for event in mine] == [("GET", "/wedge")]
    assert mine[0]["age"] > 5
    # What else had started in that process is lost with it, and listed; nobody else notices anything.
    assert sorted(answer.status for answer in answers) == [200, 200, 502]
    assert sorted(event["path"] for event in lost) == ["/hold", "/wedge"]
    assert set(load.statuses) == {200}
    assert site.served.statistics().deadlocks == 1


def test_what_a_wedged_process_had_in_hand_unclaimed_goes_elsewhere_before_it_is_killed(start: Start) -> None:
    site = start(processes=2, threads=5, deadlock_timeout=300)
    site.log.wait_for("process.ready", count=2)
    first, _ = site.served.statistics().processes
    load = Load(site, clients=8)
    time.sleep(0.3)
    os.kill(first, signal.SIGSTOP)
    try:
        site.log.wait_for("process.suspect", pid=first)
        # What had not started is served by the other one; what had waits for its thread.
        wait_until(lambda: site.served.statistics().standing == 0)
    finally:
        os.kill(first, signal.SIGCONT)
        load.stop()
    site.log.wait_for("process.alive", pid=first)
    assert set(load.statuses) == {200}
    assert first in site.served.statistics().processes


@pytest.mark.parametrize("wedge", ["gil-1000", "regex"])
def test_when_all_processes_are_wedged_service_returns_after_deadlock_timeout(
    start: Start, wedge: str
) -> None:
    site = start(processes=2, threads=1, deadlock_timeout=6)
    site.log.wait_for("process.ready", count=2)
    before = site.served.statistics().processes
    wedged = [ask_behind(site, f"/wedge?{wedge}") for _ in range(2)]
    site.log.wait_for("pickup.claimed", count=2)
    with Client(site.address, JUDGED_WITHIN) as client:
        assert client.get("/plain").status == 200
    for thread in wedged:
        thread.join(JUDGED_WITHIN)
    site.log.wait_for("request.finished", path="/wedge", status=502, count=2)
    wait_until(lambda: not set(before) & set(site.served.statistics().processes))


def test_a_process_that_was_stopped_is_killed_though_it_writes_no_stacks(start: Start) -> None:
    site = start(processes=1, deadlock_timeout=6)
    (pid,) = site.served.statistics().processes
    os.kill(pid, signal.SIGSTOP)
    deadlocked = site.log.wait_for("process.deadlocked", pid=pid, timeout=JUDGED_WITHIN)
    assert (deadlocked["stacks"], deadlocked["reason"]) == (
        "",
        "no sign of life for deadlock-timeout; it wrote no stacks",
    )
    with Client(site.address) as client:
        assert client.get("/plain").status == 200


def test_a_gil_that_is_held_for_less_than_deadlock_timeout_costs_nothing(
    start: Start, tmp_path: Path
) -> None:
    site = start(processes=1, threads=2, deadlock_timeout=300)
    (pid,) = site.served.statistics().processes
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with Client(site.address) as client:
        client.send(f"GET /hold-gil-for-pipe?{pipe} HTTP/1.1\r\nHost: test\r\n\r\n")
        site.log.wait_for("process.suspect", pid=pid)
        with pipe.open("w"):
            pass
        assert client.read().status == 200
    site.log.wait_for("process.alive", pid=pid)
    assert not site.log.find(event="process.deadlocked")


def test_an_import_that_holds_the_gil_for_longer_than_deadlock_timeout_is_not_judged(start: Start) -> None:
    site = start("slow_import:application", processes=1, deadlock_timeout=3)
    with Client(site.address) as client:
        assert client.get("/").status == 200
    ready = site.log.wait_for("process.ready")
    assert ready["load_time"] >= 4
    # One that has loaded is judged: on a busy machine it may be silent for a while.
    before = site.log.events[: site.log.events.index(ready)]
    assert not [event for event in before if event["event"] in ("process.suspect", "process.deadlocked")]


def test_a_process_that_computes_under_full_load_is_never_given_up(start: Start) -> None:
    site = start(processes=1, threads=10, deadlock_timeout=6)
    threads = [ask_behind(site, "/compute?10") for _ in range(10)]
    for thread in threads:
        thread.join(JUDGED_WITHIN)
    site.log.wait_for("request.finished", status=200, count=10)
    assert not site.log.find(event="process.deadlocked")
