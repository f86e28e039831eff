"""`gatekeep.testing` and the pytest fixture, as people use them in their own projects."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import tomllib
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import apps
import gatekeep
from conftest import LOOPS, wait_until
from gatekeep.testing import EventMissing, ProcessLeft, Server, serving, wedge
from test_exports import SOURCE, loaded_after

PYPROJECT = Path(SOURCE).parent / "pyproject.toml"
EXAMPLES = Path(SOURCE).parent / "examples"


def get(url: str, timeout: float = 60) -> httpx.Response:
    """Not httpx's 5 s: a busy machine may need them."""
    return httpx.get(url, timeout=timeout)


# --- without pytest -------------------------------------------------------------------------------------------------


def test_with_no_processes_whatever_a_test_has_made_is_served_in_its_own_process() -> None:
    calls = []

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        calls.append(environ["PATH_INFO"])
        return apps.hello(environ, start_response)

    with serving(app, processes=0) as server:
        assert get(server.url + "/here").text == "Hello, world!"
        assert "own_process.<locals>.app" in repr(server)
    assert calls == ["/here"]


@pytest.mark.parametrize("loop", list(LOOPS))
def test_it_serves_while_the_context_lasts_and_keeps_what_is_logged(loop: str) -> None:
    with serving("apps:scripted", loop=loop, threads=2) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert server.addresses == (server.url,)
        assert get(server.url + "/plain").text == "ok"
        record = server.wait_for_event("request.finished", path="/plain")
        assert (record["status"], record["level"]) == (200, "info")
        assert record in server.events
        assert server.find_events(status=200) == [record]
        assert server.find_events("request.started") == []
        assert server.statistics().by_outcome()[gatekeep.Outcome.SERVED] == 1
    with pytest.raises(httpx.ConnectError):
        get(server.url)


def test_a_callable_is_served_where_other_processes_can_import_it() -> None:
    with serving(apps.hello) as server:
        assert get(server.url).text == "Hello, world!"


def test_a_local_function_and_one_of_the_main_program_are_refused_with_the_cure(tmp_path: Path) -> None:
    def local(environ, start_response):
        raise AssertionError

    with (
        pytest.raises(gatekeep.SettingsError, match="a local function: put it at the top level"),
        serving(local),
    ):
        pass
    program = tmp_path / "program.py"
    program.write_text(
        "import gatekeep.testing\ndef app(environ, start_response): ...\nwith gatekeep.testing.serving(app): ...\n"
    )
    done = subprocess.run(
        [sys.executable, program],
        env=os.environ | {"PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "the main program: put it at the top level of a module of its own" in done.stderr


def test_several_servers_live_beside_each_other_and_one_may_end_early() -> None:
    with serving("apps:hello") as first, serving("apps:echo", bind=["127.0.0.1:0", "127.0.0.1:0"]) as second:
        assert get(first.url).text == "Hello, world!"
        first.stop()
        first.stop()
        with pytest.raises(httpx.ConnectError):
            get(first.url)
        assert [get(address).status_code for address in second.addresses] == [200, 200]


def test_one_that_listens_on_a_unix_socket_has_no_url(tmp_path: Path) -> None:
    with serving("apps:hello", bind=f"unix:{tmp_path}/s") as server:
        assert (server.url, server.addresses) == ("", (f"unix:{tmp_path}/s",))
        assert "unix:" in repr(server)


def test_an_unknown_setting_or_loop_names_what_is_allowed() -> None:
    with (
        pytest.raises(gatekeep.SettingsError, match="did you mean request-timeout"),
        serving("x", request_timeot=1),
    ):
        pass
    with pytest.raises(gatekeep.SettingsError, match="loop = 'curio': allowed is asyncio, uvloop, trio"):
        Server("x", loop="curio", debug=False, settings={})


def test_events_at_debug_are_kept_where_they_are_asked_for() -> None:
    with serving("apps:hello") as usual, serving("apps:hello", debug=True) as talkative:
        for server in usual, talkative:
            get(server.url)
            server.wait_for_event("request.finished")
        assert usual.find_events(level="debug") == []
        assert talkative.find_events("pickup.claimed", level="debug")


def test_an_event_that_does_not_come_fails_with_those_that_came() -> None:
    with serving("apps:scripted") as server:
        get(server.url + "/raise")
        server.wait_for_event("run.failed")  # it is told by another way than the answer
        with pytest.raises(EventMissing) as caught:
            server.wait_for_event("run.failed", count=2, timeout=0.1, reason="ValueError: raised on purpose")
    said = str(caught.value)
    assert said.startswith(
        "run.failed reason='ValueError: raised on purpose': 1 of 2 came within 0.1 s. The events:\n"
    )
    assert "\n  traceback:\n    Traceback (most recent call last):\n" in said


def test_an_event_is_waited_for_while_another_thread_brings_it_about() -> None:
    with serving("apps:scripted") as server:
        asking = threading.Timer(0.1, lambda: [get(server.url + "/plain") for _ in range(2)])
        asking.start()
        assert server.wait_for_event("request.finished", count=2)["path"] == "/plain"
        asking.join()


def test_an_application_that_cannot_be_loaded_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken_site.py").write_text("import no_such_thing\n")
    with (
        pytest.raises(gatekeep.CannotStart, match="no_such_thing") as caught,
        serving("broken_site", python_path=[str(tmp_path)]),
    ):
        pass
    traceback, log = caught.value.__notes__
    assert 'broken_site.py", line 1' in traceback
    assert "process.load_failed" in log


def test_an_error_inside_the_context_has_what_was_logged() -> None:
    with pytest.raises(ZeroDivisionError) as caught, serving("apps:hello"):
        1 / 0  # noqa: B018
    (note,) = caught.value.__notes__
    assert note.startswith("what gatekeep logged while it served apps:hello:\n")
    assert "process.ready" in note


def test_reload_replaces_the_processes() -> None:
    with serving("apps:pid") as server:
        before = get(server.url).text
        assert server.reload() == 1
        server.wait_for_event("process.exited", pid=int(before), timeout=60)
        assert get(server.url).text != before


def test_what_a_test_sets_in_the_environment_arrives() -> None:
    with serving("apps:scripted", env="COLOUR=green") as server:
        seen = get(server.url + "/process").json()["environ"]
    assert seen["COLOUR"] == "green"


def test_a_request_that_does_not_end_delays_the_end_only_for_a_moment() -> None:
    with serving(wedge) as server, pytest.raises(httpx.ReadTimeout):
        get(server.url + "/sleep", timeout=0.5)
    assert server.find_events("process.exited")


def test_a_process_that_the_application_leaves_behind_is_named_and_killed(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text(
        "import subprocess\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "    return [str(child.pid).encode()]\n"
    )
    with pytest.raises(ProcessLeft) as caught, serving("leaving:app", python_path=[str(tmp_path)]) as server:
        child = get(server.url).text
    assert f"killed now: {child} (sleep 1000)" in str(caught.value)
    wait_until(lambda: not is_running(int(child)))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- the application that gets stuck --------------------------------------------------------------------------------


TIMERS = {
    "served": {},  # patient, for what ends by itself, on a busy machine too
    "interrupted": {"request_timeout": 0.5, "interrupt_timeout": 0.5},
    "deadlocked": {"deadlock_timeout": 2},
}


@pytest.fixture(scope="module")
def stuck():
    """Servers by what is to become of the request: a fresh process each time one is lost, and timers that nobody waits for."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(serving(wedge, threads=1, **timers)) for name, timers in TIMERS.items()
        }


@pytest.mark.parametrize(
    ("way", "status", "outcome"),
    [
        ("/", 200, "served"),
        ("/busy", 504, "interrupted"),
        ("/recv", 504, "interrupted"),
        ("/sleep?n=0.1", 200, "served"),
        ("/busy?n=0.1", 200, "served"),
        ("/recv?n=0.1", 200, "served"),
        ("/lock?n=0.1", 200, "served"),
        ("/swallow?n=0.1", 200, "served"),
        ("/lock", 504, "interrupted"),
        ("/swallow", 504, "interrupted"),
        ("/kill", 502, "lost"),
        ("/exit", 502, "lost"),
        ("/raise", 500, "app_error"),
        ("/stream?n=0.1", 200, "served"),
        ("/events?n=0.1", 200, "served"),
        ("/grow?n=1", 200, "served"),
        ("/gil", 502, "lost"),
        ("/nowhere", 404, "served"),
        ("/sleep?n=-1", 400, "served"),
        ("/sleep?n=soon", 400, "served"),
    ],
)
def test_every_way_to_get_stuck_ends_as_it_should(
    stuck: dict[str, Server], way: str, status: int, outcome: str
) -> None:
    path = way.partition("?")[0]
    server = stuck[
        "deadlocked" if path == "/gil" else "interrupted" if outcome == "interrupted" else "served"
    ]
    seen = len(server.find_events("request.finished", path=path))
    assert get(server.url + way).status_code == status
    assert server.wait_for_event("request.finished", path=path, count=seen + 1)["outcome"] == outcome


def test_a_response_that_breaks_off_looks_so(stuck: dict[str, Server]) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        get(stuck["served"].url + "/cut")


def test_who_serves_it_loads_no_gateway() -> None:
    loaded = loaded_after("import gatekeep.testing; gatekeep.testing.wedge")
    ours = {name for name in loaded if name.startswith("gatekeep")}
    assert ours == {"gatekeep", "gatekeep.testing", "gatekeep.testing._wedge"}


# --- the fixture ----------------------------------------------------------------------------------------------------


class Project:
    """A user's project: files, and a pytest that finds our plugin by its entry point."""

    def __init__(self, temporary: Path) -> None:
        self.folder = temporary / "project"
        self._installed = temporary / "installed"
        metadata = self._installed / "gatekeep_as_installed-1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gatekeep-as-installed\nVersion: 1\n")
        plugins = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["pytest11"]
        lines = ["[pytest11]", *(f"{name} = {module}" for name, module in plugins.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines))

    def write(self, **files: str) -> None:
        """Files by their names: `__` stands for a slash, `.py` is added."""
        for name, text in {"pytest.ini": "[pytest]\n", **files}.items():
            path = self.folder / (name if "." in name else name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(self, *arguments: str) -> str:
        """Run pytest; what it prints."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        environment["PYTHONPATH"] = os.pathsep.join([SOURCE, str(self._installed)])
        program = str(Path(sys.executable).parent / "pytest")
        done = subprocess.run(
            [sys.executable, program, "-q", "-p", "no:cacheprovider", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


SITE = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [NAME.encode()]
"""


def test_the_fixture_is_just_there_and_its_servers_end_with_the_test(project: Project) -> None:
    project.write(
        first="NAME = 'first'" + SITE,
        second="NAME = 'second'" + SITE,
        tests__test_it="""
import httpx

SEEN = []

def test_it(gatekeep_server):
    servers = [gatekeep_server("first:app"), gatekeep_server("second:app", threads=2, loop="trio")]
    assert [httpx.get(server.url, timeout=60).text for server in servers] == ["first", "second"]
    for server in servers:
        assert server.wait_for_event("request.finished")["status"] == 200
        SEEN.append((server.url, server.find_events("process.ready")[0]["pid"]))

def test_it_is_gone():
    import os, pytest
    for url, pid in SEEN:
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
""",
    )
    assert "2 passed" in project.run("-W", "error")


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_processes_find_what_the_test_finds(project: Project, mode: str) -> None:
    project.write(
        **{"pytest.ini": "[pytest]\npythonpath = src\n"},
        src__shop="NAME = 'shop'" + SITE,
        conftest="",
        tests__test_it=f"""
import httpx, pytest

NAME = "the test's own"
{SITE}
def test_pythonpath(gatekeep_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert httpx.get(gatekeep_server("shop:app").url, timeout=60).text == "shop"

@pytest.mark.parametrize("elsewhere", [False, True])
def test_own_callable(gatekeep_server, tmp_path, monkeypatch, elsewhere):
    if elsewhere:
        monkeypatch.chdir(tmp_path)
    assert httpx.get(gatekeep_server(app).url, timeout=60).text == NAME
""",
    )
    assert "3 passed" in project.run(f"--import-mode={mode}")


def test_beside_a_failure_stands_what_the_servers_said(project: Project) -> None:
    project.write(
        site_of_test="NAME = 'x'" + SITE,
        test_it="""
import httpx

def test_failing(gatekeep_server):
    assert httpx.get(gatekeep_server("site_of_test:app").url, timeout=60).status_code == 201

def test_not_starting(gatekeep_server):
    gatekeep_server("site_of_test:nothing")

def test_passing(gatekeep_server):
    gatekeep_server("site_of_test:app")
""",
    )
    said = project.run("-k", "failing or passing")
    assert "1 failed, 1 passed" in said
    assert said.count("- gatekeep -") == 1
    assert "what gatekeep logged while it served site_of_test:app:" in said
    assert "request.finished" in said
    said = project.run("-k", "not_starting")
    assert "CannotStart: site_of_test has no nothing" in said
    assert "process.load_failed" in said


def test_a_process_that_is_left_fails_the_test_by_name(project: Project) -> None:
    project.write(
        test_it="""
import httpx, subprocess

def leave(environ, start_response):
    start_response("200 OK", [])
    return [str(subprocess.Popen(["sleep", "1000"]).pid).encode()]

def test_leaving(gatekeep_server):
    httpx.get(gatekeep_server(leave).url, timeout=60)

def test_next():
    pass
"""
    )
    said = project.run()
    assert "2 passed, 1 error" in said
    assert re.search(r"ProcessLeft: still running 2 s after the server has stopped, .*\(sleep 1000\)", said)


def test_a_run_without_servers_loads_next_to_nothing(project: Project) -> None:
    project.write(
        test_it="""
import sys

def test_it():
    ours = {name for name in sys.modules if name.startswith("gatekeep")}
    assert ours == {"gatekeep", "gatekeep.testing", "gatekeep.testing._pytest"}
"""
    )
    assert "1 passed" in project.run()
    assert "gatekeep_server" in project.run("--fixtures")


def test_the_example_does_what_it_says(project: Project) -> None:
    project.folder = EXAMPLES / "10_testing"
    said = (project.folder / "README.md").read_text()
    (passed,) = re.findall(r"\$ python -m pytest\n(\d+ passed)\n", said)
    assert passed in project.run()


def test_it_works_where_pytest_is_not_installed(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "import gatekeep.testing, urllib.request\n"
        "with gatekeep.testing.serving(gatekeep.testing.wedge) as server:\n"
        "    print(urllib.request.urlopen(server.url).read().decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "ok\n", done.stderr
