"""`gatekeep status|reload|drain|stop` and SIGHUP under load, during a start, during a stop, and where nobody listens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.to_thread
import msgspec
import pytest

from client import Client
from conftest import TESTS, start_site, wait_until
from gatekeep import Gateway, Settings
from gatekeep._cli_control import _owner_of
from gatekeep._console_client import Running
from gatekeep._status import GatewayStatus
from held import Held
from served import Served, serve
from traffic import Traffic, write_script

pytestmark = pytest.mark.slow

BROKEN = "raise RuntimeError('broken on purpose')"


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment in which nobody else's gateways run."""
    folder = tmp_path / "run"
    folder.mkdir()
    return {"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)}


def gatekeep(place: dict[str, str], *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gatekeep", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=TESTS,
        env={**os.environ, **place, **variables},
    )


def told(place: dict[str, str], server: Served) -> GatewayStatus:
    done = gatekeep(place, "status", server.pid, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (status,) = msgspec.json.decode(done.stdout, type=dict[str, list[GatewayStatus]])["gateways"]
    return status


@contextmanager
def starting(place: dict[str, str]) -> Iterator[Served]:
    """A gateway whose application never finishes loading."""
    server = Served("endless_import:app", "--processes", "1", "--startup-timeout", "0", cwd=TESTS, env=place)
    try:
        server.wait_for_event("process.started")
        yield server
    finally:
        server.stop()


@contextmanager
def stopping(place: dict[str, str]) -> Iterator[Served]:
    """A gateway that was told to stop and has a request that runs on for a while."""
    with (
        serve("apps:scripted", "--graceful-timeout", "60", cwd=TESTS, env=place) as server,
        Client(("127.0.0.1", server.port)) as client,
    ):
        wait_until(lambda: len(server.daemon_pids()) == 2)
        client.send("GET /sleep?600 HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: told(place, server).in_flight == 1)
        server.terminate()
        wait_until(lambda: told(place, server).state == "stopping")
        yield server
        gatekeep(place, "stop", server.pid, "--now")
        server.wait()


# --- under load


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_hup_under_load_replaces_all_processes_and_no_request_fails(
    place: dict[str, str], tmp_path: Path, loop: str
) -> None:
    script = write_script(tmp_path / "site.py", "v1")
    flags = ("--loop", loop, "--script-reloading", "off")
    with serve(str(script), *flags, cwd=tmp_path, env=place) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        before = set(server.daemon_pids())
        with Traffic(SimpleNamespace(address=("127.0.0.1", server.port))) as traffic:
            traffic.wait_for_more()
            write_script(script, "v2")
            os.kill(server.pid, signal.SIGHUP)
            for pid in before:
                server.wait_for_event("process.exited", 40, pid=pid, trigger="reload", planned=True)
            traffic.wait_for_more()
        assert traffic.failures == []
        assert {reply.version for reply in traffic.replies} == {"v1", "v2"}
        assert server.events_named("signal.received", signal="SIGHUP", meaning="reload")
        assert not before & set(server.daemon_pids())
        assert len(server.daemon_pids()) == 2


def test_the_command_reloads_under_load_and_no_request_fails(place: dict[str, str], tmp_path: Path) -> None:
    script = write_script(tmp_path / "site.py", "v1")
    with serve(str(script), cwd=tmp_path, env=place) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        before = set(server.daemon_pids())
        with Traffic(SimpleNamespace(address=("127.0.0.1", server.port))) as traffic:
            traffic.wait_for_more()
            done = gatekeep(place, "reload", "--wait")
            assert (done.returncode, done.stderr) == (0, "")
            (group,) = told(place, server).groups
            assert not before & {process.pid for process in group.processes}
            traffic.wait_for_more()
        assert traffic.failures == []


def test_a_process_that_is_drained_is_shown_with_the_reason_until_its_request_has_ended(
    place: dict[str, str], tmp_path: Path
) -> None:
    flags = ("--processes", "1", "--graceful-timeout", "60")
    with (
        serve("apps:scripted", *flags, cwd=TESTS, env=place) as server,
        Held(("127.0.0.1", server.port), tmp_path) as client,
    ):
        (pid,) = server.daemon_pids()
        assert gatekeep(place, "drain", pid, "--gateway", server.pid).returncode == 0
        (group,) = told(place, server).groups
        (old,) = [process for process in group.processes if process.pid == pid]
        assert old.state in ("draining", "finishing")
        assert (old.trigger, old.running) == ("eviction", 1)
        assert client.finish().status == 200
        server.wait_for_event("process.exited", pid=pid, trigger="eviction")


# --- during the start


def test_a_gateway_that_starts_tells_its_status(place: dict[str, str]) -> None:
    with starting(place) as server:
        status = told(place, server)
        (group,) = status.groups
        assert (status.state, group.state, group.failure) == ("starting", "starting", "")
        assert status.loop in ("asyncio", "uvloop")
        assert [process.state for process in group.processes] == ["starting"]


@pytest.mark.parametrize("flags", [[], ["--now"]])
def test_a_gateway_that_starts_stops_when_it_is_told(place: dict[str, str], flags: list[str]) -> None:
    with starting(place) as server:
        done = gatekeep(place, "stop", *flags)
        assert (done.returncode, done.stderr) == (0, "")
        assert server.wait() == 0


# --- during the stop


def test_a_gateway_that_stops_replaces_no_process_whoever_asks(place: dict[str, str]) -> None:
    with stopping(place) as server:
        started = len(server.events_named("process.started"))
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_event("signal.ignored", signal="SIGHUP")
        for command in (["reload", server.pid], ["drain", server.daemon_pids()[0]]):
            done = gatekeep(place, *command)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"gatekeep: gateway {server.pid} refuses: it is stopping\n"
        assert server.events_named("drain.started") == []
        assert len(server.events_named("process.started")) == started


# --- what was broken and is mended


def test_a_reload_of_mended_code_is_judged_by_the_new_starts_and_waits_out_no_pause(
    place: dict[str, str], tmp_path: Path
) -> None:
    script = write_script(tmp_path / "site.py", "v1")
    with serve(str(script), "--script-reloading", "off", cwd=tmp_path, env=place) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        write_script(script, "v2", BROKEN)
        os.kill(server.daemon_pids()[0], signal.SIGKILL)
        wait_until(lambda: told(place, server).groups[0].next_start > 1, 40)
        write_script(script, "v3")
        done = gatekeep(place, "reload", "--wait")
        assert (done.returncode, done.stderr) == (0, "")


def test_where_no_process_was_left_a_reload_waits_for_one_that_is_ready(
    place: dict[str, str], tmp_path: Path
) -> None:
    script = write_script(tmp_path / "site.py", "v1")
    flags = ("--script-reloading", "off", "--processes", "1")
    with serve(str(script), *flags, cwd=tmp_path, env=place) as server:
        write_script(script, "v2", BROKEN)
        os.kill(server.daemon_pids()[0], signal.SIGKILL)
        wait_until(lambda: told(place, server).groups[0].next_start > 1, 40)
        (group,) = told(place, server).groups
        assert group.state == "failing"
        assert "broken on purpose" in group.failure
        done = gatekeep(place, "reload", "--wait")
        assert done.returncode == 1
        assert "the new processes of group default do not start: " in done.stderr
        assert "broken on purpose" in done.stderr
        wait_until(lambda: told(place, server).groups[0].next_start > 1, 40)
        write_script(script, "v3")
        done = gatekeep(place, "reload", "--wait")
        assert (done.returncode, done.stderr) == (0, "")
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/").status == 200


def test_a_start_that_was_under_way_when_the_reload_was_asked_for_says_nothing_about_the_new_code(
    place: dict[str, str], tmp_path: Path
) -> None:
    script = write_script(tmp_path / "site.py", "v1")
    with serve(str(script), "--script-reloading", "off", cwd=tmp_path, env=place) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        started = len(server.events_named("process.started"))
        read, gate, later = tmp_path / "read", tmp_path / "gate", tmp_path / "later"
        write_script(script, "v2", f"open({str(read)!r}, 'w').close()\n{_wait_for(gate)}\n{BROKEN}")
        os.kill(server.daemon_pids()[0], signal.SIGKILL)
        wait_until(lambda: len(server.events_named("process.started")) > started and read.exists())
        (late,) = [
            process.pid for process in told(place, server).groups[0].processes if process.state == "starting"
        ]
        write_script(script, "v3", _wait_for(later))  # so that there is time to look
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_event("drain.started", trigger="reload")
        gate.touch()
        server.wait_for_event("process.exited", pid=late)
        assert told(place, server).groups[0].failure == ""
        later.touch()
        wait_until(lambda: len(server.daemon_pids()) == 2)


def _wait_for(path: Path) -> str:
    return f"while not os.path.exists({str(path)!r}): time.sleep(0.01)"


# --- the wrong one


def test_a_drain_names_the_gateways_that_it_could_not_ask(place: dict[str, str]) -> None:
    with (
        serve("apps:hello", cwd=TESTS, env=place) as one,
        serve("apps:hello", cwd=TESTS, env=place) as other,
    ):
        pid = one.daemon_pids()[0]
        done = gatekeep(place, "drain", pid, "--gateway", other.pid)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"gatekeep: gateway {other.pid} has no process {pid}\n"
        os.kill(one.pid, signal.SIGSTOP)
        try:
            done = gatekeep(place, "drain", pid)
        finally:
            os.kill(one.pid, signal.SIGCONT)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"gateway {one.pid} does not answer within 10 s\n"
            f"gatekeep: no gateway that answers has a process {pid}\n"
        )


def test_a_gateway_that_ends_while_it_is_asked_has_no_process(tmp_path: Path) -> None:
    assert _owner_of(4711, [Running(4712, str(tmp_path / "gone"))]) is None


# --- inside other programs


def test_a_program_that_does_not_listen_is_named_and_not_waited_for(
    place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    with ExitStack() as stack:
        site = start_site(stack, processes=1)
        done = gatekeep(place, "stop", os.getpid())
        assert (done.returncode, done.stdout) == (1, "")
        assert "the program that it is part of does not listen" in done.stderr
        with Client(site.address) as client:
            assert client.get("/plain").status == 200


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_listens_is_told_to_stop(
    place: dict[str, str], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    settings = Settings.for_app("apps:hello", bind="127.0.0.1:0", processes=1, python_path=[str(TESTS)])
    done: list[subprocess.CompletedProcess[str]] = []

    async def stop() -> None:
        done.append(await anyio.to_thread.run_sync(lambda: gatekeep(place, "stop", os.getpid())))

    async def program(gateway: Gateway) -> None:
        async with anyio.create_task_group() as tasks, gateway.serving() as served:
            tasks.start_soon(stop)
            with anyio.fail_after(60):
                await served.wait_stop_requested()

    gateway = Gateway(settings)
    for _ in range(2):  # it can be asked again when it serves again
        anyio.run(program, gateway, backend=backend)
    assert [each.returncode for each in done] == [0, 0]


def test_a_reload_tells_other_threads_how_many_processes_it_replaces() -> None:
    with ExitStack() as stack:
        site = start_site(stack, processes=2)
        wait_until(lambda: len(site.served.statistics().processes) == 2)
        before = set(site.served.statistics().processes)
        assert site.served.reload() == 2
        for pid in before:
            site.log.wait_for("process.exited", pid=pid, trigger="reload")
        gateway = site.gateway
    assert gateway.reload() == 0


# --- the shell


def test_the_shell_completes_commands_and_flags(place: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['gatekeep']; from gatekeep._cli import main; main()",
    ]

    def complete(**variables: str) -> str:
        environment = {**os.environ, **place, **variables}
        return subprocess.run(
            command, env=environment, text=True, capture_output=True, timeout=60, check=True
        ).stdout

    assert "complete -o nosort -F _gatekeep_completion gatekeep" in complete(_GATEKEEP_COMPLETE="bash_source")
    words = {"_GATEKEEP_COMPLETE": "bash_complete", "COMP_WORDS": "gatekeep re", "COMP_CWORD": "1"}
    assert complete(**words) == "plain,reload\n"
