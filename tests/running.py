"""Processes that a test starts by itself, and what `/proc` says of those that live and end meanwhile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def process(command: Any, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that does not outlive the block: one that still runs at its end is killed.

    `with subprocess.Popen(...)` waits instead, for ever where a test fails before it has told the process to end.

    Args:
        command: as for `subprocess.Popen`.
        options: as for `subprocess.Popen`.
    """
    started = subprocess.Popen(command, **options)
    try:
        yield started
    finally:
        started.kill()  # which does nothing to one that has ended
        started.wait()
        for pipe in (started.stdin, started.stdout, started.stderr):
            if pipe is not None:
                pipe.close()


def open_files(pid: int | str = "self") -> list[str]:
    """What the descriptors of a process stand for: paths, and names like "socket:[4711]"."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass  # closed since: the listing's own always is
    return found


def children(pid: int | str = "self") -> list[int]:
    """The processes that a process has started, zombies included."""
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # that thread has just ended
    return found


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
