"""Whether a server left a process behind: its daemons, and what the application started in them.

Every process of a server has a mark in its environment, which its children inherit, whoever their parent is by then. So
a program that was started in the background and forgotten is found too. (Linux; elsewhere nothing is found.)
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

MARK = "GATEKEEP_TEST_SERVER"
"""The variable in their environment."""

GRACE = 2.0
"""Seconds in which a child that ends because its parent has ended may do so."""

LOOK = 0.02


class ProcessLeft(AssertionError):
    """A process outlived its server, and was killed then."""


def check_nothing_left(mark: str) -> None:
    """Wait for a moment until no process has the mark; kill those that stay.

    Raises:
        ProcessLeft: there were some.
    """
    deadline = time.monotonic() + GRACE
    while found := _marked(mark):
        if time.monotonic() >= deadline:
            break
        time.sleep(LOOK)
    else:
        return
    who = ", ".join(f"{pid} ({_command(pid)})" for pid in found)
    for pid in found:
        _kill(pid)
    raise ProcessLeft(
        f"still running {GRACE:g} s after the server has stopped, and killed now: {who}. "
        "The application started what it does not end."
    )


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue  # somebody else's, or it has just ended
    return sorted(found)


def _command(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "it has just ended"
    return command.replace(b"\0", b" ").decode("utf-8", "replace").strip()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
