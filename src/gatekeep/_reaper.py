"""The first process of a container: whatever loses its parent there becomes its child, and must be reaped by it.

The danger is to take the exit status of a process that is ours: `subprocess` would never hear of its end. Ours are those that
`subprocess` started, and it knows them before anybody else can.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import anyio

PAUSE = 1.0
"""Seconds between looks. (SIGCHLD would tell at once, but uvloop keeps that signal for itself.) A dead child must be nobody's
for two of them: one of ours may have ended while it was being started."""


class Reaper:
    """Reaps children that nobody waits for.

    Args:
        own: the pids of the children that somebody waits for.
    """

    def __init__(self, own: Callable[[], Iterable[int]]) -> None:
        self._own = own
        self._suspects: set[int] = set()

    def look(self) -> None:
        """Reap what was found dead at the last look, too."""
        dead = set(dead_children()) - set(self._own())
        for pid in dead & self._suspects:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        self._suspects = dead - self._suspects

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        while True:
            self.look()
            await anyio.sleep(PAUSE)


def dead_children() -> list[int]:
    """The children of this process that have ended and were not reaped."""
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                pids = file.read().split()
        except OSError:
            continue  # a thread that has just ended
        found += [int(pid) for pid in pids if _is_dead(pid)]
    return found


def _is_dead(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
