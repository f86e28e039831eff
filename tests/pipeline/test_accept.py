"""The accept stage: connections are taken as they come, and wait when the system has run out of something."""

from __future__ import annotations

import os
import resource
import socket
import time
from contextlib import ExitStack, closing

import pytest

from client import Client
from conftest import TESTS, Site, wait_until
from gatekeep.transport import _http1
from served import Served, serve


def descriptors(server: Served) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def limit_descriptors(server: Served, limit: int) -> None:
    hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, hard))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_out_of_descriptors_idle_clients_make_way_for_new_ones_and_it_is_said_once(loop: str) -> None:
    with serve("apps:scripted", "-w", "1", "--loop", loop, cwd=TESTS) as server, ExitStack() as stack:
        address = "127.0.0.1", server.port
        with Client(address) as client:
            assert client.get("/plain").status == 200
        # That of the client that was here, and its hop's, may be counted still.
        limit = descriptors(server) + 6
        limit_descriptors(server, limit)
        for _ in range(16):
            stack.enter_context(closing(Client(address)))
        assert "Too many open files" in server.wait_for_event("accept.paused")["reason"]
        waiting = [stack.enter_context(closing(Client(address))) for _ in range(3)]
        for client in waiting:
            client.send("GET /plain HTTP/1.1\r\nHost: test\r\n\r\n")
        assert [client.read().status for client in waiting] == [200, 200, 200]
        limit_descriptors(server, limit + 100)
        server.wait_for_event("accept.resumed")
        paused, resumed = server.events_named("accept.paused"), server.events_named("accept.resumed")
        assert len(paused) <= len(resumed) + 1, "a pause that goes on is not said again and again"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_request_waits_while_there_is_no_descriptor_for_its_hop(loop: str) -> None:
    with serve("apps:scripted", "-w", "1", "--loop", loop, cwd=TESTS) as server, ExitStack() as stack:
        address = "127.0.0.1", server.port
        first = stack.enter_context(Client(address))
        assert first.get("/plain").status == 200
        first.send("GET /pl")
        limit = descriptors(server) + 4
        limit_descriptors(server, limit)
        busy = []
        for _ in range(8):
            # Each speaks before the next one comes: who has said nothing would have to make room in the end.
            busy.append(stack.enter_context(closing(Client(address))))
            busy[-1].send("GET")
        server.wait_for_event("accept.paused")
        first.send("ain HTTP/1.1\r\nHost: test\r\n\r\n")
        time.sleep(0.3)
        for client in busy:
            client.close()
        assert first.read().status == 200


def test_at_the_most_connections_idle_ones_make_way_and_busy_ones_do_not(start) -> None:
    site = start(max_connections=4, processes=1, threads=4)
    with ExitStack() as stack:
        idle = [stack.enter_context(Client(site.address)) for _ in range(3)]
        for client in idle:
            assert client.get("/plain").status == 200
        busy = stack.enter_context(Client(site.address))
        busy.send("GET /sleep?2 HTTP/1.1\r\nHost: test\r\n\r\n")
        site.log.wait_for("pickup.claimed", count=4)
        for _ in range(6):
            with Client(site.address) as client:
                assert client.get("/plain").status == 200
        assert busy.read().status == 200
        assert site.served.statistics().idle_closed >= 1
        assert site.served.statistics().connections <= 4


def test_at_the_most_connections_a_new_one_waits_for_a_busy_one_to_end(start) -> None:
    site = start(max_connections=1, processes=1)
    with Client(site.address) as busy:
        busy.send("GET /sleep?1 HTTP/1.1\r\nHost: test\r\n\r\n")
        site.log.wait_for("pickup.claimed")  # until it has spoken it would have to make room itself
        with Client(site.address) as waiting:
            waiting.send("GET /plain HTTP/1.1\r\nHost: test\r\n\r\n")
            assert busy.read().status == 200
            assert waiting.read().status == 200


def test_open_connections_are_counted_idle_ones_too(site: Site) -> None:
    with ExitStack() as stack:
        wait_until(lambda: site.served.statistics().connections == 0)
        for _ in range(5):
            stack.enter_context(Client(site.address))
        wait_until(lambda: site.served.statistics().connections == 5)
        assert site.served.statistics().in_flight == 0
    wait_until(lambda: site.served.statistics().connections == 0)


def test_a_client_is_named_by_its_address(site: Site) -> None:
    with Client(site.address) as client:
        client.get("/plain")
        host, port = client.socket.getsockname()
    assert site.log.wait_for("request.finished", client=f"{host}:{port}")


def test_hundreds_of_connections_at_once_are_all_served(site: Site) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(site.address)) for _ in range(300)]
        for client in clients[::10]:
            client.send("GET /plain HTTP/1.1\r\nHost: test\r\n\r\n")
        assert {client.read().status for client in clients[::10]} == {200}


def test_a_connection_that_was_reset_before_it_was_taken_costs_nobody_anything(site: Site) -> None:
    for _ in range(50):
        client = Client(site.address)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    with Client(site.address) as client:
        assert client.get("/plain").status == 200
    wait_until(lambda: site.served.statistics().connections == 0)
    assert not site.log.find(event="front.failed")


def test_a_pipelined_request_that_has_begun_is_served_though_room_is_short(start) -> None:
    site = start(max_connections=2, processes=1, threads=3)
    with Client(site.address) as first, Client(site.address) as busy:
        first.send("GET /sleep?0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        first.send("POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
        busy.send("GET /sleep?1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        site.log.wait_for("pickup.claimed", count=2)
        with Client(site.address) as outside:
            outside.send("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
            assert first.read().status == 200
            first.send("cde")
            assert first.read().status == 200
            assert outside.read().status == 200


def test_clients_that_linger_with_their_last_answer_make_room(start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http1, "DISCARD_TIME", 600.0)  # for which each would keep its place
    site = start(max_connections=2, processes=1, threads=3)
    with ExitStack() as lingering:
        for _ in range(20):
            client = lingering.enter_context(Client(site.address))
            assert client.get("/plain", "Connection: close").status == 200
