"""Health probes: answered by the front, whatever becomes of users, processes and threads."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import gatekeep._gateway
from client import Answer, Client
from conftest import LOOPS, TESTS, LogAsData, Site, start_site, wait_until
from crowd import Crowd
from gatekeep import Gateway, Settings
from gatekeep._health import WEDGED_AFTER
from gatekeep.transport._front import Front

Start = Callable[..., Site]

PATHS = {"livez_path": "/livez", "readyz_path": "/readyz"}
HURRY = {"graceful_timeout": 0.5, "shutdown_timeout": 0.5}
"""Nobody waits for what was wedged on purpose."""

PROMPT = 4.5
"""Seconds; an answer that waited for a user, a thread or a process would take `WEDGED_AFTER` or for ever."""


@pytest.fixture(scope="module")
def shared(loop: str) -> Iterator[Site]:
    with ExitStack() as stack:
        yield start_site(stack, loop=loop, health_bind="127.0.0.1:0", **PATHS)


@pytest.fixture
def crowds(start: Start, tmp_path: Path) -> Iterator[Callable[..., Crowd]]:
    """Make sites with probes, and their clients. No process is suspected for its silence: a busy machine silences them, too."""
    with ExitStack() as stack:

        def make(**options: Any) -> Crowd:
            options = PATHS | HURRY | {"deadlock_timeout": 0} | options
            return stack.enter_context(Crowd(start(**options), tmp_path))

        yield make


def health_address(site: Site) -> tuple[str, int]:
    (address,) = site.served.health_addresses
    host, _, port = address.removeprefix("http://").rpartition(":")
    return host, int(port)


def probe(address: tuple[str, int] | str, path: str) -> Answer:
    """The answer to one probe, which comes at once."""
    with Client(address) as client:
        began = time.monotonic()
        answer = client.get(path)
        assert time.monotonic() - began < PROMPT
    assert answer.complete
    return answer


def why(answer: Answer) -> Any:
    """What an answer says of a gateway that is not ready."""
    assert answer.status == 503
    assert int(answer.fields["retry-after"]) > 0
    body = json.loads(answer.body)
    assert body["status"] == "unavailable"
    return body


def wait_unready(address: tuple[str, int] | str, reason: str) -> Any:
    """What it says as soon as that is the reason; liveness is answered all the while."""

    def is_said() -> bool:
        assert probe(address, "/livez").status == 200
        answer = probe(address, "/readyz")
        if answer.status == 200:
            return False
        found.append(why(answer))
        return reason in found[-1]["reason"]

    found: list[Any] = []
    wait_until(is_said, 40)
    return found[-1]


# --- the answer


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz?verbose", "http://any/livez"])
def test_a_gateway_that_is_well_answers_200(shared: Site, path: str) -> None:
    for address in (shared.address, health_address(shared)):
        answer = probe(address, path)
        assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
        assert answer.fields["content-type"] == "application/json"
        assert answer.fields["cache-control"] == "no-store"
        assert "date" in answer.fields
        assert "connection" not in answer.fields


@pytest.mark.parametrize("path", ["/livez/", "/livez/x", "/Livez", "/plain", "/%6civez"])
def test_every_other_path_is_the_applications(shared: Site, path: str) -> None:
    with Client(shared.address) as client:
        client.get(path)
        assert shared.record(path)["pid"] > 0


def test_head_gets_the_same_fields_and_no_body(shared: Site) -> None:
    for address in (shared.address, health_address(shared)):
        with Client(address) as client:
            asked = client.get("/livez")
            answer = client.get("/livez", method="HEAD")
            assert (answer.status, answer.fields["content-length"]) == (200, asked.fields["content-length"])
            assert client.get("/readyz").status == 200, "nothing was left on the connection"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_other_methods_are_405_and_may_be_followed_by_another_request(shared: Site, path: str) -> None:
    for address in (shared.address, health_address(shared)):
        with Client(address) as client:
            for method in ("DELETE", "OPTIONS", "POST"):
                answer = client.get(path, method=method)
                assert (answer.status, answer.fields["allow"]) == (405, "GET, HEAD")
            assert client.get(path).status == 200


def test_a_body_is_not_waited_for(shared: Site) -> None:
    for address in (shared.address, health_address(shared)):
        with Client(address) as client:
            client.send("POST /livez HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nthe begin")
            answer = client.read()
            assert (answer.status, answer.fields["connection"]) == (405, "close")
        with Client(address) as client:
            client.send("GET /livez HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert client.read().status == 200, "nobody was invited"


def test_connections_are_kept_as_with_any_answer(shared: Site) -> None:
    for address in (shared.address, health_address(shared)):
        with Client(address) as client:
            for _ in range(3):
                assert client.get("/livez").status == 200
            assert client.get("/livez", "Connection: close").fields["connection"] == "close"
            assert client.is_closed()
        with Client(address) as client:
            assert (
                client.get("/livez", "Connection: keep-alive", version="1.0").fields["connection"]
                == "keep-alive"
            )
            assert client.get("/livez", version="1.0").status == 200
            assert client.is_closed()


def test_probes_and_requests_may_be_pipelined(shared: Site) -> None:
    paths = ["/livez", "/plain", "/readyz", "/readyz", "/plain"]
    with Client(shared.address) as client:
        client.send("".join(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n" for path in paths))
        answers = [client.read() for _ in paths]
    assert [answer.status for answer in answers] == [200] * 5
    assert [b"status" in answer.body for answer in answers] == [True, False, True, True, False]


def test_with_the_other_codec_it_is_the_same(start: Start) -> None:
    site = start(http="h11", processes=1, health_bind="127.0.0.1:0", **PATHS)
    for address in (site.address, health_address(site)):
        with Client(address) as client:
            assert client.get("/livez").body == b'{"status":"ok"}'
            assert client.get("/readyz", method="HEAD").status == 200
            assert client.get("/livez", method="PUT").status == 405
            assert client.get("/readyz").status == 200


# --- what is said and counted


def test_probes_are_logged_at_debug_only_and_counted_as_served_where_they_ended(start: Start) -> None:
    site = start(processes=1, **PATHS)
    assert probe(site.address, "/livez").status == 200
    with Client(site.address) as client:
        assert client.get("/readyz", method="POST").status == 405
    for path, status in (("/livez", 200), ("/readyz", 405)):
        record = site.record(path)
        assert (record["level"], record["outcome"], record["stage"]) == ("debug", "served", "route")
        assert (record["status"], record["pid"], record["attempts"]) == (status, 0, 0)
        assert set(record["stages"]) == {"parse", "route"}
    said = [
        event
        for event in site.log.events
        if event.get("path") in PATHS.values() and event["level"] != "debug"
    ]
    assert said == []
    wait_until(lambda: site.served.statistics().in_flight == 0)
    assert dict(site.served.statistics().requests) == {("route", "served"): 2}


def test_without_the_settings_nothing_is_a_probe(start: Start) -> None:
    site = start(processes=1)
    with Client(site.address) as client:
        client.get("/livez")
    assert site.record("/livez")["pid"] > 0
    assert site.served.health_addresses == ()


# --- ready or not


@pytest.mark.parametrize("clients", ["stay", "leave"])
def test_with_every_thread_wedged_it_is_live_and_not_ready(
    crowds: Callable[..., Crowd], clients: str
) -> None:
    crowd = crowds(processes=2, threads=2)
    site = crowd.site
    wedged = [crowd.ask("/wedge?sleep") for _ in range(4)]
    site.log.wait_for("pickup.claimed", count=4)
    if clients == "leave":
        for client in wedged:
            client.close()
    body = wait_unready(site.address, "every thread has been busy with one request for")
    state = body["groups"]["default"]
    assert (state["ready"], state["processes"], state["suspect"]) == (2, 2, 0)


def test_with_one_thread_that_serves_it_is_ready(crowds: Callable[..., Crowd]) -> None:
    crowd = crowds(processes=2, threads=2)
    for _ in range(3):
        crowd.ask("/wedge?sleep")
    crowd.site.log.wait_for("pickup.claimed", count=3)
    ends = time.monotonic() + WEDGED_AFTER + 1.5
    with Client(crowd.site.address) as client:
        while time.monotonic() < ends:
            assert client.get("/plain").status == 200
            assert client.get("/readyz").status == 200
            time.sleep(0.05)


def test_requests_that_nobody_claims_are_found_without_any_heartbeat(crowds: Callable[..., Crowd]) -> None:
    crowd = crowds(processes=1, threads=2, deadlock_timeout=0)
    crowd.ask("/wedge?gil")
    crowd.site.log.wait_for("pickup.claimed")
    assert probe(crowd.site.address, "/readyz").status == 200, "nobody is known to wait"
    crowd.ask("/plain")
    body = wait_unready(crowd.site.address, "none was claimed for")
    assert body["groups"]["default"]["standing"] == 1


def test_it_is_ready_again_when_what_was_busy_has_ended(crowds: Callable[..., Crowd]) -> None:
    crowd = crowds(processes=1, threads=1)
    hold = crowd.hold()
    waiting = crowd.ask("/plain")
    wait_unready(crowd.site.address, "for ")
    hold.release()
    assert waiting.read().status == 200
    assert probe(crowd.site.address, "/readyz").status == 200


def test_a_full_waiting_room_is_no_readiness_and_probes_do_not_wait_in_it(
    crowds: Callable[..., Crowd],
) -> None:
    crowd = crowds(processes=1, threads=1, listen_backlog=1, max_waiting=1, connect_timeout=60.0)
    hold = crowd.hold()
    clients = [crowd.ask("/plain") for _ in range(2)]
    crowd.wait_standing(2)
    clients.append(crowd.ask("/plain"))
    crowd.wait_waiting(1)
    body = wait_unready(crowd.site.address, "as many requests wait as max-waiting allows")
    assert (body["groups"]["default"]["waiting"], body["groups"]["default"]["standing"]) == (1, 2)
    assert crowd.ask("/plain").read().status == 503
    hold.release()
    assert [client.read().status for client in clients] == [200] * 3
    assert probe(crowd.site.address, "/readyz").status == 200


def test_while_all_processes_are_dead_it_is_not_ready_and_then_again(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, time\n"
        f"if os.path.exists({str(tmp_path / 'started')!r}):\n"
        f"    while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        f"open({str(tmp_path / 'started')!r}, 'w').close()\n"
        "def application(environ, start):\n"
        "    start('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
    )
    site = start("slow", processes=1, python_path=[str(tmp_path)], **PATHS)
    (pid,) = site.served.statistics().processes
    os.kill(pid, signal.SIGKILL)
    try:
        body = wait_unready(site.address, "no process is ready")
        assert body["groups"]["default"]["ready"] == body["groups"]["default"]["suspect"] == 0
    finally:
        (tmp_path / "go").touch()
    wait_until(lambda: probe(site.address, "/readyz").status == 200)


def test_processes_that_were_stopped_are_suspected_and_no_readiness_until_they_go_on(start: Start) -> None:
    site = start(processes=2, threads=1, **PATHS)
    wait_until(lambda: len(site.served.statistics().processes) == 2)
    pids = site.served.statistics().processes
    try:
        for pid in pids:
            wait_until(lambda: probe(site.address, "/readyz").status == 200)  # one is enough
            os.kill(pid, signal.SIGSTOP)
            site.log.wait_for("process.suspect", pid=pid)
        body = wait_unready(site.address, "no ready process gives a sign of life")
        assert (body["groups"]["default"]["ready"], body["groups"]["default"]["suspect"]) == (0, 2)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: probe(site.address, "/readyz").status == 200)


# --- stopping


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> list[Front]:
    """The fronts that gateways make from now on."""
    made: list[Front] = []

    class Noted(Front):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(gatekeep._gateway, "Front", Noted)
    return made


def test_a_stop_that_is_announced_turns_readiness_and_nothing_else(fronts: list[Front], start: Start) -> None:
    site = start(processes=1, health_bind="127.0.0.1:0", **PATHS)
    with Client(site.address) as client:
        assert client.get("/readyz").status == 200
        fronts[0].announce_stop()
        for address in (site.address, health_address(site)):
            assert why(probe(address, "/readyz"))["reason"] == "stopping"
            assert probe(address, "/livez").status == 200
        assert client.get("/plain").status == 200
        assert "connection" not in client.get("/readyz").fields, "connections are kept as before"


def test_addresses_for_health_answer_until_the_end_of_a_stop(loop: str, tmp_path: Path) -> None:
    path = str(tmp_path / "health.sock")
    with ExitStack() as outer:
        stack = outer.enter_context(ExitStack())
        site = start_site(
            stack,
            loop=loop,
            processes=1,
            health_bind=f"unix:{path}",
            graceful_timeout=60.0,
            shutdown_timeout=1.0,
        )
        assert site.served.health_addresses == (f"unix:{path}",)
        crowd = outer.enter_context(Crowd(site, tmp_path))
        hold = crowd.hold()
        stop = threading.Thread(target=stack.close)
        stop.start()
        wait_unready(path, "stopping")
        hold.release()
        assert hold.clients[0].read().status == 200
        hold.clients[0].close()
        stop.join()
    assert not os.path.exists(path)


# --- addresses for health


@pytest.mark.parametrize("path", ["/", "/plain", "/livez/", "/readyz/x"])
def test_an_address_for_health_answers_nothing_else_and_forwards_nothing(shared: Site, path: str) -> None:
    before = len(shared.log.find(event="pickup.claimed"))
    with Client(health_address(shared)) as client:
        assert client.get(path).status == 404
        assert client.post(path, b"body").status == 404
    assert len(shared.log.find(event="pickup.claimed")) == before


def test_what_is_no_request_is_refused_there_as_everywhere(shared: Site) -> None:
    with Client(health_address(shared)) as client:
        client.send("GET /livez HTTP/1.1\r\n\r\n")
        assert client.read().status == 400
        assert client.is_closed()


def test_its_paths_are_those_that_were_set_and_users_get_none_that_was_not(start: Start) -> None:
    site = start(processes=1, health_bind="127.0.0.1:0", livez_path="/healthz")
    assert probe(health_address(site), "/healthz").status == 200
    assert probe(health_address(site), "/livez").status == 404
    assert probe(health_address(site), "/readyz").status == 200
    assert probe(site.address, "/healthz").status == 200
    with Client(site.address) as client:
        client.get("/readyz")
    assert site.record("/readyz", group="default")["pid"] > 0


def test_users_that_take_all_connections_take_none_of_the_probes(crowds: Callable[..., Crowd]) -> None:
    crowd = crowds(processes=1, threads=2, max_connections=1, health_bind="127.0.0.1:0")
    hold = crowd.hold()
    outside = crowd.ask("/livez")
    for _ in range(3):
        assert probe(health_address(crowd.site), "/livez").status == 200
        assert probe(health_address(crowd.site), "/readyz").status == 200
    assert not outside.has_answer(), "users' addresses are full"
    hold.release()
    assert outside.read().status == 200


def test_probes_that_hang_make_room_for_others_and_cost_users_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeep._gateway, "HEALTH_CONNECTIONS", 3)
    site = start(processes=1, max_connections=1, health_bind="127.0.0.1:0")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(Client(health_address(site)))
        wait_until(lambda: site.served.statistics().connections == 3)
        with Client(site.address) as client:
            assert client.get("/plain").status == 200
        with Client(health_address(site)) as client:
            assert client.get("/livez").status == 200
        assert site.served.statistics().idle_closed >= 1


def test_addresses_for_health_answer_before_the_application_is_loaded(loop: str, tmp_path: Path) -> None:
    path = str(tmp_path / "health.sock")
    (tmp_path / "slow.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        "def application(environ, start): pass\n"
    )
    backend, options = LOOPS[loop]
    settings = Settings.for_app(
        "slow",
        bind="127.0.0.1:0",
        health_bind=f"unix:{path}",
        processes=1,
        python_path=[str(tmp_path), str(TESTS)],
    )
    log = LogAsData()
    served, ends = threading.Event(), threading.Event()

    def serve() -> None:
        with Gateway(settings, logger=log).serving_in_thread(backend, **options):
            served.set()
            ends.wait(60)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        log.wait_for("process.started")
        wait_unready(path, "no process is ready")
        assert not served.is_set()
        (tmp_path / "go").touch()
        assert served.wait(30)
        assert probe(path, "/readyz").status == 200
    finally:
        (tmp_path / "go").touch()
        ends.set()
        thread.join()


def test_an_address_for_health_that_is_taken_is_a_reason_not_to_start(shared: Site, start: Start) -> None:
    host, port = health_address(shared)
    with pytest.raises(gatekeep.CannotStart, match=f"cannot listen on {host}:{port}: "):
        start(health_bind=f"{host}:{port}")


def test_a_gateway_that_cannot_start_leaves_no_address_for_health(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "health.sock"
    with pytest.raises(gatekeep.CannotStart, match="no_such_module"):
        start("no_such_module", health_bind=f"unix:{path}")
    assert not path.exists()
