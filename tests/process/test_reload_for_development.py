"""`--reload`: what a developer saves is what the next request sees, broken or not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from client import Answer, Client
from conftest import wait_until
from gatekeep import Settings, SettingsError
from gatekeep._reloader import Reloader, Wanted
from gatekeep.transport._error_page import error_page
from served import serve

APP = """
import helper

def application(environ, start_response):
    body = helper.VERSION.encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def get(port: int) -> Answer:
    with Client(("127.0.0.1", port)) as client:
        return client.get("/")


def save(folder: Path, text: str) -> None:
    (folder / "helper.py").write_text(text)


def sees(port: int, text: bytes) -> bool:
    time.sleep(0.05)
    return text in get(port).body


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_is_saved_is_served_and_what_is_broken_is_shown_until_it_is_mended(
    tmp_path: Path, loop: str
) -> None:
    (tmp_path / "site.py").write_text(APP)
    save(tmp_path, 'VERSION = "first"\n')
    with serve("site.py", "--reload", "--loop", loop, cwd=tmp_path) as server:
        assert get(server.port).body == b"first"
        save(tmp_path, 'VERSION = "second"\n')
        wait_until(lambda: sees(server.port, b"second"))
        save(tmp_path, "VERSION = <broken>\n")
        wait_until(lambda: sees(server.port, b"SyntaxError"))
        page = get(server.port)
        assert page.status == 503
        assert page.fields["content-type"] == "text/html; charset=utf-8"
        assert b"VERSION = &lt;broken&gt;" in page.body
        save(tmp_path, 'VERSION = "third"\n')
        wait_until(lambda: sees(server.port, b"third"))


def test_an_import_that_is_broken_from_the_start_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(APP)
    save(tmp_path, "raise RuntimeError('not yet')\n")
    with serve("site.py", "--reload", cwd=tmp_path) as server:
        assert b"not yet" in get(server.port).body
        save(tmp_path, 'VERSION = "mended"\n')
        wait_until(lambda: sees(server.port, b"mended"))


def test_without_the_flag_no_client_sees_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(APP)
    save(tmp_path, 'VERSION = "first"\n')
    with serve("site.py", "--processes", "1", cwd=tmp_path) as server:
        save(tmp_path, "raise RuntimeError('secret')\n")
        (pid,) = server.daemon_pids()
        os.kill(pid, signal.SIGKILL)
        server.wait_for_event("group.failing")
        answer = get(server.port)
        assert answer.status == 503
        assert b"secret" not in answer.body
        assert int(answer.fields["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/site/app.py", True),
        ("/site/app.pyc", False),
        ("/site/notes.txt", False),
        ("/site/__pycache__/app.py", False),
        ("/site/.venv/lib/x.py", False),
        ("/site/generated_x.py", False),
        ("/site/migrations/m.py", False),
        ("/site/page.html", True),
    ],
)
def test_these_files_count(path: str, counts: bool) -> None:
    wanted = Wanted(["*.py", "*.html"], ["generated_*", "*/migrations/*"])
    assert wanted(None, path) is counts


def test_a_folder_that_does_not_exist_is_named() -> None:
    settings = Settings.for_app("apps", reload=True, reload_dir="/nowhere").reload
    with pytest.raises(SettingsError, match="reload-dir = '/nowhere'"):
        Reloader(settings, [], lambda paths: None)


def test_the_page_shows_what_it_is_given_and_runs_nothing_of_it() -> None:
    page = error_page("<b>", "<script>\udce9</script>").decode()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
