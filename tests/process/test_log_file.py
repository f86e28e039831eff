"""A log in a file, which logrotate moves away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import TESTS, wait_until
from served import free_port


def events(path: Path) -> list[dict[str, Any]]:
    """Those in the log, without one that is just being written."""
    whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
    return [json.loads(line) for line in whole.splitlines()]


def names(path: Path) -> list[str]:
    return [event["event"] for event in events(path)]


def test_the_log_is_appended_to_a_file_that_is_opened_again_after_it_was_moved(tmp_path: Path) -> None:
    log, moved, port = tmp_path / "gatekeep.log", tmp_path / "gatekeep.log.1", free_port()
    log.write_text('{"event": "of yesterday"}\n')
    command = ["serve", "apps:scripted", "--log-file", str(log), "--bind", f"127.0.0.1:{port}"]
    with subprocess.Popen(
        [sys.executable, "-m", "gatekeep", *command],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            wait_until(lambda: "gateway.ready" in names(log), 60)
            with Client(("127.0.0.1", port)) as client:
                client.get("/print?before")
                wait_until(lambda: "request.finished" in names(log))
                log.rename(moved)
                client.get("/print?between")
                wait_until(lambda: names(moved).count("request.finished") == 2)
                process.send_signal(signal.SIGUSR1)
                wait_until(lambda: "log.reopened" in names(log))
                client.get("/print?after")
                wait_until(lambda: "request.finished" in names(log))
            process.terminate()
            said, complained = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert (said, complained) == (b"", b"")
    assert names(moved)[0] == "of yesterday"
    assert "log.reopened" not in names(moved)
    assert {event["text"] for event in events(log) if event["event"] == "app.output"} >= {"printed after"}
    assert names(log)[-1] == "gateway.stopped"


def test_a_log_that_cannot_be_opened_again_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "log"
    command = ["serve", "apps:hello", "--log-file", str(log), "--bind", "127.0.0.1:0"]
    with subprocess.Popen([sys.executable, "-m", "gatekeep", *command], cwd=TESTS) as process:
        try:
            wait_until(lambda: "gateway.ready" in names(log), 60)
            folder.rename(tmp_path / "moved")
            process.send_signal(signal.SIGUSR1)
            wait_until(lambda: "log.not_reopened" in names(tmp_path / "moved" / "log"))
            (refused,) = [e for e in events(tmp_path / "moved" / "log") if e["event"] == "log.not_reopened"]
            assert refused["reason"] == "No such file or directory"
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["folder", "missing", "pipe"])
def test_a_log_that_cannot_be_opened_ends_the_start(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "folder":
        path.mkdir()
    elif kind == "missing":
        path = path / "below"
    else:
        os.mkfifo(path)
    ended = subprocess.run(
        [sys.executable, "-m", "gatekeep", "serve", "apps:hello", "--log-file", str(path)],
        cwd=TESTS, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 3
    reason = {"folder": "Is a directory", "missing": "No such file or directory"}.get(
        kind, "No such device or address"
    )
    assert ended.stderr == f"gatekeep: cannot start: log-file = '{path}': {reason}\n"
