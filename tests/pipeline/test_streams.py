"""Streams of events, which do not end by themselves; and what a request leaves behind in memory."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from client import Client
from conftest import Site, start_site


@pytest.fixture
def alone(loop: str):
    """A site of one process, on every event loop."""
    with ExitStack() as stack:
        yield start_site(stack, loop=loop, processes=1, graceful_timeout=10.0)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_stream_ends_in_order_when_its_process_is_replaced(alone: Site, version: str) -> None:
    (pid,) = alone.served.statistics().processes
    with Client(alone.address) as client:
        client.send(f"GET /events HTTP/{version}\r\nHost: test\r\n\r\n")
        alone.log.wait_for("run.answered")
        os.kill(pid, signal.SIGUSR1)
        answer = client.read()
        assert answer.status == 200
        assert answer.complete
        assert answer.body.endswith(b"data: tick\n\n")
    record = alone.record("/events")
    assert (record["outcome"], record["pid"]) == ("served", pid)
    assert "stream of events was ended" in record["reason"]
    assert alone.log.wait_for("process.exited", pid=pid)["planned"]
    assert alone.served.statistics().streams_ended == 1


def test_a_stream_ends_in_order_when_the_gateway_stops(loop: str) -> None:
    with ExitStack() as stack:
        site = start_site(stack, loop=loop, graceful_timeout=30.0)
        client = Client(site.address)
        client.send("GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        site.log.wait_for("run.answered")
    with client:
        assert client.read().complete
    assert site.record("/events")["outcome"] == "served"
    assert site.served.statistics().streams_ended == 1


def test_the_growth_of_memory_stands_in_the_record_where_it_is_worth_telling(site: Site) -> None:
    with Client(site.address) as client:
        assert client.get("/grow?20000000").status == 200
        assert client.get("/plain").status == 200
    grown = site.record("/grow")["memory_growth"]
    assert 19_000_000 < grown < 60_000_000
    assert "memory_growth" not in site.record("/plain")
