"""CPU time per request, of all processes of a server together, of several servers in one run.

    python benchmarks/cpu.py
    python benchmarks/cpu.py --apps hello --servers mod_wsgi,gatekeep-uvloop-strict --processes 2,8,16

The rounds are interleaved (A B C, A B C, ...), so a noisy neighbour disturbs everybody, and a ratio is
taken within a round.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import hello
from load import default_generator, generate
from processes import Session, usage
from report import Row, Sample, as_data, table
from servers import DEFAULT, HERE, OPTIONAL, SERVERS, Launch, Server

YARDSTICKS = ("mod_wsgi", "gunicorn-sync")
PACKAGES = (
    *("gatekeep", "anyio", "h11", "trio", "uvloop"),
    *("mod_wsgi", "gunicorn", "waitress", "granian", "uvicorn", "a2wsgi", "hypercorn"),
    "django",
)
DEFAULT_TEXT = f"default: all but {', '.join(sorted(OPTIONAL))}"
STARTUP_TIMEOUT = 30.0


class NotMeasurable(Exception):
    """A server that does not start, or answers wrongly: it is left out, and the reason printed."""


# Applications.


@dataclass(frozen=True)
class App:
    name: str
    target: str
    prepare: Callable[[dict[str, str]], None]
    """Told the environment of the servers, makes what the application needs."""
    is_right: Callable[[bytes], bool]
    missing: str | None = None


def nothing_to_prepare(environment: dict[str, str]) -> None:
    pass


def prepare_django(environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "django_site.prepare"], env=environment, check=True)


def application(name: str) -> App:
    if name == "hello":
        return App(name, "hello:application", nothing_to_prepare, lambda body: body == hello.BODY)
    if name == "django":
        missing = None if find_spec("django") else "not installed: django"
        return App(name, "django_site.wsgi:application", prepare_django, is_django_page, missing)
    return App(name, name, nothing_to_prepare, lambda body: True)


def is_django_page(body: bytes) -> bool:
    return body.count(b'class="article"') == 20 and body.rstrip().endswith(b"</html>")


# One server.


@dataclass(frozen=True)
class Running:
    server: Server
    session: Session
    port: int

    def sample(self, number: int, options: argparse.Namespace) -> Sample:
        before = self.session.snapshot()
        load = generate(options.load, self.port, options.connections, options.seconds)
        self.session.wait_quiet(timeout=1.0)
        after = self.session.snapshot()
        if self.session.has_ended() or load.completed == 0:
            raise NotMeasurable(f"answered nothing in round {number}: {self.session.last_words()}")
        used = usage(before, after)
        first = self.session.pid
        workers = [used.by_process[pid] for pid, one in after.items() if self.server.is_worker(one, first)]
        return Sample(
            round=number,
            completed=load.completed,
            failed=load.failed,
            seconds=load.seconds,
            user=used.user,
            system=used.system,
            front=used.cpu - sum(workers),
            busiest_share=max(workers, default=0.0) / (sum(workers) or 1.0),
            processes=len(after),
            steady=used.steady,
        )


@contextmanager
def running(server: Server, app: App, folder: Path, options: argparse.Namespace) -> Iterator[Running]:
    """A server that has answered rightly and has had its warm-up. Raises NotMeasurable. Leaves no process."""
    launch = Launch(
        app=app.target,
        port=free_port(),
        processes=server.processes,
        threads=options.threads,
        folder=folder,
        python_path=(str(HERE), os.getcwd()),
    )
    environment = {**launch.environment(), "BENCHMARK_DATABASE": str(folder.parent / "database.sqlite3")}
    session = Session(server.command(launch), folder=folder, environment=environment)
    try:
        wait_for_right_answer(session, launch.port, app)
        generate(options.load, launch.port, options.connections, options.warmup)
        # Workers that are still importing the application would do it in the first round.
        session.wait_quiet(timeout=15.0)
        yield Running(server, session, launch.port)
    finally:
        with uninterrupted():
            session.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def wait_for_right_answer(session: Session, port: int, app: App) -> None:
    deadline = time.monotonic() + STARTUP_TIMEOUT
    while True:
        try:
            status, body = fetch(port)
            if status == 200 and app.is_right(body):
                return
            answer = f"answered {status} with {body[:60]!r}"
        except (OSError, http.client.HTTPException) as error:
            answer = f"does not answer ({error})"
        if session.has_ended():
            raise NotMeasurable(f"ended while starting: {session.last_words()}")
        if time.monotonic() > deadline:
            raise NotMeasurable(f"{answer} {STARTUP_TIMEOUT:.0f} s after its start: {session.last_words()}")
        time.sleep(0.1)


def fetch(port: int) -> tuple[int, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request("GET", "/")
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


# One application, all servers.


def measure(app: App, servers: Sequence[Server], options: argparse.Namespace) -> list[Row]:
    """All servers stay up through all rounds, each idle while the others are measured."""
    with ExitStack() as stack:
        # Short, for the UNIX sockets in it.
        folder = Path(tempfile.mkdtemp(prefix="gk-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        app.prepare(
            {
                **os.environ,
                "PYTHONPATH": str(HERE),
                "BENCHMARK_DATABASE": str(folder / "database.sqlite3"),
            }
        )
        started = start_all(app, servers, folder, options, stack)
        samples: dict[str, list[Sample]] = {one.server.name: [] for one in started}
        for number in range(1, options.rounds + 1):
            for one in list(started):
                progress(f"{app.name}: round {number} of {options.rounds}, {one.server.name}")
                try:
                    samples[one.server.name].append(one.sample(number, options))
                except NotMeasurable as reason:
                    say(f"skipped from here on: {one.server.name}: {reason}")
                    started.remove(one)
        progress("")
    return [
        Row(one.name, samples[one.name], has_front=one.has_front, may_pack=one.may_pack)
        for one in servers
        if samples.get(one.name)
    ]


def start_all(
    app: App, servers: Sequence[Server], folder: Path, options: argparse.Namespace, stack: ExitStack
) -> list[Running]:
    started = []
    for number, server in enumerate(servers):
        progress(f"{app.name}: starting {server.name}")
        own = folder / str(number)
        own.mkdir()
        try:
            started.append(stack.enter_context(running(server, app, own, options)))
        except NotMeasurable as reason:
            say(f"skipped: {server.name}: {reason}")
    return started


def say(text: str) -> None:
    progress("")
    print(text, flush=True)


def progress(text: str) -> None:
    """One line that the next one overwrites, for somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


# The command.


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_options() -> argparse.Namespace:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add = parser.add_argument
    add("--apps", type=names, default=["hello", "django"], help="hello, django or both (default: both)")
    add("--app", action="append", default=[], metavar="MODULE:CALLABLE", help="yours, in place of --apps")
    add("--servers", type=names, default=DEFAULT, help=f"all, or of {', '.join(SERVERS)} ({DEFAULT_TEXT})")
    add("--processes", type=numbers, default=[2], help="the first for all servers, more for gatekeep")
    add("--threads", type=int, default=5, help="in each process (default: 5)")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=3, help="for each server in each round; wrk rounds it (default: 3)")
    add("--warmup", type=float, default=1, help="seconds of load before the first round (default: 1)")
    add("-c", "--connections", type=int, default=16, help="default: 16")
    add("--load", choices=["wrk", "python"], default=default_generator(), help="default: wrk if there")
    add("--json", type=Path, help="where to write every sample")
    options = parser.parse_args()
    if options.servers == ["all"]:
        options.servers = list(SERVERS)
    if unknown := [name for name in options.servers if name not in SERVERS]:
        parser.error(f"no such server: {', '.join(unknown)}")
    if unknown := [name for name in options.apps if name not in ("hello", "django")]:
        parser.error(f"no such application: {', '.join(unknown)} (--app measures one of yours)")
    return options


def chosen_servers(options: argparse.Namespace) -> list[Server]:
    chosen = []
    for name in options.servers:
        server = SERVERS[name]
        if reason := server.missing():
            say(f"skipped: {name}: {reason}")
            continue
        first, *others = options.processes
        chosen.append(server.with_processes(first, first=True))
        if server.many_processes:
            chosen += [server.with_processes(number, first=False) for number in others]
    return chosen


def surroundings(options: argparse.Namespace) -> dict[str, object]:
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            pass
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "packages": installed,
        "options": {name: value for name, value in vars(options).items() if name != "json"},
    }


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl-C does not stop the stopping."""
    wanted = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in wanted.items():
            signal.signal(number, handler)


def end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    options = parse_options()
    data = surroundings(options)
    servers = chosen_servers(options)
    results = {}
    for app in map(application, options.app or options.apps):
        if app.missing:
            say(f"skipped: {app.name}: {app.missing}")
            continue
        rows = measure(app, servers, options)
        how = f"{options.rounds} rounds of {options.seconds:g} s, {options.connections} connections"
        say(f"\n{app.name}: {how}\n")
        if rows:
            print(table(rows, YARDSTICKS), flush=True)
        results[app.name] = as_data(rows, YARDSTICKS)
    if options.json:
        options.json.write_text(json.dumps({**data, "apps": results}, indent=2) + "\n")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
