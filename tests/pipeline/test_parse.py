"""The parse stage over real connections: what is refused gets its answer, and nothing behind it is ever served."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from client import Answer, Client
from conftest import Site, start_site, wait_until
from gatekeep import Outcome, Stage

LIMIT = 1_000_000

pytestmark = pytest.mark.usefixtures("no_faults")


@pytest.fixture(scope="module", params=["strict", "h11"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def site(loop: str, codec: str) -> Iterator[Site]:
    with ExitStack() as stack:
        yield start_site(stack, loop=loop, http=codec, processes=1, limit_request_body=LIMIT)


@pytest.fixture
def no_faults(site: Site) -> Iterator[None]:
    yield
    assert not site.log.find(event="front.failed")


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with Client(site.address) as client:
        yield client


def name_of(client: Client) -> str:
    """The client as records name it."""
    host, port = client.socket.getsockname()
    return f"{host}:{port}"


def refused(site: Site, client: Client, sent: bytes, method: str = "GET") -> tuple[Answer, dict[str, Any]]:
    """Send what is refused; the answer, after which the connection has ended, and the record."""
    name = name_of(client)
    client.send(sent)
    answer = client.read(method)
    assert answer.complete
    assert answer.fields["connection"] == "close"
    assert client.is_closed()
    record = site.log.wait_for("request.finished", client=name, outcome="refused")
    assert site.log.find(event="request.finished", client=name)[-1] is record, "nothing was served after it"
    return answer, record


def request(line: str = "GET /plain HTTP/1.1", *fields: str, host: str = "Host: test") -> bytes:
    return "".join(f"{part}\r\n" for part in (line, *([host] if host else []), *fields, "")).encode("latin-1")


REFUSED = {
    "no request": (b"nonsense\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "a space too many": (request("GET  /plain HTTP/1.1"), 400),
    "a control character in the target": (request("GET /\x01 HTTP/1.1"), 400),
    "a fragment": (request("GET /a#b HTTP/1.1"), 400),
    "HTTP/2": (request("GET /plain HTTP/2.0"), 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "CONNECT": (request("CONNECT test:443 HTTP/1.1"), 501),
    "TRACE": (request("TRACE /plain HTTP/1.1"), 405),
    "no host": (request(host=""), 400),
    "two hosts": (request("GET / HTTP/1.1", "Host: other"), 400),
    "a space before the colon": (request("GET / HTTP/1.1", "A : b"), 400),
    "a folded line": (request("GET / HTTP/1.1", "A: b", " c"), 400),
    "a null character": (request("GET / HTTP/1.1", "A: b\0c"), 400),
    "a bare line end": (request("GET / HTTP/1.1", "A: b\nC: d"), 400),
    "a bare carriage return": (request("GET / HTTP/1.1", "A: b\rC: d"), 400),
    "a line without a colon": (request("GET / HTTP/1.1", "Abc"), 400),
    "length and chunks": (request("POST / HTTP/1.1", "Content-Length: 3", "Transfer-Encoding: chunked"), 400),
    "two lengths": (request("POST / HTTP/1.1", "Content-Length: 3", "Content-Length: 3"), 400),
    "a list of lengths": (request("POST / HTTP/1.1", "Content-Length: 3, 3"), 400),
    "a signed length": (request("POST / HTTP/1.1", "Content-Length: +3"), 400),
    "another coding": (request("POST / HTTP/1.1", "Transfer-Encoding: gzip"), 501),
    "chunks in HTTP/1.0": (request("POST / HTTP/1.0", "Transfer-Encoding: chunked"), 400),
    "too large a body": (request("POST / HTTP/1.1", f"Content-Length: {LIMIT + 1}"), 413),
    "another expectation": (request("POST / HTTP/1.1", "Content-Length: 3", "Expect: 200-ok"), 417),
    "too long a target": (request(f"GET /{'a' * 9000} HTTP/1.1"), 414),
    "too long a field": (request("GET / HTTP/1.1", f"A: {'b' * 9000}"), 431),
    "too many fields": (request("GET / HTTP/1.1", *["A: b"] * 100), 431),
    "too large a head": (request("GET / HTTP/1.1", *[f"A: {'b' * 8000}"] * 9), 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_gets_its_answer_and_ends_the_connection(site: Site, client: Client, name: str) -> None:
    sent, status = REFUSED[name]
    answer, record = refused(site, client, sent)
    assert answer.status == record["status"] == status
    assert answer.body.startswith(str(status).encode())
    assert {"date", "server", "content-length"} <= set(answer.fields)
    assert (record["outcome"], record["stage"]) == (Outcome.REFUSED, Stage.PARSE)
    assert record["reason"]
    assert (record["pid"], record["attempts"], record["group"]) == (0, 0, "")
    assert set(record["stages"]) == {"parse"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_good_request_behind_a_bad_one_never_reaches_the_application(
    site: Site, client: Client, tmp_path: Path, name: str
) -> None:
    mark = tmp_path / "mark"
    bad, _ = REFUSED[name]
    refused(site, client, bad + request(f"GET /mark?{mark} HTTP/1.1"))
    # One process of three threads: it would have run by now, or be on its way.
    with Client(site.address) as another:
        another.get("/plain")
    wait_until(lambda: site.served.statistics().in_flight == 0)
    assert not mark.exists()


def test_good_requests_before_a_bad_one_are_served(site: Site, client: Client) -> None:
    client.send(request() + request("GET /generator HTTP/1.1"))
    assert [client.read().body, client.read().body] == [b"ok", b"0\n1\n2\n"]
    answer, _ = refused(site, client, b"nonsense\r\n\r\n")
    assert answer.status == 400


def test_good_and_bad_in_one_write_are_answered_in_order(site: Site, client: Client) -> None:
    client.send(request() + request() + b"nonsense\r\n\r\n" + request())
    assert [client.read().status for _ in range(3)] == [200, 200, 400]
    assert client.is_closed()


def test_refusals_and_only_they_are_counted_as_refused(site: Site, client: Client) -> None:
    wait_until(lambda: site.served.statistics().in_flight == 0)
    before = site.served.statistics().requests.get((Stage.PARSE, Outcome.REFUSED), 0)
    refused(site, client, b"nonsense\r\n\r\n")
    assert site.served.statistics().requests[Stage.PARSE, Outcome.REFUSED] == before + 1


def test_trace_is_answered_with_what_is_allowed(site: Site, client: Client) -> None:
    answer, _ = refused(site, client, request("TRACE / HTTP/1.1"))
    assert "GET" in answer.fields["allow"]


def test_a_refused_head_has_no_body(site: Site, client: Client) -> None:
    sent = request("HEAD /plain HTTP/1.1", f"Content-Length: {LIMIT + 1}")
    answer, record = refused(site, client, sent, "HEAD")
    assert (answer.status, record["method"], record["path"]) == (413, "HEAD", "/plain")


# --- bodies that are too large


@pytest.mark.usefixtures("patient_discards")
def test_a_client_that_sends_far_too_much_reads_its_413(site: Site) -> None:
    body = b"x" * 8_000_000
    head = request("POST /count HTTP/1.1", f"Content-Length: {len(body)}")
    for _ in range(20):
        with Client(site.address) as client:
            client.send(head + body)
            answer = client.read()
            assert (answer.status, answer.complete) == (413, True)
            assert client.is_closed()


@pytest.mark.usefixtures("patient_discards")
def test_a_chunked_body_is_refused_where_it_exceeds_the_limit(site: Site, client: Client) -> None:
    chunk = b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n"
    head = request("POST /count HTTP/1.1", "Transfer-Encoding: chunked")
    answer, record = refused(site, client, head + chunk * 10 + b"1\r\nx\r\n0\r\n\r\n")
    assert answer.status == 413
    assert (record["outcome"], record["stage"]) == (Outcome.REFUSED, Stage.PARSE)


def test_a_body_of_exactly_the_limit_is_served(client: Client) -> None:
    assert client.post("/count", b"x" * LIMIT).body == b"%d" % LIMIT
    client.send(request("POST /count HTTP/1.1", "Transfer-Encoding: chunked"))
    client.send(b"%x\r\n" % LIMIT + b"x" * LIMIT + b"\r\n0\r\n\r\n")
    assert client.read().body == b"%d" % LIMIT


@pytest.mark.parametrize(
    "rubbish", [b"zz\r\n", b"-1\r\n", b"1\r\nxy\r\n0\r\n\r\n", b"1;\0\r\nx\r\n", b"\r\n"]
)
def test_chunks_that_are_none_are_refused_and_nothing_behind_them_is_served(
    site: Site, client: Client, rubbish: bytes, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    head = request("POST /count HTTP/1.1", "Transfer-Encoding: chunked")
    answer, record = refused(
        site, client, head + b"1\r\nx\r\n" + rubbish + request(f"GET /mark?{mark} HTTP/1.1")
    )
    assert (answer.status, record["outcome"]) == (400, Outcome.REFUSED)
    assert not mark.exists()


# --- in pieces, and at the limits


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (request("GET /generator HTTP/1.1"), b"0\n1\n2\n"),
        (request("POST /count HTTP/1.1", "Content-Length: 5") + b"12345", b"5"),
        (
            request("POST /count HTTP/1.1", "Transfer-Encoding: chunked")
            + b"3;a=b\r\n123\r\n2\r\n45\r\n0\r\nTrailer: x\r\n\r\n",
            b"5",
        ),
    ],
    ids=["no body", "length", "chunks"],
)
def test_a_request_may_come_byte_by_byte(client: Client, sent: bytes, body: bytes) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(2):
        for byte in sent:
            client.send(bytes([byte]))
        assert client.read().body == body


@pytest.mark.parametrize("name", ["no request", "no host", "a folded line", "another coding", "TRACE"])
def test_what_comes_byte_by_byte_is_refused_all_the_same(site: Site, client: Client, name: str) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent, status = REFUSED[name]
    try:
        for byte in sent:
            client.send(bytes([byte]))
    except OSError:
        pass  # it was refused before its end
    assert client.read().status == status


def test_a_request_at_the_limits_is_served(client: Client) -> None:
    line = "GET /plain?{} HTTP/1.1"
    for sent in (
        request(line.format("a" * (8190 - len(line.format(""))))),
        request("GET /plain HTTP/1.1", "A: " + "b" * (8190 - 3)),
        request("GET /plain HTTP/1.1", *["A: b"] * 99),
    ):
        client.send(sent)
        assert client.read().body == b"ok"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(f"GET /plain?{'a' * (8191 - len('GET /plain? HTTP/1.1'))} HTTP/1.1"), 414),
        (request("GET /plain HTTP/1.1", "A: " + "b" * (8191 - 3)), 431),
        (request("GET /plain HTTP/1.1", *["A: b"] * 100), 431),
    ],
    ids=["line", "field", "fields"],
)
def test_one_byte_or_field_more_is_not(site: Site, client: Client, sent: bytes, status: int) -> None:
    assert refused(site, client, sent)[0].status == status


def test_empty_lines_before_a_request_are_passed_over(client: Client) -> None:
    client.send(b"\r\n" + request())
    assert client.read().body == b"ok"


def test_a_connection_that_ends_inside_a_head_is_refused(site: Site, client: Client) -> None:
    client.send(b"GET /plain HTTP/1.1\r\nHo")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read().status == 400
    record = site.log.wait_for("request.finished", client=name_of(client))
    assert (record["status"], record["outcome"], record["stage"]) == (400, "refused", "parse")


def test_a_connection_that_says_nothing_is_no_request(site: Site, client: Client) -> None:
    with Client(site.address) as silent:
        silent_name = name_of(silent)
    client.get("/plain")
    client.socket.shutdown(socket.SHUT_WR)
    name = name_of(client)
    assert client.is_closed()
    client.close()
    wait_until(lambda: site.served.statistics().connections == 0)
    assert not site.log.find(event="request.finished", client=silent_name)
    assert len(site.log.find(event="request.finished", client=name)) == 1


# --- what the application is told


@pytest.fixture(scope="module")
def echo(codec: str) -> Iterator[Site]:
    with ExitStack() as stack:
        yield start_site(stack, "apps:echo", http=codec, processes=1)


def environ(echo: Site, *fields: str) -> dict[str, Any]:
    with Client(echo.address) as client:
        return json.loads(client.get("/", *fields).body)["environ"]


def test_names_that_could_forge_others_never_reach_the_application(echo: Site) -> None:
    before = echo.served.statistics().dropped_fields
    seen = environ(
        echo, "X_Forwarded_For: forged", "Proxy: http://evil", "pRoXy: http://evil", "A_B: c", "Content_Length: 9", "A-B: d"
    )  # fmt: skip
    assert seen["HTTP_A_B"] == "d"
    assert not {"HTTP_PROXY", "HTTP_X_FORWARDED_FOR", "CONTENT_LENGTH"} & set(seen)
    assert "forged" not in str(seen)
    assert "evil" not in str(seen)
    assert echo.served.statistics().dropped_fields == before + 5
