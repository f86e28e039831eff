"""`gatekeep status|reload|drain|stop`, asked of gateways that run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import TESTS, wait_until
from gatekeep._status import GatewayStatus, GroupStatus, ProcessStatus
from gatekeep._status_view import render
from served import Served, serve


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else's gateways are asked: some end just then."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))


def gatekeep(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gatekeep", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=TESTS,
    )


def told(server: Served) -> dict[str, Any]:
    done = gatekeep("status", str(server.pid), "--json")
    assert done.returncode == 0, done.stderr
    (status,) = json.loads(done.stdout)["gateways"]
    return status  # type: ignore[no-any-return]


def processes(server: Served) -> list[dict[str, Any]]:
    (group,) = told(server)["groups"]
    return group["processes"]  # type: ignore[no-any-return]


def test_status_tells_what_runs_and_what_became_of_requests() -> None:
    with serve("apps:scripted", cwd=TESTS) as server, Client(("127.0.0.1", server.port)) as client:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        assert client.get("/plain").status == 200
        with Client(("127.0.0.1", server.port)) as busy:
            busy.send("GET /sleep?600 HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until(lambda: any(process["running"] for process in processes(server)))
            status = told(server)
            assert (status["pid"], status["state"], status["in_flight"]) == (server.pid, "serving", 1)
            assert status["outcomes"] == {"served": 1}
            assert status["addresses"] == server.addresses
            (group,) = status["groups"]
            assert (group["state"], group["wanted"]) == ("ready", 2)
            assert {process["pid"] for process in group["processes"]} == set(server.daemon_pids())
            assert all(process["memory"] > 1_000_000 for process in group["processes"])
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: told(server)["state"] == "stopping")
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.6)
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0


def test_status_asks_no_process_so_a_wedged_one_is_shown_at_once() -> None:
    with serve("apps:scripted", "--processes", "1", cwd=TESTS) as server:
        (pid,) = server.daemon_pids()
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: processes(server)[0]["state"] == "suspect")
            began = time.monotonic()
            assert "suspect" in gatekeep("status", str(server.pid)).stdout
            assert time.monotonic() - began < 10
        finally:
            os.kill(pid, signal.SIGCONT)


def test_status_says_why_starts_fail(tmp_path: Path) -> None:
    site = tmp_path / "site.py"
    site.write_text("def application(environ, start_response): ...\n")
    with serve("site.py", "--processes", "1", cwd=tmp_path) as server:
        site.write_text("raise RuntimeError('gone')\n")
        os.kill(server.daemon_pids()[0], signal.SIGKILL)
        server.wait_for_event("group.failing")
        (group,) = told(server)["groups"]
        assert group["state"] == "failing"
        assert "RuntimeError: gone" in group["failure"]
        assert "the last start failed: site.py failed to load" in gatekeep("status", str(server.pid)).stdout


def test_reload_replaces_all_processes_and_can_wait_for_that() -> None:
    with serve("apps:scripted", cwd=TESTS) as server, Client(("127.0.0.1", server.port)) as client:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        before = set(server.daemon_pids())
        client.send("GET /sleep?1 HTTP/1.1\r\nHost: test\r\n\r\n")
        done = gatekeep("reload", str(server.pid), "--wait")
        assert (done.returncode, done.stdout) == (
            0,
            f"2 processes of gateway {server.pid} are being replaced\n",
        )
        assert client.read().status == 200
        assert not before & {process["pid"] for process in processes(server)}


def test_reload_that_waits_says_why_the_new_code_does_not_start(tmp_path: Path) -> None:
    site = tmp_path / "site.py"
    site.write_text("def application(environ, start_response): ...\n")
    with serve("site.py", "--script-reloading", "off", cwd=tmp_path) as server:
        site.write_text("raise RuntimeError('no')\n")
        done = gatekeep("reload", str(server.pid), "--wait")
        assert done.returncode == 1
        assert "the old ones serve on: site.py failed to load: RuntimeError: no" in done.stderr
        assert {process["state"] for process in processes(server) if process["state"] != "starting"} == {
            "draining"
        }


def test_a_process_that_waits_for_its_successor_counts_and_is_heard_of_again(tmp_path: Path) -> None:
    site = tmp_path / "site.py"
    site.write_text("def application(environ, start_response): ...\n")
    with serve("site.py", "--script-reloading", "off", cwd=tmp_path) as server:
        wait_until(lambda: len(server.events_named("process.ready")) == 2)
        site.write_text("raise RuntimeError('no')\n")
        for _ in range(2):
            done = gatekeep("reload", str(server.pid))
            assert done.stdout == f"2 processes of gateway {server.pid} are being replaced\n"
            server.wait_for_event("process.load_failed")
        pid = server.events_named("process.ready")[0]["pid"]
        assert gatekeep("drain", str(pid)).returncode == 0
        told = server.wait_for_event("drain.started", pid=pid, trigger="eviction")
        assert (told["planned"], told["window"]) == (False, 15.0)
        other = server.events_named("process.ready")[1]["pid"]
        os.kill(other, signal.SIGTERM)
        told = server.wait_for_event("drain.started", pid=other, trigger="a signal to this process")
        assert told["window"] == 0.0, "it has shutdown-timeout only"


def test_drain_replaces_one_process() -> None:
    with serve("apps:hello", cwd=TESTS) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        first, second = server.daemon_pids()
        assert gatekeep("drain", str(first)).returncode == 0
        server.wait_for_event("process.exited", pid=first, trigger="eviction")
        assert second in server.daemon_pids()


def test_a_process_that_is_nobodys_is_an_error() -> None:
    with serve("apps:hello", cwd=TESTS):
        done = gatekeep("drain", "1")
        assert done.returncode == 2
        assert "has a process 1" in done.stderr


@pytest.mark.parametrize("flags", [[], ["--now"]])
def test_stop_returns_when_the_gateway_has_ended(flags: list[str]) -> None:
    with serve("apps:scripted", cwd=TESTS) as server, Client(("127.0.0.1", server.port)) as client:
        client.send(f"GET /sleep?{60 if flags else 8} HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: any(process["running"] for process in processes(server)))
        done = gatekeep("stop", str(server.pid), *flags)
        assert (done.returncode, done.stderr) == (0, "")
        assert server.wait() == 0
        assert client.read().status == (502 if flags else 200)
        assert server.events_named("command.received", command="stop now" if flags else "stop")


def test_everything_is_served_for_the_shutdown_delay_while_readiness_is_gone() -> None:
    flags = ("--shutdown-delay", "8", "--readyz-path", "/readyz")
    with serve("apps:scripted", *flags, cwd=TESTS) as server:
        server.terminate()
        server.wait_for_event("gateway.stop_announced")
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/readyz").status == 503
            assert client.get("/plain").status == 200
        assert server.wait() == 0


def test_a_second_signal_ends_the_delay() -> None:
    with serve("apps:scripted", "--shutdown-delay", "600", cwd=TESTS) as server:
        server.terminate()
        server.wait_for_event("gateway.stop_announced")
        time.sleep(0.7)
        server.terminate()
        assert server.wait() == 0


def test_the_view_is_aligned_and_obeys_no_terminal_code() -> None:
    ready = ProcessStatus(pid=81, seat=0, state="ready", uptime=3.0, running=1, threads=5, memory=21_000_000)
    drains = ProcessStatus(8124, 1, "draining", 70.0, 0, 5, 0, "memory-limit")
    group = GroupStatus("default", "ready", "it \x1b[31m failed", (ready, drains), 2, 7, 3, 1.25)
    text = render(
        GatewayStatus(
            "1.0",
            80,
            "serving",
            7200.0,
            ("http://[::1]:80",),
            (group,),
            4,
            9,
            {"served": 12},
            {"queue-timeout": 1},
        )
    )
    assert text == (
        "gatekeep 1.0, gateway 80: serving, up 2 h 0 min\n"
        "  http://[::1]:80\n"
        "  requests in flight 4, clients 9\n"
        "  ended: served 12\n"
        "  timers: queue-timeout 1\n"
        "group default: ready, 2 of 2 processes\n"
        "  the last start failed: it \\x1b[31m failed\n"
        "  3 requests stand in the backlog, 7 wait for a place there, the oldest for 1.2 s\n"
        "  pid   seat  state     up          running  memory\n"
        "  81    0     ready     3.0 s       1 of 5   21 MB\n"
        "  8124  1     draining  1 min 10 s  0 of 5           because of memory-limit\n"
    )
