"""The gateway as an ASGI application: what a server sees of it, message by message, on asyncio, uvloop and trio."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from conftest import LOOPS, TESTS, LogAsData
from gatekeep import Gateway, Outcome, Settings
from gatekeep._errors import Truncated
from gatekeep.transport import _asgi

pytestmark = pytest.mark.anyio

Message = dict[str, Any]
Gateways = tuple[Gateway, LogAsData]


@pytest.fixture(params=list(LOOPS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return LOOPS[request.param]


def make(app: str = "apps:scripted", **options: Any) -> Gateways:
    log = LogAsData()
    defaults = {"processes": 1, "threads": 2, "python_path": [str(TESTS)]}
    return Gateway(Settings.for_app(app, **defaults | options), logger=log, debug=True), log


@contextlib.asynccontextmanager
async def mounted(app: str = "apps:scripted", **options: Any) -> AsyncIterator[Gateways]:
    """A gateway that an application around it has started."""
    gateway, log = make(app, **options)
    async with gateway.lifespan():
        yield gateway, log


def scope_of(path: str = "/plain", **changes: Any) -> Message:
    path, _, query = path.partition("?")
    fields = changes.pop("headers", [])
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"test"), *fields],
        "client": ("192.0.2.7", 4711),
        "server": ("192.0.2.1", 8000),
    } | changes


class Server:
    """What a server does for one request: it hands out the body, takes the messages, and knows when the client goes.

    Attributes:
        reading: set while the client reads what is sent; `send` waits for it.
        gone: set when the client has left.
    """

    def __init__(
        self, scope: Message, body: Iterable[bytes] = (), *, keep: bool = True, more: bool = False
    ) -> None:
        self.scope = scope
        self.messages: list[Message] = []
        self.size, self.digest = 0, hashlib.sha256()
        self.reading, self.gone = anyio.Event(), anyio.Event()
        self.reading.set()
        self._pieces, self._keep, self._more = iter(body), keep, more
        self._next: bytes | None = next(self._pieces, b"")

    async def receive(self) -> Message:
        await anyio.lowlevel.checkpoint()
        if self._next is None:
            await self.gone.wait()
        if self.gone.is_set():
            return {"type": "http.disconnect"}
        piece, self._next = self._next, next(self._pieces, None)
        return {"type": "http.request", "body": piece, "more_body": self._more or self._next is not None}

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.body":
            assert self.messages, "a body before its head"
            self.size += len(message.get("body", b""))
            self.digest.update(message.get("body", b""))
            if not self._keep:
                message = message | {"body": b""}
        self.messages.append(message)

    async def run(self, gateway: Callable[..., Awaitable[None]]) -> Server:
        await gateway(self.scope, self.receive, self.send)
        return self

    # --- the answer

    @property
    def status(self) -> int:
        return self.messages[0]["status"] if self.messages else 0

    @property
    def fields(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def complete(self) -> bool:
        return len(self.messages) > 1 and not self.messages[-1].get("more_body", False)


async def ask(gateway: Gateway, path: str = "/plain", body: Sequence[bytes] = (), **changes: Any) -> Server:
    """One request of a client that stays and reads."""
    return await Server(scope_of(path, **changes), body).run(gateway)


async def post(
    gateway: Gateway, path: str, *body: bytes, length: int | None = None, **changes: Any
) -> Server:
    size = sum(map(len, body)) if length is None else length
    fields = [(b"content-length", b"%d" % size), *changes.pop("headers", [])]
    return await ask(gateway, path, body, method="POST", headers=fields, **changes)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.005)


async def claimed(log: LogAsData) -> None:
    """Wait until a worker runs a request."""
    await until(lambda: log.find(event="pickup.claimed"))


async def finished(log: LogAsData, path: str, count: int = 1) -> dict[str, Any]:
    """The newest canonical record for a path."""
    await until(lambda: len(log.find(event="request.finished", path=path)) >= count)
    return log.find(event="request.finished", path=path)[-1]


# --- the request


async def environ_of(gateway: Gateway, path: str = "/", **changes: Any) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads((await ask(gateway, path, **changes)).body)
    return seen["environ"]


async def test_the_environ_is_what_pep_3333_says() -> None:
    async with mounted("apps:echo") as (gateway, _):
        fields = [
            (b"x-one", b"1"),
            (b"x-one", b"2"),
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"x_forwarded_for", b"spoofed"),
            (b"proxy", b"http://evil"),
            (b"content-type", b"text/x-test"),
            (b"x-latin", b"caf\xe9"),
        ]
        environ = await environ_of(gateway, "/here?a=%20b", headers=fields, scheme="https")
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/here",
        "QUERY_STRING": "a=%20b",
        "REQUEST_URI": "/here?a=%20b",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "192.0.2.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "4711",
        "CONTENT_TYPE": "text/x-test",
        "HTTP_HOST": "test",
        "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_LATIN": "caf\xe9",
        "wsgi.url_scheme": "https",
        "wsgi.input_terminated": True,
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert not {name for name in environ if "PROXY" in name or "FORWARDED" in name}
    assert "CONTENT_LENGTH" not in environ


async def test_records_have_what_the_settings_ask_for() -> None:
    asked = {"log_url": True, "log_request_headers": "referer", "log_response_headers": "content-type"}
    async with mounted(**asked) as (gateway, log):
        await ask(gateway, "/plain?x", scheme="https", headers=[(b"referer", b"http://x/")])
        record = await finished(log, "/plain")
        assert (record["scheme"], record["target"]) == ("https", "/plain?x")
        assert record["request_headers"] == {"referer": "http://x/"}
        assert record["response_headers"].keys() == {"content-type"}
        assert (await ask(gateway, "/bad", headers=[(b"content-length", b"x")])).status == 400
        assert (await finished(log, "/bad"))["target"] == "/bad"


async def test_a_scope_that_says_no_more_than_it_must_will_do() -> None:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
    }
    async with mounted("apps:echo") as (gateway, log):
        server = await Server(scope).run(gateway)
        environ = json.loads(server.body)["environ"]
        assert (await finished(log, "/"))["client"] == "unknown"
    assert environ["SERVER_PROTOCOL"] == "HTTP/2"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["REMOTE_ADDR"]) == ("localhost", "80", "")


async def test_a_client_without_a_port_has_none_in_records_and_environ() -> None:
    async with mounted("apps:echo") as (gateway, log):
        environ = json.loads((await ask(gateway, "/", client=("2001:db8::1", None))).body)["environ"]
        assert (await finished(log, "/"))["client"] == "2001:db8::1"
    assert (environ["REMOTE_ADDR"], "REMOTE_PORT" in environ) == ("2001:db8::1", False)


async def test_the_standard_librarys_validator_takes_the_environ() -> None:
    async with mounted("apps:validated") as (gateway, _):
        for path, root in [("/", ""), ("/app", "/app"), ("/app/b", "/app"), ("/b", "/app/")]:
            assert (await ask(gateway, path, root_path=root)).body == b"Hello, world!"


@pytest.mark.parametrize(
    ("scope", "script_name", "path_info"),
    [
        ({"path": "/a/b"}, "", "/a/b"),
        ({"path": "/app/b", "root_path": "/app"}, "/app", "/b"),
        ({"path": "/app", "root_path": "/app"}, "/app", ""),
        ({"path": "/app/", "root_path": "/app"}, "/app", "/"),
        ({"path": "/app/b", "root_path": "/app/"}, "/app", "/b"),
        ({"path": "/b", "root_path": "/app"}, "/app", "/b"),
        ({"path": "/application", "root_path": "/app"}, "/app", "/application"),
        ({"path": "/pre/app/b", "root_path": "/pre/app", "app_root_path": "/pre"}, "/pre/app", "/b"),
        ({"path": "/app/b", "root_path": "/pre/app", "app_root_path": "/pre"}, "/pre/app", "/b"),
        ({"path": "/app", "root_path": "/pre/app", "app_root_path": "/pre"}, "/pre/app", ""),
        (
            {"path": "/application", "root_path": "/pre/app", "app_root_path": "/pre"},
            "/pre/app",
            "/application",
        ),
        ({"path": "/b", "root_path": "/pre", "app_root_path": "/pre"}, "/pre", "/b"),
        ({"path": "/app/b", "root_path": "/app", "app_root_path": ""}, "/app", "/b"),
        ({"path": "/é"}, "", "/Ã©"),
        ({"path": "/é/x", "root_path": "/é"}, "/Ã©", "/x"),
        ({"path": "/a%b", "raw_path": b"/a%25b"}, "", "/a%b"),
        ({"path": "/\ufffd", "raw_path": b"/%ff"}, "", "/\xff"),
        ({"path": "/new", "raw_path": b"/old"}, "", "/new"),
        ({"path": "/b", "raw_path": b"/b?c"}, "", "/b"),
        ({"path": "*", "raw_path": b"*"}, "", "/"),
        ({"path": ""}, "", "/"),
    ],
)
async def test_where_the_application_is_mounted_and_the_rest_of_the_path(
    scope: Message, script_name: str, path_info: str
) -> None:
    assert _asgi._places(scope) == (script_name, path_info)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": [(b"content-length", b"+3")]}, 400),
        ({"headers": [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")]}, 400),
        ({"headers": [(b"host", b"another")]}, 400),
        ({"headers": [(b"a b", b"c")]}, 400),
        ({"headers": [(b"a", b"b\nc")]}, 400),
        ({"query_string": b"\xff"}, 400),
        ({"headers": [(b"content-length", b"1001")]}, 413),
        ({"headers": [(b"expect", b"miracles")]}, 417),
        ({"headers": [(b"transfer-encoding", b"gzip")]}, 501),
        ({"path": "plain"}, 400),
        ({"path": "http://test/plain"}, 400),
        ({"path": "*"}, 400),
        ({"method": "CONNECT"}, 501),
        ({"method": "TRACE"}, 405),
    ],
)
async def test_what_our_own_front_refuses_of_a_head_is_refused_here_too(
    changes: Message, status: int
) -> None:
    async with mounted(limit_request_body=1000) as (gateway, log):
        path = changes.get("path", "/plain")
        server = await ask(gateway, **{"path": path} | changes)
        assert (server.status, server.complete) == (status, True)
        assert server.fields["content-length"] == str(len(server.body))
        assert ("allow" in server.fields) == (status == 405)
        record = await finished(log, path)
        assert (record["outcome"], record["status"]) == ("refused", status)
        assert gateway.statistics().in_flight == 0


@pytest.mark.parametrize("buffering", [True, False])
@pytest.mark.parametrize("size", [0, 5, 16384, 16385, 1_000_000])
async def test_a_body_of_any_size_reaches_the_application(size: int, buffering: bool) -> None:
    body = os.urandom(size)
    pieces = [body[at : at + 65000] for at in range(0, size, 65000)]
    async with mounted("apps:echo", request_buffering=buffering) as (gateway, log):
        for declared in (True, False):
            if declared:
                server = await post(gateway, "/", *pieces)
            else:
                server = await ask(gateway, "/", pieces, method="POST", http_version="2")
            seen = json.loads(server.body)
            assert (seen["size"], seen["sha256"]) == (size, hashlib.sha256(body).hexdigest())
            is_known = declared or (buffering and size > 0)
            assert seen["environ"].get("CONTENT_LENGTH") == (str(size) if is_known else None)
        record = await finished(log, "/", count=2)
        assert (record["outcome"], record["bytes_in"]) == ("served", size)


@pytest.mark.parametrize("buffering", [True, False])
@pytest.mark.parametrize(("declared", "sent"), [(10, b"short"), (3, b"longer")])
async def test_a_body_of_another_length_than_its_declared_one_is_refused(
    declared: int, sent: bytes, buffering: bool
) -> None:
    async with mounted(request_buffering=buffering) as (gateway, log):
        assert (await post(gateway, "/count", sent, length=declared)).status == 400
        assert f"declared are {declared}" in (await finished(log, "/count"))["reason"]


async def test_an_undeclared_body_that_is_too_large_is_refused() -> None:
    async with mounted(limit_request_body=1000) as (gateway, _):
        assert (await ask(gateway, "/count", [b"x" * 600] * 2, method="POST", http_version="2")).status == 413
        assert (await ask(gateway, "/count", [b"x" * 500] * 2, method="POST", http_version="2")).status == 200


async def test_a_body_that_does_not_come_is_a_408_and_holds_no_worker() -> None:
    async with mounted(body_timeout=0.5, threads=1) as (gateway, log), anyio.create_task_group() as tasks:
        slow = Server(scope_of("/count", method="POST", http_version="2"), [b"begun", b""], more=True)
        original = slow.receive

        async def receive() -> Message:
            if slow._next == b"":
                await slow.gone.wait()
            return await original()

        slow.receive = receive  # type: ignore[method-assign]
        tasks.start_soon(slow.run, gateway)
        await until(lambda: slow._next == b"")
        assert (await ask(gateway)).body == b"ok"
        record = await finished(log, "/count")
        assert (record["outcome"], record["timer"], record["status"]) == ("refused", "body-timeout", 408)
    assert (slow.status, slow.complete) == (408, True)


async def test_a_body_for_which_there_is_no_room_is_a_507(tmp_path: Path) -> None:
    async with mounted(spool_dir=str(tmp_path / "missing")) as (gateway, log):
        assert (await post(gateway, "/count", *[b"x" * 65536] * 40)).status == 507
        assert (await finished(log, "/count"))["outcome"] == "shed"
        assert (await post(gateway, "/count", b"x" * 65536)).body == b"65536"


# --- the response


async def test_a_small_response_is_two_messages_and_its_fields_are_the_applications_own() -> None:
    async with mounted("apps:hello") as (gateway, log):
        server = await ask(gateway, "/")
        assert server.messages == [
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
            },
            {"type": "http.response.body", "body": b"Hello, world!", "more_body": False},
        ]
        record = await finished(log, "/")
        assert (record["outcome"], record["client"], record["bytes_out"]) == ("served", "192.0.2.7:4711", 13)
        assert (record["protocol"], record["stage"]) == ("HTTP/1.1", "respond")
        assert gateway.statistics().by_outcome() == {Outcome.SERVED: 1}


async def test_fields_about_the_connection_are_the_servers_business() -> None:
    async with mounted() as (gateway, _):
        for version in ("1.0", "1.1", "2", "3"):
            server = await ask(gateway, "/generator?2", http_version=version)
            assert server.fields == {"content-type": "text/plain"}
            assert (server.body, server.complete) == (b"0\n1\n", True)


@pytest.mark.parametrize("path", ["/plain", "/generator?3", "/big?100000", "/file?100000"])
async def test_the_answer_to_head_has_no_body(path: str) -> None:
    async with mounted() as (gateway, _):
        server = await ask(gateway, path, method="HEAD")
        assert (server.status, server.body, server.complete) == (200, b"", True)


@pytest.mark.parametrize("status", ["204+No+Content", "304+Not+Modified"])
async def test_a_status_without_a_body_has_none(status: str) -> None:
    async with mounted() as (gateway, _):
        server = await ask(gateway, f"/status?{status}")
        assert (server.status, server.body, server.complete) == (int(status[:3]), b"", True)
        assert "content-length" not in server.fields


async def test_the_pieces_of_a_response_go_out_as_they_are_made(tmp_path: Path) -> None:
    async with mounted() as (gateway, _), anyio.create_task_group() as tasks:
        server = Server(scope_of(f"/acknowledged?{tmp_path}/go"))
        tasks.start_soon(server.run, gateway)
        for number in range(4):
            await until(lambda number=number: server.body.endswith(b"data: %d\n\n" % number))
            (tmp_path / f"go-{number}").touch()
    assert server.complete


@pytest.mark.parametrize("path", ["/raise-late", "/raise-late-length", "/kill-late", "/short"])
async def test_a_response_that_stops_short_is_raised_so_that_the_server_closes_the_connection(
    path: str,
) -> None:
    async with mounted() as (gateway, log):
        server = Server(scope_of(path))
        with pytest.raises(Truncated):
            await server.run(gateway)
        assert (server.status, server.complete) == (200, False)
        assert server.body in (b"first", b"short")
        assert server.messages[-1]["type"] == "gatekeep.response.truncated"
        record = await finished(log, path)
        assert (record["outcome"], record["action"]) == ("truncated", "closed")


async def test_what_is_beyond_the_declared_length_is_cut() -> None:
    async with mounted() as (gateway, _):
        server = await ask(gateway, "/long")
        assert (server.body, server.complete) == (b"12345", True)


async def test_trouble_after_the_declared_length_is_not_the_clients() -> None:
    async with mounted() as (gateway, _):
        server = await ask(gateway, "/raise-after-all")
        assert (server.body, server.complete) == (b"first", True)


def memory() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


HUNDRED = 100 * 65536 * 16
GENEROUS = 60_000_000


async def test_a_hundred_megabytes_come_and_go_in_bounded_memory(tmp_path: Path) -> None:
    peak = 0

    def pieces() -> Iterable[bytes]:
        nonlocal peak
        for _ in range(HUNDRED >> 16):
            peak = max(peak, memory())
            yield b"u" * 65536

    async with mounted(spool_dir=str(tmp_path)) as (gateway, _):
        before = memory()
        fields = [(b"content-length", b"%d" % HUNDRED)]
        up = Server(scope_of("/count", method="POST", headers=fields), pieces())
        assert (await up.run(gateway)).body == b"%d" % HUNDRED

        down = Server(scope_of(f"/stream?chunked,{HUNDRED}"), keep=False)
        original = down.send

        async def send(message: Message) -> None:
            nonlocal peak
            await anyio.lowlevel.checkpoint()
            peak = max(peak, memory())
            await original(message)

        down.send = send  # type: ignore[method-assign]
        await down.run(gateway)
    assert (down.size, down.complete) == (HUNDRED, True)
    assert down.digest.digest() == hashlib.sha256(b"s" * HUNDRED).digest()
    assert peak - before < GENEROUS


async def test_a_slow_reader_holds_no_worker_and_gets_all_of_it() -> None:
    async with mounted(threads=1) as (gateway, log), anyio.create_task_group() as tasks:
        slow = Server(scope_of("/stream?length,20000000"))
        slow.reading = anyio.Event()
        tasks.start_soon(slow.run, gateway)
        with anyio.fail_after(60):
            assert (await ask(gateway)).body == b"ok"
        assert slow.messages == []
        slow.reading.set()
        record = await finished(log, "/stream")
    assert record["outcome"] == "served"
    assert (slow.complete, slow.body) == (True, b"s" * (20000000 >> 16 << 16))


async def test_a_reader_that_stopped_is_given_up_after_response_socket_timeout() -> None:
    async with mounted(response_socket_timeout=0.3) as (gateway, log):
        stalled = Server(scope_of("/stream?length,2000000"))
        stalled.reading = anyio.Event()
        with pytest.raises(Truncated):
            await stalled.run(gateway)
        record = await finished(log, "/stream")
        assert (record["outcome"], record["timer"]) == ("client_gone", "response-socket-timeout")


# --- what goes wrong


async def test_an_application_that_raises_is_a_500() -> None:
    async with mounted() as (gateway, _):
        server = await ask(gateway, "/raise")
        assert (server.status, server.body) == (500, b"500 Internal Server Error\n")
        assert server.complete


async def test_a_process_that_is_killed_is_a_502_and_another_serves_on() -> None:
    async with mounted() as (gateway, log):
        (before,) = gateway.statistics().processes
        async with anyio.create_task_group() as tasks:
            server = Server(scope_of("/sleep?30"))
            tasks.start_soon(server.run, gateway)
            await claimed(log)
            os.kill(before, signal.SIGKILL)
        assert (server.status, server.complete) == (502, True)
        assert (await finished(log, "/sleep"))["outcome"] == "lost"
        assert (await ask(gateway)).status == 200
        assert gateway.statistics().processes != (before,)


async def test_a_request_that_does_not_end_is_a_504_and_its_process_is_replaced() -> None:
    timers = {"request_timeout": 0.5, "interrupt_timeout": 0.2, "graceful_timeout": 1, "shutdown_timeout": 1}
    async with mounted(threads=1, **timers) as (gateway, log):
        before = gateway.statistics().processes
        server = await ask(gateway, "/wedge?sleep")
        assert (server.status, server.complete) == (504, True)
        record = await finished(log, "/wedge")
        assert (record["outcome"], record["timer"]) == ("interrupted", "request-timeout")
        await until(lambda: log.find(event="process.exited", pid=before[0]))
        assert (await ask(gateway)).status == 200


async def test_a_request_that_waits_too_long_is_a_504(tmp_path: Path) -> None:
    # So long that the first request is not kept waiting for it by a busy machine.
    async with mounted(threads=1, queue_timeout=4) as (gateway, log), anyio.create_task_group() as tasks:
        tasks.start_soon(ask, gateway, f"/hold?{tmp_path}/go")
        await claimed(log)
        server = await ask(gateway)
        (tmp_path / "go").touch()
        assert server.status == 504
        assert (await finished(log, "/plain"))["timer"] == "queue-timeout"


async def test_one_request_too_many_is_a_503_that_says_when_to_come_back(tmp_path: Path) -> None:
    limits = {"threads": 1, "listen_backlog": 1, "max_waiting": 0, "connect_timeout": 0}
    async with mounted(**limits) as (gateway, _):
        servers = [Server(scope_of(f"/hold?{tmp_path}/go")) for _ in range(12)]
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(server.run, gateway)
            await until(lambda: 503 in [server.status for server in servers])
            (tmp_path / "go").touch()
        refused = [server for server in servers if server.status == 503]
        assert all(int(server.fields["retry-after"]) > 0 and server.complete for server in refused)
        assert {server.status for server in servers} == {200, 503}


async def test_health_is_answered_where_it_is_asked_for() -> None:
    async with mounted(livez_path="/alive") as (gateway, _):
        server = await ask(gateway, "/alive")
        assert (server.status, server.fields["content-type"]) == (200, "application/json")


# --- the client's end


async def test_a_client_that_leaves_while_its_request_runs_is_told_to_the_application(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with mounted() as (gateway, log), anyio.create_task_group() as tasks:
        server = Server(scope_of(f"/watch-client?{notes}"))
        tasks.start_soon(server.run, gateway)
        await until(notes.exists)
        server.gone.set()
        record = await finished(log, "/watch-client")
        assert (record["outcome"], record["action"]) == ("client_gone", "dropped")
        await until(lambda: "gone" in notes.read_text())
    assert server.messages == []


async def test_a_client_that_leaves_while_its_request_waits_is_dropped_unrun(tmp_path: Path) -> None:
    async with mounted(threads=1) as (gateway, log), anyio.create_task_group() as tasks:
        tasks.start_soon(ask, gateway, f"/hold?{tmp_path}/go")
        await claimed(log)
        left = Server(scope_of(f"/mark?{tmp_path}/ran"))
        tasks.start_soon(left.run, gateway)
        await until(lambda: gateway.statistics().standing)
        left.gone.set()
        assert (await finished(log, "/mark"))["outcome"] == "client_gone"
        (tmp_path / "go").touch()
        assert (await ask(gateway)).status == 200
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("buffering", [True, False])
async def test_a_client_that_leaves_inside_its_body_is_a_lost_body(buffering: bool) -> None:
    async with mounted(request_buffering=buffering) as (gateway, log), anyio.create_task_group() as tasks:
        fields = [(b"content-length", b"100")]
        server = Server(scope_of("/count", method="POST", headers=fields), [b"x" * 50], more=True)
        tasks.start_soon(server.run, gateway)
        await until(lambda: server._next is None)  # what there is of it has been received
        server.gone.set()
        record = await finished(log, "/count")
        assert (record["outcome"], record["bytes_in"]) == ("client_gone", 50)
        assert log.find(event="body.lost")
    assert server.messages == []


async def test_a_stream_ends_when_its_client_leaves() -> None:
    async with mounted(threads=1) as (gateway, log), anyio.create_task_group() as tasks:
        server = Server(scope_of("/events"))
        tasks.start_soon(server.run, gateway)
        await until(lambda: server.size)
        server.gone.set()
        assert (await finished(log, "/events"))["outcome"] == "client_gone"
        assert (await ask(gateway)).status == 200


async def test_a_server_that_says_by_an_error_of_send_that_the_client_is_gone_is_understood() -> None:
    async with mounted() as (gateway, log):
        server = Server(scope_of("/stream?length,2000000"))

        async def send(message: Message) -> None:
            raise OSError("gone")

        server.send = send  # type: ignore[method-assign]
        await server.run(gateway)
        assert (await finished(log, "/stream"))["outcome"] == "client_gone"


@pytest.mark.parametrize("method", ["send", "receive"])
async def test_an_error_of_the_server_around_goes_back_to_it(method: str) -> None:
    async def fail(*_: Any) -> Any:
        raise KeyError("a middleware's own")

    async with mounted() as (gateway, log):
        server = Server(scope_of())
        setattr(server, method, fail)
        with pytest.raises(KeyError, match="a middleware's own"):
            await server.run(gateway)
        assert log.find(level="error") == []
        assert gateway.statistics().in_flight == 0


async def test_a_server_that_says_the_same_again_and_again_costs_nothing() -> None:
    async with mounted() as (gateway, _):
        server, calls = Server(scope_of("/sleep?0.5")), 0

        async def receive() -> Message:
            nonlocal calls
            calls += 1
            return {"type": "http.request", "body": b"", "more_body": False}

        server.receive = receive  # type: ignore[method-assign]
        began = anyio.current_time()
        await server.run(gateway)
        assert server.status == 200
        assert calls < 100 * max(1.0, anyio.current_time() - began)


async def test_the_program_around_may_cancel_a_request(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with mounted() as (gateway, log):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Server(scope_of(f"/watch-client?{notes}")).run, gateway)
                await until(notes.exists)
                scope.cancel()
        record = await finished(log, "/watch-client")
        assert (record["outcome"], record["action"]) == ("lost", "dropped")
        assert record["reason"] == "the program around has cancelled it"
        await until(lambda: "gone" in notes.read_text())
        assert (await ask(gateway)).status == 200


# --- its start and its stop


async def test_a_request_before_anything_has_started_it_says_what_to_write() -> None:
    gateway, _ = make()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"FastAPI\(lifespan=gateway\.lifespan\)"):
            await ask(gateway)
        async with gateway.lifespan():
            assert (await ask(gateway)).status == 200


async def test_a_request_while_it_starts_is_a_503(tmp_path: Path) -> None:
    (tmp_path / "loads_when_told.py").write_text(
        f"import apps, time, os\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\napp = apps.hello\n"
    )
    gateway, log = make("loads_when_told:app", python_path=[str(tmp_path), str(TESTS)])
    async with anyio.create_task_group() as tasks:
        entered = anyio.Event()

        async def host() -> None:
            async with gateway.lifespan():
                entered.set()
                await anyio.sleep_forever()

        tasks.start_soon(host)
        await until(lambda: gateway.statistics().process_starts)
        server = await ask(gateway, "/early")
        assert (server.status, "retry-after" in server.fields) == (503, True)
        assert (await finished(log, "/early"))["outcome"] == "shed"
        (tmp_path / "go").touch()
        await entered.wait()
        assert (await ask(gateway)).status == 200
        tasks.cancel_scope.cancel()


async def test_a_request_in_flight_finishes_and_a_new_one_is_a_503_while_it_stops(tmp_path: Path) -> None:
    async with anyio.create_task_group() as tasks, mounted(readyz_path="/ready") as (gateway, log):
        server, late = Server(scope_of(f"/hold?{tmp_path}/go")), Server(scope_of("/late"))
        tasks.start_soon(server.run, gateway)
        await claimed(log)

        async def come_late() -> None:
            while (await ask(gateway, "/ready")).status == 200:
                await anyio.sleep(0.005)
            await late.run(gateway)
            (tmp_path / "go").touch()

        tasks.start_soon(come_late)
    assert (server.status, server.complete) == (200, True)
    assert (late.status, "retry-after" in late.fields, late.complete) == (503, True, True)


async def test_a_request_that_outlasts_the_grace_gets_an_answer() -> None:
    async with (
        anyio.create_task_group() as tasks,
        mounted(graceful_timeout=0.3, shutdown_timeout=0.3) as (gateway, log),
    ):
        server = Server(scope_of("/sleep?30"))
        tasks.start_soon(server.run, gateway)
        await claimed(log)
    assert (server.status, server.complete) == (502, True)
    record = await finished(log, "/sleep")
    assert (record["outcome"], record["action"]) == ("lost", "answered")


async def test_a_client_that_does_not_read_cannot_keep_it_from_stopping() -> None:
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(60):
            async with mounted(graceful_timeout=0.3, shutdown_timeout=0.3) as (gateway, log):
                server = Server(scope_of("/sleep?100"))
                server.reading = anyio.Event()

                async def run() -> None:
                    with pytest.raises(Truncated):
                        await server.run(gateway)

                tasks.start_soon(run)
                await claimed(log)


async def test_a_stream_of_events_is_ended_in_order_by_a_stop() -> None:
    async with anyio.create_task_group() as tasks, mounted() as (gateway, _):
        server = Server(scope_of("/events"))
        tasks.start_soon(server.run, gateway)
        await until(lambda: server.size)
    assert server.complete


class Lifespan:
    """A server's side of the lifespan protocol."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.stop = anyio.Event()
        self.started = anyio.Event()
        self._asked = 0

    async def receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self.stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        self.said.append(message)
        self.started.set()

    async def run(self, gateway: Gateway) -> None:
        await gateway({"type": "lifespan", "asgi": {"version": "3.0"}}, self.receive, self.send)


async def test_a_server_starts_and_stops_it_with_the_lifespan_protocol() -> None:
    gateway, _ = make()
    async with anyio.create_task_group() as tasks:
        lifespan = Lifespan()
        tasks.start_soon(lifespan.run, gateway)
        await lifespan.started.wait()
        assert lifespan.said == [{"type": "lifespan.startup.complete"}]
        assert (await ask(gateway)).status == 200
        lifespan.stop.set()
    assert lifespan.said[1:] == [{"type": "lifespan.shutdown.complete"}]
    assert gateway.statistics().process_ends == 1


@pytest.mark.parametrize(
    ("app", "why"), [("no_such_module", "no_such_module"), ("broken", "ZeroDivisionError")]
)
async def test_a_start_that_fails_is_told_with_its_reason(app: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    gateway, _ = make(app, python_path=[str(tmp_path)])
    lifespan = Lifespan()
    await lifespan.run(gateway)
    (said,) = lifespan.said
    assert said["type"] == "lifespan.startup.failed"
    assert why in said["message"]
    assert app != "broken" or "1 / 0" in said["message"]


async def test_it_listens_nowhere_unless_it_is_told_to() -> None:
    gateway, _ = make()
    async with gateway.serving(listen=False) as served:
        assert served.addresses == ()
        with pytest.raises(LookupError, match="listens nowhere"):
            served.url  # noqa: B018
        assert (await ask(gateway)).status == 200
    async with make(binds=())[0].serving() as served:
        assert served.addresses == ()
    gateway, _ = make(bind="127.0.0.1:0")
    async with gateway.serving() as served:
        assert len(served.addresses) == 1
        assert (await ask(gateway)).status == 200


async def test_several_serve_at_once_in_one_program() -> None:
    async with mounted("apps:hello") as (one, _), mounted("apps:app") as (two, _):
        answers = [(await ask(gateway, "/")).body for gateway in (one, two, one)]
    assert answers == [b"Hello, world!", b"app", b"Hello, world!"]


async def test_a_gateway_of_another_event_loop_says_so() -> None:
    gateway, _ = make(bind="127.0.0.1:0")
    with gateway.serving_in_thread(), pytest.raises(RuntimeError, match="another event loop"):
        await ask(gateway)


# --- other scopes


async def test_a_websocket_is_refused() -> None:
    gateway, log = make()
    for extensions, kinds in [
        ({}, ["websocket.close"]),
        ({"websocket.http.response": {}}, ["websocket.http.response.start", "websocket.http.response.body"]),
    ]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        scope = scope_of("/ws", type="websocket", extensions=extensions)
        await gateway(scope, receive, send)
        assert [message["type"] for message in sent] == kinds
        assert sent[0].get("status", 501) == 501
    assert len(log.find(event="asgi.websocket_refused", path="/ws")) == 2


async def test_a_scope_that_nobody_knows_is_an_error() -> None:
    gateway, _ = make()
    with pytest.raises(ValueError, match="'carrier-pigeon'"):
        await Server({"type": "carrier-pigeon"}).run(gateway)


# --- the program around


async def test_nothing_of_the_program_around_is_touched(tmp_path: Path) -> None:
    def state() -> Any:
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        root = logging.getLogger()
        return (
            handlers,
            root.handlers[:],
            root.level,
            os.getcwd(),
            os.umask(os.umask(0o22)),
            threading.excepthook,
        )

    before = state()
    async with mounted(spool_dir=str(tmp_path)) as (gateway, _):
        assert (await post(gateway, "/count", *[b"x" * 65536] * 20)).status == 200
        assert state() == before
    assert state() == before


async def test_no_thread_of_those_that_the_program_around_shares_is_used(tmp_path: Path) -> None:
    """anyio's default limiter has 40 for everybody; here it has one, which is taken."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    tokens, limiter.total_tokens = limiter.total_tokens, 1
    release = threading.Event()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, release.wait)
            await until(lambda: limiter.borrowed_tokens == 1)
            with anyio.fail_after(60):
                options = {"spool_dir": str(tmp_path), "reload": True, "response_buffer_size": 16384}
                async with mounted(**options) as (gateway, _):
                    assert (await post(gateway, "/count", *[b"x" * 65536] * 20)).status == 200
                    assert (await ask(gateway, "/stream?length,5000000")).complete
                    assert limiter.statistics().tasks_waiting == 0
            release.set()
    finally:
        release.set()
        limiter.total_tokens = tokens
