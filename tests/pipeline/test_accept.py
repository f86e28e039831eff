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
from served import Served, serve


def descriptors(server: Served) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_a_gateway_out_of_descriptors_pauses_says_so_and_recovers(loop: str) -> None:
    with serve("apps:scripted", "-w", "1", "--loop", loop, cwd=TESTS) as server, ExitStack() as stack:
        address = "127.0.0.1", server.port
        with Client(address) as client:
            assert client.get("/plain").status == 200
        limit = descriptors(server) + 6
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
        idle = [stack.enter_context(closing(Client(address))) for _ in range(8)]
        paused = server.wait_for_event("accept.paused")
        assert "Too many open files" in paused["reason"]
        began = time.monotonic()
        waiting = [stack.enter_context(closing(Client(address))) for _ in range(3)]
        for client in waiting:
            client.send("GET /plain HTTP/1.1\r\nHost: test\r\n\r\n")
        server.wait_for_event("accept.paused", after=server.events.index(paused) + 1)
        assert server.process.poll() is None
        for client in idle:
            client.close()
        assert [client.read().status for client in waiting] == [200, 200, 200]
        with Client(address) as client:
            assert client.get("/plain").status == 200
        paused_for = time.monotonic() - began
        assert len(server.events_named("accept.paused")) <= paused_for / paused["pause"] + 2, (
            "it does not spin"
        )


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_request_waits_while_there_is_no_descriptor_for_its_hop(loop: str) -> None:
    with serve("apps:scripted", "-w", "1", "--loop", loop, cwd=TESTS) as server, ExitStack() as stack:
        address = "127.0.0.1", server.port
        first = stack.enter_context(Client(address))
        assert first.get("/plain").status == 200
        limit = descriptors(server) + 4
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
        idle = [stack.enter_context(closing(Client(address))) for _ in range(8)]
        server.wait_for_event("accept.paused")
        first.send("GET /plain HTTP/1.1\r\nHost: test\r\n\r\n")
        server.wait_for_event("accept.paused", after=len(server.events))
        for client in idle:
            client.close()
        assert first.read().status == 200


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
