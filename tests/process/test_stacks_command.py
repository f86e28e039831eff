"""`gatekeep stacks` against gateways that run, that were stopped or killed, and that are not there."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import TESTS, wait_until
from served import Served, serve

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment in which nobody else's gateways run."""
    return {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}


def stacks(place: dict[str, str], *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "gatekeep", "stacks", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60} | options
    return subprocess.run(command, cwd=TESTS, env={**os.environ, **place}, text=True, **options)


def serving(place: dict[str, str], *flags: str, app: str = "apps:scripted") -> Any:
    return serve(app, "--shutdown-timeout", "1", "--graceful-timeout", "0.5", *flags, cwd=TESTS, env=place)


@contextmanager
def wedged(server: Served, target: str) -> Iterator[None]:
    """A client whose request has come to the application and does not end."""
    with Client(("127.0.0.1", server.port)) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
        yield


def stacks_with(place: dict[str, str], *texts: str, arguments: Sequence[object] = ()) -> str:
    """The command's output, as soon as it has all of those texts: a process that is busy may not answer in time."""
    outputs = []

    def is_there() -> bool:
        done = stacks(place, *arguments)
        outputs.append(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        return all(text in done.stdout for text in texts)

    wait_until(is_there, 40)
    return outputs[-1]


# --- one that runs


def test_a_request_in_time_sleep_is_shown_with_its_path_and_the_function_that_it_sleeps_in(
    place: dict[str, str],
) -> None:
    with (
        serving(place, "--processes", "2", "--threads", "3") as server,
        wedged(server, "/wedge?sleep"),
    ):
        # The threads start one after the other, and so do the processes.
        idle = [f"  {count} worker threads wait for a connection\n" for count in (2, 3)]
        text = stacks_with(place, "in wedge", *idle)
        (request,) = re.findall(
            r"^  thread (gatekeep-worker-\d): request ([0-9a-f]+), (.*), for .*$", text, re.M
        )
        assert request[2] == "GET /wedge"
        assert re.search(r'apps\.py", line \d+, in scripted\n.*apps\.py", line \d+, in wedge\n', text)
        processes = re.findall(r"^process (\d+): group default, seat ([01]), ready, up \d.*$", text, re.M)
        assert sorted(int(pid) for pid, _ in processes) == sorted(server.daemon_pids())


def test_the_same_as_json_for_programs(place: dict[str, str]) -> None:
    with serving(place, "--processes", "1", "--threads", "2") as server, wedged(server, "/wedge?sleep"):
        stacks_with(place, "in wedge", "  1 worker thread waits for a connection\n")
        text = stacks_with(place, "in wedge", arguments=["--json", server.pid])
        (process,) = json.loads(text)["processes"]
        assert [process["pid"]] == server.daemon_pids()
        assert (process["group"], process["seat"], process["state"]) == ("default", 0, "ready")
        (thread,) = [thread for thread in process["threads"] if thread["request_id"]]
        assert (thread["method"], thread["path"]) == ("GET", "/wedge")
        assert thread["age"] > 0
        assert "in wedge" in thread["stack"]
        assert sum(thread["number"] >= 0 for thread in process["threads"]) == 2


def test_a_process_that_was_stopped_is_shown_with_the_request_that_it_had(place: dict[str, str]) -> None:
    with (
        serving(place, "--processes", "1", "--threads", "2", "--deadlock-timeout", "0") as server,
        wedged(server, "/wedge?sleep"),
    ):
        stacks_with(place, "in wedge")
        (pid,) = server.daemon_pids()
        os.kill(pid, signal.SIGSTOP)
        try:
            done = stacks(place)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"process {pid}: group default, seat 0, " in done.stdout
        assert "did not answer" in done.stdout
        assert ", GET /wedge, for " in done.stdout


def test_a_process_whose_gil_is_held_is_shown_with_what_it_wrote_at_a_signal(place: dict[str, str]) -> None:
    with (
        serving(place, "--processes", "1", "--threads", "2", "--deadlock-timeout", "0") as server,
        wedged(server, "/wedge?gil-60"),
    ):
        text = stacks_with(place, "in hold_gil")
        assert "this is what it wrote at a signal" in text
        assert ", GET /wedge, for " in text
        assert "  all threads, the innermost frame first:\n" in text


def test_an_application_that_never_finishes_loading_can_be_asked_about(
    place: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(1000)\n")
    server = Served("endless", "--processes", "1", cwd=tmp_path, env=place)
    try:
        server.wait_for_event("process.started")
        text = stacks_with(place, "process ")
        assert re.match(r"process \d+: group default, seat 0, starting, up ", text)
    finally:
        server.stop()


def test_a_reader_that_has_seen_enough_is_no_fault(place: dict[str, str]) -> None:
    with serving(place, "--processes", "1"):
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = stacks(place, stdout=writer)
        finally:
            os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_knows_no_unicode_gets_escapes(place: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "grün.py").write_text("def gähnen(environ, start):\n    import time\n    time.sleep(1000)\n")
    with (
        serving(place, "--processes", "1", "--python-path", str(tmp_path), app="grün:gähnen") as server,
        wedged(server, "/"),
    ):
        stacks_with(place, "in gähnen")
        stacks_with({**place, "PYTHONIOENCODING": "ascii"}, r"in g\xe4hnen")


# --- several, one and none


def test_with_two_gateways_it_says_which_there_are_and_answers_for_the_one_that_is_named(
    place: dict[str, str],
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(place, "--processes", "1")) for _ in range(2)]
        done = stacks(place)
        assert (done.returncode, done.stdout) == (2, "")
        *commands, reason = done.stderr.splitlines()
        pids = ", ".join(str(pid) for pid in sorted(server.pid for server in servers))
        assert reason == f"gatekeep: several gateways run, say which: {pids}"
        assert [line.split()[0] for line in commands] == pids.split(", ")
        assert all("gatekeep serve apps:scripted" in line for line in commands)
        for server in servers:
            done = stacks(place, server.pid)
            assert done.stdout.startswith(f"process {server.daemon_pids()[0]}: ")


def test_a_pid_that_is_no_gateway_s_is_a_usage_error_that_names_those_that_are(place: dict[str, str]) -> None:
    with serving(place, "--processes", "1") as server:
        done = stacks(place, os.getpid())
        assert (done.returncode, done.stdout) == (2, "")
        expected = f"gatekeep: gateway {os.getpid()} does not run; these do: {server.pid}"
        assert done.stderr.splitlines()[-1] == expected
        assert stacks(place, "x").returncode == 2


@pytest.mark.parametrize("arguments", [[], ["1"], ["--json"]])
def test_no_gateway_is_one_clear_line(place: dict[str, str], tmp_path: Path, arguments: list[str]) -> None:
    done = stacks(place, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"gatekeep: no gateway of user \S+ runs: none .* in {tmp_path}", line)


def test_what_a_killed_gateway_left_behind_is_no_gateway(place: dict[str, str], tmp_path: Path) -> None:
    server = Served("apps:scripted", "--processes", "1", cwd=TESTS, env=place)
    server.wait_ready()
    server.kill()
    server.wait()
    assert list(tmp_path.glob("gatekeep-*/control.sock"))
    assert stacks(place).returncode == 2
    with serving(place, "--processes", "1") as another:
        done = stacks(place)
        assert done.stdout.startswith(f"process {another.daemon_pids()[0]}: ")
    server.stop()


# --- one that does not answer


def test_a_gateway_that_was_stopped_is_said_not_to_answer(place: dict[str, str]) -> None:
    with serving(place, "--processes", "1") as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            done = stacks(place)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"gatekeep: gateway {server.pid} does not answer within 10 s\n"
        assert stacks(place).returncode == 0


def test_what_refuses_or_talks_nonsense_is_told_in_one_line(place: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "gatekeep-77-abcd"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "control.sock"))
        listener.listen()
        for said, told in (
            (b'{"ok": false, "error": "unknown command"}\n', "gatekeep: gateway 77 refuses: unknown command"),
            (b"hello\n", "gatekeep: gateway 77 refuses: what it answered makes no sense: "),
            (b"", "gatekeep: gateway 77 has ended the connection without an answer"),
        ):
            answering = threading.Thread(target=_answer, args=(listener, said))
            answering.start()
            done = stacks(place)
            answering.join()
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert done.stderr.startswith(told)
    os.close(fd)


def _answer(listener: socket.socket, said: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(100)
        connection.sendall(said)
