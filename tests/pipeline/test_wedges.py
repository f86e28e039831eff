"""The run stage: requests that wait for something that never comes, alone and in crowds, and what becomes of their siblings.

All of it happens in daemon processes; `test_interrupt` has the front's event loops.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from client import Answer, Client
from conftest import Site, start_site, wait_until
from crowd import Crowd, Guest
from gatekeep.pool._blocked import is_supported, why_not
from running import process

Start = Callable[..., Site]

REQUEST_TIMEOUT = 2.0
"""Seconds; what is no wedge is over before, on a busy machine too."""

FIRE_OF_TWO = 3.386
"""T_fire in seconds: 2 * (1 + ln 2)."""

LONG = 60.0
"""Seconds that are not over when a test is."""

reached = pytest.mark.skipif(not is_supported(), reason=why_not())


@pytest.fixture(scope="module")
def loop() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def site(loop: str) -> Iterator[Site]:
    """One process, two threads, and all the time to unwind."""
    with ExitStack() as stack:
        yield start_site(
            stack,
            loop=loop,
            processes=1,
            threads=2,
            request_timeout=REQUEST_TIMEOUT,
            interrupt_timeout=LONG,
        )


@pytest.fixture
def started(start: Start, tmp_path: Path) -> Iterator[Callable[..., Crowd]]:
    """Make a site of one process, and its clients."""
    with ExitStack() as stack:

        def make(**options: Any) -> Crowd:
            site = start(**({"processes": 1, "request_timeout": REQUEST_TIMEOUT} | options))
            return stack.enter_context(Crowd(site, tmp_path))

        yield make


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def processes(site: Site) -> tuple[int, ...]:
    return site.served.statistics().processes


def ask_plain(site: Site) -> int:
    with Client(site.address) as client:
        return client.get("/plain").status


def events_of(site: Site, record: dict[str, Any]) -> list[str]:
    """What its process said of a request, in order."""
    found = site.log.find(request_id=record["request_id"])
    return [event["event"] for event in found if event["event"].startswith("run.")]


def see_answered(crowd: Crowd, client: Guest) -> dict[str, Any]:
    """The client of a wedge has its 504, which says no more than it should. Returns the record."""
    answer = client.read()
    assert (answer.status, answer.complete) == (504, True)
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["timer"]) == ("interrupted", "run", "request-timeout")
    return record


def see_unwound(crowd: Crowd, client: Guest) -> dict[str, Any]:
    """The wedge was interrupted, has unwound and is answered. Returns the evidence."""
    record = see_answered(crowd, client)
    recovered = crowd.site.log.wait_for("run.recovered", request_id=record["request_id"])
    assert recovered["after"] >= 0
    assert "run.given_up" not in events_of(crowd.site, record)
    evidence = crowd.site.log.find(event="run.interrupted", request_id=record["request_id"])[0]
    assert evidence["pid"] == record["pid"]
    assert (evidence["again"], evidence["path"], evidence["method"]) == (False, "/wedge", "GET")
    assert evidence["age"] >= evidence["fire"]
    assert record["duration"] >= evidence["fire"]
    return evidence


# --- one wedge that ends when it is told to


IN_THE_KERNEL = {
    "recv": {"recvfrom"},
    "recv-in-poll": {"poll", "ppoll"},
    "poll": {"poll", "ppoll"},
    "select": {"select", "pselect6"},
    "epoll": {"epoll_wait", "epoll_pwait", "epoll_pwait2"},
    "http-client": {"recvfrom"},
    "requests": {"recvfrom"},
    "redis": {"recvfrom", "poll", "ppoll"},
}
NEEDS = {"requests": "requests", "redis": "redis", "psycopg": "psycopg"}


def import_or_skip(wedge: str, site: Site) -> None:
    """The application has imported what it waits in: that takes time, too, and then it is interrupted there."""
    if wedge not in NEEDS:
        return
    if importlib.util.find_spec(NEEDS[wedge]) is None:
        pytest.skip(f"{NEEDS[wedge]} is not installed")

    def is_imported() -> bool:
        with Client(site.address) as client:
            return client.get(f"/import?{NEEDS[wedge]}").status == 200

    wait_until(is_imported)


@reached
@pytest.mark.parametrize("wedge", IN_THE_KERNEL)
def test_a_request_that_waits_for_a_silent_peer_is_reached_and_unwound(
    crowd: Crowd, silent: int, wedge: str
) -> None:
    import_or_skip(wedge, crowd.site)
    before = processes(crowd.site)
    evidence = see_unwound(crowd, crowd.ask(f"/wedge?{wedge}?{silent}"))
    assert evidence["blocked_in"] in IN_THE_KERNEL[wedge]
    assert evidence["peers"] == f"127.0.0.1:{silent}"
    assert f"in _wedge_{wedge.replace('-', '_')}" in evidence["stack"]
    shut = crowd.site.log.wait_for("run.reached", request_id=evidence["request_id"])
    assert (shut["call"] in IN_THE_KERNEL[wedge], shut["peers"]) == (True, f"127.0.0.1:{silent}")
    assert [ask_plain(crowd.site) for _ in range(20)] == [200] * 20, "nothing of it hits those that follow"
    assert processes(crowd.site) == before


@reached
def test_a_database_that_does_not_even_greet_is_given_up(crowd: Crowd, silent: int) -> None:
    import_or_skip("psycopg", crowd.site)
    before = processes(crowd.site)
    see_unwound(crowd, crowd.ask(f"/wedge?psycopg?{silent}"))
    assert (ask_plain(crowd.site), processes(crowd.site)) == (200, before)


@reached
def test_a_query_that_does_not_end_is_given_up(crowd: Crowd, postgres: int) -> None:
    before = processes(crowd.site)
    evidence = see_unwound(crowd, crowd.ask(f"/wedge?psycopg?{postgres},tester"))
    assert "_wedge_psycopg" in evidence["stack"]  # on a busy machine it may still be connecting
    assert (ask_plain(crowd.site), processes(crowd.site)) == (200, before)


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    """The port of a PostgreSQL server, whose user `tester` needs no password."""
    pytest.importorskip("psycopg")
    places = [os.path.dirname(shutil.which("initdb") or ""), *glob.glob("/usr/lib/postgresql/*/bin")]
    found = [place for place in places if os.path.exists(f"{place}/initdb")]
    if not found:
        pytest.skip("PostgreSQL is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # It does not run as root, and nobody but its own user may read its folder.
    user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="gatekeep-postgres-"))
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        subprocess.run(
            [f"{found[0]}/initdb", "-D", folder / "data", "-U", "tester", "--auth=trust", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **user,
        )  # fmt: skip
        options = [
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={folder}",
        ]
        with process(
            [f"{found[0]}/postgres", "-D", folder / "data", *options],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user,
        ) as server:  # fmt: skip
            try:
                wait_until(lambda: is_greeting(port), 60)
                yield port
            finally:
                server.send_signal(signal.SIGQUIT)
                server.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_greeting(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user="tester", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


@reached
def test_a_thread_that_waits_for_everything_costs_none_of_our_own_descriptors(
    started: Callable[..., Crowd],
) -> None:
    crowd = started(threads=2, interrupt_timeout=LONG)
    before = processes(crowd.site)
    see_answered(crowd, crowd.ask("/wedge?poll-everything"))
    assert [ask_plain(crowd.site) for _ in range(20)] == [200] * 20, "listener and hops are as they were"
    assert crowd.ask("/print?still-heard").read().status == 200
    crowd.site.log.wait_for("app.output", text="printed still-heard")
    crowd.site.log.wait_for("run.reached")
    assert processes(crowd.site) == before


def test_cleaning_up_that_takes_time_at_every_level_is_not_cut_short(crowd: Crowd, tmp_path: Path) -> None:
    done = tmp_path / "done"
    evidence = see_unwound(crowd, crowd.ask(f"/wedge?nested-finallys?{done}"))
    assert done.read_text().splitlines() == ["inner", "middle", "outer"]
    assert len(crowd.site.log.find(event="run.interrupted", request_id=evidence["request_id"])) == 1
    recovered = crowd.site.log.wait_for("run.recovered", request_id=evidence["request_id"])
    assert recovered["after"] > 2


def test_without_interrupt_sockets_a_silent_peer_is_evidence_and_no_more(
    started: Callable[..., Crowd], silent: int
) -> None:
    crowd = started(threads=2, interrupt_sockets=False, interrupt_timeout=2.5, graceful_timeout=1)
    client = crowd.ask(f"/wedge?recv?{silent}")
    record = see_answered(crowd, client)
    given_up = crowd.site.log.wait_for("run.given_up", request_id=record["request_id"])
    assert events_of(crowd.site, record) == ["run.interrupted", "run.given_up"]
    assert (given_up["age"] >= FIRE_OF_TWO + 2.5, given_up["timer"]) == (True, "request-timeout")
    assert "in _wedge_recv" in given_up["stack"]
    if is_supported():
        assert (given_up["blocked_in"], given_up["peers"]) == ("recvfrom", f"127.0.0.1:{silent}")


# --- one wedge that nothing ends


@pytest.mark.parametrize(
    ("wedge", "calls"),
    [("sleep", {"clock_nanosleep", "nanosleep", "select", "pselect6"}), ("lock", {""}), ("child", {"wait4"})],
)
def test_what_nothing_reaches_is_answered_when_its_grace_is_over_and_its_process_replaced(
    started: Callable[..., Crowd], wedge: str, calls: set[str]
) -> None:
    crowd = started(threads=2, interrupt_timeout=1, graceful_timeout=LONG, shutdown_timeout=LONG)
    before = processes(crowd.site)
    record = see_answered(crowd, crowd.ask(f"/wedge?{wedge}"))
    given_up = crowd.site.log.wait_for("run.given_up", request_id=record["request_id"])
    assert record["duration"] >= FIRE_OF_TWO + 1
    assert events_of(crowd.site, record) == ["run.interrupted", "run.given_up"], "no socket was shut for it"
    if is_supported():
        assert given_up["blocked_in"] in calls
    # The drain has a minute, but it does not wait for what will not end.
    crowd.site.log.wait_for("drain.started", pid=before[0])
    crowd.site.log.wait_for("process.exited", pid=before[0])
    wait_until(lambda: processes(crowd.site) not in ((), before))
    assert ask_plain(crowd.site) == 200
    assert len(crowd.site.log.find(event="process.exited")) == 1


def test_siblings_that_the_drain_does_not_wait_for_any_longer_are_lost_with_records_of_their_own(
    started: Callable[..., Crowd],
) -> None:
    # T_fire is 10.5 s: what begins 5 s later is not wedged when the drain ends a second after that.
    crowd = started(
        threads=3, request_timeout=5, interrupt_timeout=0, graceful_timeout=0.5, shutdown_timeout=0.5
    )
    wedge = crowd.ask("/wedge?sleep")
    crowd.site.log.wait_for("pickup.claimed")
    time.sleep(5)
    siblings = [crowd.ask("/sleep?1000"), crowd.ask("/sleep?1001")]
    crowd.site.log.wait_for("pickup.claimed", count=3)
    record = see_answered(crowd, wedge)
    crowd.site.log.wait_for("run.given_up", request_id=record["request_id"])
    assert events_of(crowd.site, record) == ["run.given_up"], "with no grace nobody is interrupted"
    for sibling in siblings:
        assert sibling.read().status == 502
        lost = crowd.record_of(sibling)
        assert (lost["outcome"], lost["stage"], lost["pid"]) == ("lost", "run", record["pid"])
        assert lost["request_id"] != record["request_id"]
    assert ask_plain(crowd.site) == 200


# --- several at once


@reached
@pytest.mark.parametrize("count", [2, 5])
def test_each_wedge_has_a_fire_and_an_end_of_its_own_and_siblings_are_served_meanwhile(
    started: Callable[..., Crowd], silent: int, count: int
) -> None:
    # The first is still there when the last one comes.
    crowd = started(threads=count + 1, interrupt_timeout=LONG)
    site, before = crowd.site, processes(crowd.site)
    wedges = []
    for number in range(count):
        wedges.append(crowd.ask(f"/wedge?{['recv', 'poll', 'busy'][number % 3]}?{silent}"))
        for _ in range(5):
            assert ask_plain(site) == 200
            time.sleep(0.03)
    while not all(wedge.has_answer() for wedge in wedges):
        assert ask_plain(site) == 200
    evidence = [see_unwound(crowd, wedge) for wedge in wedges]
    assert len({event["request_id"] for event in evidence}) == count
    assert len({event["thread"] for event in evidence}) == count
    assert processes(site) == before
    crowd.hold(count + 1).read()  # every thread is back


def test_the_first_that_does_not_end_drains_and_later_ones_still_unwind_meanwhile(
    started: Callable[..., Crowd],
) -> None:
    crowd = started(
        threads=3, request_timeout=1, interrupt_timeout=8, graceful_timeout=LONG, shutdown_timeout=LONG
    )
    site, before = crowd.site, processes(crowd.site)
    # T_fire is 2 s, so the first is given up after 10 s. The other one is interrupted 3 s before that, and would be given up 5 s
    # after it.
    stuck = crowd.ask("/wedge?sleep")
    site.log.wait_for("run.interrupted")
    time.sleep(3)
    gate = crowd.gate()
    later = crowd.ask(f"/wedge?finally-at-gate?{gate}")
    record = see_answered(crowd, stuck)
    assert len(site.log.find(event="run.interrupted")) == 2
    assert not later.has_answer()
    site.log.wait_for("drain.started")
    gate.touch()
    unwound = see_answered(crowd, later)
    assert events_of(site, record) == ["run.interrupted", "run.given_up"]
    assert "run.given_up" not in events_of(site, unwound)
    site.log.wait_for("process.exited", pid=before[0])
    assert ask_plain(site) == 200


def test_when_all_threads_of_all_processes_are_wedged_service_returns_after_what_the_settings_say(
    started: Callable[..., Crowd],
) -> None:
    crowd = started(processes=2, threads=2, interrupt_timeout=0.5, graceful_timeout=1, shutdown_timeout=1)
    crowd.site.log.wait_for("process.ready", count=2)
    began = time.monotonic()
    wedges = [crowd.ask("/wedge?sleep") for _ in range(4)]
    crowd.site.log.wait_for("pickup.claimed", count=4)
    waiting = crowd.ask("/plain")
    assert waiting.read().status == 200
    # T_fire 3.4 s, the grace 0.5 s, the drain nothing, for all that runs is stale: the rest is for a slow machine.
    assert time.monotonic() - began < 35
    assert {see_answered(crowd, wedge)["attempts"] for wedge in wedges} == {1}
    assert crowd.record_of(waiting)["outcome"] == "served"


# --- inside bodies


def cut_stream(crowd: Crowd, target: str) -> tuple[Answer, dict[str, Any]]:
    """An answer that is seen to be cut, and its record."""
    client = crowd.ask(target)
    answer = client.read()
    assert (answer.status, answer.body, answer.complete) == (200, b"begins", False)
    assert client.is_closed()
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["timer"]) == (
        "truncated",
        "respond",
        "request-timeout",
    )
    assert record["duration"] >= REQUEST_TIMEOUT
    return answer, record


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_response_that_is_interrupted_is_cut_so_that_its_client_can_tell(
    crowd: Crowd, framing: str
) -> None:
    answer, record = cut_stream(crowd, f"/wedge?stream?{framing}")
    assert ("content-length" in answer.fields) == (framing == "length")
    crowd.site.log.wait_for("run.recovered", request_id=record["request_id"])
    assert ask_plain(crowd.site) == 200


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("interrupt_timeout", [0, 0.5])
def test_a_response_whose_application_is_given_up_is_cut_so_that_its_client_can_tell(
    started: Callable[..., Crowd], framing: str, interrupt_timeout: float
) -> None:
    crowd = started(threads=1, interrupt_timeout=interrupt_timeout, graceful_timeout=1, shutdown_timeout=1)
    _, record = cut_stream(crowd, f"/wedge?stream?{framing},sleep")
    crowd.site.log.wait_for("run.given_up", request_id=record["request_id"])
    assert ask_plain(crowd.site) == 200


def test_the_clock_stands_still_while_a_slow_client_sends_and_goes_on_afterwards(
    started: Callable[..., Crowd],
) -> None:
    crowd = started(threads=1, interrupt_timeout=LONG, request_buffering=False)
    client = crowd.connect()
    client.send("POST /wedge?after-input HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\n")
    began = time.monotonic()
    for letter in b"abcdef":
        time.sleep(0.6)
        # At least: to send, or to come back from there, may take a while.
        uploading = time.monotonic() - began
        # Before the last one is sent: after it the clock goes on.
        assert not crowd.site.log.find(event="run.interrupted"), "interrupted while its client was slow"
        client.send(bytes([letter]))
    record = see_answered(crowd, client)
    evidence = crowd.site.log.wait_for("run.interrupted", request_id=record["request_id"])
    assert "in _wedge_after_input" in evidence["stack"]
    # What it is told to have had is its own time, not the client's.
    assert REQUEST_TIMEOUT <= evidence["age"] <= record["duration"] - uploading + 0.3
    crowd.site.log.wait_for("run.recovered", request_id=record["request_id"])


def test_an_upload_that_stalls_is_not_interrupted_while_a_wedged_sibling_is(
    started: Callable[..., Crowd],
) -> None:
    crowd = started(threads=2, interrupt_timeout=LONG, request_buffering=False)
    client = crowd.connect()
    client.send("POST /input?read HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n")
    crowd.site.log.wait_for("pickup.claimed")
    see_unwound(crowd, crowd.ask("/wedge?busy"))
    client.send(b"abc")
    answer = client.read()
    assert (answer.status, b"abc" in answer.body) == (200, True)
    assert len(crowd.site.log.find(event="run.interrupted")) == 1


# --- judged alone


def test_a_request_that_is_long_but_not_too_long_for_so_many_threads_is_left_alone(
    started: Callable[..., Crowd],
) -> None:
    # 2 s with one thread, 6.2 s with eight.
    crowd = started(threads=8, request_timeout=2, interrupt_timeout=LONG)
    client = crowd.ask("/sleep?3")
    assert client.read().status == 200
    assert not crowd.site.log.find(event="run.interrupted")
    assert see_unwound(crowd, crowd.ask("/wedge?busy"))["fire"] == pytest.approx(6.159, abs=0.01)


def test_many_short_requests_on_a_thread_that_was_interrupted_are_not_hit(
    started: Callable[..., Crowd],
) -> None:
    crowd = started(threads=1, interrupt_timeout=LONG)
    for wedge in ("busy", "finish", "busy"):
        client = crowd.ask(f"/wedge?{wedge}")
        assert client.read().status == (200 if wedge == "finish" else 504)
        with Client(crowd.site.address) as one:
            assert {one.get("/plain").status for _ in range(200)} == {200}
    crowd.site.log.wait_for("run.recovered", count=3)
