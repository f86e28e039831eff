"""SIGTTIN and SIGTTOU: a process more, a process fewer, as people know it from gunicorn; no request notices."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from test_replace import SLOW, asking, hold

from client import Client
from conftest import TESTS, wait_until
from served import serve


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_processes_come_and_go_and_no_request_fails(tmp_path: Path, loop: str) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", "-w", "1", "--loop", loop, cwd=tmp_path) as server:
        with asking(server.port, 6) as askers:
            for count in (2, 3):
                os.kill(server.pid, signal.SIGTTIN)
                wait_until(lambda count=count: len(server.events_named("process.ready")) == count)
            for count in (2, 1):  # two signals at once are one
                os.kill(server.pid, signal.SIGTTOU)
                server.wait_for_event("group.resized", processes=count, before=count + 1)
            wait_until(lambda: len(server.events_named("process.exited")) == 2, 40)
        assert [asker.failures for asker in askers] == [[]] * 6
        assert len(server.daemon_pids()) == 1
        assert [event["processes"] for event in server.events_named("group.resized")] == [2, 3, 2, 1]
        for exited in server.events_named("process.exited"):
            assert (exited["planned"], exited["end"]) == (True, "exit status 0")
            assert exited["trigger"] == "fewer processes"


def test_one_process_stays() -> None:
    with serve("apps:hello", "-w", "1", cwd=TESTS) as server:
        os.kill(server.pid, signal.SIGTTOU)
        event = server.wait_for_event("group.not_resized")
        assert event["reason"] == "it may have from 1 to 32 processes and has 1"
        os.kill(server.pid, signal.SIGTTIN)
        server.wait_for_event("group.resized", processes=2)
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/").status == 200


def test_who_is_too_many_finishes_what_it_runs(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    flags = ("-w", "1", "--threads", "1", "--graceful-timeout", "60")
    with (
        serve("site.py", *flags, cwd=tmp_path) as server,
        hold(server.port, tmp_path, "first") as first,
    ):
        os.kill(server.pid, signal.SIGTTIN)
        wait_until(lambda: len(server.events_named("process.ready")) == 2)
        with hold(server.port, tmp_path, "second") as second:
            os.kill(server.pid, signal.SIGTTOU)
            server.wait_for_event("drain.started", trigger="fewer processes")
            (tmp_path / "go").touch()
            answers = first.read(), second.read()
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].body != answers[1].body
        wait_until(lambda: len(server.events_named("process.exited")) == 1)


def test_a_reload_keeps_the_number(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", "-w", "1", cwd=tmp_path) as server:
        os.kill(server.pid, signal.SIGTTIN)
        wait_until(lambda: len(server.events_named("process.ready")) == 2)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: len(server.events_named("process.exited")) == 2)
        assert len(server.events_named("process.ready")) == 4
        assert len(server.daemon_pids()) == 2


def test_a_group_without_processes_has_none_to_add(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", "-w", "0", cwd=tmp_path) as server:
        os.kill(server.pid, signal.SIGTTIN)
        event = server.wait_for_event("group.not_resized")
        assert event["reason"] == "it has no processes (processes = 0)"
