"""What every benchmark that starts servers needs: a server that has answered rightly, and words for who watches.

A server is left neither running nor with a folder behind, however the benchmark ends.
"""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import Session
from servers import HERE, SERVERS, Launch, Server

STARTUP_TIMEOUT = 30.0


class NotMeasurable(Exception):
    """A server that does not start, or answers wrongly: it is left out, and the reason printed."""


# One server.


@dataclass(frozen=True)
class App:
    """What the servers run."""

    name: str
    target: str
    is_right: Callable[[bytes], bool]
    """Whether this is the body of its `GET /`, which answers 200."""


@dataclass(frozen=True)
class Running:
    server: Server
    session: Session
    port: int


@contextmanager
def started(
    server: Server, app: App, folder: Path, *, threads: int, environment: dict[str, str] | None = None
) -> Iterator[Running]:
    """A server that has answered rightly once. `folder` must be empty. Raises NotMeasurable. Leaves no process."""
    launch = Launch(
        app=app.target,
        port=free_port(),
        processes=server.processes,
        threads=threads,
        folder=folder,
        python_path=(str(HERE), os.getcwd()),
    )
    session = Session(
        server.command(launch), folder=folder, environment={**launch.environment(), **(environment or {})}
    )
    try:
        wait_for_right_answer(session, launch.port, app)
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


def fetch(port: int, target: str = "/", timeout: float = 10) -> tuple[int, bytes]:
    """Status and body of one request. Raises OSError or http.client.HTTPException where there is no answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        client.request("GET", target)
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    # Short, for the UNIX sockets in it.
    folder = Path(tempfile.mkdtemp(prefix="gk-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_folder(folder: Path, number: int) -> Path:
    own = folder / str(number)
    own.mkdir()
    return own


# The command line.


def names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def add_servers(parser: argparse.ArgumentParser, default: list[str]) -> None:
    """--servers, --processes and --threads, for a benchmark whose every server has the same size."""
    add = parser.add_argument
    text = f"of {', '.join(SERVERS)} (default: {','.join(default)})"
    add("--servers", type=names, default=default, metavar="NAMES", help=text)
    add("--processes", type=int, default=2, help="of each server (default: 2)")
    add("--threads", type=int, default=5, help="in each process (default: 5)")


def chosen(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Server]:
    """The servers of --servers that are installed; of the others it says so."""
    if unknown := [name for name in options.servers if name not in SERVERS]:
        parser.error(f"no such server: {', '.join(unknown)}")
    found = []
    for name in options.servers:
        if reason := SERVERS[name].missing():
            say(f"skipped: {name}: {reason}")
        else:
            found.append(SERVERS[name].with_processes(options.processes, first=True))
    return found


def say(text: str) -> None:
    progress("")
    print(text, flush=True)


def progress(text: str) -> None:
    """One line that the next one overwrites, for somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


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


def run(main: Callable[[], int]) -> None:
    """Runs a benchmark and exits with its status; a SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)


def allow_many_descriptors() -> None:
    """For us and the servers: a shell's usual limit of 1024 would be measured in place of the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
