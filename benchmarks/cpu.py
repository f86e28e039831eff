"""CPU time per request, of all processes of a server together, of several servers in one run.

    python benchmarks/cpu.py
    python benchmarks/cpu.py --apps hello --servers mod_wsgi,gatekeep-uvloop-strict --processes 2,8,16

The rounds are interleaved (A B C, A B C, ...), so a noisy neighbour disturbs everybody, and a ratio is
taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import hello
from load import default_generator, generate
from processes import usage
from report import Row, Sample, as_data, table
from servers import DEFAULT, HERE, OPTIONAL, SERVERS, Server
from starting import (
    App,
    NotMeasurable,
    Running,
    names,
    own_folder,
    progress,
    run,
    say,
    started,
    temporary_folder,
)

YARDSTICKS = ("mod_wsgi", "gunicorn-sync")
PACKAGES = (
    *("gatekeep", "anyio", "h11", "trio", "uvloop"),
    *("mod_wsgi", "gunicorn", "waitress", "granian", "uvicorn", "a2wsgi", "hypercorn"),
    "django",
)
DEFAULT_TEXT = f"default: all but {', '.join(sorted(OPTIONAL))}"


# Applications.


def nothing_to_prepare(environment: dict[str, str]) -> None:
    pass


@dataclass(frozen=True)
class Measured(App):
    prepare: Callable[[dict[str, str]], None] = nothing_to_prepare
    """Told the environment of the servers, makes what the application needs."""
    missing: str | None = None


def prepare_django(environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "django_site.prepare"], env=environment, check=True)


def application(name: str) -> Measured:
    if name == "hello":
        return Measured(name, "hello:application", lambda body: body == hello.BODY)
    if name == "django":
        missing = None if find_spec("django") else "not installed: django"
        return Measured(name, "django_site.wsgi:application", is_django_page, prepare_django, missing)
    return Measured(name, name, lambda body: True)


def is_django_page(body: bytes) -> bool:
    return body.count(b'class="article"') == 20 and body.rstrip().endswith(b"</html>")


# One server.


def sample(one: Running, number: int, options: argparse.Namespace) -> Sample:
    before = one.session.snapshot()
    load = generate(options.load, one.port, options.connections, options.seconds)
    one.session.wait_quiet(timeout=1.0)
    after = one.session.snapshot()
    if one.session.has_ended() or load.completed == 0:
        raise NotMeasurable(f"answered nothing in round {number}: {one.session.last_words()}")
    used = usage(before, after)
    first = one.session.pid
    workers = [used.by_process[pid] for pid, process in after.items() if one.server.is_worker(process, first)]
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
def warm(server: Server, app: App, folder: Path, options: argparse.Namespace) -> Iterator[Running]:
    """A server that has had its warm-up. Raises NotMeasurable."""
    database = {"BENCHMARK_DATABASE": str(folder.parent / "database.sqlite3")}
    with started(server, app, folder, threads=options.threads, environment=database) as one:
        generate(options.load, one.port, options.connections, options.warmup)
        # Workers that are still importing the application would do it in the first round.
        one.session.wait_quiet(timeout=15.0)
        yield one


# One application, all servers.


def measure(app: Measured, servers: Sequence[Server], options: argparse.Namespace) -> list[Row]:
    """All servers stay up through all rounds, each idle while the others are measured."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        app.prepare(
            {
                **os.environ,
                "PYTHONPATH": str(HERE),
                "BENCHMARK_DATABASE": str(folder / "database.sqlite3"),
            }
        )
        up = start_all(app, servers, folder, options, stack)
        samples: dict[str, list[Sample]] = {one.server.name: [] for one in up}
        for number in range(1, options.rounds + 1):
            for one in list(up):
                progress(f"{app.name}: round {number} of {options.rounds}, {one.server.name}")
                try:
                    samples[one.server.name].append(sample(one, number, options))
                except NotMeasurable as reason:
                    say(f"skipped from here on: {one.server.name}: {reason}")
                    up.remove(one)
        progress("")
    return [
        Row(one.name, samples[one.name], has_front=one.has_front, may_pack=one.may_pack)
        for one in servers
        if samples.get(one.name)
    ]


def start_all(
    app: App, servers: Sequence[Server], folder: Path, options: argparse.Namespace, stack: ExitStack
) -> list[Running]:
    up = []
    for number, server in enumerate(servers):
        progress(f"{app.name}: starting {server.name}")
        try:
            up.append(stack.enter_context(warm(server, app, own_folder(folder, number), options)))
        except NotMeasurable as reason:
            say(f"skipped: {server.name}: {reason}")
    return up


# The command.


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


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


def main() -> int:
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
    run(main)
