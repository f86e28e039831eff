"""SIGUSR2: another gateway takes the listening sockets over, and no client notices."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import TESTS, wait_until
from gatekeep._handover import VARIABLE, Handover, received, why_not
from running import children, process
from served import Served, serve

SLOW = """
import os, time

def application(environ, start_response):
    time.sleep(0.01)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


class Asker:
    """Asks one request after the other, over a kept connection or a new one each time."""

    def __init__(self, port: int, *, keeps: bool) -> None:
        self._port = port
        self._keeps = keeps
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.pids: set[bytes] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = None
        while not self._stop.is_set():
            connection = connection or http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                self.pids.add(answer.read())
                if answer.status != 200:
                    self.failures.append(str(answer.status))
                if not self._keeps or answer.getheader("connection") == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def _stop_successor(server: Served) -> int:
    """End the gateway that has taken over, and wait for that; its pid."""
    pid: int = server.events_named("gateway.replaced")[-1]["successor"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: len(server.events_named("gateway.stopped")) == 2)
    return pid


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_no_request_fails_while_another_gateway_takes_over(tmp_path: Path, loop: str) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", "--bind", f"unix:{tmp_path}/site.sock", "--loop", loop, cwd=tmp_path) as server:
        askers = [Asker(server.port, keeps=number % 2 == 0) for number in range(6)]
        time.sleep(0.5)
        before = set(askers[0].pids)
        os.kill(server.pid, signal.SIGUSR2)
        assert server.wait() == 0
        time.sleep(0.5)
        for asker in askers:
            asker.stop()
        assert [asker.failures for asker in askers] == [[]] * 6
        assert askers[0].pids - before, "the new gateway's processes have served"
        assert (tmp_path / "site.sock").exists(), "the new gateway listens there"
        _stop_successor(server)
        assert not (tmp_path / "site.sock").exists()


def test_a_new_gateway_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", cwd=tmp_path) as server:
        (tmp_path / "site.py").write_text("raise RuntimeError('no')\n")
        os.kill(server.pid, signal.SIGUSR2)
        failed = server.wait_for_event("gateway.replace_failed")
        assert "exit status 3" in failed["reason"]
        (tmp_path / "site.py").write_text(SLOW)
        asker = Asker(server.port, keeps=True)
        time.sleep(0.3)
        asker.stop()
        assert not asker.failures
        os.kill(server.pid, signal.SIGUSR2)
        assert server.wait() == 0
        _stop_successor(server)


def test_a_stop_while_the_new_gateway_starts_ends_both(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", cwd=tmp_path) as server:
        (tmp_path / "site.py").write_text("import time\ntime.sleep(60)\n")
        os.kill(server.pid, signal.SIGUSR2)
        successor = server.wait_for_event("gateway.successor_started")["successor"]
        server.terminate()
        assert server.wait() == 0
        wait_until(lambda: not Path(f"/proc/{successor}/cmdline").exists() or not _command(successor))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")
def test_as_pid_1_the_old_gateway_stays_and_passes_on_what_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gatekeep", "serve", "site.py", "--bind", "127.0.0.1:0"]
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *command]
    if subprocess.run([*unshare[:5], "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace here")
    with (
        log.open("w") as file,
        process(unshare, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT) as outer,
    ):
        wait_until(lambda: "gateway.ready" in log.read_text())
        (inner,) = children(outer.pid)
        os.kill(inner, signal.SIGUSR2)
        wait_until(lambda: log.read_text().count("gateway.stopped") == 1)
        time.sleep(0.5)
        assert outer.poll() is None, "the container lives"
        os.kill(inner, signal.SIGTERM)
        assert outer.wait(20) == 0
        assert log.read_text().count("gateway.stopped") == 2


def test_under_systemd_it_needs_a_way_to_tell_it() -> None:
    assert "Type=notify" in why_not({"INVOCATION_ID": "x"}, 1)
    assert not why_not({"INVOCATION_ID": "x", "NOTIFY_SOCKET": "/run/x"}, 1)
    assert not why_not({"INVOCATION_ID": "x"}, 4711), "a shell of the unit's started it"
    assert not why_not({}, 1)


def test_what_no_gateway_has_said_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gatekeep", "serve", "apps:hello", "--bind", "127.0.0.1:0"]
    done = subprocess.run(
        command,
        cwd=TESTS,
        env={**os.environ, VARIABLE: "nonsense"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert VARIABLE in done.stderr


def test_the_message_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    monkeypatch.setenv(VARIABLE, f'{{"listeners":{{}},"ready":{writer}}}')
    handover = received()
    assert handover == Handover({}, writer)
    assert not os.get_inheritable(writer)
    assert received() is None
    handover.say_ready()
    assert os.read(reader, 2) == b"\1"
    os.close(reader)
