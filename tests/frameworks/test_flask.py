"""A Flask application behind the gateway (`examples/03_flask`): JSON, uploads, streams and failures."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from frameworks.raw_client import CHROME, FIREFOX, connect, curl, has_curl
from frameworks.shared import KINDS, USUAL_KIND, ServerOfKind, make_client
from served import Served

BLOB = random.Random(2).randbytes(3_000_000)
BLOB_FACTS = {"size": len(BLOB), "sha256": hashlib.sha256(BLOB).hexdigest()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for all servers of this module."""
    return tmp_path_factory.mktemp("notes")


def _serve(server_of_kind: ServerOfKind, kind: str, examples: Path, data: Path) -> Served:
    return server_of_kind(kind, "app:app", cwd=examples / "03_flask", env={"NOTES_DATA": str(data)})


@pytest.fixture
def site(server_of_kind: ServerOfKind, examples: Path, data: Path) -> Served:
    """The application, served as usual."""
    return _serve(server_of_kind, USUAL_KIND, examples, data)


@pytest.fixture(params=KINDS)
def any_site(
    request: pytest.FixtureRequest, server_of_kind: ServerOfKind, examples: Path, data: Path
) -> Served:
    """The application, served with each loop and each codec."""
    return _serve(server_of_kind, request.param, examples, data)


@pytest.fixture
def client(library: str, any_site: Served) -> Iterator[Any]:
    """A client of each library, with a server of each kind as its base."""
    with make_client(library, any_site.url) as made:
        yield made


def pattern(size: int) -> bytes:
    """What `/download` sends."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def pieces_of(data: bytes, size: int = 70_000) -> Iterator[bytes]:
    """The data in pieces, as a generator: a body without a length."""
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


def send_body(client: Any, path: str, body: Any) -> Any:
    """PUT a body of bytes, a file or a generator: the libraries name the argument differently."""
    name = "data" if isinstance(client, requests.Session) else "content"
    return client.put(path, **{name: body})


# --- JSON and forms -----------------------------------------------------------------------------------------


def test_a_note_is_created_shown_listed_and_deleted(client: Any) -> None:
    made = client.post("/api/notes", json={"text": "Grüße, 世界 🌍"})
    assert made.status_code == 201
    path = made.headers["Location"]
    note = made.json()
    assert client.get(path).json() == note
    assert note in client.get("/api/notes").json()
    gone = client.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"text": ""}', 422), (b'{"text": 1}', 422), (b"[]", 422), (b"{", 400), (b"", 400)],
)
def test_a_body_that_is_no_note_is_refused_by_the_application(site: Served, body: bytes, status: int) -> None:
    with make_client("httpx", site.url) as client:
        answer = client.post("/api/notes", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status


def test_a_form_is_answered_with_a_redirect_to_the_page(client: Any) -> None:
    page = client.post("/", data={"text": "from <a form>"})
    assert [(step.status_code, step.headers["Location"]) for step in page.history] == [(303, "/")]
    assert "<li>from &lt;a form&gt;</li>" in page.text
    wrong = client.post("/", data={"text": "x" * 201})
    assert wrong.status_code == 422
    assert "at most 200 characters" in wrong.text


def test_a_method_that_the_route_does_not_have_is_a_405(client: Any) -> None:
    answer = client.request("PATCH", "/api/notes")
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}


# --- uploads ------------------------------------------------------------------------------------------------


def test_a_multipart_upload_arrives_whole(client: Any) -> None:
    answer = client.post(
        "/upload",
        files={"file": ("Größe.bin", BLOB, "application/octet-stream")},
        data={"comment": "three megabytes"},
    )
    assert answer.json() == {"name": "Größe.bin", "comment": "three megabytes", **BLOB_FACTS}


def test_a_body_of_declared_length_arrives_whole(client: Any) -> None:
    answer = send_body(client, "/raw/length", BLOB)
    assert (answer.status_code, answer.json()) == (201, {"name": "length", **BLOB_FACTS})


def test_a_chunked_body_from_a_generator_arrives_whole(client: Any) -> None:
    answer = send_body(client, "/raw/chunked", pieces_of(BLOB))
    assert (answer.status_code, answer.json()) == (201, {"name": "chunked", **BLOB_FACTS})


def test_an_empty_chunked_body_is_empty(client: Any) -> None:
    answer = send_body(client, "/raw/nothing", iter(()))
    assert answer.json()["size"] == 0


def test_a_body_that_comes_slowly_arrives_whole(site: Served) -> None:
    def slowly() -> Iterator[bytes]:
        for number in range(4):
            time.sleep(0.1)
            yield b"%d" % number

    with make_client("httpx", site.url) as client:
        assert client.put("/raw/slow", content=slowly()).json()["size"] == 4


def test_an_upload_that_the_application_does_not_read_leaves_the_server_well(client: Any) -> None:
    answer = send_body(client, "/api/notes/1", BLOB)
    assert answer.status_code == 405
    assert client.get("/api/notes").status_code == 200


# --- downloads and streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_536, 5_000_000])
def test_a_generated_download_arrives_whole(client: Any, size: int) -> None:
    plain = client.get(f"/download/{size}")
    assert plain.content == pattern(size)
    declared = client.get(f"/download/{size}", params={"length": 1})
    assert declared.content == pattern(size)
    if size:
        assert declared.headers["Content-Length"] == str(size)


def test_server_sent_events_arrive_one_by_one(any_site: Served) -> None:
    arrivals: list[float] = []
    with (
        make_client("httpx", any_site.url) as client,
        client.stream("GET", "/events?count=3&pause=4") as answer,
    ):
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            if line.startswith("data:"):
                arrivals.append(time.monotonic())
    assert lines[:4] == ["id: 0", "event: tick", "data: /events 0", ""]
    assert len(arrivals) == 3
    assert min(arrivals[1] - arrivals[0], arrivals[2] - arrivals[1]) > 0.1


def test_a_client_that_leaves_a_stream_leaves_the_server_well(site: Served) -> None:
    before = len(site.events)
    with (
        make_client("httpx", site.url) as client,
        client.stream("GET", "/events?count=600&pause=0.1") as answer,
    ):
        next(answer.iter_lines())
    record = site.wait_for_event("request.finished", after=before, path="/events")
    assert record["outcome"] == "client_gone"
    with make_client("httpx", site.url) as client:
        assert client.get("/api/notes").status_code == 200


# --- failures -----------------------------------------------------------------------------------------------


def test_a_route_that_raises_is_a_500_and_its_traceback_is_in_the_log_with_the_requests_id(
    any_site: Served, library: str
) -> None:
    with make_client(library, any_site.url) as client:
        before = len(any_site.events)
        answer = client.get("/fail")
        assert answer.status_code == 500
        assert "on purpose" not in answer.text
        record = any_site.wait_for_event("request.finished", after=before, path="/fail")
        assert (record["status"], record["outcome"]) == (500, "app_error")
        failure = any_site.wait_for_event("run.failed", after=before, request_id=record["request_id"])
        assert failure["level"] == "error"
        assert "app.py" in failure["traceback"]
        assert "RuntimeError: this route fails on purpose" in failure["traceback"]
        # What the application itself logged stands there too.
        said = any_site.wait_for_event("app.output", after=before, request_id=record["request_id"])
        assert said["text"] == "WARNING app: about to fail"
        assert client.get("/api/notes").status_code == 200


def test_a_response_that_breaks_off_looks_broken_off(any_site: Served, library: str) -> None:
    broken = {"requests": requests.exceptions.ChunkedEncodingError, "httpx": httpx.RemoteProtocolError}
    with make_client(library, any_site.url) as client:
        before = len(any_site.events)
        with pytest.raises(broken[library]):
            client.get("/fail-late")
        record = any_site.wait_for_event("request.finished", after=before, path="/fail-late")
        assert (record["status"], record["outcome"]) == (200, "truncated")
        assert client.get("/api/notes").status_code == 200


# --- bytes on a socket --------------------------------------------------------------------------------------


def test_browsers_use_one_connection_for_many_requests(any_site: Served) -> None:
    for browser in (CHROME, FIREFOX):
        with connect(any_site.port) as connection:
            for _ in range(3):
                assert connection.ask("GET", "/", browser).status == 200
                assert connection.ask("GET", "/static/notes.css", browser).status == 200
                assert connection.ask("HEAD", "/", browser).status == 200
                form = [*browser, ("Content-Type", "application/x-www-form-urlencoded")]
                assert connection.ask("POST", "/", form, b"text=raw").status == 303


def test_pipelined_requests_with_bodies_are_answered_in_their_order(any_site: Served) -> None:
    with connect(any_site.port) as connection:
        bodies = [b"a" * size for size in (1, 200, 70_000, 3)]
        connection.send(
            b"".join(connection.request("PUT", f"/raw/{n}", CHROME, body) for n, body in enumerate(bodies))
        )
        answers = [json.loads(connection.receive().body) for _ in bodies]
    assert [(a["name"], a["size"]) for a in answers] == [("0", 1), ("1", 200), ("2", 70_000), ("3", 3)]


def test_a_response_without_a_length_is_chunked_and_the_connection_stays(any_site: Served) -> None:
    with connect(any_site.port) as connection:
        answer = connection.ask("GET", "/download/200000")
        assert answer.header("transfer-encoding") == "chunked"
        assert answer.body == pattern(200_000)
        assert connection.ask("GET", "/").status == 200


def test_an_http_1_0_client_gets_no_chunks_and_the_connections_end(any_site: Served) -> None:
    with connect(any_site.port) as connection:
        answer = connection.ask("GET", "/download/200000", version="1.0")
        assert answer.header("transfer-encoding") == ""
        assert answer.body == pattern(200_000)
        assert connection.is_closed_by_server()


def test_connection_close_is_obeyed(any_site: Served) -> None:
    with connect(any_site.port) as connection:
        answer = connection.ask("GET", "/", [("Connection", "close")])
        assert answer.status == 200
        assert answer.header("connection") == "close"
        assert connection.is_closed_by_server()


# --- curl ---------------------------------------------------------------------------------------------------

needs_curl = pytest.mark.skipif(not has_curl(), reason="curl is not installed")
TWO_MEGABYTES = BLOB[:2_000_000]
TWO_MEGABYTES_FACTS = {"size": 2_000_000, "sha256": hashlib.sha256(TWO_MEGABYTES).hexdigest()}


@pytest.fixture(scope="module")
def two_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of that size."""
    file = tmp_path_factory.mktemp("curl") / "two-megabytes.bin"
    file.write_bytes(TWO_MEGABYTES)
    return file


@needs_curl
def test_curl_waits_for_100_continue_before_it_sends_two_megabytes(
    any_site: Served, two_megabytes: Path
) -> None:
    # By itself curl would send after a while without the 100, and say so.
    waiting = ("--expect100-timeout", "20")
    sent = curl(*waiting, "--data-binary", f"@{two_megabytes}", f"{any_site.url}/raw/curl")
    assert sent.json() == {"name": "curl", **TWO_MEGABYTES_FACTS}
    assert "> Expect: 100-continue" in sent.conversation
    assert "< HTTP/1.1 100 Continue" in sent.conversation
    assert "Done waiting for 100-continue" not in sent.conversation


@needs_curl
def test_curl_uploads_a_file_with_put(any_site: Served, two_megabytes: Path) -> None:
    sent = curl("-T", str(two_megabytes), f"{any_site.url}/raw/put")
    assert sent.status == 201
    assert sent.json() == {"name": "put", **TWO_MEGABYTES_FACTS}


@needs_curl
def test_curl_uploads_its_standard_input_in_chunks(any_site: Served) -> None:
    sent = curl("-T", "-", f"{any_site.url}/raw/stdin", stdin=TWO_MEGABYTES)
    assert "> Transfer-Encoding: chunked" in sent.conversation
    assert sent.json() == {"name": "stdin", **TWO_MEGABYTES_FACTS}


@needs_curl
def test_curl_uploads_with_http_1_0(any_site: Served, two_megabytes: Path) -> None:
    sent = curl("--http1.0", "-T", str(two_megabytes), f"{any_site.url}/raw/old")
    assert sent.json() == {"name": "old", **TWO_MEGABYTES_FACTS}
    assert "100 Continue" not in sent.conversation


@needs_curl
def test_curl_sends_a_multipart_form(any_site: Served, two_megabytes: Path) -> None:
    sent = curl("-F", f"file=@{two_megabytes}", "-F", "comment=curl", f"{any_site.url}/upload")
    assert sent.json() == {"name": "two-megabytes.bin", "comment": "curl", **TWO_MEGABYTES_FACTS}


@needs_curl
def test_curl_head_does_not_run_on_into_the_body(any_site: Served) -> None:
    got = curl("-I", f"{any_site.url}/download/5000000?length=1")
    assert (got.exit_status, got.status) == (0, 200)
    assert "content-length: 5000000" in got.head.lower()


@needs_curl
def test_curl_can_tell_that_a_response_broke_off(any_site: Served) -> None:
    assert curl(f"{any_site.url}/fail-late").exit_status == 18
