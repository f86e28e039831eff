"""The gateway under real ASGI servers, whole and mounted, with real clients; and a stop that leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import requests

import gatekeep
from client import Client
from conftest import TESTS, wait_until
from held import Held
from served import free_port

pytestmark = pytest.mark.slow

HYPERCORN = ["hypercorn", "--graceful-timeout", "20", "--bind", "127.0.0.1:PORT"]
SERVERS = {
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "PORT"],
    "hypercorn": HYPERCORN,
    "hypercorn-trio": [*HYPERCORN, "--worker-class", "trio"],
}
KINDS = ["whole", "starlette", "fastapi"]


@dataclass
class Host:
    """A server that runs one of `asgi_hosts.py`'s applications."""

    process: subprocess.Popen[bytes]
    port: int
    root: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.root}"

    def connect(self) -> Client:
        return Client(("127.0.0.1", self.port))

    def get(self, target: str, client: Client, *fields: str, method: str = "GET") -> object:
        return client.get(self.root + target, *fields, method=method)

    def pid(self) -> int:
        """A daemon process."""
        return int(requests.get(f"{self.url}/sleep?0", timeout=20).text)

    def is_serving(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(f"{self.url}/plain", timeout=20).status_code == 200
        except requests.RequestException:
            return False


def family(pid: int) -> set[int]:
    """A process and all that come from it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found, new = set(), {pid}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return found


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(server: str, kind: str, folder: Path) -> Host:
    port = free_port()
    module, *flags = [word.replace("PORT", str(port)) for word in SERVERS[server]]
    source = str(Path(gatekeep.__file__).parents[1])
    run = folder / "run"
    run.mkdir(exist_ok=True)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, f"asgi_hosts:{kind}", *flags],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([source, str(TESTS)]),
                "XDG_RUNTIME_DIR": str(run),
            },
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    return Host(process, port, "" if kind in ("whole", "broken") else "/legacy", log)


@contextmanager
def serving(server: str, kind: str, folder: Path) -> Iterator[Host]:
    """A server for as long as the context lasts; afterwards nothing of it is left."""
    host = start(server, kind, folder)
    everybody: set[int] = set()
    try:
        wait_until(host.is_serving, 60)
        yield host
        everybody = family(host.process.pid)
        host.process.terminate()
        # uvicorn ends by the signal that it got.
        assert host.process.wait(30) in (0, -signal.SIGTERM), host.log.read_text()
        wait_until(lambda: not any(map(exists, everybody)))
        assert list((folder / "run").iterdir()) == []
    finally:
        for pid in everybody | family(host.process.pid):
            if exists(pid):
                os.kill(pid, signal.SIGKILL)
        host.process.wait(10)


Serve = Callable[[str, str], Host]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Servers that last until the module's end; each stop is looked at."""
    running: dict[tuple[str, str], Host] = {}
    with ExitStack() as stack:

        def host(server: str, kind: str) -> Host:
            if (server, kind) not in running:
                folder = tmp_path_factory.mktemp(f"{server}-{kind}")
                running[server, kind] = stack.enter_context(serving(server, kind, folder))
            return running[server, kind]

        yield host


@pytest.fixture(params=[(server, kind) for server in SERVERS for kind in KINDS], ids="-".join)
def host(request: pytest.FixtureRequest, hosts: Serve) -> Host:
    return hosts(*request.param)


def test_a_request_is_served_and_knows_where_it_is(host: Host) -> None:
    answer = requests.get(f"{host.url}/plain", timeout=20)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert answer.headers["content-type"] == "text/plain"
    for field in ("date", "server"):
        assert "," not in answer.headers[field].replace(", ", " "), "given once"


def test_the_application_around_it_serves_too(host: Host) -> None:
    if not host.root:
        pytest.skip("there is none")
    other = f"http://127.0.0.1:{host.port}/own"
    assert "own" in requests.get(other, timeout=20).text


def test_several_are_mounted_in_one_program(hosts: Serve) -> None:
    for server in SERVERS:
        host = hosts(server, "starlette")
        assert requests.get(f"http://127.0.0.1:{host.port}/hello", timeout=20).text == "Hello, world!"
        assert requests.get(f"{host.url}/plain", timeout=20).text == "ok"


@pytest.mark.parametrize("chunked", [False, True])
def test_uploads_and_downloads_arrive_whole(host: Host, chunked: bool) -> None:
    pieces = [b"u" * 65536] * 80
    answer = requests.post(
        f"{host.url}/count", data=iter(pieces) if chunked else b"".join(pieces), timeout=60
    )
    assert answer.text == str(80 * 65536)
    framing = "chunked" if chunked else "length"
    answer = requests.get(f"{host.url}/stream?{framing},20000000", timeout=60)
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(b"s" * (20000000 >> 16 << 16)).digest()


def test_a_connection_carries_many_requests(host: Host) -> None:
    with host.connect() as client:
        for path, method in [
            ("/plain", "GET"),
            ("/plain", "HEAD"),
            ("/generator", "GET"),
            ("/plain", "GET"),
        ] * 3:
            answer = client.get(host.root + path, method=method)
            assert (answer.status, answer.complete) == (200, True)


def test_a_client_that_waits_to_be_invited_is(host: Host) -> None:
    with host.connect() as client:
        client.send(
            f"POST {host.root}/count HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.read().status == 100
        client.send("12345")
        assert client.read().body == b"5"


@pytest.mark.parametrize("path", ["/raise-late", "/raise-late-length", "/kill-late"])
def test_a_response_that_stops_short_can_be_told_from_a_whole_one(host: Host, path: str) -> None:
    with host.connect() as client:
        answer = client.get(host.root + path)
        assert (answer.status, answer.body, answer.complete) == (200, b"first", False)
    wait_until(host.is_serving)


def test_a_request_that_does_not_end_is_a_504(host: Host) -> None:
    assert requests.get(f"{host.url}/wedge?busy", timeout=30).status_code == 504
    assert requests.get(f"{host.url}/wedge?sleep", timeout=30).status_code == 504
    wait_until(host.is_serving)


def test_a_process_that_is_killed_is_a_502_and_is_replaced(host: Host) -> None:
    pid = host.pid()
    with host.connect() as client:
        assert client.get(f"{host.root}/kill").status == 502
    assert host.pid() != pid


def test_a_client_that_leaves_is_told_to_the_application(host: Host, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with host.connect() as client:
        client.send(f"GET {host.root}/watch-client?{notes} HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(notes.exists)
    wait_until(lambda: "gone" in notes.read_text())


def test_clients_that_do_not_read_hold_no_workers(host: Host) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(host.connect()) for _ in range(4)]
        for client in slow:
            client.send(f"GET {host.root}/stream?length,20000000 HTTP/1.1\r\nHost: test\r\n\r\n")
        # There are two workers, so both have been free again when all of these responses have begun.
        for client in slow:
            wait_until(lambda client=client: bool(select.select([client.socket], [], [], 0)[0]))
        assert requests.get(f"{host.url}/plain", timeout=20).status_code == 200
        for client in slow:
            assert client.read().complete


def test_a_websocket_is_refused(host: Host) -> None:
    with host.connect() as client:
        fields = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        answer = client.get(f"{host.root}/ws", *fields, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        assert answer.status in (501, 403)


@pytest.mark.parametrize("server", ["hypercorn", "hypercorn-trio"])
def test_http_2_is_served(hosts: Serve, server: str) -> None:
    host = hosts(server, "fastapi")
    with httpx.Client(http1=False, http2=True, timeout=20) as client:
        assert client.get(f"{host.url}/plain").http_version == "HTTP/2"
        answer = client.post(f"{host.url}/count", content=iter([b"x" * 60000] * 10))
        assert answer.text == "600000"
        assert len(client.get(f"{host.url}/stream?chunked,5000000").content) == 5000000 >> 16 << 16
        with pytest.raises(httpx.HTTPError):
            client.get(f"{host.url}/raise-late")


# --- the start and the stop


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_lets_a_request_finish_and_leaves_no_process(server: str, kind: str, tmp_path: Path) -> None:
    with serving(server, kind, tmp_path) as host:
        with Held(("127.0.0.1", host.port), tmp_path, host.root) as client, host.connect() as idle:
            pid = client.pid
            assert idle.get(f"{host.root}/plain").status == 200
            host.process.terminate()
            assert idle.is_closed()
            assert client.finish().status == 200
        host.process.wait(30)
        wait_until(lambda: not exists(pid))


@pytest.mark.parametrize("server", SERVERS)
def test_daemon_processes_end_with_a_server_that_is_killed(server: str, tmp_path: Path) -> None:
    host = start(server, "whole", tmp_path)
    try:
        wait_until(host.is_serving, 60)
        pid = host.pid()
        everybody = family(host.process.pid) - {pid}
        host.process.kill()
        for each in everybody - {host.process.pid}:
            with suppress(ProcessLookupError):  # one may have noticed the end of another
                os.kill(each, signal.SIGKILL)
        wait_until(lambda: not exists(pid))
    finally:
        host.process.kill()
        host.process.wait(10)


@pytest.mark.parametrize("server", SERVERS)
def test_an_application_that_does_not_load_keeps_the_server_from_starting(
    server: str, tmp_path: Path
) -> None:
    host = start(server, "broken", tmp_path)
    try:
        host.process.wait(60)  # hypercorn ends with 0 in spite of it
    finally:
        host.process.kill()
    assert "no_such_module" in host.log.read_text()
    assert list((tmp_path / "run").iterdir()) == []
