"""`gatekeep serve` as people start, misuse and stop it."""

from __future__ import annotations

import fcntl
import os
import re
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
from gatekeep._signals import REPEAT
from held import Held
from running import children, is_alive, process
from served import free_port, serve

GATEKEEP = [sys.executable, "-m", "gatekeep"]


def run(
    *arguments: str, cwd: Path | str = TESTS, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*GATEKEEP, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def listening(port: int, command: list[str] | str, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A gateway that listens on that port; at the end of the block it stops when it is told to."""
    with process(command, **options) as gateway:
        wait_until(lambda: is_listening(port), 60)
        yield gateway
        gateway.terminate()
        assert gateway.wait(40) == 0


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--thread", "5"], r"No such option.*--thread.*--threads"),
        (["--threads", "0"], r"threads = 0: allowed is 1 to 1024"),
        (["--threads", "many"], r"threads = 'many': allowed is 1 to 1024"),
        (["--processes", "-1"], r"processes = -1: allowed is 0 to 1024"),
        (["--listen-backlog", "0"], r"listen-backlog = 0: allowed is 1 to 65535"),
        (["--backlog", "0"], r"backlog = 0: allowed is 1 to 65535"),
        (["--connect-timeout", "-1"], r"connect-timeout = -1.*allowed is 0 seconds or more"),
        (
            ["--connect-timeout", "nan"],
            r"connect-timeout = 'nan': allowed is 0 seconds or more, such as 90 or 1m30s",
        ),
        (["--bind", "1.2.3.4:99999"], r"bind = '1\.2\.3\.4:99999': allowed is host:port \(port 0 to 65535\)"),
        (["--bind", "unix:"], r"bind = 'unix:': allowed is"),
        (["--bind", "fd://x"], r"bind = 'fd://x': allowed is"),
        (["--health-bind", "fd://x"], r"health-bind = 'fd://x': allowed is"),
        (
            ["--health-bind", "127.0.0.1:8000"],
            r"health-bind = '127\.0\.0\.1:8000': allowed is any other address",
        ),
        (
            ["--bind", ":80,proxy-protocol=v3"],
            r"bind = ':80,proxy-protocol=v3': allowed is .*off\|v1\|v2\|auto",
        ),
        (["--proxy-protocol", "v3"], r"proxy-protocol = 'v3': allowed is one of off, v1, v2, auto"),
        (
            ["--forwarded-allow-ips", "::1,10.0.0.7/8"],
            r"trusted-proxies = '10\.0\.0\.7/8': allowed is .*10\.0\.0\.0/8, the address 10\.0\.0\.7",
        ),
        (
            ["--trusted-proxy-headers", "Host"],
            r"trusted-proxy-headers = 'Host': allowed is any of forwarded, ",
        ),
        (["--proxy-allow-from", "lb"], r"proxy-allow-from = 'lb': allowed is an address, a network"),
        (["--health-check-path", "livez"], r"livez-path = 'livez': allowed is a path.*/ first"),
        (["--livez-path", "/a", "--readyz-path", "/a"], r"readyz-path = '/a': allowed is any other path"),
        (["--http", "h2"], r"http = 'h2': allowed is one of auto, strict, h11"),
        (["--loop", "gevent"], r"loop = 'gevent': allowed is one of auto, asyncio, uvloop, trio"),
        (["--chdir", "/no/such/folder"], r"chdir = '/no/such/folder': No such file"),
    ],
)
def test_a_wrong_option_names_itself_its_value_and_what_is_allowed(arguments: list[str], said: str) -> None:
    done = run("serve", "apps:hello", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("a b", "app = 'a b': allowed is"),
        ("module:", "app = 'module:': allowed is"),
        ("x:y()()", "app = 'x:y"),
    ],
)
def test_an_app_that_cannot_be_a_name_is_a_usage_error(app: str, said: str) -> None:
    done = run("serve", app)
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1)


def test_no_app_and_an_unknown_command_are_usage_errors() -> None:
    assert run("serve").returncode == 2
    assert run("start", "apps:hello").returncode == 2


@pytest.mark.parametrize("name", ["PORT", "WEB_CONCURRENCY"])
def test_a_wrong_environment_variable_names_itself(name: str) -> None:
    done = run("serve", "apps:hello", **{name: "many"})
    assert (done.returncode, done.stderr) == (2, f"gatekeep: ${name} = 'many': a number is needed\n")


def test_a_wrong_list_of_proxies_in_the_environment_names_itself() -> None:
    done = run("serve", "apps:hello", FORWARDED_ALLOW_IPS="127.0.0.1, lb")
    said = "gatekeep: $FORWARDED_ALLOW_IPS = 'lb': allowed is an address, a network (10.0.0.0/8) or *\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("no_such_module:app", "no module named 'no_such_module'"),
        ("no_such_package.wsgi", "no module named 'no_such_package'"),
        ("apps:nothing", "apps has no nothing; give it as apps:NAME"),
        ("json", "json has no application or app"),
        ("apps:not_callable", "apps:not_callable is not callable: it is of type int"),
        ("apps:not_callable()", "apps:not_callable() is no factory"),
        ("no/such/file.py", "there is no file"),
    ],
)
def test_an_app_that_is_not_there_is_one_clear_line_and_status_3(app: str, said: str) -> None:
    done = run("serve", app, "--bind", "127.0.0.1:0", "--log-level", "error")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("gatekeep: cannot start: ")
    assert said in line


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import not_installed_here", "ModuleNotFoundError: No module named 'not_installed_here'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def application(:", "SyntaxError: "),
        ("raise SystemExit(1)", "SystemExit: 1"),
    ],
)
def test_an_app_that_fails_to_load_shows_its_own_traceback(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "broken.py").write_text(code + "\n")
    done = run("serve", "broken", "--bind", "127.0.0.1:0", "--log-level", "error", cwd=tmp_path)
    assert done.returncode == 3
    *traceback, line = done.stderr.splitlines()
    assert line.startswith("gatekeep: cannot start: broken failed to load: ")
    assert said in line
    assert any("broken.py" in part for part in traceback)
    assert not any("_loader.py" in part for part in traceback), "our own frames are no help"
    assert done.stdout.count("process.load_failed") == 1, "said once, not for each process"


def test_an_app_that_kills_its_process_while_it_loads_is_status_3(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    done = run("serve", "deadly", "--bind", "127.0.0.1:0", "--log-level", "error", cwd=tmp_path)
    assert done.returncode == 3
    assert "ended before it was ready: killed by SIGKILL" in done.stderr


def test_a_port_in_use_is_one_clear_line_and_status_3() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "apps:hello", "--bind", address)
    assert (done.returncode, done.stderr) == (
        3,
        f"gatekeep: cannot start: cannot listen on {address}: Address already in use\n",
    )


def test_nothing_is_left_behind_when_it_cannot_start(tmp_path: Path) -> None:
    before = set(os.listdir(tmp_path))
    done = run(
        "serve",
        "no_such_module",
        "--uds",
        str(tmp_path / "site.sock"),
        TMPDIR=str(tmp_path),
        XDG_RUNTIME_DIR="",
    )
    assert done.returncode == 3
    assert set(os.listdir(tmp_path)) == before


# --- what can be served, where --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "body"),
    [
        ("apps:hello", b"Hello, world!"),
        ("apps", b"application"),
        ("apps:make_app()", b"Hello, world!"),
        ("apps.py", b"application"),
        ("./apps.py:app", b"app"),
    ],
)
def test_an_app_is_a_module_a_callable_a_factory_or_a_path(app: str, body: bytes) -> None:
    with serve(app, cwd=TESTS) as server, Client(("127.0.0.1", server.port)) as client:
        assert client.get("/").body == body


def test_a_script_need_not_end_in_py_and_its_folder_comes_first(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "helper.py").write_text("BODY = b'from the helper'\n")
    (site / "site.wsgi").write_text(
        "import helper\ndef application(environ, start_response):\n    start_response('200 OK', [])\n    return [helper.BODY]\n"
    )
    with serve("site/site.wsgi", cwd=tmp_path) as server, Client(("127.0.0.1", server.port)) as client:
        assert client.get("/").body == b"from the helper"


def test_a_users_module_does_not_shadow_the_standard_library_for_us(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('the wrong queue')\n")
    (tmp_path / "socket.py").write_text("raise RuntimeError('the wrong socket')\n")
    (tmp_path / "plain.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'plain']\n"
    )
    port = free_port()
    # The console script: `python -m` itself puts the present folder first, before anything of ours runs.
    script = str(Path(sys.executable).parent / "gatekeep")
    command = [script, "serve", "plain:app", "--port", str(port), "--log-level", "error"]
    with listening(port, command, cwd=tmp_path), Client(("127.0.0.1", port)) as client:
        assert client.get("/").body == b"plain"


def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    with serve("apps:echo", "--bind", f"unix:{path}", cwd=TESTS), Client(str(path)) as client:
        answer = client.get("/")
        assert b'"REMOTE_ADDR": ""' in answer.body
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serve("apps:hello", "--uds", str(path), cwd=TESTS), Client(str(path)) as client:
        assert client.get("/").status == 200
        done = run("serve", "apps:hello", "--uds", str(path))
        assert (done.returncode, "Address already in use" in done.stderr) == (3, True)
        with Client(str(path)) as another:
            assert another.get("/").status == 200


def test_the_proxies_that_are_trusted_may_come_from_the_environment() -> None:
    for networks, flags, is_trusted in [
        ("10.0.0.7, 127.0.0.0/8", [], True),
        ("", [], False),
        ("127.0.0.1", ["--trusted-proxies", "10.0.0.7"], False),
    ]:
        environment = {"FORWARDED_ALLOW_IPS": networks}
        with serve("apps:echo", "--processes", "1", *flags, cwd=TESTS, env=environment) as server:
            with Client(("127.0.0.1", server.port)) as client:
                body = client.get("/", "X-Forwarded-For: 192.0.2.1").body
            assert (b'"REMOTE_ADDR": "192.0.2.1"' in body) == is_trusted


def test_the_proxy_protocol_alone_means_either_version() -> None:
    with serve("apps:echo", "--proxy-protocol", cwd=TESTS) as server:
        with Client(("127.0.0.1", server.port)) as client:
            client.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            assert b'"REMOTE_ADDR": "192.0.2.1"' in client.get("/").body
        with Client(("127.0.0.1", server.port)) as client:
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert client.is_closed()


def test_an_inherited_descriptor_is_served() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        fd = listener.fileno()
        command = [*GATEKEEP, "serve", "apps:hello", "--bind", f"fd://{fd}", "--log-level", "warning"]
        with process(command, cwd=TESTS, pass_fds=[fd]) as gateway:
            with Client(listener.getsockname(), 60) as client:
                assert client.get("/").body == b"Hello, world!"
            gateway.terminate()
            assert gateway.wait(40) == 0


def test_a_descriptor_that_does_not_listen_is_one_clear_line_and_status_3() -> None:
    with socket.socket() as idle:
        fd = idle.fileno()
        done = subprocess.run(
            [*GATEKEEP, "serve", "apps:hello", "--fd", str(fd)],
            cwd=TESTS,
            pass_fds=[fd],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (
        3,
        f"gatekeep: cannot start: cannot listen on fd://{fd}: it is no listening stream socket\n",
    )


def test_a_closed_standard_output_stops_nothing() -> None:
    port = free_port()
    command = " ".join([*GATEKEEP, "serve", "apps:hello", "--port", str(port)])
    closed = listening(port, f"exec {command} >&-", shell=True, cwd=TESTS)
    with closed, Client(("127.0.0.1", port)) as client:
        assert client.get("/").status == 200


def test_port_and_web_concurrency_count_where_nothing_else_was_said() -> None:
    port = free_port()
    command = [*GATEKEEP, "serve", "apps:hello", "--log-format", "json"]
    environment = {**os.environ, "PORT": str(port), "WEB_CONCURRENCY": "1"}
    with process(command, cwd=TESTS, env=environment, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        ready = next(line for line in gateway.stdout if "gateway.ready" in line)
        assert f'"http://0.0.0.0:{port}"' in ready
        assert '"processes":1' in ready
        gateway.terminate()
        gateway.communicate()
        assert gateway.returncode == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("http", ["strict", "h11", "httptools"])
def test_every_loop_with_every_codec(loop: str, http: str) -> None:
    with serve("apps:echo", "--loop", loop, "--http", http, cwd=TESTS) as server:
        with Client(("127.0.0.1", server.port)) as client:
            assert b'"size": 100000' in client.post("/", b"x" * 100_000).body
            assert client.get("/").complete
        (ready,) = server.events_named("gateway.ready")
        assert (ready["loop"], ready["http"]) == (loop, "strict" if http == "httptools" else http)
        assert ready["request_timeout"].startswith("a request on these ")
        assert "health" not in ready, "it was not asked for"


def test_addresses_for_health_are_told_when_it_is_ready_and_probes_are_no_lines_of_the_log() -> None:
    flags = ["--health-bind", "127.0.0.1:0", "--health-check-path", "/ok", "--processes", "1"]
    with serve("apps:scripted", *flags, cwd=TESTS) as server:
        (address,) = server.events_named("gateway.ready")[0]["health"]
        with Client(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            assert client.get("/ok").status == client.get("/readyz").status == 200
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/ok").body == b'{"status":"ok"}'
            assert client.get("/plain").status == 200
        server.wait_for_event("request.finished", path="/plain")
        assert len(server.events_named("request.finished")) == 1


# --- the stop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_requests_in_flight_finish_when_it_is_told_to_stop(
    number: signal.Signals, loop: str, tmp_path: Path
) -> None:
    with serve("apps:scripted", "--loop", loop, cwd=TESTS) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        pids = server.daemon_pids()
        with (
            Held(("127.0.0.1", server.port), tmp_path) as client,
            Client(("127.0.0.1", server.port)) as idle,
        ):
            assert idle.get("/plain").status == 200
            os.kill(server.pid, number)
            assert idle.is_closed(), "an idle connection ends at once"
            answer = client.finish()
            assert (answer.status, answer.fields.get("connection")) == (200, "close")
        assert server.wait() == 0
        assert not any(map(is_alive, pids))


def test_a_request_that_outlasts_the_grace_is_dropped_and_said(tmp_path: Path) -> None:
    with serve(
        "apps:scripted", "--graceful-timeout", "0.5", "--shutdown-timeout", "0.5", cwd=TESTS
    ) as server:
        with Held(("127.0.0.1", server.port), tmp_path) as client:
            server.terminate()
            assert client.read().status == 502, "it may have run"
            assert server.wait() == 0
        record = server.wait_for_event("request.finished", path="/note-and-hold")
        assert (record["outcome"], record["action"]) == ("lost", "answered")
        assert server.wait_for_event("process.lost_request", request_id=record["request_id"])


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    flags = ("--graceful-timeout", "600")
    with serve("apps:scripted", *flags, cwd=TESTS) as server, Held(("127.0.0.1", server.port), tmp_path):
        server.terminate()
        server.wait_for_event("signal.received", meaning="stop")
        time.sleep(REPEAT + 0.2)  # so that it is no echo
        began = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - began < 10


def test_a_signal_that_comes_twice_within_a_moment_counts_once(tmp_path: Path) -> None:
    with serve("apps:scripted", cwd=TESTS) as server, Held(("127.0.0.1", server.port), tmp_path) as client:
        # Both come in the same moment, however long this process may take between them; and two of one kind would be one.
        os.kill(server.pid, signal.SIGSTOP)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(server.pid, number)
        os.kill(server.pid, signal.SIGCONT)
        server.wait_for_event("signal.received", meaning="stop")
        assert client.finish().status == 200
        assert server.wait() == 0
        assert len(server.events_named("signal.received")) == 1


def test_it_stops_while_the_application_loads(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    with process([*GATEKEEP, "serve", "slow", "--bind", "127.0.0.1:0"], cwd=tmp_path) as gateway:
        wait_until(lambda: len(children(gateway.pid)) == 2, 60)
        pids = children(gateway.pid)
        gateway.terminate()
        assert gateway.wait(40) == 0
        assert not any(map(is_alive, pids))


IMPORTS_SLOWLY = """
import sys

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "gatekeep._cli":
            print("loading", flush=True)
            sys.stdin.readline()

sys.meta_path.insert(0, Slow())
sys.argv[1:] = ["serve", "apps:hello", "--bind", "127.0.0.1:0"]
from gatekeep.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU]
)
def test_signals_that_come_while_it_loads_its_own_modules_do_not_end_it(number: int) -> None:
    command = [sys.executable, "-c", IMPORTS_SLOWLY]
    with process(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout.readline() == "loading\n"
        gateway.send_signal(number)
        gateway.stdin.write("go on\n")
        gateway.stdin.flush()
        assert any("gateway.ready" in line for line in gateway.stdout)
        gateway.terminate()
        gateway.stdout.read()
        assert gateway.wait(40) == 0


def test_ctrl_c_while_it_loads_its_own_modules_is_no_traceback() -> None:
    command = [sys.executable, "-c", IMPORTS_SLOWLY]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with process(command, cwd=TESTS, text=True, **pipes) as gateway:
        assert gateway.stdout.readline() == "loading\n"
        gateway.send_signal(signal.SIGINT)
        assert gateway.wait(40) == -signal.SIGINT
        assert (gateway.stdout.read(), gateway.stderr.read()) == ("", "")


@pytest.mark.parametrize("app", ["apps:hello", "slow:app"])
def test_a_gateway_that_is_killed_leaves_no_orphan_even_during_the_load(tmp_path: Path, app: str) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    command = [*GATEKEEP, "serve", app, "--bind", "127.0.0.1:0", "--pythonpath", str(tmp_path)]
    with process(command, cwd=TESTS) as gateway:
        wait_until(lambda: len(children(gateway.pid)) == 2, 60)
        time.sleep(0.5)
        pids = children(gateway.pid)
        gateway.kill()
        gateway.wait()
    wait_until(lambda: not any(map(is_alive, pids)), 15)


def test_an_immediate_restart_after_a_kill_works_and_cleans_up(tmp_path: Path) -> None:
    port = free_port()
    flags = ["--port", str(port), "--log-level", "error"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [*GATEKEEP, "serve", "apps:hello", *flags]
    with process(command, cwd=TESTS, env=environment) as gateway:
        wait_until(lambda: is_listening(port) and any(tmp_path.iterdir()), 60)
        gateway.kill()
        gateway.wait()
    (stale,) = tmp_path.iterdir()
    wait_until(lambda: is_free(stale))
    os.utime(stale, (1, 1))
    with listening(port, command, cwd=TESTS, env=environment):
        with Client(("127.0.0.1", port)) as client:
            assert client.get("/").status == 200
        assert not stale.exists()
    assert list(tmp_path.iterdir()) == []


def is_free(folder: Path) -> bool:
    """Whether nobody has a lock on it: a process that was just being started may hold its parent's until it is itself."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_a_thread_that_the_application_left_running_delays_nobody(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import atexit, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        f"atexit.register(open({str(tmp_path / 'mark')!r}, 'w').write, 'atexit ran')\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
    )
    with serve("threaded:app", "-w", "1", "--shutdown-timeout", "20", cwd=tmp_path) as server:
        began = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - began < 15
        (exited,) = server.events_named("process.exited")
        assert exited["end"] == "exit status 0"


def test_people_who_send_hup_or_usr1_to_everything_kill_nothing() -> None:
    with serve("apps:hello", cwd=TESTS) as server:
        wait_until(lambda: len(server.daemon_pids()) == 2)
        pids = server.daemon_pids()
        for pid in pids:
            os.kill(pid, signal.SIGHUP)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(server.pid, number)
        assert server.wait_for_event("signal.ignored", signal="SIGUSR1")
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/").status == 200
        for pid in pids:  # the gateway's SIGHUP is a reload
            assert (
                server.wait_for_event("process.exited", pid=pid, trigger="reload")["end"] == "exit status 0"
            )
        assert len(server.daemon_pids()) == 2


# --- the log --------------------------------------------------------------------------------------------------------


def test_what_the_application_prints_and_logs_carries_the_request_id_in_order() -> None:
    with serve("apps:scripted", "-w", "1", cwd=TESTS) as server, Client(("127.0.0.1", server.port)) as client:
        client.get("/print?one")
        record = server.wait_for_event("request.finished", path="/print")
        server.wait_for_event("app.output", text="unfinished")
        said = [
            (event["stream"], event["text"])
            for event in server.events_named("app.output")
            if event["request_id"] == record["request_id"]
        ]
        assert said == [
            ("stdout", "printed one"),
            ("stderr", "to stderr one"),
            ("stderr", "to wsgi.errors one"),
            ("stdout", "unfinished"),
        ]
        client.get("/log?two")
        record = server.wait_for_event("request.finished", path="/log")
        event = server.wait_for_event("app.output", text="logged two")
        assert event["request_id"] == record["request_id"]

        def tracebacks() -> list[str]:
            texts = [event["text"] for event in server.events_named("app.output")]
            return [text for text in texts if "with a traceback" in text]

        wait_until(lambda: bool(tracebacks()))
        assert "KeyError: 'two'" in tracebacks()[0], "a multi-line record stays one event"


def test_a_flood_of_output_is_not_lost_while_the_gateway_reads(tmp_path: Path) -> None:
    # On a machine that has other work it may read nothing for longer than a thread would wait for it.
    (tmp_path / "patient.py").write_text(
        "import gatekeep.pool._log\ngatekeep.pool._log.PATIENCE_MS = 20_000\n"
    )
    flags = ("-w", "1", "--import-scripts", str(tmp_path / "patient.py"))
    with serve("apps:scripted", *flags, cwd=TESTS) as server, Client(("127.0.0.1", server.port)) as client:
        client.get("/flood?5000")
        server.wait_for_event("app.output", text="line 4999")
        lines = [event["text"] for event in server.events_named("app.output")]
        assert lines == [f"line {number}" for number in range(5000)]


def test_a_full_standard_output_stops_nothing() -> None:
    port = free_port()
    command = [*GATEKEEP, "serve", "apps:hello", "--port", str(port), "--log-level", "debug"]
    full = listening(port, command, cwd=TESTS, stdout=subprocess.PIPE)
    with full, Client(("127.0.0.1", port)) as client:
        for _ in range(1500):  # far more than a pipe holds
            assert client.get("/").status == 200


def test_a_log_line_cannot_be_forged_by_a_client_or_the_application() -> None:
    with serve("apps:scripted", cwd=TESTS) as server, Client(("127.0.0.1", server.port)) as client:
        client.get("/print?a%0a{%22event%22:%22gateway.ready%22}\x7f".replace("\x7f", ""))
        server.wait_for_event("request.finished", path="/print")
        server.wait_for_event("app.output", text="unfinished")
        assert len(server.events_named("gateway.ready")) == 1


def test_the_console_log_is_for_people(tmp_path: Path) -> None:
    port = free_port()
    command = [*GATEKEEP, "serve", "apps:scripted", "--port", str(port), "--log-format", "console"]
    with process(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as gateway:
        wait_until(lambda: is_listening(port), 60)
        with Client(("127.0.0.1", port)) as client:
            client.get("/raise")
        gateway.terminate()
        output, _ = gateway.communicate(timeout=40)
    assert "Traceback (most recent call last):" in output
    assert re.search(r"request\.finished +.*500.*GET /raise", output)


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("gatekeep, version ")
    shown = run("serve", "--help").stdout
    for flag in ("--bind", "--workers", "--threads", "--listen-backlog", "--limit-request-body", "--loop"):
        assert flag in shown


def test_first_requests_are_served_while_the_threads_still_start() -> None:
    """Slots and counters are made before the first worker thread: mod_wsgi before 6.1.1 corrupted memory there."""
    for _ in range(5):
        with serve("apps:hello", "-w", "4", "--threads", "40", cwd=TESTS) as server:
            results: list[int] = []

            def ask(port: int = server.port, results: list[int] = results) -> None:
                with Client(("127.0.0.1", port)) as client:
                    results.append(client.get("/").status)

            threads = [threading.Thread(target=ask) for _ in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert results == [200] * 40


def test_when_gateway_and_processes_were_paused_together_nobody_is_taken_for_wedged() -> None:
    with serve("apps:scripted", "--deadlock-timeout", "6", "--processes", "2", cwd=TESTS) as server:
        wait_until(lambda: len(server.events_named("process.ready")) == 2)
        pids = sorted(server.daemon_pids())
        everybody = [server.pid, *pids]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(10)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        time.sleep(3)
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/plain").status == 200
        assert sorted(server.daemon_pids()) == pids
        assert not server.events_named("process.deadlocked")
