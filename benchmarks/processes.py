"""The processes of a server, and the CPU time that all of them together have used.

A server is what descends from the process that was started, and what shares its session: a worker whose
parent has ended is still found by the session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    pid: int
    started: int
    parent: int
    session: int
    command: str
    user: float
    system: float
    reaped_user: float
    """Of children that have ended and were waited for, theirs included."""
    reaped_system: float

    @property
    def cpu(self) -> float:
        return self.user + self.system


Snapshot = dict[int, Process]


def read_process(pid: int) -> Process | None:
    """None when it has ended meanwhile."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    state, parent, session, started = fields[0], int(fields[1]), int(fields[3]), int(fields[19])
    if state == "Z":
        # Its time is not its parent's yet, but it is still in the four fields.
        command = b"(ended)"
    user, system, reaped_user, reaped_system = (int(field) * TICK for field in fields[11:15])
    text = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(pid, started, parent, session, text, user, system, reaped_user, reaped_system)


def all_processes() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := read_process(int(entry))) is not None:
            yield process


def snapshot(root: int) -> Snapshot:
    """The process `root`, everything in the session that it leads, and all their descendants."""
    everyone = {process.pid: process for process in all_processes()}
    members = {pid for pid, process in everyone.items() if pid == root or process.session == root}
    while True:
        children = {pid for pid, process in everyone.items() if process.parent in members} - members
        if not children:
            return {pid: everyone[pid] for pid in sorted(members)}
        members |= children


@dataclass(frozen=True)
class Usage:
    """What a server used between two snapshots."""

    user: float
    system: float
    by_process: dict[int, float]
    """Seconds by pid, of the processes that live at the end."""
    steady: bool
    """Whether the processes at the end are those of the beginning."""

    @property
    def cpu(self) -> float:
        return self.user + self.system


def usage(before: Snapshot, after: Snapshot) -> Usage:
    """A process that ended in between counts through its parent, which waited for it."""

    def total(processes: Snapshot, own: str) -> float:
        return sum(getattr(one, own) + getattr(one, f"reaped_{own}") for one in processes.values())

    return Usage(
        user=total(after, "user") - total(before, "user"),
        system=total(after, "system") - total(before, "system"),
        by_process={pid: one.cpu - (before[pid].cpu if pid in before else 0.0) for pid, one in after.items()},
        steady=before.keys() == after.keys(),
    )


class Session:
    """A command in a session of its own, so that a Ctrl-C at the terminal is ours to pass on."""

    def __init__(self, command: list[str], *, folder: Path, environment: dict[str, str]) -> None:
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def last_words(self) -> str:
        """The last line of its output that says something."""
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "it said nothing")

    def snapshot(self) -> Snapshot:
        return snapshot(self.pid)

    def wait_quiet(self, timeout: float) -> None:
        """Waits until its processes have stood still for a moment, or `timeout` is over."""
        deadline = time.monotonic() + timeout
        last, still = -1.0, 0
        while still < 3 and time.monotonic() < deadline:
            now = sum(process.cpu for process in self.snapshot().values())
            still = still + 1 if now == last else 0
            last = now
            time.sleep(0.05)

    def stop(self, timeout: float = 10.0) -> None:
        """Asks with SIGTERM, then kills. Returns when every process of the session has ended."""
        members = self.snapshot()
        if self._child.poll() is None:
            self._child.terminate()
        deadline = time.monotonic() + timeout
        while living := self._living(members):
            if time.monotonic() > deadline:
                for process in living:
                    _kill(process)
            time.sleep(0.05)

    def _living(self, members: Snapshot) -> list[Process]:
        self._child.poll()
        now = {process.pid: process for process in all_processes()}
        known = [now[pid] for pid, one in members.items() if pid in now and now[pid].started == one.started]
        later = [one for one in now.values() if one.session == self.pid and one.pid not in members]
        return [one for one in known + later if one.command != "(ended)"]


def _kill(process: Process) -> None:
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
