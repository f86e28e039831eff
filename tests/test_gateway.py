"""The gateway inside other people's programs: it serves, it stops, it leaves nothing, and touches nothing of theirs."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from blockbuster import BlockingError, blockbuster_ctx

from client import Answer, Client
from conftest import LOOPS, TESTS, LogAsData, wait_until
from gatekeep import CannotStart, Gateway, Outcome, Served, Settings, Stage
from gatekeep._host_net import RealNet
from running import children, open_files

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(LOOPS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return LOOPS[request.param]


def settings(app: str = "apps:scripted", **options: Any) -> Settings:
    return Settings.for_app(
        app, **{"bind": "127.0.0.1:0", "processes": 1, "threads": 2, "python_path": [str(TESTS)]} | options
    )


async def ask(address: str, target: str = "/plain") -> Answer:
    """Ask for one thing, over anyio as the program around might."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(f"GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        data = b""
        with pytest.raises(anyio.EndOfStream):
            while True:
                data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), "", {}, body, True)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.005)


class Leftovers:
    """What this process has: descriptors, children, files in the run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptors = self._descriptors()
        assert not children()

    def _descriptors(self) -> list[str]:
        # uvloop opens one when a client's connection is closed, and keeps it.
        return [name for name in open_files() if name != "/dev/null"]

    def are_none(self) -> bool:
        """Whether there is nothing that was not there before."""
        more = len(self._descriptors()) > len(self.descriptors)
        return not (more or children() or list(self.folder.iterdir()))

    async def expect_none(self) -> None:
        # At once, but for a client's own connection, whose descriptor uvloop closes a moment later.
        await until(self.are_none)


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
async def leftovers(run_folder: Path) -> Leftovers:
    """Taken inside of the event loop that the test runs in."""
    return Leftovers(run_folder)


# --- it serves


async def test_it_serves_while_the_context_lasts() -> None:
    async with Gateway(settings()).serving() as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert (await ask(served.url)).body == b"ok"
    with pytest.raises(OSError):
        await ask(served.url)


async def test_it_can_be_reached_wherever_it_was_told_to_listen(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    async with Gateway(settings(bind=[f"unix:{path}", "127.0.0.1:0", "127.0.0.1:0"])).serving() as served:
        unix, first, second = served.addresses
        assert unix == f"unix:{path}"
        assert served.url == first != second
        for url in (first, second):
            assert (await ask(url)).status == 200
        async with await anyio.connect_unix(path) as stream:
            await stream.send(b"GET /plain HTTP/1.0\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 OK\r\n")
    assert not path.exists()


async def test_a_gateway_on_unix_sockets_only_has_no_url(tmp_path: Path) -> None:
    async with Gateway(settings(bind=f"unix:{tmp_path}/site.sock")).serving() as served:
        with pytest.raises(LookupError):
            served.url  # noqa: B018


async def test_several_gateways_serve_at_once_in_one_program() -> None:
    async with (
        Gateway(settings("apps:hello")).serving() as one,
        Gateway(settings("apps:app")).serving() as two,
    ):
        bodies = [(await ask(served.url, "/")).body for served in (one, two, one, two)]
    assert bodies == [b"Hello, world!", b"app"] * 2


async def test_what_is_no_settings_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"Settings\.for_app"):
        Gateway("mysite.wsgi")  # type: ignore[arg-type]


async def test_a_gateway_serves_once_at_a_time() -> None:
    gateway = Gateway(settings())
    async with gateway.serving() as served:
        with pytest.raises(RuntimeError, match="serves already"):
            async with gateway.serving():
                pytest.fail("it was entered")
        assert (await ask(served.url)).status == 200


async def test_a_gateway_may_serve_again_when_it_has_stopped() -> None:
    gateway = Gateway(settings())
    for _ in range(2):
        async with gateway.serving() as served:
            assert (await ask(served.url)).status == 200
    assert gateway.statistics().by_outcome() == {Outcome.SERVED: 2}
    assert gateway.statistics().process_starts == gateway.statistics().process_ends == 2


async def test_the_host_programs_signal_handlers_are_not_touched() -> None:
    def handlers() -> dict[int, Any]:
        return {number: signal.getsignal(number) for number in signal.valid_signals()}

    before = handlers()
    async with Gateway(settings()).serving():
        assert handlers() == before
    assert handlers() == before


# --- it cannot start


async def test_a_port_in_use_is_a_plain_error_and_nothing_is_left(
    leftovers: Leftovers, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        before = Leftovers(leftovers.folder)
        with pytest.raises(CannotStart) as failed:
            async with Gateway(settings(bind=[f"unix:{tmp_path}/a", f"127.0.0.1:{port}"])).serving():
                pytest.fail("it was entered")
        assert str(failed.value) == f"cannot listen on 127.0.0.1:{port}: Address already in use"
        await before.expect_none()
        assert not (tmp_path / "a").exists()


async def test_a_host_that_there_is_not_is_a_plain_error() -> None:
    with pytest.raises(CannotStart, match=r"cannot listen on no\.such\.host\.invalid:80: "):
        async with Gateway(settings(bind="no.such.host.invalid:80")).serving():
            pytest.fail("it was entered")


async def test_an_address_that_the_system_calls_no_address_is_a_plain_error() -> None:
    with pytest.raises(CannotStart, match=r"cannot listen on a\.\.b:80: "):
        async with Gateway(settings(bind="a..b:80")).serving():
            pytest.fail("it was entered")


async def test_one_address_of_several_in_use_is_a_plain_error_and_nothing_is_left(
    leftovers: Leftovers,
) -> None:
    """`localhost` stands for two addresses on most machines."""
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with taken:
        before = Leftovers(leftovers.folder)
        port = taken.getsockname()[1]
        found = {info[4][0] for info in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
        if not {"::1", "127.0.0.1"} <= found:
            pytest.skip("localhost is one address here")
        with pytest.raises(CannotStart):
            async with Gateway(settings(bind=f"localhost:{port}")).serving():
                pytest.fail("it was entered")
        await before.expect_none()


@pytest.mark.parametrize(
    ("app", "reason", "details"),
    [
        ("no_such_module", "no module named 'no_such_module'", ""),
        ("raises", "raises failed to load: ZeroDivisionError: division by zero", "raises.py"),
        ("exits", "ended before it was ready: exit status 7", ""),
    ],
)
async def test_an_application_that_does_not_load_is_a_plain_error_and_nothing_is_left(
    leftovers: Leftovers, tmp_path: Path, app: str, reason: str, details: str
) -> None:
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "exits.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(CannotStart) as failed:
        async with Gateway(settings(app, python_path=[str(tmp_path)], processes=2)).serving():
            pytest.fail("it was entered")
    assert reason in str(failed.value)
    assert details in failed.value.details
    await leftovers.expect_none()


async def test_a_start_can_be_cancelled_and_nothing_is_left(leftovers: Leftovers, tmp_path: Path) -> None:
    (tmp_path / "loads_long.py").write_text("import time\ntime.sleep(60)\n")
    gateway = Gateway(settings("loads_long", python_path=[str(tmp_path)]))
    async with anyio.create_task_group() as tasks:

        async def host() -> None:
            async with gateway.serving():
                pytest.fail("it was entered")

        tasks.start_soon(host)
        await until(lambda: gateway.statistics().process_starts == 1)
        tasks.cancel_scope.cancel()
    await leftovers.expect_none()


# --- it stops


async def test_a_request_in_flight_finishes_when_the_context_is_left(leftovers: Leftovers) -> None:
    log = LogAsData()
    answers: list[Answer] = []

    async def client(url: str) -> None:
        answers.append(await ask(url, "/sleep?0.4"))

    async with anyio.create_task_group() as tasks:
        async with Gateway(settings(), logger=log, debug=True).serving() as served:
            tasks.start_soon(client, served.url)
            await until(lambda: log.find(event="pickup.claimed"))
        assert log.find(event="request.finished", outcome="served"), "it was waited for"
    assert [answer.status for answer in answers] == [200]
    await leftovers.expect_none()


async def test_one_in_a_hurry_waits_for_nothing_and_tells_whoever_waits_for_an_answer(
    leftovers: Leftovers,
) -> None:
    log = LogAsData()
    answers: list[Answer] = []

    async def client(url: str) -> None:
        answers.append(await ask(url, "/sleep?100"))

    gateway = Gateway(settings(graceful_timeout=100), logger=log, debug=True)
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(60):
            async with gateway.serving() as served:
                tasks.start_soon(client, served.url)
                await until(lambda: log.find(event="pickup.claimed"))
                served.hurry()
        (record,) = log.find(event="request.finished")
        assert (record["outcome"], record["status"], record["action"]) == ("lost", 502, "answered")
    assert [answer.status for answer in answers] == [502], "it may have run"
    await leftovers.expect_none()


class Mine(Exception):
    """An error of the host program."""


@pytest.mark.parametrize("error", [Mine("x"), Mine(), KeyError("x")], ids=repr)
async def test_an_error_in_the_body_comes_out_as_it_is_and_nothing_is_left(
    leftovers: Leftovers, error: Exception
) -> None:
    with pytest.raises(type(error)) as raised:
        async with Gateway(settings()).serving() as served:
            assert (await ask(served.url)).status == 200
            raise error
    assert raised.value is error
    await leftovers.expect_none()


@pytest.mark.parametrize(
    "errors", [[Mine("x")], [Mine("x"), Mine("y")], [Mine("x"), KeyboardInterrupt()]], ids=len
)
async def test_a_group_of_errors_in_the_body_comes_out_as_it_is(errors: list[BaseException]) -> None:
    group = BaseExceptionGroup("mine", errors)
    with pytest.raises(BaseException) as raised:
        async with Gateway(settings()).serving():
            raise group
    assert raised.value is group


async def test_the_errors_cause_and_context_are_kept() -> None:
    with pytest.raises(Mine) as raised:
        async with Gateway(settings()).serving():
            raise Mine("x") from KeyError("cause")
    assert isinstance(raised.value.__cause__, KeyError)


async def test_a_host_that_is_cancelled_leaves_nothing(leftovers: Leftovers) -> None:
    serving: list[Served] = []

    async def host() -> None:
        async with Gateway(settings()).serving() as served:
            serving.append(served)
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host)
        tasks.start_soon(host)
        await until(lambda: len(serving) == 2)
        for served in serving:
            assert (await ask(served.url)).status == 200
        tasks.cancel_scope.cancel()
    await leftovers.expect_none()


# --- what it tells


async def test_statistics_count_by_stage_and_outcome() -> None:
    gateway = Gateway(settings())
    assert gateway.statistics().requests == {}
    async with gateway.serving() as served:
        for target in ("/plain", "/plain", "/raise", "/kill-late", "/plain"):
            await ask(served.url, target)
        await ask(served.url, "/\x7f")
        statistics = served.statistics()
        assert statistics.requests == {
            (Stage.RESPOND, Outcome.SERVED): 3,
            (Stage.RUN, Outcome.APP_ERROR): 1,
            (Stage.RESPOND, Outcome.TRUNCATED): 1,
            (Stage.PARSE, Outcome.REFUSED): 1,
        }
        assert (statistics.in_flight, statistics.standing, statistics.dropped_log_records) == (0, 0, 0)
        assert statistics.process_starts - statistics.process_ends == len(statistics.processes) == 1
    after = gateway.statistics()
    assert (after.connections, after.processes) == (0, ())
    assert after.process_starts == after.process_ends == 2


async def test_a_logger_that_is_handed_in_is_told_the_story() -> None:
    log = LogAsData()
    # Without a look after its signs of life, of which a busy machine may keep back some.
    async with Gateway(settings(deadlock_timeout=0), logger=log).serving() as served:
        await ask(served.url)
    assert [event["event"] for event in log.events if event["level"] == "info"] == [
        *["process.started", "process.ready", "request.finished", "process.exited"]
    ]
    (exited,) = log.find(event="process.exited")
    assert (exited["planned"], exited["end"]) == (True, "exit status 0")


async def test_without_a_logger_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    async with Gateway(settings()).serving() as served:
        for target in ("/plain", "/raise", "/print?x", "/kill"):
            await ask(served.url, target)
    assert capfd.readouterr() == ("", "")


# --- for programs without an event loop


@pytest.fixture(params=list(LOOPS))
def in_thread(request: pytest.FixtureRequest) -> Callable[[Gateway], Any]:
    backend, options = LOOPS[request.param]
    return lambda gateway: gateway.serving_in_thread(backend, **options)


def address_of(served: Served) -> tuple[str, int]:
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def test_a_program_without_an_event_loop_is_served_from_a_thread(in_thread: Any) -> None:
    with in_thread(Gateway(settings())) as served, Client(address_of(served)) as client:
        assert client.get("/plain").body == b"ok"
        # The client may have its answer a moment before it is counted.
        wait_until(lambda: served.statistics().by_outcome() == {Outcome.SERVED: 1})


def test_what_goes_wrong_in_the_thread_is_a_plain_error_in_the_program(in_thread: Any) -> None:
    with pytest.raises(CannotStart, match="no module named"), in_thread(Gateway(settings("no_such_module"))):
        pytest.fail("it was entered")
    error = Mine("x")
    with pytest.raises(Mine) as raised, in_thread(Gateway(settings())):
        raise error
    assert raised.value is error


def test_another_thread_may_be_in_a_hurry_while_it_stops(in_thread: Any) -> None:
    log = LogAsData()
    with in_thread(Gateway(settings(graceful_timeout=30), logger=log, debug=True)) as served:
        idle, busy = Client(address_of(served)), Client(address_of(served))
        assert idle.get("/plain").status == 200
        busy.send("GET /sleep?60 HTTP/1.1\r\nHost: test\r\n\r\n")
        log.wait_for("pickup.claimed", count=2)
        raised: list[Exception] = []

        def hurry() -> None:
            with idle, busy:
                assert idle.is_closed(), "it has begun to stop"
                try:
                    served.hurry()
                except Exception as error:
                    raised.append(error)
                busy.read()

        impatient = threading.Thread(target=hurry)
        impatient.start()
        began = time.monotonic()
    impatient.join()
    assert raised == []
    assert time.monotonic() - began < 20


def test_a_second_try_to_serve_from_a_thread_takes_nothing_from_the_first(in_thread: Any) -> None:
    gateway = Gateway(settings())
    with in_thread(gateway) as served:
        with pytest.raises(RuntimeError, match="serves already"), in_thread(gateway):
            pytest.fail("it was entered")
        assert served.reload() == 1
        with Client(address_of(served)) as client:
            assert client.get("/plain").status == 200


def test_what_is_asked_of_a_gateway_that_has_stopped_does_nothing(in_thread: Any) -> None:
    with in_thread(Gateway(settings())) as served:
        assert served.reload() == 1
    served.hurry()
    assert served.reload() == 0
    assert served.statistics().in_flight == 0


def test_twenty_times_started_and_stopped_leave_nothing(run_folder: Path) -> None:
    threads = set(threading.enumerate())

    def cycle(number: int) -> None:
        backend, options = list(LOOPS.values())[number % 3]
        gateway = Gateway(settings())
        with gateway.serving_in_thread(backend, **options) as served, Client(address_of(served)) as client:
            assert client.get("/plain").status == 200

    for number in range(3):
        cycle(number)
    before = Leftovers(run_folder)
    for number in range(20):
        cycle(number)
    assert before.are_none()
    # trio keeps idle threads for a while, and uses them again; those of anyio end a moment after their loop.
    wait_until(lambda: all(t.name.startswith("Trio thread") for t in set(threading.enumerate()) - threads))


# --- it never blocks its event loop


def test_nothing_that_blocks_is_called_in_the_event_loop_while_it_serves() -> None:
    gateway = Gateway(settings(processes=1))

    def requests(url: str) -> list[Answer]:
        host, _, port = url.removeprefix("http://").rpartition(":")
        with Client((host, int(port))) as client:
            body = b"x" * 300_000
            answers = [client.get("/plain"), client.get("/big?3000000"), client.post("/count", body)]
            answers += [client.get("/generator"), client.get("/raise")]
        with Client((host, int(port))) as client:
            client.send("nonsense\r\n\r\n")
            answers.append(client.read())
        return answers

    async def main() -> None:
        async with gateway.serving() as served:
            with blockbuster_ctx():
                with pytest.raises(BlockingError):
                    time.sleep(0)
                answers = await anyio.to_thread.run_sync(requests, served.url)
                assert [answer.status for answer in answers] == [200, 200, 200, 200, 500, 400]
                os.kill(served.statistics().processes[0], signal.SIGKILL)
                await until(
                    lambda: gateway.statistics().process_starts == 2 and gateway.statistics().processes
                )
                assert (await anyio.to_thread.run_sync(requests, served.url))[0].status == 200

    anyio.run(main)


# --- a fault of ours


async def test_an_accept_that_fails_for_good_ends_the_gateway_and_is_raised(
    leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(net: RealNet, listener: object) -> None:
        raise OSError(errno.EINVAL, "broken on purpose")

    monkeypatch.setattr(RealNet, "accept", broken)
    with anyio.fail_after(60):
        with pytest.raises(OSError, match="broken on purpose"):
            async with Gateway(settings()).serving():
                await anyio.sleep_forever()
    await leftovers.expect_none()
