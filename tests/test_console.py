"""The control socket: whatever is sent gets an answer or an end, at once for everybody, and only for this user."""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import msgspec
import pytest
from hypothesis import example, given, strategies as st

from conftest import LOOPS, LogAsData, start_site
from gatekeep import _console_client, _console_server
from gatekeep._console import (
    MOST_BYTES,
    Command,
    CommandError,
    Commands,
    Lines,
    LineTooLong,
    NoArguments,
    Stacks,
    answer,
    refusal,
    request,
    result,
)
from gatekeep._console_client import NoAnswer, Running, ask, find
from gatekeep._console_server import Console
from gatekeep._console_view import duration, render
from gatekeep._host_net import RealNet
from gatekeep._processes import ProcessReport, ThreadReport
from gatekeep._run_folder import CONSOLE_FILE


class Number(msgspec.Struct, forbid_unknown_fields=True):
    number: int


async def double(arguments: Number) -> dict[str, Any]:
    return {"doubled": 2 * arguments.number}


async def fail(_: NoArguments) -> dict[str, Any]:
    raise LookupError("of its own")


async def refuse(_: NoArguments) -> dict[str, Any]:
    raise CommandError("not today")


async def odd(_: NoArguments) -> dict[str, Any]:
    return {"processes": [ProcessReport("default", 7, 0, "ready", 1.0, (ThreadReport("half \udce9"),))]}


COMMANDS: Commands = {
    "double": Command(Number, double),
    "fail": Command(NoArguments, fail),
    "refuse": Command(NoArguments, refuse),
    "odd": Command(NoArguments, odd),
}


def run(coroutine: Coroutine[Any, Any, bytes]) -> bytes:
    """What a coroutine returns that waits for nothing."""
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    value: bytes = end.value.value
    return value


def answered(line: bytes) -> dict[str, Any]:
    """The answer to a line, which nothing but a line may be."""
    faults: list[str] = []
    reply = run(answer(line, COMMANDS, lambda name, error: faults.append(name)))
    assert reply.endswith(b"\n")
    assert reply.count(b"\n") == 1
    fields: dict[str, Any] = json.loads(reply)
    assert fields["ok"] is True or (fields["ok"] is False and fields["error"])
    assert faults == (["fail"] if "of its own" in fields.get("error", "") else [])
    return fields


# --- the protocol


def test_a_command_is_found_in_the_table_and_gets_its_arguments() -> None:
    assert answered(request("double", number=4)) == {"ok": True, "doubled": 8}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "not a request"),
        (b"stacks", "not a request"),
        (b"\xff\xfe", "not a request"),
        (b"[" * 60000, "not a request"),
        (b'{"command": ' * 5000, "not a request"),
        (b"[]", "not a request"),
        (b"{}", 'a request has a "command"'),
        (b'{"command": null}', 'a request has a "command"'),
        (b'{"command": "stack"}', "unknown command 'stack'; known: double, fail, odd, refuse"),
        (b'{"command": "double"}', "double: Object missing required field `number`"),
        (b'{"command": "double", "number": "4"}', "double: Expected `int`, got `str`"),
        (b'{"command": "refuse", "more": 1}', "refuse: Object contains unknown field `more`"),
        (b'{"command": "refuse"}', "not today"),
        (b'{"command": "fail"}', "a fault of gatekeep: LookupError('of its own')"),
    ],
)
def test_what_cannot_be_done_gets_one_line_that_says_why(line: bytes, said: str) -> None:
    reply = answered(line)
    assert (reply["ok"], said in reply["error"]) == (False, True), reply


def test_an_error_repeats_only_the_beginning_of_a_long_name() -> None:
    assert len(answered(request("x" * 60000))["error"]) < 300


def test_half_characters_in_names_do_not_cost_the_answer() -> None:
    assert answered(request("odd"))["processes"][0]["threads"][0]["name"] == "half ?"


ANYTHING = st.binary(max_size=300) | st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*COMMANDS]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["command", "number", "x"]), inner)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@given(ANYTHING)
@example(b'{"command": "double", "number": 1e999}')
@example(b'{"command": "\\ud800"}')
@example(b'{"command": "double", "number": ' + b"9" * 5000 + b"}")
def test_any_bytes_get_an_answer(line: bytes) -> None:
    answered(line)


@given(st.lists(st.binary(max_size=20)), st.randoms(use_true_random=False))
def test_lines_are_the_same_however_they_arrive(parts: list[bytes], chance: random.Random) -> None:
    stream = b"".join(part + b"\n" * chance.randrange(2) for part in parts)
    lines, found = Lines(), []
    rest = stream
    while rest:
        cut = chance.randint(1, len(rest))
        lines.feed(rest[:cut])
        rest = rest[cut:]
        while (line := lines.next_line()) is not None:
            found.append(line)
    assert [*found, lines.rest()] == stream.split(b"\n")
    assert lines.rest() == b""


def test_a_line_has_at_most_64_kib() -> None:
    lines = Lines()
    lines.feed(b"x" * MOST_BYTES)
    assert lines.next_line() is None
    lines.feed(b"\n" + b"y" * (MOST_BYTES + 1))
    assert lines.next_line() == b"x" * MOST_BYTES
    with pytest.raises(LineTooLong):
        lines.next_line()


def test_an_answer_is_read_whatever_a_later_gateway_adds() -> None:
    line = b'{"ok": true, "new": 1, "processes": [{"group": "g", "pid": 1, "seat": 0, "state": "ready", "uptime": 2}]}'
    assert result(line, Stacks).processes == [ProcessReport("g", 1, 0, "ready", 2.0)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (refusal("because"), "because"),
        (b"{}", "says no"),
        (b"[", "makes no sense"),
        (b'{"ok": true}', "makes no sense"),
    ],
)
def test_an_answer_that_is_none_is_told_as_such(line: bytes, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        result(line, Stacks)


# --- the socket


class Desk:
    """A console on a socket of its own, in an event loop of its own, in a thread."""

    def __init__(self, path: Path, log: LogAsData) -> None:
        self.path = str(path)
        self.log = log
        self.slow = threading.Event()
        self.opened = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._listener.setblocking(False)

    async def run(self, *, task_status: anyio.abc.TaskStatus[anyio.CancelScope]) -> None:
        net = RealNet()
        commands = {
            **COMMANDS,
            "slow": Command(NoArguments, self._slow),
            "much": Command(NoArguments, self._much),
        }
        try:
            with anyio.CancelScope() as scope:
                task_status.started(scope)
                while not self.opened.is_set():
                    await anyio.sleep(0.005)
                await Console(net, self._listener, commands, self.log).run()
        finally:
            self._listener.close()
            net.close()

    async def _slow(self, _: NoArguments) -> dict[str, Any]:
        while not self.slow.is_set():
            await anyio.sleep(0.005)
        return {"slow": True}

    async def _much(self, _: NoArguments) -> dict[str, Any]:
        return {"much": "x" * 10_000_000}

    def connect(self) -> Visitor:
        return Visitor(self.path)


class Visitor:
    """A client of a control socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> dict[str, Any]:
        line = self._file.readline()
        assert line.endswith(b"\n"), line
        fields: dict[str, Any] = json.loads(line)
        return fields

    def is_at_end(self) -> bool:
        """Wait for the end of the connection; anything else that comes is wrong."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def closed_desk(loop: str, tmp_path: Path) -> Iterator[Desk]:
    """One that attends to nobody until it is opened: whoever is to send something in time has sent it by then."""
    backend, options = LOOPS[loop]
    desk = Desk(tmp_path / "c.sock", LogAsData())
    with anyio.from_thread.start_blocking_portal(backend, options) as portal:
        future, scope = portal.start_task(desk.run)
        try:
            yield desk
        finally:
            desk.slow.set()
            portal.call(scope.cancel)
            future.result(20)
    assert not desk.log.find(event="accept.paused")


@pytest.fixture
def desk(closed_desk: Desk) -> Desk:
    closed_desk.opened.set()
    return closed_desk


def test_requests_on_one_connection_are_answered_in_turn(desk: Desk) -> None:
    with desk.connect() as visitor:
        visitor.send(request("double", number=1))
        assert visitor.read() == {"ok": True, "doubled": 2}
        visitor.send(request("double", number=2) + b"nonsense\n" + request("double", number=3)[:-3])
        assert visitor.read() == {"ok": True, "doubled": 4}
        assert visitor.read()["ok"] is False
        visitor.send(request("double", number=3)[-3:])
        assert visitor.read() == {"ok": True, "doubled": 6}


def test_a_last_line_needs_no_end(desk: Desk) -> None:
    with desk.connect() as visitor:
        visitor.send(request("double", number=1).rstrip())
        visitor.socket.shutdown(socket.SHUT_WR)
        assert visitor.read() == {"ok": True, "doubled": 2}
        assert visitor.is_at_end()


def test_a_line_that_is_too_long_is_refused_and_the_connection_ends(desk: Desk) -> None:
    with desk.connect() as visitor:
        visitor.send(b"x" * (MOST_BYTES + 1))
        assert "at most 65536 bytes" in visitor.read()["error"]
        assert visitor.is_at_end()


def test_a_silent_client_is_told_and_dropped(closed_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_console_server, "PATIENCE", 0.2)
    with closed_desk.connect() as silent, closed_desk.connect() as half:
        half.send(b'{"command"')
        closed_desk.opened.set()
        for visitor in (silent, half):
            assert "no request came within 0.2 s" in visitor.read()["error"]
            assert visitor.is_at_end()


def test_who_dribbles_has_no_more_time_than_who_is_silent(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_console_server, "PATIENCE", 0.5)
    with desk.connect() as visitor:
        with pytest.raises(OSError):
            for _ in range(3000):
                visitor.send(b" ")
                time.sleep(0.01)
        assert "no request came" in visitor.read()["error"]


def test_who_takes_nothing_of_the_answer_is_dropped(
    closed_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_console_server, "PATIENCE", 0.2)
    with closed_desk.connect() as visitor:
        visitor.send(request("much"))
        closed_desk.opened.set()
        end = select.poll()
        end.register(visitor.socket, 0)
        assert end.poll(30_000)
        assert len(visitor._file.read()) < 10_000_000


def test_a_slow_command_delays_nobody_else(desk: Desk) -> None:
    with desk.connect() as slow, desk.connect() as other:
        slow.send(request("slow"))
        for number in range(20):
            other.send(request("double", number=number))
            assert other.read()["doubled"] == 2 * number
        desk.slow.set()
        assert slow.read() == {"ok": True, "slow": True}


def test_more_than_eight_at_once_are_served_when_others_leave(desk: Desk) -> None:
    with ExitStack() as stack:
        first = [stack.enter_context(desk.connect()) for _ in range(8)]
        for visitor in first:
            visitor.send(request("slow"))
        late = stack.enter_context(desk.connect())
        late.send(request("double", number=1))
        desk.slow.set()
        for visitor in first:
            assert visitor.read()["slow"]
            visitor.__exit__()
        assert late.read()["doubled"] == 2


def test_a_fault_of_a_command_is_told_and_logged_and_costs_nothing_else(desk: Desk) -> None:
    with desk.connect() as visitor:
        visitor.send(request("fail"))
        assert "a fault of gatekeep" in visitor.read()["error"]
        fault = desk.log.wait_for("console.fault")
        assert (fault["level"], fault["command"]) == ("error", "fail")
        visitor.send(request("double", number=1))
        assert visitor.read()["doubled"] == 2


def test_a_client_that_leaves_before_its_answer_harms_nobody(desk: Desk) -> None:
    for _ in range(20):
        with desk.connect() as visitor:
            visitor.send(request("slow") + request("much"))
    desk.slow.set()
    with desk.connect() as visitor:
        visitor.send(request("double", number=1))
        assert visitor.read()["doubled"] == 2


def test_any_bytes_on_the_socket_get_an_answer_for_each_line_and_then_an_end(desk: Desk) -> None:
    chance = random.Random(7)
    for _ in range(50):
        size = chance.choice([0, 1, 20, 500])
        data = bytes(chance.choice(b'{}[]":,\n\n\x00\xffcomandouble1 ') for _ in range(size))
        with desk.connect() as visitor:
            visitor.send(data)
            visitor.socket.shutdown(socket.SHUT_WR)
            for _ in data.removesuffix(b"\n").split(b"\n") if data else ():
                assert visitor.read()["ok"] is False
            assert visitor.is_at_end()


# --- a gateway's


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Deeper than a socket's path may be long.
    folder = tmp_path / ("deep" * 20) / "run"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setattr(_console_client, "places", lambda: [str(folder)])
    return folder


def mode(path: Path | str) -> str:
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


def test_an_embedded_gateway_answers_this_user_only_and_leaves_nothing(run_folder: Path, loop: str) -> None:
    before = os.umask(0)
    try:
        with ExitStack() as stack:
            site = start_site(stack, loop=loop, processes=2, threads=1)
            site.log.wait_for("process.ready", count=2)  # it serves from the first one on
            (gateway,) = find()
            assert gateway.pid == os.getpid()
            assert mode(gateway.folder) == "0o700"
            assert mode(f"{gateway.folder}/{CONSOLE_FILE}") == "0o600"
            reports = result(ask(gateway, request("stacks"), 10), Stacks).processes
            assert [(report.group, report.seat) for report in reports] == [("default", 0), ("default", 1)]
            with pytest.raises(
                CommandError, match="unknown command 'dance'; known: drain, reload, stacks, status, stop"
            ):
                result(ask(gateway, request("dance"), 10), Stacks)
    finally:
        os.umask(before)
    assert find() == []
    assert list(run_folder.iterdir()) == []
    with pytest.raises(NoAnswer, match="No such file"):
        ask(gateway, request("stacks"), 10)


def test_two_gateways_of_one_program_are_two_with_one_pid(run_folder: Path) -> None:
    with ExitStack() as stack:
        for loop in ("asyncio", "trio"):
            start_site(stack, loop=loop, processes=1)
        gateways = find()
        assert [gateway.pid for gateway in gateways] == [os.getpid()] * 2
        pids = [result(ask(each, request("stacks"), 10), Stacks).processes[0].pid for each in gateways]
        assert len(set(pids)) == 2


def test_a_client_that_keeps_the_connection_does_not_delay_the_stop(run_folder: Path, loop: str) -> None:
    with ExitStack() as silent:
        with ExitStack() as stack:
            start_site(stack, loop=loop, processes=1)
            (gateway,) = find()
            fd = os.open(gateway.folder, os.O_PATH)
            silent.callback(os.close, fd)
            visitor = silent.enter_context(Visitor(f"/proc/self/fd/{fd}/{CONSOLE_FILE}"))
        assert visitor.is_at_end()


# --- finding and asking


@pytest.fixture
def fake(run_folder: Path) -> Iterator[Callable[..., Running]]:
    """Makes run folders as a gateway would."""
    with ExitStack() as stack:

        def make(pid: int, *, locked: bool = True, listens: bool = True) -> Running:
            folder = run_folder / f"gatekeep-{pid}-abcd"
            folder.mkdir()
            fd = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, fd)
            if locked:
                fcntl.flock(fd, fcntl.LOCK_EX)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"/proc/self/fd/{fd}/{CONSOLE_FILE}")
            if listens:
                listener.listen(0)
            return Running(pid, str(folder))

        yield make


def test_only_locked_folders_with_a_socket_are_gateways(
    fake: Callable[..., Running], run_folder: Path
) -> None:
    running = fake(12)
    fake(13, locked=False)
    (run_folder / "gatekeep-14-abcd").mkdir()
    (run_folder / "gatekeep-15-abcd").write_text("a file")
    (run_folder / "gatekeep-sixteen-abcd").mkdir()
    (run_folder / "gatekeep-17-abcd").symlink_to(running.folder)
    assert find() == [running]


def test_a_folder_that_is_not_locked_yet_is_not_locked_by_who_looks(run_folder: Path) -> None:
    folder = run_folder / "gatekeep-12-abcd"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            find()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(2000):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        stop.set()
        looking.join()
        os.close(fd)


def test_a_gateway_that_accepts_nothing_is_given_up_in_time(fake: Callable[..., Running]) -> None:
    gateway = fake(12)
    # The first ones stand in the backlog, the others find it full.
    for _ in range(3):
        with pytest.raises(NoAnswer, match=r"does not answer within 0\.3 s"):
            ask(gateway, request("stacks"), 0.3)


def test_a_gateway_that_has_just_ended_is_said_so(fake: Callable[..., Running]) -> None:
    with pytest.raises(NoAnswer, match="Connection refused"):
        ask(fake(12, listens=False), request("stacks"), 5)


@pytest.mark.parametrize("said", [b"", b'{"ok": tr'])
def test_an_end_without_an_answer_is_said_so(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / CONSOLE_FILE))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(said)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(NoAnswer, match="without an answer"):
            ask(Running(1, str(tmp_path)), request("stacks"), 20)
        serving.join()


# --- for people

IDLE = 'File "/x/threading.py", line 1, in Thread.run\nFile "/x/gatekeep/pool/_threads.py", line 60, in Worker.sleep'
AT_WORK = (
    'File "/x/gatekeep/pool/_threads.py", line 9, in Crew._work\nFile "/site/views.py", line 12, in report'
)


def worker(number: int, **fields: Any) -> ThreadReport:
    return ThreadReport(f"gatekeep-worker-{number}", number, **{"stack": IDLE} | fields)


def report(*threads: ThreadReport, **fields: Any) -> ProcessReport:
    return ProcessReport("default", 8124, 1, "ready", 11530.0, threads, **fields)


def test_requests_come_first_the_oldest_at_the_top_and_idle_workers_are_counted() -> None:
    text = render(
        [
            report(
                worker(0),
                worker(1, request_id="aa01", method="GET", path="/new", age=1.04, stack=AT_WORK),
                worker(2, request_id="aa02", method="PUT", path="/old", age=74.0, stack=AT_WORK),
                worker(3),
                worker(4, stack=AT_WORK),
                ThreadReport("MainThread", stack='File "/x/gatekeep/pool/_stacks.py", line 1, in all_stacks'),
                ThreadReport("gatekeep-guard", stack=AT_WORK),
                ThreadReport("", stack='File "/site/jobs.py", line 3, in loop'),
            )
        ]
    )
    assert text.splitlines() == [
        "process 8124: group default, seat 1, ready, up 3 h 12 min",
        "  thread gatekeep-worker-2: request aa02, PUT /old, for 1 min 14 s",
        '      File "/x/gatekeep/pool/_threads.py", line 9, in Crew._work',
        '      File "/site/views.py", line 12, in report',
        "  thread gatekeep-worker-1: request aa01, GET /new, for 1.0 s",
        '      File "/x/gatekeep/pool/_threads.py", line 9, in Crew._work',
        '      File "/site/views.py", line 12, in report',
        "  thread gatekeep-worker-4",
        '      File "/x/gatekeep/pool/_threads.py", line 9, in Crew._work',
        '      File "/site/views.py", line 12, in report',
        "  thread gatekeep-guard",
        '      File "/x/gatekeep/pool/_threads.py", line 9, in Crew._work',
        '      File "/site/views.py", line 12, in report',
        "  thread (without a name)",
        '      File "/site/jobs.py", line 3, in loop',
        "  2 worker threads wait for a connection",
        "  of gatekeep's own, where they always are: MainThread",
    ]


def test_one_idle_worker_is_one() -> None:
    assert render([report(worker(0))]).splitlines()[1:] == ["  1 worker thread waits for a connection"]


def test_a_process_that_did_not_answer_is_shown_with_what_is_known() -> None:
    text = render(
        [
            report(
                worker(2, request_id="aa02", age=74.0, stack=""),
                dump='Thread 0x00007f (most recent call first):\n  File "x.py", line 1 in spin\n',
                note="it did not answer",
            ),
            report(),
        ]
    )
    assert text.splitlines() == [
        "process 8124: group default, seat 1, ready, up 3 h 12 min",
        "  it did not answer",
        "  thread gatekeep-worker-2: request aa02, (what it asked for is not known), for 1 min 14 s",
        "  all threads, the innermost frame first:",
        "      Thread 0x00007f (most recent call first):",
        '        File "x.py", line 1 in spin',
        "",
        "process 8124: group default, seat 1, ready, up 3 h 12 min",
    ]


def test_no_process_is_said_so() -> None:
    assert render([]) == "no process runs at this moment\n"


def test_what_a_client_asked_for_does_not_reach_the_terminal_as_control_characters() -> None:
    text = render([report(worker(0, request_id="aa", method="GET", path="/\x1b[2J\r\n\udce9ü", stack=""))])
    assert (
        text.splitlines()[1] == r"  thread gatekeep-worker-0: request aa, GET /\x1b[2J\r\n\udce9ü, for 0.0 s"
    )


@given(st.floats(0, 1e9))
@example(59.99)
def test_a_duration_has_two_units_at_most(seconds: float) -> None:
    assert 2 <= len(duration(seconds).split()) <= 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.96, "10.0 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
