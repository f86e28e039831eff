"""Processes of other users: they must be able to come to this Python and to these files, which may lie in a closed home."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import gatekeep

TESTS = Path(__file__).parent

NEEDED = [
    *[Path(folder) for folder in (sys.executable, sys.prefix, sys.base_prefix)],
    TESTS,
    Path(gatekeep.__file__).parent,
]

OTHER = "nobody"


def open_way(stash: Path) -> list[str]:
    """A command that runs the one which follows it where what is needed can be reached by everybody.

    It has mounts of its own: closed folders on the way are covered by open ones which hold nothing but what is needed.

    Args:
        stash: an empty folder.
    """
    closed = _closed_folders({variant for path in NEEDED for variant in (path.absolute(), path.resolve())})
    if not closed:
        return []
    lines = ["set -e"]
    for number, (folder, names) in enumerate(sorted(closed.items())):
        kept = {name: stash / f"{number}-{name}" for name in sorted(names)}
        for name, place in kept.items():
            lines += [f"mkdir -p {_quote(place)}", f"mount --bind {_quote(folder / name)} {_quote(place)}"]
        lines.append(f"mount -t tmpfs -o mode=755 none {_quote(folder)}")
        for name, place in kept.items():
            lines += [
                f"mkdir {_quote(folder / name)}",
                f"mount --bind {_quote(place)} {_quote(folder / name)}",
            ]
    return ["unshare", "--mount", "sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh"]


def _closed_folders(paths: Iterable[Path]) -> dict[Path, set[str]]:
    """The outermost folders on the way to those paths that others may not enter, with what they hold of them."""
    closed: dict[Path, set[str]] = {}
    for path in paths:
        ways = [*reversed(path.parents), path]
        for folder, inside in pairwise(ways):
            if not folder.stat().st_mode & 0o001:
                closed.setdefault(folder, set()).add(inside.name)
                break
    return closed


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def why_not(through: list[str]) -> str:
    """Why no process of the other user can be had here; empty where it can."""
    if os.geteuid() != 0:
        return "only root may start processes of other users"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'import gatekeep'], user={OTHER!r}, check=True)"
    done = subprocess.run([*through, sys.executable, "-c", code], capture_output=True, text=True, cwd=TESTS)
    return "" if done.returncode == 0 else f"{OTHER} cannot run this Python: {done.stderr.splitlines()[-1:]}"
