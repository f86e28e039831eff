"""The lines of requests in a format of the user's, by real clients: what log analysers read, beside the events of all else."""

from __future__ import annotations

import re
from base64 import b64encode
from http.client import HTTPConnection
from pathlib import Path

import pytest

from client import Client
from conftest import TESTS, wait_until
from gatekeep._events import Record
from gatekeep._logging import make_logger
from served import Served, ServeFailed, serve

COMBINED = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
TIME = re.compile(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]")


def lines(server: Served, count: int) -> list[str]:
    """That many lines of requests, waited for, without their time."""
    wait_until(lambda: len(server.output.splitlines()) >= count)
    found = server.output.splitlines()
    assert len(found) == count
    assert all(TIME.search(line) for line in found)
    return [TIME.sub("[]", line) for line in found]


def test_requests_are_logged_as_gunicorn_does_and_all_else_as_before() -> None:
    flags = ("--access-logformat", COMBINED, "--log-format", "json", "--processes", "1")
    with serve("apps:scripted", *flags, cwd=TESTS) as server:
        browser = HTTPConnection("127.0.0.1", server.port)
        browser.request(
            "GET", "/plain?a=1&b", headers={"User-Agent": "Agent/1 (x)", "Referer": "http://x/?y"}
        )
        size = len(browser.getresponse().read())
        browser.request("HEAD", "/plain")
        browser.getresponse().read()
        browser.request("GET", "/raise?now")
        failed = len(browser.getresponse().read())
        browser.close()
        assert lines(server, 3) == [
            f'127.0.0.1 - - [] "GET /plain?a=1&b HTTP/1.1" 200 {size} "http://x/?y" "Agent/1 (x)"',
            '127.0.0.1 - - [] "HEAD /plain HTTP/1.1" 200 - "-" "-"',
            f'127.0.0.1 - - [] "GET /raise?now HTTP/1.1" 500 {failed} "-" "-"',
        ]
        assert not server.events_named("request.finished")
        assert server.events_named("gateway.ready")
        assert server.wait_for_event("run.failed")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_all_other_events_keep_their_form(tmp_path: Path, log_format: str) -> None:
    file = tmp_path / "log"
    with file.open("wb") as opened:
        log, writer = make_logger("info", log_format, opened.fileno(), access_format="%(m)s %(U)s\t%(s)s")
        log.info("group.ready", processes=1)
        log.info("request.finished", **(Record(1, "unix", 0.0).fields() | {"method": "GET", "path": "/ü\n"}))
        writer.close(10)
    other, line = file.read_text().splitlines()
    assert line == r"GET /ü\n" + "\t-"
    assert '"event":"group.ready"' in other if log_format == "json" else "group.ready" in other
    assert other.startswith("{") == (log_format == "json")


def test_what_is_refused_has_its_line_and_no_client_splits_one() -> None:
    flags = ("--access-log-format", COMBINED, "--header-timeout", "5", "--header-min-rate", "0")
    with serve("apps:scripted", "--processes", "1", *flags, cwd=TESTS) as server:

        def send(data: bytes) -> int:
            with Client(("127.0.0.1", server.port)) as client:
                client.send(data)
                return client.read().status

        assert send(b"GE\x1bT / HTTP/1.1\r\n\r\n") == 400
        assert send(b"GET /a HTTP/1.1\r\nHost: x\r\nUser Agent: x\r\n\r\n") == 400
        assert send(b"GET /slow") == 408
        assert send(b"GET /big HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n") == 431
        assert send(b"TRACE /t?q HTTP/1.1\r\nHost: x\r\nUser-Agent: x\r\n\r\n") == 405
        odd = b'User-Agent: M\xc3\xbcller "x\\ \x9b\xc2\x9b \xe2\x80\xae\t1\r\nConnection: close'
        assert send(b'GET /plain?"\\ HTTP/1.1\r\nHost: x\r\n' + odd + b"\r\n\r\n") == 200
        logged = lines(server, 6)
    assert [re.sub(r" \d+ \"", ' N "', line) for line in logged[:5]] == [
        '127.0.0.1 - - [] "-" 400 N "-" "-"',
        '127.0.0.1 - - [] "GET /a HTTP/1.1" 400 N "-" "-"',
        '127.0.0.1 - - [] "-" 408 N "-" "-"',
        '127.0.0.1 - - [] "GET /big HTTP/1.1" 431 N "-" "-"',
        '127.0.0.1 - - [] "-" 405 N "-" "-"',
    ]
    assert logged[5].startswith(r'127.0.0.1 - - [] "GET /plain?\"\\ HTTP/1.1" 200 ')
    assert logged[5].isprintable()
    assert r"\"x\\ " in logged[5]
    assert r"\t1" in logged[5]


def test_an_admitted_user_is_named_and_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "auth.py").write_text(
        "def check_password(environ, user, password): return password == 'right'\n"
    )
    flags = ("--auth-script", str(tmp_path / "auth.py"), "--access-log-format", "%(u)s %(t)s %(s)s")
    with serve("apps:hello", "--processes", "1", *flags, cwd=TESTS) as server:
        for password in ("wrong", "right"):
            given = b64encode(f"jürgen:{password}".encode()).decode()
            with Client(("127.0.0.1", server.port)) as client:
                client.get("/", f"Authorization: Basic {given}")
        assert lines(server, 2) == ["- [] 401", "jürgen [] 200"]


def test_a_gunicorn_configuration_has_its_format(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        'wsgi_app = "apps:hello"\nbind = "127.0.0.1:0"\nworkers = 1\naccesslog = "-"\n'
        "access_log_format = '%(t)s %(m)s %({content-type}o)s %({host}i)s %(p)s %({cookie}i)s'\n"
    )
    with serve(None, "--from", str(tmp_path / "gunicorn.conf.py"), cwd=TESTS, bind=None) as server:
        with Client(("127.0.0.1", server.port)) as client:
            client.get("/", "Cookie: a=b")
        pid = server.events_named("process.ready")[0]["pid"]
        assert lines(server, 1) == [f"[] GET text/plain test <{pid}> a=b"]


def test_without_an_access_log_there_are_no_lines() -> None:
    flags = ("--no-access-log", "--access-log-format", COMBINED, "--processes", "1")
    with serve("apps:hello", *flags, cwd=TESTS) as server:
        with Client(("127.0.0.1", server.port)) as client:
            client.get("/")
        server.process.terminate()
        server.wait_for_event("gateway.stopped")
        assert server.output == ""


def test_a_format_that_is_none_ends_the_start_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "gatekeep.toml").write_text('app = "apps:hello"\naccess-log-format = "%(h)s %(nonsense)s"\n')
    with (
        pytest.raises(
            ServeFailed,
            match=r"access-log-format = '%\(h\)s %\(nonsense\)s': %\(nonsense\)s is unknown; allowed is",
        ),
        serve(None, cwd=tmp_path),
    ):
        pass
