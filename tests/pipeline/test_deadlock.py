"""A process in which no Python runs any more: the GIL is held, or it was stopped. Judged by the gateway, from outside."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from client import Client
from conftest import Site, wait_until

Start = Callable[..., Site]


def ask_behind(site: Site, target: str) -> threading.Thread:
    """Ask for it in a thread; what it gets stands in the log."""

    def ask() -> None:
        with Client(site.address) as client:
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
        with Client(site.address) as client:
            while not self._over:
                self.statuses.append(client.get("/plain").status)
                time.sleep(0.005)

    def stop(self) -> None:
        self._over = True
        for thread in self._threads:
            thread.join(60)


def test_a_held_gil_in_one_of_two_processes_costs_its_started_requests_and_nobody_else(start: Start) -> None:
    site = start(processes=2, threads=2, deadlock_timeout=4)
    site.log.wait_for("process.ready", count=2)
    load = Load(site, clients=4)
    try:
        with Client(site.address) as client:
            assert client.get("/wedge?gil-1000").status == 502
    finally:
        load.stop()
    record = site.record("/wedge")
    assert (record["outcome"], record["stage"]) == ("lost", "run")
    pid = record["pid"]
    assert site.log.wait_for("process.suspect", pid=pid)["silent"] >= 2
    deadlocked = site.log.wait_for("process.deadlocked", pid=pid)
    assert deadlocked["timer"] == "deadlock-timeout"
    assert "hold_gil" in deadlocked["stacks"]
    lost = site.log.find(event="process.lost_request", pid=pid)
    mine = [event for event in lost if event["request_id"] == record["request_id"]]
    assert [(event["method"], event["path"]) for event in mine] == [("GET", "/wedge")]
    assert mine[0]["age"] > 3
    site.log.wait_for("process.exited", pid=pid)
    # Whatever else had started in that process is lost with it, and listed; nobody else notices anything.
    assert load.statuses.count(502) == len(lost) - 1
    assert set(load.statuses) <= {200, 502}
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
    site = start(processes=2, threads=1, deadlock_timeout=3)
    site.log.wait_for("process.ready", count=2)
    before = site.served.statistics().processes
    wedged = [ask_behind(site, f"/wedge?{wedge}") for _ in range(2)]
    site.log.wait_for("pickup.claimed", count=2)
    with Client(site.address) as client:
        assert client.get("/plain").status == 200
    for thread in wedged:
        thread.join(60)
    assert {record["status"] for record in site.log.find(event="request.finished", path="/wedge")} == {502}
    wait_until(lambda: not set(before) & set(site.served.statistics().processes))


def test_a_process_that_was_stopped_is_killed_though_it_writes_no_stacks(start: Start) -> None:
    site = start(processes=1, deadlock_timeout=3)
    (pid,) = site.served.statistics().processes
    os.kill(pid, signal.SIGSTOP)
    deadlocked = site.log.wait_for("process.deadlocked", pid=pid)
    assert (deadlocked["stacks"], deadlocked["reason"]) == (
        "",
        "no sign of life for deadlock-timeout; it wrote no stacks",
    )
    with Client(site.address) as client:
        assert client.get("/plain").status == 200


def test_a_gil_that_is_held_for_less_than_deadlock_timeout_costs_nothing(start: Start) -> None:
    site = start(processes=1, threads=2, deadlock_timeout=30)
    with Client(site.address) as client:
        assert client.get("/wedge?gil-4").status == 200
    (pid,) = site.served.statistics().processes
    site.log.wait_for("process.alive", pid=pid)
    assert not site.log.find(event="process.deadlocked")


def test_an_import_that_holds_the_gil_for_longer_than_deadlock_timeout_is_not_judged(start: Start) -> None:
    site = start("slow_import:application", processes=1, deadlock_timeout=1)
    with Client(site.address) as client:
        assert client.get("/").status == 200
    assert not site.log.find(event="process.suspect")
    assert site.log.wait_for("process.ready")["load_time"] >= 4


def test_a_process_that_computes_under_full_load_is_never_given_up(start: Start) -> None:
    site = start(processes=1, threads=10, deadlock_timeout=3)
    threads = [ask_behind(site, "/compute?8") for _ in range(10)]
    for thread in threads:
        thread.join(60)
    assert not site.log.find(event="process.deadlocked")
    assert {record["status"] for record in site.log.find(event="request.finished")} == {200}
