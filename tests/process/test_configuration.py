"""What the gateway is told by a file, the environment and the command line; `gatekeep check`; SIGHUP reads all of it again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from test_replace import asking

from conftest import TESTS, wait_until
from served import Served, serve

APPLICATION = """
import os

def application(environ, start_response):
    body = " ".join([
        str(os.getpid()), environ["gatekeep.process_group"], environ["SCRIPT_NAME"], environ["PATH_INFO"],
    ]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

CONFIGURATION = """
log-format = "json"
processes = 1
threads = 2
[groups.site]
app = "site.py"
[groups.api]
app = "site.py"
threads = 3
[[mounts]]
group = "site"
[[mounts]]
path = "/api"
group = "api"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.py").write_text(APPLICATION)
    (tmp_path / "gatekeep.toml").write_text(CONFIGURATION)
    return tmp_path


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gatekeep", *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def ask(server: Served, path: str) -> list[str]:
    with urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
        return answer.read().decode().split(" ")


def threads_of(server: Served) -> dict[str, int]:
    groups = server.events_named("gateway.ready")[-1]["groups"]
    return {name: group["threads"] for name, group in groups.items()}


def test_groups_and_mounts_come_from_the_file_of_the_present_folder(folder: Path) -> None:
    with serve(None, cwd=folder) as server:
        assert ask(server, "/x")[1:] == ["site", "", "/x"]
        assert ask(server, "/api/x")[1:] == ["api", "/api", "/x"]
        assert threads_of(server) == {"site": 2, "api": 3}
        assert server.events_named("gateway.ready")[0]["config"] == str(folder / "gatekeep.toml")


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(folder: Path) -> None:
    with serve(None, cwd=folder, env={"GATEKEEP_THREADS": "4"}) as server:
        assert threads_of(server) == {"site": 4, "api": 4}
    with serve(None, "--threads", "6", cwd=folder, env={"GATEKEEP_CMD_ARGS": "--threads 5"}) as server:
        assert threads_of(server) == {"site": 6, "api": 6}
    environment = {"GATEKEEP_CMD_ARGS": "--threads 5", "GATEKEEP_THREADS": "4"}
    with serve(None, cwd=folder, env=environment) as server:
        assert threads_of(server) == {"site": 5, "api": 5}


def test_a_file_may_be_named_and_the_project_file_has_a_table_for_it(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(APPLICATION)
    table = '[tool.gatekeep]\napp = "site.py"\nprocesses = 1\nthreads = 7\n'
    (tmp_path / "pyproject.toml").write_text(table)
    with serve(None, cwd=tmp_path) as server:
        assert server.events_named("gateway.ready")[0]["threads"] == 7
    (tmp_path / "other.toml").write_text('app = "site.py"\nprocesses = 1\nthreads = 8\n')
    with serve(None, "-c", "other.toml", cwd=tmp_path) as server:
        assert server.events_named("gateway.ready")[0]["threads"] == 8


def test_sighup_without_news_replaces_processes_and_with_news_the_gateway(folder: Path) -> None:
    with serve(None, cwd=folder) as server:
        before = server.pid
        with asking(server.port, 2) as askers:
            os.kill(server.pid, signal.SIGHUP)
            for group in ("site", "api"):
                server.wait_for_event("process.exited", group=group)
            assert not server.events_named("settings.changed")
            (folder / "gatekeep.toml").write_text(CONFIGURATION.replace("threads = 3", "threads = 4"))
            os.kill(server.pid, signal.SIGHUP)
            server.wait_for_event("gateway.replaced", 60)
            wait_until(lambda: threads_of(server) == {"site": 2, "api": 4})
            successor = server.events_named("gateway.replaced")[0]["successor"]
            assert successor != before
            assert server.wait() == 0
        assert [failure for asker in askers for failure in asker.failures] == []
        os.kill(successor, signal.SIGTERM)
        wait_until(lambda: len(server.events_named("gateway.stopped")) == 2)


def test_sighup_with_settings_that_cannot_be_changes_nothing(folder: Path) -> None:
    with serve(None, cwd=folder) as server:
        (folder / "gatekeep.toml").write_text(CONFIGURATION.replace("threads = 3", "threads = 0"))
        os.kill(server.pid, signal.SIGHUP)
        refused = server.wait_for_event("settings.refused")
        seen = len(server.events)
        assert "gatekeep.toml: groups.api: threads = 0: allowed is 1 to 1024" in refused["reason"]
        assert ask(server, "/api")[1] == "api"
        (folder / "gatekeep.toml").write_text("threads = ")
        os.kill(server.pid, signal.SIGHUP)
        assert "no TOML" in server.wait_for_event("settings.refused", after=seen)["reason"]
        assert len(server.events_named("process.started")) == 2


def test_check_loads_every_group_and_says_so(folder: Path) -> None:
    done = command(folder, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "group site: site.py loads in" in done.stdout
    assert "group api: site.py loads in" in done.stdout
    assert f"{folder / 'gatekeep.toml'}: fine" in done.stdout


def test_check_shows_why_an_application_does_not_load(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_module\n")
    (folder / "gatekeep.toml").write_text(
        CONFIGURATION.replace('api]\napp = "site.py"', 'api]\napp = "broken.py"')
    )
    done = command(folder, "check")
    assert done.returncode == 3
    assert 'File "' in done.stderr, "the application's own traceback"
    assert done.stderr.splitlines()[-1].startswith(
        "gatekeep: cannot start: group api: broken.py failed to load"
    )


def test_check_shows_what_a_process_has_said_that_ended_of_itself(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import os\nprint('no database', flush=True)\nos._exit(7)\n")
    done = command(tmp_path, "check", "leaves.py")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "no database",
        "gatekeep: cannot start: group default: a process of group default ended before it was ready: exit status 7",
    ]


ALLOWS = "def allow_access(environ, host):\n    return True\n"
SCRIPTS = """
app = "site.py"
[[mounts]]
access-script = "allows.py"
[[mounts]]
path = "/inside"
access-script = "allows.py"
auth-script = "users.py"
"""


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (None, "there is no users.py"),
        (
            "import no_such_module",
            "users.py failed to load: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("raise SystemExit(0)", "users.py failed to load: SystemExit: 0"),
        ("def get_realm_hash(environ, user, realm): ...", "users.py has no check_password"),
        ("import time\ntime.sleep(60)", "users.py takes longer than script-timeout to load"),
    ],
    ids=["missing", "broken", "exits", "without its function", "hangs"],
)
def test_check_tells_why_a_script_that_decides_cannot_be_loaded(
    tmp_path: Path, script: str | None, line: str
) -> None:
    (tmp_path / "site.py").write_text("def application(environ, start_response): ...\n")
    (tmp_path / "gatekeep.toml").write_text(f"script-timeout = 5\n{SCRIPTS}")
    (tmp_path / "allows.py").write_text(ALLOWS)
    if script is not None:
        (tmp_path / "users.py").write_text(script)
    done = command(tmp_path, "check")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == f"gatekeep: cannot start: auth-script of /inside: {line}"


def test_check_tells_what_another_server_understands_otherwise(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text("def application(environ, start_response): ...\n")
    done = command(
        tmp_path, "check", "site.py", "--preload", "-t", "30", "--log-level", "critical", UVICORN_PORT="80"
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = [line for line in done.stdout.splitlines() if line.startswith("! ")]
    assert [line.split(":")[0] for line in said] == [
        "! log-level = 'critical' is taken as 'error'",
        "! -t is taken as request-timeout",
        "! --preload is ignored",
        "! $UVICORN_PORT is not read; use $GATEKEEP_BIND",
    ]


def test_check_loads_each_script_once_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text("def application(environ, start_response): ...\n")
    (tmp_path / "gatekeep.toml").write_text(SCRIPTS)
    (tmp_path / "allows.py").write_text(ALLOWS)
    (tmp_path / "users.py").write_text("def check_password(environ, user, password):\n    return False\n")
    done = command(tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "script allows.py loads\nscript users.py loads\n" in done.stdout


@pytest.mark.parametrize("name", ["check", "serve"])
def test_a_folder_for_temporary_files_that_there_is_not_is_refused_at_the_start(
    tmp_path: Path, name: str
) -> None:
    done = command(tmp_path, name, "apps:hello", "--spool-dir", "nowhere")
    assert (done.returncode, done.stderr) == (2, "gatekeep: spool-dir = 'nowhere': there is no such folder\n")


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (["-c", "nowhere.toml"], {}, "config = '{folder}/nowhere.toml': No such file or directory"),
        ([], {"GATEKEEP_CONFIG": "nowhere.toml"}, "config = '{folder}/nowhere.toml': No such file or directory"),
        (["site.py"], {}, "app = 'site.py': with several groups each needs its own: say it there"),
        ([], {"GATEKEEP_THREADS": "0"}, "$GATEKEEP_THREADS: threads = 0: allowed is 1 to 1024"),
        ([], {"GATEKEEP_THREDS": "1"}, "$GATEKEEP_THREDS: there is no such setting; did you mean $GATEKEEP_THREADS?"),
        ([], {"GATEKEEP_CMD_ARGS": "--nope"}, "$GATEKEEP_CMD_ARGS: No such option '--nope'."),
        ([], {"GATEKEEP_CMD_ARGS": "'"}, "$GATEKEEP_CMD_ARGS = \"'\": No closing quotation"),
        (["--profile", "fast"], {}, "profile = 'fast': allowed is one of tuned, express, directive"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line_with_its_place(
    folder: Path, arguments: list[str], environment: dict[str, str], line: str
) -> None:
    done = command(folder, "serve", *arguments, **environment)
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"gatekeep: {line.format(folder=folder)}"), said


def test_without_any_application_it_says_what_to_write(tmp_path: Path) -> None:
    done = command(tmp_path, "serve")
    assert done.returncode == 2
    assert done.stderr.startswith("gatekeep: app is needed: name it (mysite.wsgi:application)")


STARTER = TESTS.parent / "examples" / "15_mod_wsgi"


def test_mod_wsgis_starter_configuration_passes_and_its_real_schedule_is_shown() -> None:
    done = command(STARTER, "check")
    assert (done.returncode, done.stderr) == (0, "")
    shown = command(STARTER, "explain")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "group example: 2 processes of 5 threads, T_fire 156.6 s" in shown.stdout
    assert (
        "! socket-timeout 60 s, T_fire 156.6 s: the client gets 504 before the request is interrupted"
        in shown.stdout
    )


def test_the_starter_configuration_is_the_profile_express() -> None:
    def of(*arguments: str) -> dict[str, object]:
        shown = json.loads(command(STARTER, "explain", "--json", *arguments).stdout)
        (group,) = shown["groups"]
        return group | {"name": "", "mounts": []}

    assert of() == of("-c", os.devnull, "--profile", "express", "site.py")


def test_explain_speaks_to_machines_too(folder: Path) -> None:
    shown = json.loads(command(folder, "explain", "--json").stdout)
    assert [group["name"] for group in shown["groups"]] == ["site", "api"]
