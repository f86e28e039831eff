"""`gatekeep serve --processes 0`: the application in the command's own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from served import serve

SCRIPT = """
import os, sys

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    print("printed by the application", flush=True)
    return [str(os.getpid()).encode()]
"""


def fetch(url: str) -> bytes:
    with urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def test_a_module_of_the_present_folder_is_served_in_this_process_and_tells_so(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text(SCRIPT)
    with serve("here", "--processes", "0", "--threads", "2", cwd=tmp_path) as server:
        assert fetch(server.url) == str(server.pid).encode()
        event = server.wait_for_event("group.embedded")
        assert event["threads"] == 2
        assert "request-timeout" in event["off"]["fail-safe timeouts"]
        status = subprocess.run(
            [sys.executable, "-m", "gatekeep", "status", str(server.pid)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "group default: ready, in the gateway's own process" in status.stdout
    assert "printed by the application" in server.output


def test_a_script_finds_its_neighbours(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "neighbour.py").write_text(SCRIPT)
    (folder / "site.wsgi").write_text("from neighbour import application\n")
    with serve("site/site.wsgi", "--processes", "0", cwd=tmp_path) as server:
        assert fetch(server.url) == str(server.pid).encode()


def test_an_application_that_cannot_be_loaded_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no database')\n")
    done = subprocess.run(
        [sys.executable, "-m", "gatekeep", "serve", "broken", "--processes", "0", "--bind", "127.0.0.1:0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "RuntimeError: no database" in done.stderr
    assert "broken.py" in done.stderr


def test_a_user_is_refused_since_nobody_would_become_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gatekeep", "serve", "here", "--processes", "0", "--user", "nobody"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "allowed is nothing with processes = 0" in done.stderr
