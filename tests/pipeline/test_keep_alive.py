"""The parse stage's patience: header-timeout for who is slow to ask, keep-alive-timeout for who asks nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import BOTH_BACKENDS, Site, start_site, wait_until
from crowd import Crowd, Guest, crowds
from gatekeep import Outcome, Stage

pytestmark = BOTH_BACKENDS

PATIENT = 4.0
"""Seconds of header-timeout and keep-alive-timeout: who is to be in time can be so on a busy machine, too."""


@pytest.fixture(scope="module")
def site(loop: str) -> Iterator[Site]:
    """A site that is patient for some seconds."""
    with ExitStack() as stack:
        yield start_site(
            stack,
            loop=loop,
            processes=1,
            header_timeout=PATIENT,
            header_max_timeout=0.0,
            header_min_rate=500,
            keep_alive_timeout=PATIENT,
        )


@pytest.fixture
def crowded(start: Callable[..., Site], tmp_path: Path) -> Iterator[Callable[..., Crowd]]:
    """Make a site of one process."""
    with crowds(start, tmp_path, processes=1) as make:
        yield make


def dribble(client: Guest, data: bytes, pause: float) -> None:
    """Send byte by byte, until all is sent or an answer comes."""
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in data:
        if client.has_answer():
            return
        client.send(bytes([byte]))
        time.sleep(pause)


def idle_closed_so_far(site: Site) -> int:
    """How many connections were closed, when nobody is there whose connection could still be."""
    wait_until(lambda: site.served.statistics().connections == 0)
    return site.served.statistics().idle_closed


# --- header-timeout


def test_a_head_that_dribbles_below_header_min_rate_is_a_408_and_the_end_of_the_connection(
    site: Site, crowd: Crowd
) -> None:
    client = crowd.connect()
    dribble(client, f"GET /note?{crowd.notes},ran HTTP/1.1\r\nHost: {'x' * 600}".encode(), 0.1)
    answer = client.read()
    assert (answer.status, answer.complete, answer.fields["connection"]) == (408, True, "close")
    assert client.is_closed()
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["timer"]) == ("refused", "parse", "header-timeout")
    assert (record["action"], record["attempts"], record["status"]) == ("answered", 0, 408)
    assert record["age"] >= PATIENT
    assert crowd.noted() == []
    statistics = site.served.statistics()
    assert statistics.requests[Stage.PARSE, Outcome.REFUSED] == statistics.timers["header-timeout"] >= 1


def test_a_head_that_was_begun_and_goes_no_further_is_a_408_the_first_and_the_second_of_a_connection(
    crowd: Crowd,
) -> None:
    clients = [crowd.connect() for _ in range(4)]
    assert {client.get("/plain").status for client in clients[::2]} == {200}
    for client, sent in zip(clients, ["G", "G", *["GET /plain HTTP/1.1\r\nHost: test\r\n"] * 2], strict=True):
        client.send(sent)
    for client in clients:
        assert client.read().status == 408
        assert client.is_closed()
        assert crowd.site.log.wait_for("request.finished", client=client.name, timer="header-timeout")


def test_a_new_connection_that_says_nothing_is_closed_without_an_answer_and_is_no_request(
    site: Site, crowd: Crowd
) -> None:
    closed = idle_closed_so_far(site)
    began = time.monotonic()
    client = crowd.connect()
    assert client.is_closed()
    assert time.monotonic() - began > PATIENT / 2
    assert site.served.statistics().idle_closed == closed + 1
    assert not site.log.find(event="request.finished", client=client.name)


def test_a_head_that_comes_steadily_is_a_408_when_header_max_timeout_is_over(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(header_timeout=30.0, header_max_timeout=PATIENT, header_min_rate=1)
    client = crowd.connect()
    dribble(client, b"GET /plain HTTP/1.1\r\nHost: " + b"x" * 600, 0.05)
    assert client.read().status == 408
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["age"] >= PATIENT) == ("refused", "parse", True)


def test_a_head_above_header_min_rate_is_served_though_it_takes_longer_than_header_timeout(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(header_timeout=PATIENT, header_min_rate=10)
    client = crowd.connect()
    client.send("GET /plain HTTP/1.1\r\nHost: test\r\nX-Long: ")
    began = time.monotonic()
    while time.monotonic() - began < PATIENT + 1:
        client.send("x" * 40)
        time.sleep(0.1)
    client.send("\r\n\r\n")
    assert client.read().status == 200


def test_header_timeout_0_waits_for_ever(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(header_timeout=0.0, header_max_timeout=0.0, keep_alive_timeout=0.5)
    silent, slow = crowd.connect(), crowd.connect()
    slow.send("GET /plain HT")
    time.sleep(1)
    slow.send("TP/1.1\r\nHost: test\r\n\r\n")
    assert slow.read().status == 200
    assert silent.get("/plain").status == 200


# --- keep-alive-timeout


def test_an_idle_connection_is_closed_without_a_word_when_keep_alive_timeout_is_over(
    site: Site, crowd: Crowd
) -> None:
    closed = idle_closed_so_far(site)
    client = crowd.connect()
    assert client.get("/plain").fields.get("connection") != "close"
    assert client.get("/plain").status == 200
    assert client.is_closed()
    assert site.served.statistics().idle_closed == closed + 1
    records = site.log.find(event="request.finished", client=client.name)
    assert [record["outcome"] for record in records] == ["served", "served"]


def test_the_line_end_that_old_clients_send_behind_a_body_leaves_the_connection_idle(
    site: Site, crowd: Crowd
) -> None:
    closed = site.served.statistics().idle_closed
    clients = [crowd.connect() for _ in range(2)]
    for client, pause in zip(clients, (0, 0.1), strict=True):
        client.send("POST /plain HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nab")
        time.sleep(pause)
        client.send("\r\n")
        assert client.read().status == 200
    assert clients[0].get("/plain").status == 200
    for client in clients:
        assert client.is_closed()
    assert site.served.statistics().idle_closed == closed + 2
    assert not site.log.find(event="request.finished", status=408, client=clients[1].name)


def test_keep_alive_timeout_0_ends_the_connection_after_each_response_and_says_so(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(keep_alive_timeout=0.0)
    for target in ("/plain", "/generator", "/status?204+No+Content"):
        client = crowd.connect()
        assert client.get(target, "Connection: keep-alive").fields["connection"] == "close"
        assert client.is_closed()
    old = crowd.ask("/plain", "Connection: keep-alive", version="1.0")
    assert old.read().fields.get("connection", "close") == "close"
    assert old.is_closed()
    assert crowd.site.served.statistics().idle_closed == 0, "that is no idle connection"


def test_a_request_that_runs_longer_than_keep_alive_timeout_is_served(crowd: Crowd) -> None:
    assert crowd.connect().get(f"/sleep?{PATIENT + 0.5}").status == 200


def test_open_connections_end_when_they_are_idle_and_are_counted_while_they_are_open(
    site: Site, crowd: Crowd
) -> None:
    closed = idle_closed_so_far(site)
    clients = [crowd.connect() for _ in range(30)]
    assert {client.get("/plain").status for client in clients[::2]} == {200}
    wait_until(lambda: site.served.statistics().idle_closed == closed + 30)
    wait_until(lambda: site.served.statistics().connections == 0)
    assert all(client.is_closed() for client in clients)
