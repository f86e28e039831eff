"""A real `gatekeep serve` process for tests: on a free port, its log read as data, ended without leftovers.

    with serve("hello:application", "--processes", "1", cwd=folder) as server:
        requests.get(server.url)
        record = server.wait_for_event("request.finished", path="/")

The log on standard output, one JSON object a line, becomes `server.events`, a list that grows. Other lines
there (what an application prints) and everything on standard error are kept as text and shown when something
fails.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

READY_WITHIN = 40.0
# graceful-timeout (15 s) and shutdown-timeout (5 s), with room to spare.
STOPPED_WITHIN = 40.0
# A daemon process whose gateway has gone ends by itself.
ORPHANS_GONE_WITHIN = 20.0
# All that it said is read at once, where the threads that read it get a core.
READ_WITHIN = 20.0

# What would change the settings behind the test's back.
_SETTINGS_FROM_ENVIRONMENT = ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "NOTIFY_SOCKET", "LISTEN_FDS")

Event = dict[str, Any]

RUNNING: list[Served] = []
"""The servers that run now, so that a test's report can show their logs."""


class ServeFailed(AssertionError):
    """The process did not become ready, did not say what was waited for, or did not end as it should."""


class Served:
    """One gateway process. `serve` starts it and ends it.

    Attributes:
        process: the gateway; it leads a process group of its own.
        events: the log so far, the oldest first; it grows while the process runs.
        addresses: where it listens, from `gateway.ready`.
    """

    def __init__(
        self,
        app: str | None,
        *flags: str,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        python_path: Iterable[str | os.PathLike[str]] = (),
        bind: str | None = "127.0.0.1:0",
        through: Iterable[str] = (),
    ) -> None:
        """Start the process; `wait_ready` waits for it.

        Args:
            app: the application, as on the command line; None where something else names it.
            flags: further flags.
            cwd: the folder to run in.
            env: variables to set, or with None to take away.
            python_path: folders for `--python-path`.
            bind: where to listen; with None no address is given.
            through: a command that ends in running the one that follows it, in the same process.
        """
        self.events: list[Event] = []
        self.addresses: list[str] = []
        self._output: list[str] = []
        self._errors: list[str] = []
        self._changed = threading.Condition()
        self.command = [*through, *_command(app, flags, python_path, bind)]
        self.process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=_environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
        )
        assert self.process.stdout
        assert self.process.stderr
        self._streams = self.process.stdout, self.process.stderr
        self._readers = [
            self._read_in_thread(self.process.stdout, self._take_line),
            self._read_in_thread(self.process.stderr, self._errors.append),
        ]

    def __repr__(self) -> str:
        return f"<Served {self.command[4:]} pid={self.pid} at {self.addresses or 'no address yet'}>"

    # --- where it is ----------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The gateway's process."""
        return self.process.pid

    @property
    def url(self) -> str:
        """The first address, without a slash at the end."""
        return self.addresses[0].rstrip("/")

    @property
    def port(self) -> int:
        """The first address's port."""
        port = urlsplit(self.url).port
        assert port, f"{self.url} has no port"
        return port

    # --- what it said ---------------------------------------------------------------------------------------

    @property
    def stderr(self) -> str:
        """Standard error so far, the daemon processes' included."""
        return "".join(self._errors)

    @property
    def output(self) -> str:
        """What came on standard output and is not an event."""
        return "".join(self._output)

    def events_named(self, name: str, **fields: Any) -> list[Event]:
        """The events so far of that name, with those fields."""
        return [event for event in list(self.events) if _matches(event, name, fields)]

    def wait_for_event(self, name: str, timeout: float = 40.0, *, after: int = 0, **fields: Any) -> Event:
        """Wait for an event of that name with those fields and return the first one; it may be there already.

        Args:
            name: the event's name.
            timeout: how long to wait, in seconds.
            after: so many events, the oldest ones, are passed over: `len(server.events)`, taken earlier.
            fields: what the event must have.

        Raises:
            ServeFailed: it did not come, or the process ended without it.
        """
        deadline = time.monotonic() + timeout
        seen = after
        while True:
            ended = self.has_ended()
            with self._changed:
                for event in self.events[seen:]:
                    if _matches(event, name, fields):
                        return event
                seen = len(self.events)
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    break
                # The process's end is no change of the log, so it is looked for four times a second.
                self._changed.wait(min(left, 0.25))
        what = f"{name} {fields}" if fields else name
        why = "the process ended without it" if ended else f"not within {timeout:g} s"
        raise ServeFailed(f"event {what}: {why}\n{self.report()}")

    def wait_ready(self) -> None:
        """Wait for `gateway.ready`.

        Raises:
            ServeFailed: the process ended, or took too long.
        """
        ready = self.wait_for_event("gateway.ready", READY_WITHIN)
        self.addresses = list(ready["addresses"])

    def daemon_pids(self) -> list[int]:
        """The daemon processes that are ready and have not exited, the oldest first."""
        exited = {event["pid"] for event in self.events_named("process.exited")}
        return [event["pid"] for event in self.events_named("process.ready") if event["pid"] not in exited]

    def report(self) -> str:
        """All that the process said, for people."""
        status = self.process.poll()
        state = "is running" if status is None else f"exited with {status}"
        log = "\n".join(json.dumps(event, ensure_ascii=False) for event in self.events[-200:])
        return (
            f"{' '.join(self.command)}\n(process {self.pid} {state})\n--- log\n{log}\n"
            f"--- other output\n{self.output}\n--- standard error\n{self.stderr}"
        )

    # --- its end --------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """Send TERM to the gateway alone."""
        self.process.terminate()

    def kill(self) -> None:
        """Send KILL to the gateway alone; its daemon processes must end by themselves."""
        self.process.kill()

    def wait(self, timeout: float = STOPPED_WITHIN) -> int:
        """Wait for the gateway's end and its log's last line; return its exit status (-N for signal N).

        Raises:
            ServeFailed: it still runs after `timeout` seconds.
        """
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ServeFailed(f"still running after {timeout:g} s\n{self.report()}") from None
        self._finish_reading()
        return status

    def has_ended(self) -> bool:
        """Whether the gateway has ended; if so, all of its log has been read."""
        if self.process.poll() is None:
            return False
        self._finish_reading()
        return True

    def stop(self) -> None:
        """End the gateway with TERM, unless a test has ended it, and make sure that nothing is left.

        Raises:
            ServeFailed: it did not end, ended with another status than 0, or daemon processes outlived it.
        """
        if self.process.poll() is None:
            self.terminate()
            try:
                status = self.wait()
            except ServeFailed:
                self._kill_group()
                raise
            if status != 0:
                raise ServeFailed(f"TERM ended it with the exit status {status}\n{self.report()}")
        self._expect_no_orphans()
        self._finish_reading()

    def _expect_no_orphans(self) -> None:
        started = {event["pid"] for event in self.events_named("process.started")}
        deadline = time.monotonic() + ORPHANS_GONE_WITHIN
        while orphans := [pid for pid in started if _is_daemon(pid)]:
            if time.monotonic() > deadline:
                for pid in orphans:
                    os.kill(pid, signal.SIGKILL)
                raise ServeFailed(f"the daemon processes {orphans} outlived the gateway\n{self.report()}")
            time.sleep(0.05)

    def _kill_group(self) -> None:
        """Of the gateway, and the daemon processes, which have groups of their own."""
        for pid in [self.pid, *self.daemon_pids()]:
            if pid == self.pid or _is_daemon(pid):
                for kill in (os.killpg, os.kill):
                    try:
                        kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
        self.process.wait()

    # --- reading --------------------------------------------------------------------------------------------

    def _read_in_thread(self, stream: IO[str], take: Any) -> threading.Thread:
        def read() -> None:
            with stream:
                for line in stream:
                    take(line)

        thread = threading.Thread(target=read, name=f"log of {self.pid}", daemon=True)
        thread.start()
        return thread

    def _take_line(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        with self._changed:
            if isinstance(event, dict) and "event" in event:
                self.events.append(event)
            else:
                self._output.append(line)
            self._changed.notify_all()

    def _finish_reading(self) -> None:
        """Wait for the end of both streams, which an orphan may hold open."""
        for stream, reader in zip(self._streams, self._readers, strict=True):
            reader.join(2.0)
            deadline = time.monotonic() + READ_WITHIN
            while reader.is_alive() and _has_more(stream) and time.monotonic() < deadline:
                reader.join(0.1)


@contextmanager
def serve(
    app: str | None,
    *flags: str,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str | None] | None = None,
    python_path: Iterable[str | os.PathLike[str]] = (),
    bind: str | None = "127.0.0.1:0",
    through: Iterable[str] = (),
) -> Iterator[Served]:
    """Run `gatekeep serve APP` while the context lasts; inside of it, it is ready. See `Served`.

    Raises:
        ServeFailed: it did not start, or did not end as it should.
    """
    server = Served(app, *flags, cwd=cwd, env=env, python_path=python_path, bind=bind, through=through)
    RUNNING.append(server)
    try:
        server.wait_ready()
        yield server
    except BaseException as error:
        # The first failure is the one to report; that the end failed too is said beside it.
        try:
            server.stop()
        except ServeFailed as second:
            error.add_note(f"and then: {second}")
        raise
    else:
        server.stop()
    finally:
        RUNNING.remove(server)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody used a moment ago, from below those that the system hands out to clients."""
    while True:
        port = random.randrange(10000, 32000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def _command(
    app: str | None, flags: Iterable[str], python_path: Iterable[str | os.PathLike[str]], bind: str | None
) -> list[str]:
    ours = [*(["--bind", bind] if bind else []), "--log-format", "json"]
    paths = [argument for folder in python_path for argument in ("--python-path", os.fspath(folder))]
    return [sys.executable, "-m", "gatekeep", "serve", *([app] if app else []), *ours, *paths, *flags]


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _SETTINGS_FROM_ENVIRONMENT and not name.startswith("GATEKEEP_")
    }
    if source := _source_folder():
        earlier = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([source, earlier] if earlier else [source])
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


def _source_folder() -> str:
    """The checkout's `src`, by its full path for processes in other folders; empty if gatekeep is installed."""
    spec = find_spec("gatekeep")
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(places[0]).resolve().parent if places else Path()
    return str(folder) if folder.name == "src" else ""


def _matches(event: Event, name: str, fields: Mapping[str, Any]) -> bool:
    return event.get("event") == name and all(
        key in event and event[key] == value for key, value in fields.items()
    )


def _has_more(stream: IO[str]) -> bool:
    """Whether there is something to read, or the end."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except ValueError:
        return False  # it has been read to its end, and closed


def _is_daemon(pid: int) -> bool:
    """Whether that process runs and is one of ours: the number may have been given away again."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"gatekeep" in command
