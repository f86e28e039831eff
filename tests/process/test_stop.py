"""The gateway's process is told to stop, or cannot start, while its daemon processes have something to do."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from client import Client
from conftest import wait_until
from served import Served, serve
from traffic import write_script

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_finish_when_the_gateway_is_told_to_stop(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = write_script(tmp_path / "site.py", "v1")
    answers: list[tuple[int, bool]] = []

    def ask(port: int) -> None:
        with Client(("127.0.0.1", port)) as client:
            answer = client.get("/?sleep=2")
            answers.append((answer.status, answer.complete))

    with serve(str(script), "--processes", "2", "--threads", "3", "--log-level", "debug") as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        clients = [threading.Thread(target=ask, args=(server.port,)) for _ in range(6)]
        for client in clients:
            client.start()
        wait_until(lambda: len(server.events_named("pickup.claimed")) == 6)
        server.process.send_signal(number)
        for client in clients:
            client.join(30)
        assert server.wait() == 0
    assert answers == [(200, True)] * 6
    ends = server.events_named("process.exited")
    assert [(end["end"], end["planned"]) for end in ends] == [("exit status 0", True)] * 2


def test_a_signal_that_reaches_all_processes_is_the_stop_of_the_gateway(tmp_path: Path) -> None:
    """As systemd's default, `KillMode=control-group`, does it."""
    script = write_script(tmp_path / "site.py", "v1")
    with serve(str(script), "--shutdown-timeout", "0.5", "--log-level", "debug") as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        with Client(("127.0.0.1", server.port)) as client:
            client.send("GET /?sleep=4 HTTP/1.1\r\nHost: test\r\n\r\n")
            server.wait_for_event("pickup.claimed")
            # It gets all of this in one moment, however long this process may take for it.
            os.kill(server.pid, signal.SIGSTOP)
            for pid in (*server.daemon_pids(), server.pid):
                os.kill(pid, signal.SIGTERM)
            os.kill(server.pid, signal.SIGCONT)
            assert client.read().status == 200
        assert server.wait() == 0
    assert len(server.events_named("process.started")) == 2
    assert not server.events_named("process.lost_request")


def test_an_import_that_never_ends_is_exit_status_3_soon(tmp_path: Path) -> None:
    script = write_script(tmp_path / "site.py", "v1", "time.sleep(600)")
    began = time.monotonic()
    server = Served(str(script), "--processes", "1", "--startup-timeout", "6")
    try:
        assert server.wait(60) == 3
    finally:
        server.process.kill()
    assert time.monotonic() - began < 50
    assert len(server.events_named("process.start_expired")) == 3
    assert "in <module>" in server.events_named("process.start_expired")[0]["stacks"]
