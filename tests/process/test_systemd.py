"""Under systemd, and as the first process of a container."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from client import Client
from conftest import TESTS, wait_until
from gatekeep import SettingsError
from gatekeep._reaper import Reaper, dead_children
from gatekeep._systemd import Notifier, take_listeners
from running import children, is_alive, open_files, process
from served import serve


class Manager:
    """What hears a service: the socket that `$NOTIFY_SOCKET` names."""

    def __init__(self, address: str) -> None:
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self.said += self._socket.recv(4096).decode().split("\n")
            except OSError:
                return

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    address = (
        f"{tmp_path}/notify" if request.param == "path" else f"@gatekeep-test-{os.getpid()}-{tmp_path.name}"
    )
    manager = Manager(address)
    yield manager, address
    manager.close()


def environment_of(pid: int) -> set[str]:
    return {entry.split("=")[0] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0")}


def test_systemd_is_told_when_the_gateway_is_ready_and_when_it_stops(manager: tuple[Manager, str]) -> None:
    systemd, address = manager
    with serve("apps:hello", cwd=TESTS, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}) as server:
        wait_until(lambda: "READY=1" in systemd.said)
        assert f"MAINPID={server.pid}" in systemd.said
        assert any(line.startswith("STATUS=serving apps:hello at http://") for line in systemd.said)
        fed = systemd.said.count("WATCHDOG=1")
        wait_until(lambda: systemd.said.count("WATCHDOG=1") > fed + 2)
        assert "STOPPING=1" not in systemd.said
        for pid in server.daemon_pids():
            assert not environment_of(pid) & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"}
        server.terminate()
        wait_until(lambda: "STOPPING=1" in systemd.said)
        assert server.wait() == 0


def test_the_gateway_that_takes_over_becomes_the_service(manager: tuple[Manager, str]) -> None:
    systemd, address = manager
    with serve("apps:hello", cwd=TESTS, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}) as server:
        os.kill(server.pid, signal.SIGUSR2)
        assert server.wait() == 0
        successor = server.events_named("gateway.replaced")[0]["successor"]
        wait_until(lambda: f"MAINPID={successor}" in systemd.said)
        fed = systemd.said.count("WATCHDOG=1")
        wait_until(lambda: systemd.said.count("WATCHDOG=1") > fed + 2)
        assert "STOPPING=1" not in systemd.said, "the service goes on"
        os.kill(successor, signal.SIGTERM)
        wait_until(lambda: len(server.events_named("gateway.stopped")) == 2)


@pytest.mark.parametrize(
    ("environment", "watchdog"),
    [
        ({}, False),
        ({"NOTIFY_SOCKET": "/nowhere"}, False),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000"}, True),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "7"}, True),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "8"}, False),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"}, False),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"}, False),
        ({"WATCHDOG_USEC": "1000"}, False),
    ],
)
def test_the_watchdog_is_fed_where_it_is_ours(environment: dict[str, str], watchdog: bool) -> None:
    notifier = Notifier.take(environment, 7)
    assert environment == {}
    notifier.say(READY=1)

    async def feed() -> bool:
        with anyio.move_on_after(0.2) as scope:
            await notifier.feed_watchdog()
        return scope.cancelled_caught

    assert anyio.run(feed) is watchdog


# --- sockets that somebody else has opened


@contextmanager
def activated(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """The command as systemd starts it: the socket is descriptor 3, `$LISTEN_PID` the command's own."""
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        "os.execv(sys.executable, [sys.executable, '-m', 'gatekeep', 'serve', *sys.argv[2:]])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-c", program, str(fd), *arguments]
        with process(command, cwd=folder, pass_fds=[fd], stdout=subprocess.PIPE, text=True) as gateway:
            yield gateway, listener


def line_with(part: str, gateway: subprocess.Popen[str]) -> str:
    """The next line of its log that has this part."""
    assert gateway.stdout
    return next(line for line in gateway.stdout if part in line)


def see_stopped(gateway: subprocess.Popen[str]) -> None:
    assert gateway.stdout
    gateway.terminate()
    gateway.stdout.read()
    assert gateway.wait(20) == 0


def test_a_socket_of_systemd_is_served_and_no_process_inherits_it() -> None:
    with activated(TESTS, "apps:pid") as (gateway, listener):
        ready = line_with("gateway.ready", gateway)
        assert f"http://127.0.0.1:{listener.getsockname()[1]}" in ready
        with Client(listener.getsockname()) as client:
            pid = int(client.get("/").body)
        inode = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
        assert inode in open_files(gateway.pid)
        assert inode not in open_files(pid)
        see_stopped(gateway)


def test_what_the_command_line_says_goes_first() -> None:
    with activated(TESTS, "apps:hello", "--bind", "127.0.0.1:0") as (gateway, listener):
        assert gateway.stdout
        seen = gateway.stdout.readline()
        ready = line_with("gateway.ready", gateway)
        assert f":{listener.getsockname()[1]}" not in ready
        assert "socket.unused" in seen
        see_stopped(gateway)


def test_an_abstract_socket_is_served_and_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0gatekeep-test-{os.getpid()}")
        listener.listen()
        os.set_inheritable(listener.fileno(), True)
        command = [sys.executable, "-m", "gatekeep", "serve", "apps:hello", "--fd", str(listener.fileno())]
        with process(
            command, cwd=TESTS, pass_fds=[listener.fileno()], stdout=subprocess.PIPE, text=True
        ) as gateway:
            assert f"unix:@gatekeep-test-{os.getpid()}" in line_with("gateway.ready", gateway)
            see_stopped(gateway)


def test_a_parent_that_ignores_the_ends_of_children_hides_none_of_ours() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    command = [sys.executable, "-m", "gatekeep", "serve", "apps:scripted"]
    flags = ["--bind", "127.0.0.1:0", "--processes", "1"]
    with process(
        [*command, *flags], cwd=TESTS, stdout=subprocess.PIPE, text=True, preexec_fn=ignore
    ) as gateway:
        ready = line_with("gateway.ready", gateway)
        port = int(ready.split("http://127.0.0.1:")[1].split('"')[0])
        with Client(("127.0.0.1", port)) as client:
            assert client.get("/kill").status == 502
        assert "killed by SIGKILL" in line_with("process.exited", gateway)
        see_stopped(gateway)


def test_sockets_for_another_process_are_left_alone() -> None:
    environment = {"LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    assert take_listeners(environment, 7) == []
    assert environment == {}


@pytest.mark.parametrize("count", ["x", "-1", "1.5", "²"])
def test_a_count_that_is_none_is_named(count: str) -> None:
    with pytest.raises(SettingsError, match=r"\$LISTEN_FDS"):
        take_listeners({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)


# --- the first process of a container

ORPHANS = """
import os

def application(environ, start_response):
    if environ["PATH_INFO"] == "/orphan":
        if os.fork() == 0:
            if os.fork() == 0:
                os.execv("/bin/true", ["true"])
            os._exit(0)
        os.wait()
    if environ["PATH_INFO"] == "/die":
        os._exit(7)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")
def test_pid_1_reaps_orphans_and_still_knows_how_its_own_children_ended(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(ORPHANS)
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace here")
    with serve("site.py", cwd=tmp_path, through=unshare) as server:
        (first,) = children(server.pid)
        with Client(("127.0.0.1", server.port)) as client:
            for _ in range(20):
                assert client.get("/orphan").status == 200
        wait_until(lambda: all(map(is_alive, children(first))))
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/die").status == 502
        assert server.wait_for_event("process.exited")["end"] == "exit status 7"
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 0


def test_a_child_that_somebody_waits_for_is_never_reaped() -> None:
    with process(["/bin/true"]) as ours, process(["/bin/true"]) as orphan:
        reaper = Reaper(lambda: [ours.pid])
        wait_until(lambda: {ours.pid, orphan.pid} <= set(dead_children()))
        reaper.look()
        assert orphan.pid in dead_children(), "it is looked at twice"
        reaper.look()
        assert orphan.pid not in dead_children()
        assert ours.pid in dead_children()
        assert ours.wait() == 0
