"""A whole Django site behind the gateway (`examples/02_django`), used with requests, httpx, curl and sockets."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from frameworks.raw_client import CHROME, FIREFOX, RawConnection, connect, curl, has_curl
from frameworks.shared import KINDS, USUAL_KIND, ServerOfKind, make_client
from served import Served

THREE_MEGABYTES = random.Random(1).randbytes(3_000_000)
_numbers = count(1)


@pytest.fixture(scope="module")
def data(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data folder for all servers of this module."""
    folder = tmp_path_factory.mktemp("mysite")
    subprocess.run(
        [sys.executable, "manage.py", "prepare"],
        cwd=examples / "02_django",
        env={**os.environ, "MYSITE_DATA": str(folder)},
        check=True,
        capture_output=True,
    )
    return folder


def _serve(server_of_kind: ServerOfKind, kind: str, examples: Path, data: Path) -> Served:
    return server_of_kind(
        kind,
        "mysite.wsgi:application",
        cwd=examples / "02_django",
        env={"MYSITE_DATA": str(data), "MYSITE_SECRET_KEY": None},
    )


@pytest.fixture
def site(server_of_kind: ServerOfKind, examples: Path, data: Path) -> Served:
    """The site, served as usual."""
    return _serve(server_of_kind, USUAL_KIND, examples, data)


@pytest.fixture(params=KINDS)
def any_site(
    request: pytest.FixtureRequest, server_of_kind: ServerOfKind, examples: Path, data: Path
) -> Served:
    """The site, served with each loop and each codec."""
    return _serve(server_of_kind, request.param, examples, data)


@pytest.fixture
def client(library: str, site: Served) -> Iterator[Any]:
    """A client of each library, with the usual site as its base."""
    with make_client(library, site.url) as made:
        yield made


def token_of(page: str) -> str:
    """The CSRF token in a page's form."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found, page
    return found[1]


def log_in(client: Any, page: str = "/accounts/login/") -> Any:
    """Log in as the demonstration's user; returns the page behind it."""
    form = {"username": "admin", "password": "admin", "csrfmiddlewaretoken": token_of(client.get(page).text)}
    return client.post(page, data=form)


def book_form(page: str, **changes: str) -> dict[str, str]:
    """A filled-in form for a new book."""
    title = f"Title {os.getpid()}-{next(_numbers)} “Ä & Ω”"
    form = {"title": title, "author": "Zoë Ng", "year": "2001", "shelf": "b12", "summary": "a\nb"}
    return form | changes | {"csrfmiddlewaretoken": token_of(page)}


# --- the core flow: each library, each loop, each codec -----------------------------------------------------


def test_people_log_in_add_a_book_attach_a_file_and_get_the_same_bytes_back(
    any_site: Served, library: str
) -> None:
    with make_client(library, any_site.url) as client:
        welcome = log_in(client, "/accounts/login/?next=/books/new/")
        assert welcome.status_code == 200
        assert "Log out admin" in welcome.text

        form = book_form(welcome.text)
        book = client.post("/books/new/", data=form)
        assert [step.status_code for step in book.history] == [302]
        assert f"“{form['title']}” is on shelf B12." in unescape(book.text)
        path = re.sub(r"^https?://[^/]*", "", str(book.url))

        token = token_of(client.get(f"{path}attach/").text)
        attached = client.post(
            f"{path}attach/",
            data={"csrfmiddlewaretoken": token},
            files={"file": ("three megabytes.bin", THREE_MEGABYTES, "application/octet-stream")},
        )
        assert attached.status_code == 200
        link = re.search(r'href="(/books/attachments/\d+/)"', attached.text)
        assert link

        got = client.get(link[1])
        assert got.content == THREE_MEGABYTES
        assert got.headers["Content-Length"] == "3000000"
        assert "attachment" in got.headers["Content-Disposition"]

        goodbye = client.post("/accounts/logout/", data={"csrfmiddlewaretoken": token_of(attached.text)})
        assert "Logged out" in goodbye.text
        assert "Log in" in client.get("/books/").text


def test_a_streamed_response_arrives_as_it_is_made(any_site: Served, library: str) -> None:
    with make_client(library, any_site.url) as client:
        arrivals = []
        for line in _lines_of(client, library, "/books/clock/?pause=4"):
            arrivals.append((line, time.monotonic()))
    assert [line for line, _ in arrivals] == ["tick 0", "tick 1", "tick 2"]
    pauses = [later - earlier for (_, earlier), (_, later) in pairwise(arrivals)]
    assert min(pauses) > 0.1, pauses


def _lines_of(client: Any, library: str, path: str) -> Iterator[str]:
    if library == "requests":
        with client.get(path, stream=True) as response:
            # One byte at a time, or requests waits until its own buffer is full.
            yield from response.iter_lines(chunk_size=1, decode_unicode=True)
    else:
        with client.stream("GET", path) as response:
            yield from response.iter_lines()


# --- pages --------------------------------------------------------------------------------------------------


def test_the_root_redirects_to_the_list(client: Any) -> None:
    page = client.get("/")
    assert [(step.status_code, step.headers["Location"]) for step in page.history] == [(302, "/books/")]
    assert page.status_code == 200


def test_a_list_page_has_twenty_rows_and_the_next_page_has_others(client: Any) -> None:
    first, second = client.get("/books/"), client.get("/books/", params={"page": 2})
    rows = [re.findall(r'<a href="/books/(\d+)/">', page.text) for page in (first, second)]
    assert len(rows[0]) == 20
    assert rows[1]
    assert not set(rows[0]) & set(rows[1])
    assert first.headers["Content-Type"] == "text/html; charset=utf-8"


def test_text_outside_of_ascii_arrives_unharmed(client: Any) -> None:
    page = client.get("/books/1/")
    assert "A History of Gates" in page.text
    assert "古川 玄" in client.get("/books/").text
    assert "&amp; an index" in page.text


def test_a_page_that_does_not_exist_is_answered_with_the_sites_own_404(client: Any) -> None:
    page = client.get("/nowhere/at%20all/ä/")
    assert page.status_code == 404
    assert "There is no page at /nowhere/at%20all/%C3%A4/" in page.text


def test_the_export_streams_every_book(client: Any) -> None:
    export = client.get("/books/export.csv")
    lines = export.text.splitlines()
    assert export.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert lines[0] == "title,author,year,shelf"
    assert len(lines) >= 29
    assert "Content-Length" not in export.headers


def test_head_has_the_headers_of_get_and_no_body(client: Any) -> None:
    got, head = client.get("/books/2/"), client.head("/books/2/")
    assert head.content == b""
    assert head.status_code == 200
    for name in ("Content-Length", "Content-Type", "X-Frame-Options"):
        assert head.headers[name] == got.headers[name]


def test_requests_of_one_session_share_one_connection(site: Served) -> None:
    with make_client("requests", site.url) as client:
        for path in ("/books/", "/books/1/", "/nowhere/", "/books/export.csv", "/", "/books/2/"):
            client.get(path)
        pools = client.get_adapter(site.url).poolmanager.pools
        assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118


def test_many_clients_at_once_read_and_write(site: Served) -> None:
    with make_client("requests", site.url) as client:
        log_in(client)
        session = client.cookies.get_dict()

    def visit(number: int) -> list[int]:
        with make_client("requests" if number % 2 else "httpx", site.url) as client:
            client.cookies.update(session)
            form = book_form(client.get("/books/new/").text)
            # All write at once: SQLite must make the processes wait for one another.
            statuses = [client.post("/books/new/", data=form).status_code]
            return statuses + [client.get(f"/books/{n}/").status_code for n in range(1, 9)]

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(visit, range(8)))
    assert results == [[200] * 9] * 8


# --- forms --------------------------------------------------------------------------------------------------


def test_writing_needs_a_login(client: Any) -> None:
    page = client.get("/books/new/")
    assert [step.headers["Location"] for step in page.history] == ["/accounts/login/?next=/books/new/"]
    assert "csrfmiddlewaretoken" in page.text


def test_a_wrong_password_is_refused(client: Any) -> None:
    token = token_of(client.get("/accounts/login/").text)
    form = {"username": "admin", "password": "wrong", "csrfmiddlewaretoken": token}
    page = client.post("/accounts/login/", data=form)
    assert page.status_code == 200
    assert "Please enter a correct username and password" in page.text


def test_a_form_without_the_token_is_refused(client: Any) -> None:
    client.get("/accounts/login/")
    page = client.post("/accounts/login/", data={"username": "admin", "password": "admin"})
    assert page.status_code == 403


def test_a_form_with_mistakes_comes_back_with_what_was_typed(client: Any) -> None:
    log_in(client)
    form = book_form(client.get("/books/new/").text, year="1066", shelf="12", author="")
    page = client.post("/books/new/", data=form)
    assert page.status_code == 200
    text = unescape(page.text)
    assert "Ensure this value is greater than or equal to 1450." in text
    assert "A shelf is a letter and a number, for instance B12." in text
    assert "This field is required." in text
    assert form["title"] in text


def test_the_admin_adds_a_book_and_finds_it(site: Served) -> None:
    with make_client("requests", site.url) as client:
        assert "Site administration" in log_in(client, "/admin/login/?next=/admin/").text
        add = client.get("/admin/catalogue/book/add/").text
        inline = dict(re.findall(r'name="(attachments-\w+_FORMS)" value="(\d+)"', add))
        assert len(inline) == 4
        form = book_form(add) | inline
        listed = client.post("/admin/catalogue/book/add/", data=form)
        assert "was added successfully" in listed.text
        found = client.get("/admin/catalogue/book/", params={"q": form["title"]})
        assert "1 result" in found.text


# --- static files -------------------------------------------------------------------------------------------


def stylesheet_of(client: Any, page: str = "/books/") -> str:
    """The address of a page's first stylesheet."""
    found = re.search(r'<link rel="stylesheet" href="([^"]+)"', client.get(page).text)
    assert found
    return found[1]


@pytest.mark.parametrize("page", ["/books/", "/admin/login/"])
def test_a_static_file_has_its_type_and_may_be_kept_for_ever(client: Any, page: str) -> None:
    css = client.get(stylesheet_of(client, page))
    assert css.status_code == 200
    assert css.headers["Content-Type"] == 'text/css; charset="utf-8"'
    assert "immutable" in css.headers["Cache-Control"]
    assert "{" in css.text


@pytest.mark.parametrize(
    ("validator", "condition"), [("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since")]
)
def test_a_static_file_that_has_not_changed_is_not_sent_again(
    client: Any, validator: str, condition: str
) -> None:
    path = stylesheet_of(client)
    value = client.get(path).headers[validator]
    again = client.get(path, headers={condition: value})
    assert again.status_code == 304
    assert again.content == b""


def test_a_static_file_travels_compressed_and_arrives_whole(client: Any) -> None:
    path = stylesheet_of(client, "/admin/login/")
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    packed = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"])
    assert packed.content == plain.content


def test_a_part_of_a_static_file_is_a_206(client: Any) -> None:
    path = stylesheet_of(client)
    headers = {"Accept-Encoding": "identity"}
    whole = client.get(path, headers=headers).content
    part = client.get(path, headers=headers | {"Range": "bytes=10-29"})
    assert part.status_code == 206
    assert part.content == whole[10:30]
    assert part.headers["Content-Range"] == f"bytes 10-29/{len(whole)}"


# --- the log ------------------------------------------------------------------------------------------------


def test_each_request_is_one_line_in_the_log(site: Served) -> None:
    with make_client("httpx", site.url) as client:
        before = len(site.events)
        page = client.get("/books/3/")
    record = site.wait_for_event("request.finished", after=before, path="/books/3/")
    assert (record["method"], record["status"], record["outcome"]) == ("GET", 200, "served")
    assert record["bytes_out"] == len(page.content)
    assert record["pid"] in site.daemon_pids()
    assert record["duration"] > 0
    assert "run" in record["stages"]


def test_a_view_that_raises_is_a_500_of_the_site_and_its_traceback_is_in_the_log(
    client: Any, site: Served
) -> None:
    before = len(site.events)
    page = client.get("/books/fail/")
    assert page.status_code == 500
    assert "Something went wrong" in page.text
    record = site.wait_for_event("request.finished", after=before, path="/books/fail/")
    # Django has answered, so for the gateway nothing failed.
    assert (record["status"], record["outcome"]) == (500, "served")
    told = site.wait_for_event("app.output", after=before, request_id=record["request_id"], stream="stderr")
    assert "ERROR django.request: Internal Server Error: /books/fail/" in told["text"]
    assert "RuntimeError: this view fails on purpose" in told["text"]
    assert client.get("/books/1/").status_code == 200


# --- as browsers do -----------------------------------------------------------------------------------------

with_browsers = pytest.mark.parametrize("browser", [CHROME, FIREFOX], ids=["chrome", "firefox"])


@with_browsers
def test_a_browser_gets_page_stylesheet_and_favicon_over_one_connection(
    any_site: Served, browser: tuple[tuple[str, str], ...]
) -> None:
    with connect(any_site.port) as connection:
        page = connection.ask("GET", "/books/", browser)
        assert page.status == 200
        path = re.search(rb'rel="stylesheet" href="([^"]+)"', page.body)
        assert path
        target = path[1].decode()
        css = connection.ask("GET", target, browser)
        assert css.status == 200
        assert css.header("content-encoding") in ("br", "gzip", "")
        again = connection.ask("GET", target, [*browser, ("If-None-Match", css.header("etag"))])
        assert (again.status, again.body) == (304, b"")
        assert connection.ask("GET", "/favicon.ico", browser).status == 404
        assert connection.ask("GET", "/books/?page=2", browser).status == 200


@with_browsers
def test_a_browser_logs_in_over_one_connection(site: Served, browser: tuple[tuple[str, str], ...]) -> None:
    with connect(site.port) as connection:
        answer = _submit_login(connection, browser, origin=f"http://{connection.host}")
        assert answer.status == 302
        assert answer.header("location") == "/books/"
        session = re.search(
            r"sessionid=\w+", " ".join(value for name, value in answer.headers if name == "set-cookie")
        )
        assert session
        page = connection.ask("GET", "/books/", [*browser, ("Cookie", session[0])])
        assert b"Log out admin" in page.body


@with_browsers
def test_a_form_sent_from_another_site_is_refused(site: Served, browser: tuple[tuple[str, str], ...]) -> None:
    with connect(site.port) as connection:
        assert _submit_login(connection, browser, origin="http://elsewhere.example").status == 403


def _submit_login(connection: RawConnection, browser: tuple[tuple[str, str], ...], origin: str) -> Any:
    page = connection.ask("GET", "/accounts/login/", browser)
    cookie = page.header("set-cookie").split(";")[0]
    body = f"csrfmiddlewaretoken={token_of(page.body.decode())}&username=admin&password=admin".encode()
    headers = [
        *browser,
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Origin", origin),
        ("Referer", f"{origin}/accounts/login/"),
        ("Cookie", cookie),
    ]
    return connection.ask("POST", "/accounts/login/", headers, body)


def test_pipelined_requests_are_answered_in_their_order(any_site: Served) -> None:
    with connect(any_site.port) as connection:
        paths = [
            "/books/3/",
            "/books/clock/?pause=0.1",
            "/nowhere/",
            "/books/4/",
            "/books/export.csv",
            "/books/5/",
        ]
        connection.send(b"".join(connection.request("GET", path, FIREFOX) for path in paths))
        answers = [connection.receive() for _ in paths]
        assert [answer.status for answer in answers] == [200, 200, 404, 200, 200, 200]
        assert answers[1].body == b"tick 0\ntick 1\ntick 2\n"
        titles = [re.search(rb"<title>(.*?)</title>", answers[n].body) for n in (0, 3, 5)]
        expected = [b"The Care of Gates", b"Letters about Gates", b"An Atlas of Gates"]
        assert [title[1] for title in titles if title] == expected
        # And the connection is still good.
        assert connection.ask("GET", "/books/6/", CHROME).status == 200


# --- curl ---------------------------------------------------------------------------------------------------

needs_curl = pytest.mark.skipif(not has_curl(), reason="curl is not installed")


@needs_curl
def test_curl_head_shows_the_headers(site: Served) -> None:
    result = curl("-I", f"{site.url}/books/1/")
    assert result.exit_status == 0
    assert result.status == 200
    assert "Content-Length: " in result.head
    assert result.facts["size_download"] == 0


@needs_curl
def test_curl_compressed_unpacks_a_static_file(site: Served) -> None:
    with make_client("requests", site.url) as client:
        url = site.url + stylesheet_of(client, "/admin/login/")
        plain = client.get(url, headers={"Accept-Encoding": "identity"}).content
    result = curl("--compressed", url)
    assert "content-encoding: " in result.head.lower()
    assert result.body == plain
    assert result.facts["size_download"] < len(plain)


@needs_curl
def test_curl_with_http_1_0_gets_the_stream_up_to_the_connections_end(any_site: Served) -> None:
    result = curl("--http1.0", f"{any_site.url}/books/clock/?pause=0.1")
    assert result.exit_status == 0
    assert result.body == b"tick 0\ntick 1\ntick 2\n"
    assert "transfer-encoding" not in result.head.lower()


@needs_curl
@pytest.mark.parametrize("coding", [(), ("-H", "Transfer-Encoding: chunked")], ids=["length", "chunked"])
def test_curl_uploads_a_file_through_a_form(site: Served, tmp_path: Path, coding: tuple[str, ...]) -> None:
    file = tmp_path / "upload.bin"
    file.write_bytes(THREE_MEGABYTES)
    jar = str(tmp_path / "cookies")
    login, attach = f"{site.url}/accounts/login/", f"{site.url}/books/7/attach/"
    token = token_of(curl("-c", jar, login).body.decode())
    form = f"csrfmiddlewaretoken={token}&username=admin&password=admin"
    assert curl("-b", jar, "-c", jar, "-d", form, login).status == 302
    token = token_of(curl("-b", jar, "-c", jar, attach).body.decode())
    form_fields = "-F", f"csrfmiddlewaretoken={token}", "-F", f"file=@{file}"
    sent = curl("-b", jar, *coding, *form_fields, attach)
    assert sent.exit_status == 0
    assert "100 Continue" in sent.conversation
    assert sent.status == 302
    shown = curl("-b", jar, f"{site.url}/books/7/")
    link = re.search(rb'href="(/books/attachments/\d+/)"', shown.body)
    assert link
    assert curl(site.url + link[1].decode()).body == THREE_MEGABYTES
