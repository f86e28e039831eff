"""The run stage: PEP 3333, and an application that does as it likes."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from client import Client
from conftest import Site, wait_until
from running import is_alive


@pytest.fixture
def client(site: Site):
    with Client(site.address) as client:
        yield client


@pytest.mark.parametrize(
    ("script", "body"),
    [
        ("/generator", b"0\n1\n2\n"),
        ("/lazy-start", b"lazily"),
        ("/write", b"written twice and returned"),
        ("/plain", b"ok"),
    ],
)
def test_every_way_to_produce_a_body_is_served_whole(client: Client, script: str, body: bytes) -> None:
    answer = client.get(script)
    assert (answer.status, answer.body, answer.complete) == (200, body, True)


def test_a_list_gets_a_content_length_and_the_connection_is_kept(client: Client) -> None:
    assert client.get("/plain").fields["content-length"] == "2"
    assert client.get("/plain").body == b"ok"


@pytest.mark.parametrize("script", ["raise", "exit", "twice", "never-started", "text", "no-such-script"])
def test_an_application_that_fails_before_its_head_gets_a_500_and_a_reason_in_the_log(
    site: Site, client: Client, script: str
) -> None:
    answer = client.get(f"/{script}")
    assert answer.status == 500
    record = site.record(f"/{script}")
    assert (record["outcome"], record["stage"], record["status"]) == ("app_error", "run", 500)
    assert site.log.wait_for_any(level="error", request_id=record["request_id"])["reason"] == record["reason"]


def test_an_exception_is_logged_with_its_traceback_and_the_request_id(site: Site, client: Client) -> None:
    client.get("/raise")
    record = site.record("/raise")
    said = site.log.wait_for("run.failed", request_id=record["request_id"])
    assert "raised on purpose" in said["traceback"]
    assert "in _raise" in said["traceback"]
    assert said["pid"] == record["pid"]


def test_the_connection_of_a_failed_request_ends_and_the_next_one_is_served(
    site: Site, client: Client
) -> None:
    assert client.get("/raise").fields["connection"] == "close"
    assert client.is_closed()
    with Client(site.address) as another:
        assert another.get("/plain").status == 200


def test_exc_info_before_the_head_is_out_replaces_it(client: Client) -> None:
    answer = client.get("/exc-info-before")
    assert (answer.status, answer.reason, answer.body) == (500, "Replaced", b"replaced")


def test_exc_info_after_the_head_is_out_raises_and_truncates(site: Site, client: Client) -> None:
    answer = client.get("/exc-info-after")
    assert (answer.status, answer.body, answer.complete) == (200, b"out already", False)
    assert site.record("/exc-info-after")["outcome"] == "truncated"


@pytest.mark.parametrize("script", ["head-fields", "head-name", "head-reason", "head-nul"])
def test_header_injection_is_refused_and_nothing_of_it_reaches_the_wire(
    site: Site, client: Client, script: str
) -> None:
    answer = client.get(f"/{script}")
    assert answer.status == 500
    assert b"Break" not in answer.body
    assert "x-break" not in answer.fields
    record = site.record(f"/{script}")
    assert site.log.wait_for("run.contract_broken", request_id=record["request_id"])


@pytest.mark.parametrize("script", ["tracked", "tracked-raises"])
def test_close_is_called_exactly_once(client: Client, tmp_path, script: str) -> None:
    mark = tmp_path / "mark"
    client.get(f"/{script}?{mark}")
    with Client(client.socket.getpeername()) as another:
        another.get("/plain")
    wait_until(lambda: mark.exists() and mark.read_text() != "")
    assert mark.read_text() == "closed\n"


@pytest.mark.parametrize("body", [b"", b"a", b"ab"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_close_that_raises_is_logged_and_the_response_is_whole(
    site: Site, client: Client, body: bytes, version: str
) -> None:
    answer = client.get(f"/close-raises?{body.decode()}", version=version)
    assert (answer.status, answer.body, answer.complete) == (200, body, True)
    record = site.record("/close-raises", protocol=f"HTTP/{version}")
    assert record["outcome"] == "served"
    said = site.log.wait_for("run.failed", request_id=record["request_id"])
    assert (said["reason"], "in close" in said["traceback"]) == ("ValueError: raised by close", True)
    if version == "1.1":
        assert client.get("/plain").body == b"ok"


def test_close_is_called_when_the_client_goes_away_in_the_middle(
    site: Site, client: Client, tmp_path
) -> None:
    mark = tmp_path / "mark"
    client.send(f"GET /tracked-endless?{mark} HTTP/1.1\r\nHost: test\r\n\r\n")
    assert client.socket.recv(1000)
    client.close()
    wait_until(lambda: mark.exists() and mark.read_text() != "")
    assert mark.read_text() == "closed\n"
    assert site.record("/tracked-endless")["outcome"] == "client_gone"


@pytest.mark.parametrize(
    ("how", "reads"),
    [
        ("read", [b"ab\ncdef\n\nlast", b"", b""]),
        ("parts", [b"ab\n", b"", b"cdef", b"\n\nlast", b""]),
        ("readline", [b"ab\n", b"cd", b"ef\n", b"\n"]),
        ("readlines", [b"ab\n", b"cdef\n", b"\n", b"last"]),
        ("iterate", [b"ab\n", b"cdef\n", b"\n", b"last"]),
    ],
)
@pytest.mark.parametrize("framing", ["small", "large", "chunked"])
def test_wsgi_input_reads_to_the_end_and_past_it(
    client: Client, how: str, reads: list[bytes], framing: str
) -> None:
    body = b"ab\ncdef\n\nlast"
    head = f"POST /input?{how} HTTP/1.1\r\nHost: test\r\n"
    if framing == "small":
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    elif framing == "large":  # comes after the head, so it is streamed
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n")
        client.send(body[:4])
        client.send(body[4:])
    else:
        client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n4\r\n".encode() + body[:4] + b"\r\n9\r\n")
        client.send(body[4:] + b"\r\n0\r\nTrailer: dropped\r\n\r\n")
    assert client.read().body == repr(reads).encode()


def test_without_buffering_a_body_that_stops_short_is_an_error_to_the_application_and_never_the_whole(
    start,
) -> None:
    site = start(request_buffering=False)
    with Client(site.address) as client:
        client.send("POST /read-then-raise HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nabc")
        site.log.wait_for("pickup.claimed")
        client.socket.shutdown(1)
        assert client.read().status == 400
    record = site.record("/read-then-raise")
    assert (record["outcome"], record["stage"]) == ("client_gone", "body")
    assert site.log.wait_for("run.input_lost", request_id=record["request_id"])


@pytest.mark.parametrize(
    ("framing", "sent", "rest"),
    [
        ("Content-Length: 100", "abc", ""),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n", ""),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n", "no size\r\n"),
    ],
    ids=["cut", "chunks cut", "malformed"],
)
def test_without_buffering_what_an_application_makes_of_half_a_body_is_not_passed_on(
    start, framing: str, sent: str, rest: str
) -> None:
    site = start(request_buffering=False)
    for number in range(10):
        with Client(site.address) as client:
            client.send(f"POST /read-swallowed?{number} HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n{sent}")
            wait_until(lambda: len(site.log.find(event="pickup.claimed")) > number)  # noqa: B023
            client.send(rest)
            client.socket.shutdown(1)
            assert client.read().status == 400
            assert client.is_closed()


def test_a_file_wrapper_is_sent_whole_without_being_read_into_memory(client: Client) -> None:
    answer = client.get("/file?30000000")
    assert (len(answer.body), answer.complete) == (30_000_000, True)
    assert answer.fields["content-length"] == "30000000"


def test_an_applications_default_socket_timeout_does_not_touch_our_sockets(
    site: Site, client: Client
) -> None:
    assert client.get("/default-timeout").body == b"set"
    for _ in range(6):
        client.send("POST /input?read HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n")
        assert site.log.wait_for("pickup.claimed")
        time.sleep(0.1)  # longer than the default timeout that the application has set
        client.send("abc")
        assert client.read().body == repr([b"abc", b"", b""]).encode()


def test_children_that_the_application_forks_end_with_its_code_and_never_serve(
    site: Site, client: Client, tmp_path
) -> None:
    mark = tmp_path / "mark"
    with Client(site.address) as slow:
        slow.send("GET /sleep?1 HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.get(f"/fork?{mark}").body == b"forked"
        wait_until(lambda: mark.exists() and mark.read_text().count("\n") == 3)
        children = [int(line.split()[0]) for line in mark.read_text().splitlines()]
        # The application does not wait for them, so they stay as zombies.
        wait_until(lambda: not any(map(is_alive, children)))
        assert slow.read().status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_that_ends_a_forked_child_is_not_taken_for_one_to_its_process(
    site: Site, client: Client, number: signal.Signals
) -> None:
    for _ in range(10):
        assert client.get(f"/end-a-child?{number:d}").body == str(-number).encode()
    assert len(site.log.find(event="process.started")) == 2  # those of the beginning


def test_a_child_that_is_forked_while_others_log_can_log(site: Site) -> None:
    stop = threading.Event()

    def log_without_end() -> None:
        while not stop.is_set():
            with Client(site.address) as client:
                client.get("/flood?300")

    floods = [threading.Thread(target=log_without_end) for _ in range(3)]
    for flood in floods:
        flood.start()
    try:
        for _ in range(10):
            with Client(site.address) as client:
                assert client.get("/fork-and-print").body == b"done"
    finally:
        stop.set()
        for flood in floods:
            flood.join()
