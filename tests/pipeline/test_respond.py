"""The respond stage: what the client gets, whole or visibly not."""

from __future__ import annotations

import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from client import Client
from conftest import Site, start_site, wait_until
from crowd import Crowd
from gatekeep._channel import Channel


@pytest.fixture
def client(site: Site):
    with Client(site.address) as client:
        yield client


def test_date_and_server_are_added(client: Client) -> None:
    fields = client.get("/plain").fields
    assert fields["server"] == "gatekeep"
    assert fields["date"].endswith("GMT")


@pytest.mark.parametrize("script", ["raise-late", "raise-late-length", "short", "kill-late"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_truncated_response_looks_truncated_and_is_logged(site: Site, script: str, version: str) -> None:
    with Client(site.address) as client:
        answer = client.get(f"/{script}", version=version)
        assert answer.status == 200
        assert answer.body in (b"first", b"short", b"")
        assert not answer.complete
    record = site.record(f"/{script}", protocol=f"HTTP/{version}")
    assert (record["outcome"], record["stage"]) == ("truncated", "respond")
    assert site.log.wait_for("respond.truncated", request_id=record["request_id"])["reason"]


def test_what_was_produced_before_a_truncation_reaches_the_client(client: Client) -> None:
    assert client.get("/raise-late").body == b"first"


def test_a_response_is_complete_once_its_declared_length_is_out(site: Site, client: Client) -> None:
    answer = client.get("/raise-after-all")
    assert (answer.body, answer.complete) == (b"first", True)
    assert site.record("/raise-after-all")["outcome"] == "served"
    assert site.log.wait_for("run.failed", reason="ValueError: raised after the declared length")


def test_more_than_the_declared_length_is_cut_and_said(site: Site, client: Client) -> None:
    answer = client.get("/long")
    assert (answer.body, answer.complete) == (b"12345", True)
    assert site.log.wait_for("respond.cut")["excess"] == 5


@pytest.mark.parametrize("script", ["plain", "generator", "big?100000", "file?100000"])
def test_head_answers_like_get_without_a_body(client: Client, script: str) -> None:
    got = client.get(f"/{script}")
    head = client.get(f"/{script}", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.fields.get("content-length") == got.fields.get("content-length")
    assert client.get("/plain").body == b"ok"


@pytest.mark.parametrize("status", ["204+No+Content", "304+Not+Modified"])
def test_a_status_without_a_body_has_none(client: Client, status: str) -> None:
    answer = client.get(f"/status?{status}")
    assert answer.status == int(status[:3])
    assert "transfer-encoding" not in answer.fields
    assert client.get("/plain").body == b"ok"


def test_a_generator_is_chunked_for_http_1_1_and_ended_by_the_close_for_1_0(client: Client) -> None:
    answer = client.get("/generator")
    assert answer.fields["transfer-encoding"] == "chunked"
    old = client.get("/generator", version="1.0")
    assert "transfer-encoding" not in old.fields
    assert (old.body, old.complete) == (b"0\n1\n2\n", True)


def test_http_1_0_is_kept_alive_only_when_it_asks(client: Client) -> None:
    assert client.get("/plain", "Connection: keep-alive", version="1.0").fields["connection"] == "keep-alive"
    assert client.get("/plain", version="1.0").body == b"ok"
    assert client.is_closed()


def test_each_block_is_sent_when_it_is_produced(crowd: Crowd) -> None:
    gate = crowd.gate()
    for framing in ("chunked", "length"):
        client = crowd.ask(f"/end-badly?{framing},late,{gate}-{framing}")
        client.read_until(b"first")
        gate.with_name(f"{gate.name}-{framing}").touch()
        client.read_until(b"late")


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    targets = ["/plain", "/generator", "/raise-after-all", "/plain"]
    client.send("".join(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n" for target in targets))
    assert [client.read().body for _ in targets] == [b"ok", b"0\n1\n2\n", b"first", b"ok"]


def test_much_is_written_before_the_input_is_read_without_a_deadlock(client: Client) -> None:
    size = 4 << 20
    client.send(f"POST /write-before-read?{size} HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n")
    sender = threading.Thread(target=client.send, args=(b"b" * size,))
    sender.start()
    answer = client.read()
    sender.join()
    assert answer.complete
    assert answer.body == b"w" * size + b"|%d" % size


@pytest.fixture(scope="module")
def streaming(loop: str) -> Iterator[Site]:
    """A site that passes on bodies as they come."""
    with ExitStack() as stack:
        yield start_site(stack, loop=loop, request_buffering=False)


@pytest.fixture
def streaming_client(streaming: Site) -> Iterator[Client]:
    with Client(streaming.address) as client:
        yield client


def test_without_buffering_request_and_response_move_at_the_same_time(streaming_client: Client) -> None:
    client = streaming_client
    client.send("POST /both-ways HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
    seen = b""
    for letter in b"abc":
        client.send(b"1\r\n%c\r\n" % letter)
        while bytes([letter]) not in seen.rpartition(b"\r\n\r\n")[2]:
            seen += client.socket.recv(1000)
    client.send("0\r\n\r\n")


def test_without_buffering_100_continue_is_sent_when_a_worker_has_claimed_the_request(
    streaming_client: Client,
) -> None:
    client = streaming_client
    client.send("POST /input?read HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert client.read().status == 100
    client.send("abc")
    assert client.read().body == repr([b"abc", b"", b""]).encode()


@pytest.mark.parametrize("way", ["HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\n"])
def test_a_line_end_behind_the_last_request_does_not_cut_its_response(client: Client, way: str) -> None:
    client.send(f"GET /big?3000000 {way}Host: test\r\n\r\n")
    time.sleep(0.05)
    client.send("\r\n")
    time.sleep(0.3)
    answer = client.read()
    assert (len(answer.body), answer.complete) == (3_000_000, True)


def test_a_cut_response_of_http_1_0_is_reset_whatever_cut_it(streaming_client: Client) -> None:
    client = streaming_client
    client.send("POST /write-then-read HTTP/1.0\r\nContent-Length: 100\r\n\r\nabc")
    answer_begins = client.socket.recv(1000)
    client.socket.shutdown(socket.SHUT_WR)
    assert b"200 OK" in answer_begins
    client.rest()
    assert client.reset


@pytest.mark.parametrize("size", [1, 65536, 65537, 200_000, 6_000_000])
def test_a_body_that_is_here_and_was_not_read_is_dropped_and_the_connection_goes_on(
    client: Client, size: int
) -> None:
    smuggled = b"GET /raise HTTP/1.1\r\nHost: test\r\n\r\n"
    body = (smuggled * (size // len(smuggled) + 1))[:size]
    client.send(f"POST /ignore-body HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n".encode() + body)
    client.send("GET /plain HTTP/1.1\r\nHost: test\r\n\r\n")
    assert client.read().body == b"ignored"
    assert client.read().body == b"ok"


def test_an_early_response_to_an_unread_body_arrives_and_ends_the_connection(
    streaming_client: Client,
) -> None:
    client = streaming_client
    client.send("POST /ignore-body HTTP/1.1\r\nHost: test\r\nContent-Length: 6000000\r\n\r\n")
    client.send(b"x" * 6_000_000)
    answer = client.read()
    assert (answer.status, answer.body, answer.fields["connection"]) == (200, b"ignored", "close")


@pytest.mark.slow
def test_bodies_of_100_mb_stream_both_ways_with_bounded_memory(loop: str) -> None:
    size = 100_000_000
    with ExitStack() as stack:
        site = start_site(stack, loop=loop, processes=1)
        with Client(site.address, timeout=100) as client:
            tracemalloc.start()
            client.send(f"GET /big?{size} HTTP/1.1\r\nHost: test\r\n\r\n")
            left = size
            while left > 0:
                left -= len(client.socket.recv(1 << 20))
            assert peak_megabytes() < 16
            tracemalloc.clear_traces()
        with Client(site.address, timeout=100) as client:
            client.send(f"POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n")
            for _ in range(100):
                client.send(b"x" * (size // 100))
            assert client.read().body == b"%d" % size
            assert peak_megabytes() < 16
            tracemalloc.stop()


def peak_megabytes() -> float:
    return tracemalloc.get_traced_memory()[1] / 1e6


def test_storms_of_connects_and_resets_leave_no_descriptor_and_an_idle_loop(site: Site) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Client(site.address) as client:
        client.get("/plain")
    # A process that starts in another's place has descriptors in the gateway, too.
    wait_until(lambda: len(site.served.statistics().processes) == 2)
    wait_until(lambda: site.served.statistics().connections == 0)
    before = descriptors()
    for number in range(300):
        client = Client(site.address)
        if number % 3:
            client.send(
                "GET /big?200000 HTTP/1.1\r\nHost: test\r\n\r\n"[: number % 50 + 1 if number % 2 else None]
            )
        client.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: close with a reset
        client.close()
    # Some may stand in the backlog still, so it is the descriptors that must come back, and stay.
    wait_until(lambda: site.served.statistics().connections == 0 and descriptors() <= before)
    wait_until(lambda: site.served.statistics().in_flight == 0)
    with Client(site.address) as client:
        assert client.get("/plain").status == 200


def test_what_was_pipelined_behind_a_request_whose_client_has_gone_never_runs(
    site: Site, crowd: Crowd, tmp_path: Path
) -> None:
    mark, gate = tmp_path / "mark", crowd.gate()
    behind = f"GET /mark?{mark} HTTP/1.1\r\nHost: test\r\n\r\n" * 3
    claimed = len(site.log.find(event="pickup.claimed"))
    client = crowd.connect()
    name = client.name
    client.send(f"GET /hold?{gate} HTTP/1.1\r\nHost: test\r\n\r\n" + behind)
    site.log.wait_for("pickup.claimed", count=claimed + 1)
    client.break_off()
    assert site.log.wait_for("request.finished", client=name)["outcome"] == "client_gone"
    gate.touch()
    wait_until(lambda: site.served.statistics().connections == 0)
    assert not mark.exists()


def test_a_half_closed_client_that_does_not_read_costs_nothing(
    site: Site, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = 0
    is_full = False
    original = Channel.send_nowait

    def counted(channel: Channel, data: bytes | memoryview) -> memoryview | None:
        nonlocal sends, is_full
        sends += 1
        rest = original(channel, data)
        is_full = bool(rest)
        return rest

    def stands_still() -> bool:
        """All is in the spool, all buffers on the way to the client are full, and that for a moment."""
        before = sends
        time.sleep(0.3)
        return is_full and sends == before and not site.gateway._groups[0].group._claimed

    monkeypatch.setattr(Channel, "send_nowait", counted)
    with Client(site.address) as client:
        client.send("GET /big?50000000 HTTP/1.1\r\nHost: test\r\n\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        wait_until(stands_still)  # where it looks again and again it never does
        before = sends
        time.sleep(0.3)
        assert sends - before < 20
        assert client.read().complete
