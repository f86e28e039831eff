"""httpbin behind the gateway (`examples/04_httpbin`): it tells what arrives, and what it sends must come back."""

from __future__ import annotations

import json
import random
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
import requests

from frameworks.raw_client import connect, curl, has_curl
from frameworks.shared import KINDS, USUAL_KIND, ServerOfKind, make_client
from served import Served

BLOB = random.Random(3).randbytes(2_000_000)


def _serve(server_of_kind: ServerOfKind, kind: str, examples: Path) -> Served:
    return server_of_kind(kind, "wsgi:application", cwd=examples / "04_httpbin")


@pytest.fixture
def httpbin(server_of_kind: ServerOfKind, examples: Path) -> Served:
    """httpbin, served as usual."""
    return _serve(server_of_kind, USUAL_KIND, examples)


@pytest.fixture(params=KINDS)
def any_httpbin(request: pytest.FixtureRequest, server_of_kind: ServerOfKind, examples: Path) -> Served:
    """httpbin, served with each loop and each codec."""
    return _serve(server_of_kind, request.param, examples)


@pytest.fixture
def client(library: str, httpbin: Served) -> Iterator[Any]:
    """A client of each library, with the usual server as its base."""
    with make_client(library, httpbin.url) as made:
        yield made


# --- what arrives -------------------------------------------------------------------------------------------


def test_get_arrives_with_its_query_and_its_headers(client: Any) -> None:
    seen = client.get("/get", params={"a": "1 2&3=4", "ä": "é"}, headers={"X-Odd": 'a, "b"; c'}).json()
    assert seen["args"] == {"a": "1 2&3=4", "ä": "é"}
    assert seen["headers"]["X-Odd"] == 'a, "b"; c'
    assert seen["origin"] == "127.0.0.1"


def test_the_host_header_makes_the_address(client: Any, httpbin: Served) -> None:
    assert client.get("/get?x=1").json()["url"] == f"{httpbin.url}/get?x=1"
    named = client.get("/get", headers={"Host": "example.org"}).json()
    assert named["url"] == "http://example.org/get"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_form_arrives_with_each_method(client: Any, method: str) -> None:
    seen = client.request(method, f"/{method.lower()}", data={"one": "1", "two": ["2", "zwei & ü"]}).json()
    assert seen["form"] == {"one": "1", "two": ["2", "zwei & ü"]}


def test_json_arrives(client: Any) -> None:
    value = {"text": "☃ “q”", "list": [1, None, {"deep": [True]}]}
    assert client.post("/post", json=value).json()["json"] == value


def test_two_megabytes_of_any_bytes_arrive(client: Any) -> None:
    name = "data" if isinstance(client, requests.Session) else "content"
    seen = client.post("/post", **{name: BLOB}, headers={"Content-Type": "application/octet-stream"}).json()
    assert seen["data"] == "data:application/octet-stream;base64," + b64encode(BLOB).decode()


def test_files_arrive(client: Any) -> None:
    seen = client.post("/post", files={"one": ("1.txt", b"first\r\n"), "two": ("2.txt", b"")}).json()
    assert seen["files"] == {"one": "first\r\n", "two": ""}


def test_a_header_of_several_lines_arrives_as_one(httpbin: Served) -> None:
    with make_client("httpx", httpbin.url) as client:
        seen = client.get("/headers", headers=[("X-Many", "1"), ("X-Many", "2"), ("X-Empty", "")]).json()
    assert seen["headers"]["X-Many"] == "1,2"
    assert seen["headers"]["X-Empty"] == ""


@pytest.mark.parametrize(
    ("target", "path", "args"),
    [
        ("/anything/a%20b/%C3%A4", "/anything/a b/ä", {}),
        ("/anything/a%2Fb", "/anything/a/b", {}),
        ("/anything/%25%3F%23", "/anything/%?#", {}),
        ("/anything/~-._!$&'()*+,;=:@", "/anything/~-._!$&'()*+,;=:@", {}),
        ("/anything/a//b/./c/../d", "/anything/a//b/./c/../d", {}),
        ("/anything?x=%26&y=%2B+&empty=&k=1&k=2&/?:@=v", "/anything", None),
        ("/anything/%E5%8F%A4?q=%F0%9F%8C%8D", "/anything/古", {"q": "🌍"}),
    ],
)
def test_odd_characters_and_percent_encoding_arrive_as_they_were_sent(
    any_httpbin: Served, target: str, path: str, args: dict[str, str] | None
) -> None:
    with connect(any_httpbin.port) as connection:
        seen = json.loads(connection.ask("GET", target).body)
    if args is None:
        args = {"x": "&", "y": "+ ", "empty": "", "k": ["1", "2"], "/?:@": "v"}  # type: ignore[dict-item]
    assert seen["args"] == args
    assert unquote(urlsplit(seen["url"]).path) == path


def test_chunked_bodies_arrive(client: Any) -> None:
    # Where it sees the coding, it supports that behind one server only, which it knows by SERVER_SOFTWARE.
    name = "data" if isinstance(client, requests.Session) else "content"
    answer = client.post("/post", **{name: iter([b"a", b"b"])})
    assert answer.json()["data"] == "ab"
    assert client.get("/get").status_code == 200


# --- what comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 404, 418, 429, 500, 503])
def test_a_status_comes_back(client: Any, status: int) -> None:
    answer = client.get(f"/status/{status}")
    assert answer.status_code == status
    assert ("teapot" in answer.text) == (status == 418)


def test_every_status_leaves_the_connection_good(any_httpbin: Served) -> None:
    with connect(any_httpbin.port) as connection:
        for status in (200, 204, 304, 418, 500):
            for method in ("GET", "HEAD", "POST"):
                assert connection.ask(method, f"/status/{status}").status == status
        assert json.loads(connection.ask("GET", "/get").body)["args"] == {}


def test_headers_come_back(client: Any) -> None:
    answer = client.get("/response-headers?X-One=1&X-Two=a%20b&X-Two=c&ETag=%22tag%22")
    assert answer.headers["X-One"] == "1"
    assert answer.headers["X-Two"] == "a b, c"
    assert answer.headers["ETag"] == '"tag"'
    assert answer.headers["Date"]
    assert answer.headers["Server"] == "gatekeep"


@pytest.mark.parametrize("size", [0, 1, 1024, 102_400])
def test_bytes_come_back(client: Any, size: int) -> None:
    expected = random.Random(7)
    answer = client.get(f"/bytes/{size}?seed=7")
    assert answer.content == bytes(expected.randint(0, 255) for _ in range(size))


def test_twenty_lines_are_streamed(client: Any) -> None:
    lines = client.get("/stream/20").text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(20))


def test_streamed_bytes_come_back_whole(client: Any) -> None:
    expected = random.Random(7)
    answer = client.get("/stream-bytes/50000?seed=7&chunk_size=777")
    assert answer.content == bytes(expected.randint(0, 255) for _ in range(50_000))


def test_a_range_comes_back(client: Any) -> None:
    whole = client.get("/range/1024")
    assert len(whole.content) == 1024
    part = client.get("/range/1024", headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == whole.content[100:200]
    assert part.headers["Content-Range"] == "bytes 100-199/1024"
    assert client.get("/range/1024", headers={"Range": "bytes=2000-"}).status_code == 416


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_content_comes_back_and_is_unpacked(client: Any, encoding: str) -> None:
    answer = client.get(f"/{encoding}")
    assert answer.headers["Content-Encoding"] == encoding
    assert answer.json()["gzipped" if encoding == "gzip" else "deflated"] is True


def test_pages_and_pictures_come_back(client: Any) -> None:
    assert "∮ E⋅da = Q" in client.get("/encoding/utf8").text
    assert client.get("/image/png").content.startswith(b"\x89PNG")
    assert client.get("/xml").headers["Content-Type"] == "application/xml"


def test_head_and_options_come_back(client: Any) -> None:
    head = client.head("/get")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0
    options = client.options("/get", headers={"Origin": "http://a.example"})
    assert set(options.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert options.headers["Access-Control-Allow-Origin"] == "http://a.example"


# --- conversations ------------------------------------------------------------------------------------------


def test_cookies_are_set_kept_and_deleted(client: Any) -> None:
    answer = client.get("/cookies/set?flavour=oat&size=l")
    assert [step.status_code for step in answer.history] == [302]
    assert answer.json() == {"cookies": {"flavour": "oat", "size": "l"}}
    assert client.get("/cookies/delete?size").json() == {"cookies": {"flavour": "oat"}}


@pytest.mark.parametrize("path", ["/redirect/3", "/relative-redirect/3", "/absolute-redirect/3"])
def test_redirects_lead_to_the_page(client: Any, path: str) -> None:
    answer = client.get(path)
    assert [step.status_code for step in answer.history] == [302, 302, 302]
    assert answer.json()["args"] == {}


def test_a_307_repeats_the_method_and_the_body(client: Any) -> None:
    answer = client.post("/redirect-to?url=/post&status_code=307", data={"kept": "yes"})
    assert [step.status_code for step in answer.history] == [307]
    assert answer.json()["form"] == {"kept": "yes"}


def test_basic_and_digest_authentication_reach_the_application(client: Any) -> None:
    refused = client.get("/basic-auth/user/passwd")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    assert client.get("/basic-auth/user/passwd", auth=("user", "passwd")).json()["authenticated"] is True
    digest = requests.auth.HTTPDigestAuth if isinstance(client, requests.Session) else httpx.DigestAuth
    assert client.get("/digest-auth/auth/user/passwd", auth=digest("user", "passwd")).status_code == 200


def test_a_bearer_token_reaches_the_application(client: Any) -> None:
    answer = client.get("/bearer", headers={"Authorization": "Bearer abc.def-123"})
    assert answer.json() == {"authenticated": True, "token": "abc.def-123"}


def test_conditions_are_answered_with_304_and_412(client: Any) -> None:
    assert client.get("/cache").status_code == 200
    assert client.get("/cache", headers={"If-None-Match": '"x"'}).status_code == 304
    assert client.get("/etag/tag", headers={"If-None-Match": '"tag"'}).status_code == 304
    assert client.get("/etag/tag", headers={"If-Match": '"other"'}).status_code == 412


def test_a_delayed_response_is_waited_for(httpbin: Served) -> None:
    with make_client("requests", httpbin.url) as client:
        began = time.monotonic()
        assert client.get("/delay/1").status_code == 200
        assert 1.0 <= time.monotonic() - began < 15


def test_a_drip_arrives_drop_by_drop(any_httpbin: Served) -> None:
    with (
        make_client("httpx", any_httpbin.url) as client,
        client.stream("GET", "/drip?numbytes=4&duration=8&delay=0") as answer,
    ):
        arrivals = [(piece, time.monotonic()) for piece in answer.iter_raw()]
    assert b"".join(piece for piece, _ in arrivals) == b"****"
    assert arrivals[-1][1] - arrivals[0][1] > 0.4


# --- curl ---------------------------------------------------------------------------------------------------

needs_curl = pytest.mark.skipif(not has_curl(), reason="curl is not installed")


@needs_curl
@pytest.mark.parametrize("path", ["/gzip", "/deflate", "/brotli"])
def test_curl_compressed_unpacks(httpbin: Served, path: str) -> None:
    got = curl("--compressed", httpbin.url + path)
    if got.exit_status == 61:
        pytest.skip("this curl does not know the encoding")
    assert got.json()["method"] == "GET"


@needs_curl
def test_curl_follows_redirects_and_keeps_cookies(any_httpbin: Served) -> None:
    got = curl("-L", "-b", "", f"{any_httpbin.url}/cookies/set/a/1")
    assert got.json() == {"cookies": {"a": "1"}}
    assert got.facts["num_redirects"] == 1
    # Both requests went over one connection.
    assert got.facts["num_connects"] == 1


@needs_curl
def test_curl_speaks_http_1_0(any_httpbin: Served) -> None:
    got = curl("--http1.0", f"{any_httpbin.url}/stream/5")
    assert (got.exit_status, len(got.body.splitlines())) == (0, 5)
    assert "transfer-encoding" not in got.head.lower()


@needs_curl
def test_curl_resumes_a_download(httpbin: Served) -> None:
    got = curl("-C", "1000", f"{httpbin.url}/range/1024")
    assert (got.exit_status, got.status, len(got.body)) == (0, 206, 24)
