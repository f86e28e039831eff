"""SIGUSR2: another gateway takes the listening sockets over, and no client notices."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import TESTS, wait_until
from gatekeep._handover import VARIABLE, Handover, Origin, received, why_not
from running import children, process
from served import Served, free_port, serve

SLOW = """
import os, time

def application(environ, start_response):
    time.sleep(0.01)
    if environ["PATH_INFO"] == "/held":
        open(environ["QUERY_STRING"], "w").close()
        until = time.monotonic() + 60
        while not os.path.exists("go") and time.monotonic() < until:
            time.sleep(0.01)
    if environ["PATH_INFO"] == "/orphan":
        os.system("for n in $(seq 600); do [ -e go ] && break; sleep 0.1; done &")
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


LARGE = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "30000000")])
    return [b"x" * 30000000]
"""

IN_TURN = """
import os, time

for turn in "ready", "failing", "slow":
    try:
        os.close(os.open(turn, os.O_CREAT | os.O_EXCL))
        break
    except FileExistsError:
        pass
if turn == "failing":
    raise RuntimeError("once")
if turn == "slow":
    time.sleep(3)
"""


class Asker:
    """Asks one request after the other, over a kept connection or a new one each time."""

    def __init__(self, port: int, *, keeps: bool) -> None:
        self._port = port
        self._keeps = keeps
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.pids: set[bytes] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
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


@contextmanager
def asking(port: int, count: int) -> Iterator[list[Asker]]:
    """So many at once while the context lasts; every other one keeps its connection."""
    askers = [Asker(port, keeps=number % 2 == 0) for number in range(count)]
    try:
        yield askers
    finally:
        for asker in askers:
            asker.stop()


def hold(port: int, folder: Path, name: str) -> Client:
    """A client whose request runs, until there is a file `go` in the site's folder.

    Args:
        name: of a file that there is not yet.
    """
    client = Client(("127.0.0.1", port), 60)
    client.send(f"GET /held?{name} HTTP/1.1\r\nHost: test\r\n\r\n")
    wait_until((folder / name).exists)
    return client


def _see_replaced(server: Served) -> None:
    """Wait until another gateway has taken over, and this one has ended."""
    server.wait_for_event("gateway.replaced", 60)
    assert server.wait() == 0


def _stop_successor(server: Served) -> int:
    """End the gateway that has taken over, and wait for that; its pid."""
    pid: int = server.events_named("gateway.replaced")[-1]["successor"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: len(server.events_named("gateway.stopped")) == 2, 40)
    return pid


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_no_request_fails_while_another_gateway_takes_over(tmp_path: Path, loop: str) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", "--bind", f"unix:{tmp_path}/site.sock", "--loop", loop, cwd=tmp_path) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        before = {b"%d" % pid for pid in server.daemon_pids()}
        with asking(server.port, 6) as askers:
            wait_until(lambda: all(asker.pids for asker in askers))
            os.kill(server.pid, signal.SIGUSR2)
            _see_replaced(server)
            # The new gateway's processes have served.
            wait_until(lambda: all(asker.pids - before for asker in askers))
        assert [asker.failures for asker in askers] == [[]] * 6
        assert (tmp_path / "site.sock").exists(), "the new gateway listens there"
        _stop_successor(server)
        assert not (tmp_path / "site.sock").exists()


def test_a_client_that_reads_when_another_gateway_takes_over_may_ask_once_more(tmp_path: Path) -> None:
    """Its response had begun, and promised that the connection stays."""
    (tmp_path / "site.py").write_text(SLOW + LARGE)
    with serve("site.py", cwd=tmp_path) as server, Client(("127.0.0.1", server.port)) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        # The head has come, and the body waits for its reader.
        wait_until(lambda: bool(select.select([client.socket], [], [], 0)[0]))
        os.kill(server.pid, signal.SIGUSR2)
        server.wait_for_event("gateway.replaced", 60)
        time.sleep(0.2)
        first = client.read()
        assert (first.fields.get("connection"), len(first.body)) == (None, 30_000_000)
        time.sleep(0.2)
        last = client.get("/")
        assert (last.fields.get("connection"), len(last.body)) == ("close", 30_000_000)
        assert server.wait() == 0
        _stop_successor(server)


def test_the_old_gateway_serves_until_all_processes_of_the_new_one_have_tried_to_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", "--processes", "3", "--startup-timeout", "30", cwd=tmp_path) as server:
        wait_until(lambda: len(server.events_named("process.ready")) == 3)
        # Of the new processes the first is ready at once, the second fails, the third takes its time.
        (tmp_path / "site.py").write_text(IN_TURN + SLOW)
        os.kill(server.pid, signal.SIGUSR2)
        replaced = server.wait_for_event("gateway.replaced", 60)["timestamp"]
        _stop_successor(server)
        # Two gateways write into one pipe, in any order.
        told = [event["event"] for event in server.events if event["timestamp"] <= replaced]
        assert told.count("process.ready") >= 5
        assert told.count("process.load_failed") == 1


def test_a_new_gateway_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", cwd=tmp_path) as server:
        (tmp_path / "site.py").write_text("raise RuntimeError('no')\n")
        os.kill(server.pid, signal.SIGUSR2)
        failed = server.wait_for_event("gateway.replace_failed", 60)
        assert "exit status 3" in failed["reason"]
        (tmp_path / "site.py").write_text(SLOW)
        with asking(server.port, 1) as (asker,):
            wait_until(lambda: bool(asker.pids))
        assert not asker.failures
        os.kill(server.pid, signal.SIGUSR2)
        _see_replaced(server)
        _stop_successor(server)


GROUPS = """
[groups.site]
app = "site.py"

[groups.api]
app = "api.py"
processes = 1

[[mounts]]
group = "site"

[[mounts]]
path = "/api"
group = "api"
"""


def test_a_new_gateway_of_which_one_group_cannot_start_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "gatekeep.toml").write_text(GROUPS)
    (tmp_path / "site.py").write_text(SLOW)
    (tmp_path / "api.py").write_text(SLOW)
    with serve(None, cwd=tmp_path) as server:
        (tmp_path / "api.py").write_text("raise RuntimeError('no')\n")
        os.kill(server.pid, signal.SIGUSR2)
        assert "exit status 3" in server.wait_for_event("gateway.replace_failed", 60)["reason"]
        assert (_ask(server.port, "/"), _ask(server.port, "/api")) == (200, 200)


def test_a_group_that_is_not_served_anyway_does_not_keep_another_gateway_from_taking_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "gatekeep.toml").write_text(GROUPS)
    (tmp_path / "site.py").write_text(SLOW)
    (tmp_path / "api.py").write_text("raise RuntimeError('no')\n")
    with serve(None, cwd=tmp_path) as server:
        os.kill(server.pid, signal.SIGUSR2)
        _see_replaced(server)
        assert (_ask(server.port, "/"), _ask(server.port, "/api")) == (200, 503)
        _stop_successor(server)


def test_a_new_gateway_that_cannot_start_leaves_the_old_one_its_sockets_files(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", cwd=tmp_path, bind=f"unix:{tmp_path}/site.sock") as server:
        (tmp_path / "site.py").write_text("raise RuntimeError('no')\n")
        os.kill(server.pid, signal.SIGUSR2)
        server.wait_for_event("gateway.replace_failed", 60)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/site.sock")
        server.terminate()
        assert server.wait() == 0
        assert not (tmp_path / "site.sock").exists()


def test_who_asks_for_its_health_notices_nothing_when_another_gateway_takes_over(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    health = f"{tmp_path}/health.sock"
    flags = ("--health-bind", f"unix:{health}", "--health-bind", f"127.0.0.1:{free_port()}")
    with serve("site.py", *flags, cwd=tmp_path) as server:
        answers: list[bytes] = []
        stop = threading.Event()

        def probe() -> None:
            while not stop.is_set():
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(health)
                    client.sendall(b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                    answers.append(client.recv(4096).split(b"\r\n")[0])
                time.sleep(0.01)

        prober = threading.Thread(target=probe)
        prober.start()
        (tmp_path / "site.py").write_text("import time\ntime.sleep(1)\n" + SLOW)
        os.kill(server.pid, signal.SIGUSR2)
        _see_replaced(server)
        before = len(answers)
        wait_until(lambda: len(answers) > before + 20)
        stop.set()
        prober.join()
        assert set(answers) == {b"HTTP/1.1 200 OK"}
        _stop_successor(server)
        assert not Path(health).exists()


def test_a_gateway_that_has_taken_over_and_stops_listens_no_more(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with serve("site.py", "--graceful-timeout", "60", cwd=tmp_path) as server:
        os.kill(server.pid, signal.SIGUSR2)
        _see_replaced(server)
        assert not server.events_named("socket.unused")
        pid: int = server.events_named("gateway.replaced")[-1]["successor"]
        with hold(server.port, tmp_path, "runs") as client:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: _is_refused(server.port))
            (tmp_path / "go").touch()
            assert client.read().status == 200
        wait_until(lambda: len(server.events_named("gateway.stopped")) == 2)


def _ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_socket_that_the_command_line_names_is_not_called_unused(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(SLOW)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "gatekeep", "serve", "site.py", "--fd", str(listener.fileno())]
        command += ["--bind", f"unix:{tmp_path}/site.sock"]
        with subprocess.Popen(
            command, cwd=tmp_path, pass_fds=[listener.fileno()], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert any("gateway.ready" in line for line in process.stdout)
            process.send_signal(signal.SIGUSR2)
            seen = []
            for line in process.stdout:
                seen.append(line)
                if "gateway.replaced" in line:
                    os.kill(json.loads(line)["successor"], signal.SIGTERM)
            assert not any("socket.unused" in line for line in seen)


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


needs_namespace = pytest.mark.skipif(
    subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode
    != 0,
    reason="no PID namespace here",
)


class Container:
    """A gateway that is the first process of a PID namespace.

    Args:
        outer: the process that has made it.
        folder: where the site is, and the log.
    """

    def __init__(self, outer: subprocess.Popen[bytes], folder: Path) -> None:
        self.outer = outer
        self.folder = folder
        self.wait_for("gateway.ready")
        (self.first,) = children(outer.pid)
        (address,) = self.events("gateway.ready")[0]["addresses"]
        self.port = int(address.rpartition(":")[2])

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Those of that name with those fields, without one that is just being written."""
        whole, _, _ = (self.folder / "log").read_text().rpartition("\n")
        every = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        wanted = {"event": name} | fields
        return [event for event in every if wanted.items() <= {k: event.get(k) for k in wanted}.items()]

    def wait_for(self, event: str, count: int = 1, **fields: Any) -> None:
        wait_until(lambda: len(self.events(event, **fields)) >= count, 60)

    def signal(self, number: int) -> None:
        os.kill(self.first, number)

    def ask(self, path: str) -> int:
        return _ask(self.port, path)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    (tmp_path / "site.py").write_text(SLOW)
    flags = ["--bind", "127.0.0.1:0", "--graceful-timeout", "60"]
    command = [sys.executable, "-m", "gatekeep", "serve", "site.py", *flags]
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *command]
    with (
        (tmp_path / "log").open("w") as log,
        process(unshare, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT) as outer,
    ):
        yield Container(outer, tmp_path)


@needs_namespace
def test_as_pid_1_the_old_gateway_stays_and_passes_on_what_it_is_told(container: Container) -> None:
    container.signal(signal.SIGUSR2)
    container.wait_for("gateway.stopped")
    time.sleep(0.5)
    assert container.outer.poll() is None, "the container lives"
    container.signal(signal.SIGTERM)
    assert container.outer.wait(40) == 0
    container.wait_for("gateway.stopped", 2)


@needs_namespace
def test_as_pid_1_it_may_be_replaced_again_and_again_and_keeps_one_gateway(container: Container) -> None:
    for count in range(1, 4):
        container.signal(signal.SIGUSR2)
        container.wait_for("gateway.stopped", count)
        wait_until(lambda: len(children(container.first)) == 1)
        assert container.ask("/") == 200
    container.signal(signal.SIGTERM)
    assert container.outer.wait(40) == 0
    container.wait_for("gateway.stopped", 4)


@needs_namespace
def test_a_stop_that_comes_while_pid_1_still_finishes_its_last_request_is_passed_on(
    container: Container,
) -> None:
    with hold(container.port, container.folder, "runs") as client:
        container.signal(signal.SIGUSR2)
        container.wait_for("gateway.replaced")
        container.signal(signal.SIGTERM)
        container.wait_for("signal.received", 2, signal="SIGTERM")
        (container.folder / "go").touch()
        assert client.read().status == 200
    assert container.outer.wait(40) == 0
    container.wait_for("gateway.stopped", 2)


@needs_namespace
def test_pid_1_reaps_orphans_also_when_another_gateway_serves(container: Container) -> None:
    container.signal(signal.SIGUSR2)
    container.wait_for("gateway.stopped")
    assert container.ask("/orphan") == 200
    wait_until(lambda: len(children(container.first)) == 2)
    (container.folder / "go").touch()
    wait_until(lambda: len(children(container.first)) == 1)


def test_under_systemd_it_needs_a_way_to_tell_it() -> None:
    assert "Type=notify" in why_not({"INVOCATION_ID": "x"}, 1, "systemd")
    assert not why_not({"INVOCATION_ID": "x", "NOTIFY_SOCKET": "/run/x"}, 1, "systemd")
    assert not why_not({"INVOCATION_ID": "x"}, 4711, "bash"), "a shell of the unit's started it"
    assert not why_not({}, 1, "systemd")


def test_a_parent_whose_end_would_be_the_service_s_is_named() -> None:
    assert why_not({}, 1, "tini").startswith("tini, its parent")
    assert why_not({}, 7, "supervisord")


def test_the_watchdog_of_systemd_is_fed_by_the_gateway_that_takes_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert "WATCHDOG_PID" not in Origin.here().environment
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Origin.here().environment["WATCHDOG_PID"] == "1", "it was somebody else's, and is"


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
