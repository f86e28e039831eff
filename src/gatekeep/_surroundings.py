"""What the machine, or the container, allows this process: memory, processors, descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from gatekeep._explain import Surroundings

CGROUPS = Path("/sys/fs/cgroup")

NO_LIMIT = 1 << 60
"""Bytes: version 1 of control groups writes a huge number where there is no limit."""


def read_surroundings(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Surroundings:
    """What is known; what cannot be read is not known.

    Descriptors are those that `gatekeep serve` may have: it raises its limit as far as it may.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return Surroundings(
        memory_limit=_memory_limit(root, own),
        cpus=_cpus(root, own),
        descriptors=None if hard == resource.RLIM_INFINITY else hard,
    )


def _memory_limit(root: Path, own: Path) -> int | None:
    """The least of our control group's and its parents'."""
    found = [
        int(text)
        for folder, name in _folders(root, own, "memory")
        if (text := _read(folder / ("memory.max" if name == "" else "memory.limit_in_bytes"))).isdigit()
    ]
    return min((limit for limit in found if limit < NO_LIMIT), default=None)


def _cpus(root: Path, own: Path) -> float | None:
    """Processors that we may run on, or the share of them that our control group has, if that is less."""
    try:
        allowed: float | None = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        allowed = os.cpu_count()
    shares = [share for folder, name in _folders(root, own, "cpu") if (share := _share(folder, name)) > 0]
    return min((number for number in (allowed, *shares) if number is not None), default=None)


def _share(folder: Path, name: str) -> float:
    """0 where it has no limit."""
    if name == "":
        words = _read(folder / "cpu.max").split()
    else:
        words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    try:
        quota, period = map(int, words)
        return quota / period
    except (ValueError, ZeroDivisionError):
        return 0.0


def _folders(root: Path, own: Path, controller: str) -> Iterator[tuple[Path, str]]:
    """The folders of our control group and its parents, with the hierarchy's name: empty for version 2.

    In a container the root itself is mostly our group, whatever path is told.
    """
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        if controllers and not base.is_dir():
            base = root / controller
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            yield base.joinpath(*parts[:depth]), controllers


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
