"""Groups with `processes = 0`, on every event loop: the application runs in the gateway's own process."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

import apps
import gatekeep
from client import Client
from conftest import LOOPS, TESTS, LogAsData, Site, start_site, wait_until
from crowd import Guest
from gatekeep import CannotStart, Gateway, GroupSettings, Settings, _hooks
from gatekeep.settings._bind import parse_bind
from gatekeep.settings._mount import MountSettings

Start = Callable[..., Site]
App = Callable[..., Any]

FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""Python 3.12 warns of children of programs that have threads, which is the subject here."""

PATIENCE = 60.0
"""Seconds that an application waits for its test before it gives up."""


@pytest.fixture
def start(loop: str) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(app: App | str, **options: Any) -> Site:
            options = {"processes": 0, "python_path": []} | options
            return start_site(stack, app, loop, **options)  # type: ignore[arg-type]

        yield start


def ask(site: Site, target: str = "/", **how: Any) -> tuple[int, bytes]:
    with Client(site.address) as client:
        answer = client.get(target, **how)
    return answer.status, answer.body


def saying(answer: Callable[[dict[str, Any]], str]) -> App:
    """An application that answers with what that makes of the environ."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = answer(environ).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    return app


class Gate:
    """An application whose requests wait until they are let through, in the order that they came."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self._opened: dict[str, threading.Event] = {}
        self._all = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        opened = self._opened.setdefault(path, threading.Event())
        self.entered.append(path)
        deadline = time.monotonic() + PATIENCE
        while not (opened.is_set() or self._all.is_set()) and time.monotonic() < deadline:
            opened.wait(0.01)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [path.encode()]

    def open(self, path: str = "") -> None:
        """Let that request through, or all of them."""
        if path:
            self._opened.setdefault(path, threading.Event()).set()
        else:
            self._all.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def begin(site: Site, path: str) -> Guest:
    """A client that has asked for a path and waits."""
    client = Guest(site.address)
    client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
    return client


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gatekeep-")]


# --- what is served


def test_a_closure_a_lambda_and_what_is_of_the_main_program_are_served_as_they_are(start: Start) -> None:
    calls = []

    def closure(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        return apps.hello(environ, start_response)  # type: ignore[no-untyped-call, no-any-return]

    def of_the_main_program(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        return closure(environ, start_response)

    of_the_main_program.__module__, of_the_main_program.__qualname__ = "__main__", "app"
    for app in (closure, of_the_main_program, lambda *given: closure(*given)):
        assert ask(start(app), "/here") == (200, b"Hello, world!")
    assert calls == ["/here"] * 3


@pytest.mark.parametrize("app", ["apps:pid", str(TESTS / "apps.py") + ":pid", apps.pid])
def test_an_import_string_a_path_and_a_callable_are_served_in_this_process(start: Start, app: Any) -> None:
    assert ask(start(app)) == (200, str(os.getpid()).encode())


def test_the_environ_says_that_there_is_one_process_of_several_named_threads(start: Start) -> None:
    def seen(environ: dict[str, Any]) -> str:
        flags = environ["wsgi.multiprocess"], environ["wsgi.multithread"], environ["gatekeep.process_group"]
        return f"{flags} {threading.current_thread().name}"

    for threads in (1, 2):
        site = start(saying(seen), threads=threads, name="site")
        status, body = ask(site)
        assert status == 200
        assert body.decode().startswith(f"(False, {threads > 1}, 'site') gatekeep-site-")


def test_two_closures_of_one_name_are_two_applications(loop: str) -> None:
    def make(text: str) -> App:
        return saying(lambda _: text)

    settings = Settings(
        binds=[parse_bind("127.0.0.1:0")],
        groups=[GroupSettings(name="site", processes=0, app=make("first"))],
        mounts=[
            MountSettings(path="/", group="site"),
            MountSettings(path="/second", group="site", app=make("second")),
        ],
    )
    with serving(settings, loop) as site:
        assert ask(site, "/") == (200, b"first")
        assert ask(site, "/second") == (200, b"second")


class serving:
    """A gateway with these settings, as a site."""

    def __init__(self, settings: Settings, loop: str) -> None:
        self._stack = ExitStack()
        self._settings, self._loop = settings, loop

    def __enter__(self) -> Site:
        backend, options = LOOPS[self._loop]
        log = LogAsData()
        gateway = Gateway(self._settings, logger=log, debug=True)
        served = self._stack.enter_context(gateway.serving_in_thread(backend, **options))
        return Site(served, gateway, log)

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def test_one_group_runs_here_and_another_one_in_processes(loop: str) -> None:
    settings = Settings(
        binds=[parse_bind("127.0.0.1:0")],
        groups=[
            GroupSettings(name="here", processes=0, app=saying(lambda _: str(os.getpid()))),
            GroupSettings(name="there", processes=1, app="apps:pid", python_path=[str(TESTS)]),
        ],
        mounts=[MountSettings(path="/here", group="here"), MountSettings(path="/there", group="there")],
    )
    with serving(settings, loop) as site:
        # Serving may begin without it, where it takes long to start.
        wait_until(lambda: len(site.served.statistics().processes) == 1)
        there = site.served.statistics().processes
        assert ask(site, "/here") == (200, str(os.getpid()).encode())
        assert ask(site, "/there") == (200, str(there[0]).encode())
        assert site.served.reload() == 1
        site.log.wait_for("group.keeps_its_code", group="here")
    assert not threads_of_ours()


def test_several_gateways_in_one_process_do_not_disturb_each_other(start: Start) -> None:
    sites = [start(saying(lambda _, number=number: str(number))) for number in range(3)]  # type: ignore[misc]
    for _ in range(3):
        assert [ask(site) for site in sites] == [(200, b"0"), (200, b"1"), (200, b"2")]


# --- bodies and responses


def test_a_response_is_sent_while_it_is_made(start: Start) -> None:
    go_on = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        assert go_on.wait(PATIENCE)
        yield b"second"

    with begin(start(app), "/") as client:
        client.read_until(b"first")
        go_on.set()
        client.read_until(b"second\r\n0\r\n\r\n")


def test_a_body_is_read_while_it_comes(start: Start) -> None:
    pieces: list[bytes] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        while piece := environ["wsgi.input"].read1(100):
            pieces.append(piece)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"".join(pieces)]

    with Guest(start(app, request_buffering=False).address) as client:
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nfirst")
        wait_until(lambda: pieces == [b"first"])
        client.send("second")
        assert client.read().body == b"firstsecond"


def test_large_bodies_go_both_ways_whole(start: Start) -> None:
    body = os.urandom(1 << 20) * 8

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        data = environ["wsgi.input"].read()
        start_response("200 OK", [("X-Digest", hashlib.sha256(data).hexdigest())])
        for begin in range(0, len(data), 100_000):
            yield data[begin : begin + 100_000]

    site = start(app, limit_request_body=1 << 30)
    with Client(site.address) as client:
        answer = client.post("/", body)
    assert answer.complete
    assert answer.fields["x-digest"] == hashlib.sha256(body).hexdigest()
    assert answer.body == body


def test_a_client_that_does_not_read_holds_the_application_back(start: Start) -> None:
    made = 0

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        nonlocal made
        start_response("200 OK", [("Content-Type", "text/plain")])
        for _ in range(1000):
            made += 1
            yield b"x" * 100_000

    site = start(app, response_buffer_size=65536, response_spool_size=0)
    with begin(site, "/"):
        wait_until(lambda: made > 0)
        before = -1
        while before != made:  # until it stands still
            before = made
            time.sleep(0.3)
        assert made < 1000
    site.record("/")


def test_a_file_goes_from_the_kernel_to_the_client(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3 << 20))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](file.open("rb"))

    assert ask(start(app)) == (200, file.read_bytes())


# --- what goes wrong


def test_what_an_application_raises_is_a_500_with_its_traceback_in_the_log(start: Start) -> None:
    site = start("apps:scripted")
    for target, reason in {"/raise": "ValueError: raised on purpose", "/exit": "SystemExit: 5"}.items():
        status, _ = ask(site, target)
        assert status == 500
        event = site.log.wait_for("run.failed", reason=reason)
        assert event["request_id"] == site.record(target)["request_id"]
        assert 'apps.py", line' in event["traceback"]
    assert ask(site, "/plain") == (200, b"ok")


def test_a_response_that_is_cut_is_visibly_cut(start: Start) -> None:
    with Client(start("apps:scripted").address) as client:
        answer = client.get("/raise-late")
    assert (answer.body, answer.complete) == (b"first", False)


def test_what_is_written_to_wsgi_errors_is_logged_with_its_request(start: Start) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.errors"].write("one\ntwo")
        return apps.hello(environ, start_response)  # type: ignore[no-untyped-call, no-any-return]

    site = start(app)
    ask(site, "/noisy")
    event = site.log.wait_for("app.output", text="two", stream="stderr")
    assert event["request_id"] == site.record("/noisy")["request_id"]


@pytest.mark.parametrize(
    ("app", "why"),
    [
        ("apps:missing", "has no missing"),
        ("nowhere:app", "no module named"),
        ("apps:not_callable", "not callable"),
    ],
)
def test_an_application_that_cannot_be_had_stops_the_start(start: Start, app: str, why: str) -> None:
    with pytest.raises(CannotStart, match=why):
        start(app)
    assert not threads_of_ours()


def test_an_error_while_the_application_is_loaded_comes_with_its_traceback(
    start: Start, tmp_path: Path
) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import sys\nsys.exit('no database')\n")
    with pytest.raises(CannotStart, match="no database") as failed:
        start(str(script))
    assert "broken.py" in failed.value.details


def test_a_load_that_does_not_end_can_be_given_up(loop: str, tmp_path: Path) -> None:
    go_on, begun = tmp_path / "go on", tmp_path / "begun"
    script = tmp_path / "slow.py"
    script.write_text(
        f"import apps\nopen({str(begun)!r}, 'w').close()\napps.wait_for_file({str(go_on)!r})\napplication = apps.hello\n"
    )
    backend, options = LOOPS[loop]

    async def give_up() -> None:
        async with anyio.create_task_group() as tasks:

            async def cancel_when_begun() -> None:
                while not begun.exists():
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()

            tasks.start_soon(cancel_when_begun)
            async with Gateway(Settings.for_app(str(script), processes=0, bind="127.0.0.1:0")).serving():
                raise AssertionError("it was loaded")

    anyio.run(give_up, backend=backend, backend_options=options)
    assert threads_of_ours() == ["gatekeep-default-load"]
    go_on.touch()
    wait_until(lambda: not threads_of_ours())


def test_a_thread_that_is_stuck_stays_stuck_and_the_others_serve(start: Start, gate: Gate) -> None:
    site = start(
        gate, threads=2, request_timeout=0.1, interrupt_timeout=0.1, socket_timeout=0.1, queue_timeout=0.1
    )
    with begin(site, "/stuck") as client:
        wait_until(lambda: gate.entered == ["/stuck"])
        for number in range(20):
            gate.open(f"/{number}")
            assert ask(site, f"/{number}") == (200, f"/{number}".encode())
        time.sleep(0.5)  # longer than all of these timers, which are off
        assert not client.has_answer()
        gate.open("/stuck")
        assert client.read().body == b"/stuck"
    assert not site.log.find(event="run.interrupted")


def test_all_threads_stuck_means_that_whoever_comes_waits(start: Start, gate: Gate) -> None:
    site = start(gate, threads=1, queue_timeout=0.1, connect_timeout=0.1, listen_backlog=1)
    with begin(site, "/stuck"):
        wait_until(lambda: gate.entered == ["/stuck"])
        waiting = [begin(site, f"/{number}") for number in range(4)]
        wait_until(lambda: sum(_waiting(site)) == 4)
        time.sleep(0.5)
        assert not any(client.has_answer() for client in waiting)
        gate.open()
        for number, client in enumerate(waiting):
            assert client.read().body == f"/{number}".encode()
            client.close()


@pytest.mark.usefixtures("never_late")
@pytest.mark.parametrize("backlog", [10, 200])
def test_those_who_wait_are_served_in_their_order(start: Start, gate: Gate, backlog: int) -> None:
    site = start(gate, threads=2, listen_backlog=backlog)
    clients = []
    for number in range(100):
        clients.append(begin(site, f"/{number}"))
        # One that has entered may count among those that wait, too, until the front has heard of it.
        settled = min(number + 1, 2), max(number - 1, 0)
        wait_until(lambda settled=settled: (len(gate.entered), sum(_waiting(site))) == settled)
    assert sorted(gate.entered) == ["/0", "/1"]
    gate.entered.clear()
    gate.open("/0")  # all others are served by one thread, which has an order
    for number in range(2, 100):
        gate.open(f"/{number}")
    for number in range(2, 100):
        assert clients[number].read().body == f"/{number}".encode()
    assert gate.entered == [f"/{number}" for number in range(2, 100)]
    gate.open()
    for client in clients:
        client.close()


def _waiting(site: Site) -> tuple[int, int]:
    numbers = site.served.statistics()
    return numbers.waiting, numbers.standing


def test_a_request_whose_client_left_while_it_waited_is_never_run(start: Start, gate: Gate) -> None:
    site = start(gate, threads=1)
    with begin(site, "/stuck"):
        wait_until(lambda: gate.entered == ["/stuck"])
        begin(site, "/gone").break_off()
        assert site.record("/gone")["outcome"] == "client_gone"
        gate.open()
    assert ask(site, "/next")[0] == 200
    assert gate.entered == ["/stuck", "/next"]


def test_those_who_left_take_no_place_in_the_backlog(start: Start, gate: Gate) -> None:
    site = start(gate, threads=1, listen_backlog=2, max_waiting=0)
    with begin(site, "/stuck"):
        wait_until(lambda: gate.entered == ["/stuck"])
        for number in range(10):
            begin(site, f"/gone/{number}").break_off()
            site.record(f"/gone/{number}", outcome="client_gone")
        with begin(site, "/stays") as client:
            gate.open()
            assert client.read().body == b"/stays"


def test_an_application_can_ask_whether_its_client_has_gone(start: Start) -> None:
    entered, noticed = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.set()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if environ["gatekeep.disconnected"]():
                noticed.set()
                break
            time.sleep(0.01)
        return apps.hello(environ, start_response)  # type: ignore[no-untyped-call, no-any-return]

    site = start(app)
    client = begin(site, "/")
    assert entered.wait(PATIENCE)
    client.break_off()
    assert noticed.wait(PATIENCE)


@FORKS
def test_a_child_that_the_application_forks_ends_and_answers_nothing(start: Start) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        child = os.fork()
        if child and environ["PATH_INFO"] != "/orphan":
            os.waitpid(child, 0)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"child" if not child else b"parent"]

    site = start(app)
    for _ in range(3):
        assert ask(site) == (200, b"parent")


@FORKS
def test_a_child_that_stays_does_not_keep_a_conversation_open(start: Start, tmp_path: Path) -> None:
    leave = tmp_path / "leave"
    children = []
    ended = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/fork":
            child = os.fork()
            if not child:
                apps.wait_for_file(leave, 20)  # type: ignore[no-untyped-call]
                os._exit(0)
            children.append(child)
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            deadline = time.monotonic() + PATIENCE
            while environ["PATH_INFO"] == "/endless" and time.monotonic() < deadline:
                yield b"more"
                time.sleep(0.01)
        except GeneratorExit:
            ended.set()
            raise
        yield b"done"

    site = start(app)
    with begin(site, "/endless") as client:
        client.read_until(b"more")
        assert ask(site, "/fork") == (200, b"done")
        client.socket.shutdown(socket.SHUT_RDWR)  # the child has a copy of this one, too
    assert ended.wait(PATIENCE)
    leave.touch()
    os.waitpid(children[0], 0)


# --- hooks


@pytest.fixture
def no_subscribers() -> Iterator[None]:
    before = _hooks.subscribers
    yield
    _hooks.subscribers = before


@pytest.mark.usefixtures("no_subscribers")
def test_hooks_are_told_as_in_a_process_of_its_own(loop: str) -> None:
    told: list[gatekeep.Event] = []
    gatekeep.subscribe_events(told.append)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gatekeep.request_data()["seen"] = environ["PATH_INFO"]
        if environ["PATH_INFO"] == "/raise":
            raise ValueError("on purpose")
        return apps.hello(environ, start_response)  # type: ignore[no-untyped-call, no-any-return]

    with ExitStack() as stack:
        site = start_site(stack, app, loop, processes=0)  # type: ignore[arg-type]
        ask(site, "/plain")
        wait_until(lambda: len(told) == 2)
        ask(site, "/raise")
        wait_until(lambda: len(told) == 5)
    assert [event.name for event in told] == [
        *("request_started", "request_finished"),
        *("request_started", "request_exception", "request_finished"),
        "process_stopping",
    ]
    finished = told[1]
    assert isinstance(finished, gatekeep.RequestFinished)
    assert (finished.status, finished.complete, finished.data) == (200, True, {"seen": "/plain"})


# --- what is off, and what people are told


def test_the_start_says_what_is_off_and_which_settings_are_ignored(start: Start) -> None:
    site = start("apps:hello", request_timeout=5, maximum_requests=100)
    (event,) = site.log.find(event="group.embedded")
    assert event["off"]["transport timeouts"] == [
        "connect-timeout",
        "queue-timeout",
        "queue-shed",
        "socket-timeout",
    ]
    assert "request-timeout" in event["off"]["fail-safe timeouts"]
    assert "maximum-requests" in event["off"]["recycling"]
    assert event["ignored"] == ["request-timeout", "maximum-requests"]


def test_people_who_ask_are_told_of_the_threads(start: Start, gate: Gate) -> None:
    site = start(gate, threads=2)
    with begin(site, "/stuck"):
        wait_until(lambda: gate.entered == ["/stuck"])
        (served,) = site.gateway._groups
        (process,) = served.status().processes
        assert (process.pid, process.state, process.running, process.threads) == (os.getpid(), "ready", 1, 2)
        assert (served.health().ready, served.health().processes) == (1, 1)
        (report,) = run_in(site, served.supervisor.reports.stacks)
        assert sorted(thread.name for thread in report.threads) == [
            "gatekeep-default-0",
            "gatekeep-default-1",
        ]
        (busy,) = [thread for thread in report.threads if thread.path]
        assert (busy.method, busy.path) == ("GET", "/stuck")
        assert "in Gate.__call__" in busy.stack
        assert not served.supervisor.evict(os.getpid())


def run_in(site: Site, function: Callable[..., Any]) -> Any:
    portal = site.gateway._portal
    assert portal is not None
    return portal.call(function)


def test_readiness_is_answered_as_for_processes(start: Start) -> None:
    assert ask(start("apps:hello", readyz_path="/readyz", health_bind="127.0.0.1:0"), "/readyz")[0] == 200


# --- the process around it, and the stop


def test_nothing_of_the_process_around_it_is_touched(loop: str) -> None:
    def state() -> dict[str, Any]:
        return {
            "handlers": [signal.getsignal(number) for number in signal.valid_signals()],
            "streams": (sys.stdin, sys.stdout, sys.stderr),
            "path": [*sys.path],
            "argv": [*sys.argv],
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "stack size": threading.stack_size(),
            "timeout": socket.getdefaulttimeout(),
        }

    before = state()
    with ExitStack() as stack:
        site = start_site(stack, "apps:scripted", loop, processes=0)
        ask(site, "/plain")
        assert state() == before
    assert state() == before
    assert not threads_of_ours()


def test_a_default_timeout_for_sockets_of_the_program_around_it_is_none_of_ours(
    start: Start, gate: Gate
) -> None:
    socket.setdefaulttimeout(0.1)
    try:
        site = start(gate)
        with begin(site, "/slow") as client:
            client.socket.settimeout(PATIENCE)
            wait_until(lambda: gate.entered == ["/slow"])
            time.sleep(0.3)
            gate.open()
            assert client.read().body == b"/slow"
    finally:
        socket.setdefaulttimeout(None)


def test_what_runs_when_the_gateway_stops_is_finished_and_all_threads_end(loop: str, gate: Gate) -> None:
    with ExitStack() as stack:
        site = start_site(stack, gate, loop, processes=0)  # type: ignore[arg-type]
        client = begin(site, "/slow")
        wait_until(lambda: gate.entered == ["/slow"])
        stopping = threading.Thread(target=stack.close)
        stopping.start()
        wait_until(lambda: site.gateway._state == "stopping")
        assert not client.has_answer()
        gate.open()
        assert client.read().body == b"/slow"
        client.close()
        stopping.join(PATIENCE)
        assert not stopping.is_alive()
    assert not threads_of_ours()
    assert not site.log.find(event="group.thread_left")


def test_a_thread_that_is_stuck_when_the_gateway_stops_is_left_behind_and_named(
    loop: str, gate: Gate
) -> None:
    with ExitStack() as stack:
        site = start_site(stack, gate, loop, processes=0, graceful_timeout=0.2, threads=2)  # type: ignore[arg-type]
        client = begin(site, "/stuck")
        wait_until(lambda: gate.entered == ["/stuck"])
    assert client.read().status == 502
    client.close()
    (event,) = site.log.find(event="group.thread_left")
    assert (event["level"], event["path"]) == ("warning", "/stuck")
    assert "in Gate.__call__" in event["stack"]
    wait_until(lambda: len(threads_of_ours()) == 1)  # an idle one may be about to end
    gate.open()
    wait_until(lambda: not threads_of_ours())


def test_a_stop_that_is_in_a_hurry_waits_for_nobody(loop: str, gate: Gate) -> None:
    with ExitStack() as stack:
        site = start_site(stack, gate, loop, processes=0, graceful_timeout=3600)  # type: ignore[arg-type]
        with begin(site, "/stuck"):
            wait_until(lambda: gate.entered == ["/stuck"])
            site.gateway.hurry()
            stack.close()
    assert [event["path"] for event in site.log.find(event="group.thread_left")] == ["/stuck"]
    gate.open()
    wait_until(lambda: not threads_of_ours())


PROGRAM = """
import sys, threading, time
sys.path[:0] = {paths!r}
from client import Client
from gatekeep import Gateway, Settings

entered = threading.Event()

def app(environ, start_response):
    entered.set()
    threading.Event().wait()

gateway = Gateway(Settings.for_app(app, processes=0, bind="127.0.0.1:0", graceful_timeout=0.1))
with gateway.serving_in_thread(*{loop!r}[:1], **{loop!r}[1]) as served:
    client = Client(("127.0.0.1", int(served.url.rpartition(":")[2])))
    client.send("GET / HTTP/1.1\\r\\nHost: test\\r\\n\\r\\n")
    assert entered.wait(20)
print("the end")
"""


def test_a_thread_that_is_left_behind_does_not_hold_up_the_end_of_the_program(loop: str) -> None:
    paths = [str(TESTS), str(Path(gatekeep.__file__).parents[1])]
    program = PROGRAM.format(paths=paths, loop=LOOPS[loop])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
