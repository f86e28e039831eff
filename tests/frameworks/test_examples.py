"""The examples run as they are described: every command of every README does what it says."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

import gatekeep
from conftest import wait_until
from frameworks.raw_client import curl, has_curl
from served import Served, free_port, serve

EXAMPLES = Path(__file__).parents[2] / "examples"
MOUNTED = "07_fastapi"
WITH_TESTS_OF_THEIR_OWN = {
    MOUNTED,
    "05_asyncio",
    "06_trio",
    "08_timeouts",
    "09_blue_green",
    "11_nginx",
    "12_haproxy",
}
TUTORIALS = sorted(
    folder.name for folder in EXAMPLES.glob("[0-9][0-9]_*") if folder.name not in WITH_TESTS_OF_THEIR_OWN
)


@dataclass
class Step:
    """One command of a README and the output that stands below it."""

    command: str
    output: list[str] = field(default_factory=list)


def steps_of(readme: Path) -> list[Step]:
    """The commands in a README's console blocks."""
    steps: list[Step] = []
    for block in re.findall(r"```console\n(.*?)```", readme.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:]))
            else:
                steps[-1].output.append(line)
    return steps


@contextmanager
def run_tutorial(name: str, data: Path) -> Iterator[Served]:
    """Do what a README says up to `gatekeep serve`, and serve."""
    folder = EXAMPLES / name
    environment = {"MYSITE_DATA": str(data), "NOTES_DATA": str(data)}
    for step in steps_of(folder / "README.md"):
        program, *arguments = shlex.split(step.command)
        if program == "python":
            subprocess.run(
                [sys.executable, *arguments],
                cwd=folder,
                env={**os.environ, **environment},
                check=True,
                capture_output=True,
            )
        elif program == "gatekeep" and arguments[0] != "serve":
            run_gatekeep(*arguments, cwd=folder)
        elif program == "gatekeep":
            app, *flags = arguments[1:] or [None]
            with serve(app, *flags, cwd=folder, env=environment) as server:
                yield server
            return
    pytest.fail(f"{name}/README.md does not say how to serve it")


def run_gatekeep(*arguments: str, cwd: Path) -> None:
    """Run one of the other commands, which must succeed."""
    source = str(Path(gatekeep.__file__).parents[1])
    command = [sys.executable, "-m", "gatekeep", *arguments]
    run = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def as_pattern(line: str) -> str:
    """A line of a README's output as a regular expression: … is any text, 4711 any number."""
    return re.escape(line).replace("…", ".*").replace("4711", r"\d+")


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_commands_of_the_tutorial_do_what_they_say_and_the_server_stops(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES / name)
    with run_tutorial(name, tmp_path) as server:
        assert requests.get(server.url, timeout=20).status_code == 200
        server.wait_for_event("request.finished", method="GET", status=200, outcome="served")
        if has_curl():
            follow_with_curl(EXAMPLES / name / "README.md", server.url)
        assert server.daemon_pids()
        server.terminate()
        assert server.wait() == 0
        assert server.daemon_pids() == []


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_the_mounted_application_does_what_its_readme_says(server: str, tmp_path: Path) -> None:
    readme = EXAMPLES / MOUNTED / "README.md"
    assert f"{server} main:app" in readme.read_text()
    port = free_port()
    place = ["--port", str(port)] if server == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}"
    source = Path(gatekeep.__file__).parents[1]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", server, "main:app", *place],
            cwd=readme.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(source), str(readme.parent)])},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: is_there(f"{url}/ping"), 60)
        assert requests.get(f"{url}/legacy/", timeout=20).text.endswith("mounted at /legacy\n")
        if has_curl():
            follow_with_curl(readme, url)
            wait_until(lambda: "run.interrupted" in (tmp_path / "log").read_text())
    finally:
        process.terminate()
        process.wait(30)


def is_there(url: str) -> bool:
    try:
        return requests.get(url, timeout=20).status_code == 200
    except requests.RequestException:
        return False


def follow_with_curl(readme: Path, url: str) -> None:
    """Run a README's curl commands and compare what they print with what it says."""
    commands = [step for step in steps_of(readme) if step.command.startswith("curl ")]
    assert commands
    for step in commands:
        arguments = shlex.split(step.command.replace("http://127.0.0.1:8000", url))[1:]
        got = curl(*arguments)
        assert got.exit_status == (18 if "fail-late" in step.command else 0), step.command
        said = (got.head if "-i" in arguments else "") + got.body.decode()
        for line in step.output:
            assert re.search(as_pattern(line), said), f"{step.command}\n{said}"


def test_every_folder_stands_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text()
    folders = [path.name for path in EXAMPLES.iterdir() if path.is_dir()]
    assert [name for name in sorted(folders) if f"[{name}]({name}/)" not in index] == []
    assert [name for name in folders if not (EXAMPLES / name / "README.md").is_file()] == []


def test_nobody_is_told_to_install_a_strangers_package() -> None:
    for file in EXAMPLES.rglob("*"):
        if file.suffix in {".md", ".py", ".service"} or file.name == "Dockerfile":
            assert not re.search(r"pip install\b[^\n]*\bgatekeep\b", file.read_text()), file


# --- systemd ------------------------------------------------------------------------------------------------


def unit() -> configparser.ConfigParser:
    """The unit's sections. No key stands twice in it, or this refuses it."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(EXAMPLES / "systemd" / "gatekeep.service")
    return parser


def test_the_units_command_is_one_that_gatekeep_takes() -> None:
    program, command, app, *flags = shlex.split(unit()["Service"]["ExecStart"])
    assert program.endswith("/bin/gatekeep")
    assert (command, app) == ("serve", "mysite.wsgi:application")
    place = flags.index("--bind")
    bound = flags[place + 1]
    del flags[place : place + 2]
    assert bound == "127.0.0.1:8000"
    with serve("hello:application", *flags, cwd=EXAMPLES / "01_hello") as server:
        assert requests.get(server.url, timeout=20).status_code == 200


def test_the_unit_lets_the_gateway_stop_by_itself_and_does_not_repeat_what_cannot_succeed() -> None:
    service = unit()["Service"]
    assert service["KillMode"] == "mixed"
    # graceful-timeout and shutdown-timeout are 15 and 5 seconds.
    assert int(service["TimeoutStopSec"]) > 20
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"].split() == ["2", "3"]


# --- docker -------------------------------------------------------------------------------------------------


def dockerfile() -> dict[str, str]:
    """The last instruction of each kind."""
    text = (EXAMPLES / "docker" / "Dockerfile").read_text()
    return dict(re.findall(r"^([A-Z]+) (.+)$", text, re.MULTILINE))


def test_the_containers_command_serves_all_addresses_on_the_port_that_the_platform_sets() -> None:
    program, command, app, *flags = json.loads(dockerfile()["CMD"])
    assert (program, command) == ("gatekeep", "serve")
    port = free_port()
    environment = {"PORT": str(port)}
    with serve(app, *flags, cwd=EXAMPLES / "01_hello", env=environment, bind=None) as server:
        assert server.addresses == [f"http://0.0.0.0:{port}"]
        assert requests.get(f"http://127.0.0.1:{port}", timeout=20).text.startswith("Hello")


def test_the_container_is_nobody_special() -> None:
    assert dockerfile()["USER"].isdigit()
    assert dockerfile()["FROM"] == "python:3.12-slim"
