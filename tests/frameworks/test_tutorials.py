"""The examples that are programs of their own, or need other servers: each does what its README says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

import gatekeep
from conftest import wait_until
from frameworks.raw_client import has_curl
from frameworks.test_examples import EXAMPLES, Step, as_pattern, steps_of
from served import free_port, serve

pytestmark = pytest.mark.slow

README = EXAMPLES.parent / "README.md"
SERVED_AT = "http://127.0.0.1:8000"

needs_curl = pytest.mark.skipif(not has_curl(), reason="curl is not installed")


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """For the example's commands: this gatekeep, and no settings that are not the example's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GATEKEEP_", "PORT"))}
    source = str(Path(gatekeep.__file__).parents[1])
    return ours | {"PYTHONPATH": source, "PYTHONUNBUFFERED": "1"} | (changes or {})


class Program:
    """A program of an example while it runs; `output` is all that it has printed."""

    def __init__(self, *command: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self.output += line

    def wait_for(self, pattern: str, seconds: float = 40) -> str:
        """The first match of the pattern in what it prints."""

        def there() -> bool:
            if ended := self.process.poll() is not None:
                self._reader.join(10)  # what it has printed last
            found = re.search(pattern, self.output)
            assert found or not ended, f"ended with {self.process.returncode}: {self.output}"
            return found is not None

        try:
            wait_until(there, seconds)
        except AssertionError as error:
            error.add_note(self.output)
            raise
        found = re.search(pattern, self.output)
        assert found
        return found[0]

    def end(self, number: int) -> int:
        """Send it a signal; its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(40)
        self._reader.join(10)
        return status


@contextmanager
def running(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Run a program while the context lasts."""
    program = Program(*command, cwd=cwd, env=env)
    try:
        yield program
    except BaseException as error:
        error.add_note(program.output)
        raise
    finally:
        # In order first: processes that it has, such as nginx's workers, would outlive a kill.
        program.process.terminate()
        try:
            program.process.wait(30)
        except subprocess.TimeoutExpired:
            program.process.kill()
            program.process.wait()


def shell(command: str, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """What a README's command prints, whatever its exit status."""
    quiet = re.sub(r"\bcurl\b", "curl -q -sS --noproxy '*' --max-time 60", command)
    run = subprocess.run(
        ["bash", "-c", quiet],
        cwd=folder,
        env=environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
    )
    return run.stdout.decode("utf-8", "replace")


def expect(step: Step, said: str) -> None:
    """Each line that the README shows below a command was printed."""
    for line in step.output:
        assert re.search(as_pattern(line), said), f"{step.command}\nmisses {line!r} in\n{said}"


def curls(readme: Path) -> list[Step]:
    """The commands of a README that ask something."""
    return [step for step in steps_of(readme) if "curl " in step.command]


def follow(readme: Path, url: str) -> None:
    """Run a README's curl commands, one after the other, and compare what they print."""
    assert curls(readme)
    for step in curls(readme):
        expect(step, shell(step.command.replace(SERVED_AT, url), readme.parent))


# --- inside a program ---------------------------------------------------------------------------------------


def test_the_readmes_ten_lines_run_as_printed(tmp_path: Path) -> None:
    (code,) = re.findall(r"## Inside a program\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "program.py").write_text(code)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    with running(sys.executable, "program.py", cwd=tmp_path) as program:
        url = program.wait_for(r"serving at http://127.0.0.1:\d+").removeprefix("serving at ")
        assert "Hello world!" in shell(f"curl {url}/", tmp_path) or not has_curl()
        program.end(signal.SIGINT)


@needs_curl
@pytest.mark.parametrize(
    ("name", "number", "last_words"),
    [
        ("05_asyncio", signal.SIGTERM, r"requests: 2 served, 1 interrupted"),
        ("06_trio", signal.SIGINT, r"GET /no-such-page: 404 by process \d+, (?s:.*)\nstopped by SIGINT"),
    ],
)
def test_a_program_with_a_gateway_in_it(name: str, number: int, last_words: str) -> None:
    folder = EXAMPLES / name
    with running(sys.executable, "program.py", "127.0.0.1:0", cwd=folder) as program:
        url = program.wait_for(r"serving at http://127.0.0.1:\d+").removeprefix("serving at ")
        follow(folder / "README.md", url)
        assert program.end(number) == 0
        assert re.search(last_words, program.output)


# --- timeouts -----------------------------------------------------------------------------------------------


def test_each_timer_fires_and_says_so() -> None:
    folder = EXAMPLES / "08_timeouts"
    (step,) = [step for step in steps_of(folder / "README.md") if step.command == "python fire.py"]
    fire = f"{shlex.quote(sys.executable)} fire.py"
    expected, said = _by_timer(step.output), _by_timer(shell(fire, folder).splitlines())
    assert list(said) == list(expected)
    assert len(said) == 13
    for timer, lines in expected.items():
        pattern = "\n".join(map(as_pattern, lines))
        if not re.fullmatch(pattern, "\n".join(said[timer])):
            # All at once are much for a small machine that has other work, too.
            again = _by_timer(shell(f"{fire} {timer}", folder).splitlines())
            assert re.fullmatch(pattern, "\n".join(again[timer])), again


def _by_timer(lines: Sequence[str]) -> dict[str, list[str]]:
    """What is said of each timer, whose name stands alone in a line."""
    timers: dict[str, list[str]] = {}
    for line in lines:
        if re.fullmatch("[a-z-]+-timeout", line):
            timers[line] = []
        else:
            timers[list(timers)[-1]].append(line)
    return timers


@needs_curl
def test_each_timer_can_be_made_to_fire_by_hand() -> None:
    folder = EXAMPLES / "08_timeouts"
    with serve(None, cwd=folder) as server:

        def ask(step: Step) -> None:
            command = step.command.replace(SERVED_AT, server.url).replace(":8000", f":{server.port}")
            expect(step, shell(command, folder))

        steps = curls(folder / "README.md")
        assert len(steps) == 14
        with ThreadPoolExecutor(len(steps)) as pool:
            list(pool.map(ask, steps))
        for event in ("run.interrupted", "run.given_up", "process.deadlocked", "process.start_expired"):
            server.wait_for_event(event)
        server.wait_for_event("process.killed", reason="shutdown-timeout is over")


# --- new code without a lost request ------------------------------------------------------------------------


def test_processes_and_the_gateway_are_replaced_under_load_and_no_request_fails() -> None:
    folder = EXAMPLES / "09_blue_green"
    (step,) = [step for step in steps_of(folder / "README.md") if step.command == "python rehearse.py"]
    expect(step, shell(f"{shlex.quote(sys.executable)} rehearse.py", folder))


def test_the_load_counts_what_fails(tmp_path: Path) -> None:
    folder = EXAMPLES / "09_blue_green"
    said = shell(f"{shlex.quote(sys.executable)} load.py http://127.0.0.1:{free_port()} 2", folder)
    assert re.match(r"nothing; failed: [1-9]\d*\n  [1-9]\d* times ConnectionRefusedError", said)


# --- behind other servers -----------------------------------------------------------------------------------

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


@needs_curl
@pytest.mark.skipif(not os.access(NGINX, os.X_OK), reason="nginx is not installed")
def test_the_site_behind_nginx(tmp_path: Path) -> None:
    folder, port = tmp_path / "site", str(free_port())
    shutil.copytree(EXAMPLES / "11_nginx", folder)
    application = folder / "site.py"
    # So that no pause of ours hides those between the events.
    quick, slow = ("time.sleep(0.5)", "time.sleep(3)")
    assert quick in application.read_text()
    application.write_text(application.read_text().replace(quick, slow))
    configuration = folder / "nginx.conf"
    configuration.write_text(configuration.read_text().replace("8080", port))
    (as_printed,) = [
        step.command for step in steps_of(folder / "README.md") if step.command.startswith("nginx ")
    ]
    _, *arguments = shlex.split(as_printed)
    # Root's nginx has workers that are somebody else, and may not enter a test's folder.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    with (
        serve(None, cwd=folder, bind=None) as server,
        running(NGINX, *arguments, *user, cwd=folder) as nginx,
    ):
        assert server.addresses == ["unix:site.sock"]
        wait_until(lambda: is_listening(int(port)))
        for step in curls(folder / "README.md"):
            expect(step, shell(step.command.replace("8080", port), folder).replace(port, "8080"))
        arrivals = arrival_times(int(port), "/events", b"data: ")
        assert arrivals[-1] - arrivals[0] > 0.5, "the events came all at once"
        assert nginx.end(signal.SIGTERM) == 0


def is_listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def arrival_times(port: int, path: str, mark: bytes) -> list[float]:
    """When each line came that begins so."""
    with requests.get(f"http://127.0.0.1:{port}{path}", stream=True, timeout=30) as answer:
        return [time.monotonic() for line in answer.iter_lines(chunk_size=1) if line.startswith(mark)]


HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
needs_haproxy = pytest.mark.skipif(not os.access(HAPROXY, os.X_OK), reason="haproxy is not installed")


@needs_haproxy
def test_two_nodes_behind_haproxy_are_upgraded_under_load_and_no_request_fails() -> None:
    folder = EXAMPLES / "12_haproxy"
    (step,) = [step for step in steps_of(folder / "README.md") if step.command == "python upgrade.py"]
    expect(step, shell(f"{shlex.quote(sys.executable)} upgrade.py", folder))


@needs_haproxy
def test_haproxy_takes_its_configuration_without_a_warning() -> None:
    said = shell(f"{HAPROXY} -c -f haproxy.cfg", EXAMPLES / "12_haproxy")
    assert "Configuration file is valid" in said
    assert "WARNING" not in said


def test_both_rehearsals_use_the_same_site_and_the_same_load() -> None:
    for name in ("shop.py", "load.py", "version.txt"):
        assert (EXAMPLES / "12_haproxy" / name).read_text() == (EXAMPLES / "09_blue_green" / name).read_text()
