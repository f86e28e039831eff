"""What is put into a request's record beyond the usual, where the settings ask for it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import Site
from gatekeep import Settings, SettingsError

Start = Callable[..., Site]

MORE = {"scheme", "target", "request_headers", "response_headers", "user"}


def ask(site: Site, target: str, *fields: str) -> dict[str, Any]:
    with Client(site.address) as client:
        client.get(target, *fields)
    return site.record(target.partition("?")[0])


def test_a_record_has_no_query_and_no_fields_of_its_own_accord(site: Site) -> None:
    assert not ask(site, "/plain?secret", "User-Agent: x").keys() & MORE


def test_a_record_has_the_fields_that_are_named(start: Start) -> None:
    site = start(
        log_request_headers=["User-Agent", "x-twice, x-absent"],
        log_response_headers="content-TYPE",
        processes=1,
    )
    record = ask(
        site,
        "/plain",
        "User-agent: Müller".encode().decode("latin-1"),
        "X-Twice: a",
        "X-Twice: b",
        "Cookie: c",
    )
    assert record["request_headers"] == {"user-agent": "Müller", "x-twice": "a, b"}
    assert record["response_headers"].keys() == {"content-type"}
    assert "target" not in record


def test_a_record_has_the_url_where_that_is_asked_for(start: Start) -> None:
    site = start(log_url=True, processes=1)
    assert ask(site, "/plain?a=1&b=%22").items() >= {"scheme": "http", "target": "/plain?a=1&b=%22"}.items()
    record = ask(site, "/raise?x", "X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.1")
    assert (record["scheme"], record["target"], record["status"]) == ("https", "/raise?x", 500)
    assert "request_headers" not in record


def test_a_refused_request_is_told_as_far_as_it_was_understood(start: Start) -> None:
    site = start(log_url=True, log_request_headers="user-agent", processes=1)
    with Client(site.address) as client:
        client.get("/refused?x", "User-Agent: x", "Content-Length: x")
    record = site.record("/refused", status=400)
    assert (record["scheme"], record["target"]) == ("", "/refused?x")
    assert record["request_headers"] in ({}, {"user-agent": "x"})
    with Client(site.address) as client:
        client.send("\x1b\r\n\r\n")
        client.read()
    record = site.log.wait_for("request.finished", status=400, method="")
    assert not record.keys() & MORE


def test_who_was_admitted_is_in_the_record(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "auth.py"
    script.write_text("def check_password(environ, user, password): return password == 'right'\n")
    site = start(auth_script=str(script), processes=1)

    def credentials(password: str) -> str:
        return "Authorization: Basic " + b64encode(f"jürgen:{password}".encode()).decode()

    assert ask(site, "/plain?", credentials("right"))["user"] == "jürgen"
    with Client(site.address) as client:
        client.get("/other", credentials("wrong"))
    assert "user" not in site.record("/other", status=401)


@pytest.mark.parametrize("name", ["*", "", "a b", "a:", "ü"])
def test_only_names_of_fields_can_be_asked_for(name: str) -> None:
    if not name:
        assert Settings.for_app("apps:hello", log_request_headers=name).http.log_request_headers == ()
        return
    with pytest.raises(SettingsError, match=r"log-response-headers = .*: allowed are names of fields"):
        Settings.for_app("apps:hello", log_response_headers=[name])
