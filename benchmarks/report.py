"""Samples of one run, and the table that is made of them.

A figure in microseconds is of this machine at this hour. A ratio is of two servers in the same round, so
what the neighbours did is in both; the median of a few rounds can be compared with another day's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

PACKED = 0.8
"""The share of one worker from which on all connections are said to sit in it."""


@dataclass(frozen=True)
class Sample:
    """One server in one round."""

    round: int
    completed: int
    failed: int
    seconds: float
    user: float
    system: float
    front: float
    """Of user + system, what the processes used that run no application."""
    busiest_share: float
    """The part of all workers' CPU time that one of them used."""
    processes: int
    steady: bool

    @property
    def cost(self) -> float:
        """Microseconds of CPU time per request."""
        return self.per_request(self.user + self.system)

    def per_request(self, seconds: float) -> float:
        return 1e6 * seconds / self.completed

    @property
    def rate(self) -> float:
        return self.completed / self.seconds


@dataclass(frozen=True)
class Row:
    name: str
    samples: list[Sample]
    has_front: bool
    may_pack: bool

    @property
    def cost(self) -> float:
        return median(sample.cost for sample in self.samples)

    def ratios(self, yardstick: Row) -> list[float]:
        costs = {sample.round: sample.cost for sample in yardstick.samples}
        return [sample.cost / costs[sample.round] for sample in self.samples if sample.round in costs]

    def note(self) -> str:
        parts = []
        if self.has_front:
            front = median(sample.per_request(sample.front) for sample in self.samples)
            workers = median(sample.cost - sample.per_request(sample.front) for sample in self.samples)
            parts.append(f"front {front:.0f} + daemons {workers:.0f}")
        if self.may_pack:
            parts.append(packing(self.samples))
        if failed := sum(sample.failed for sample in self.samples):
            parts.append(f"{failed} requests failed")
        if not all(sample.steady for sample in self.samples):
            parts.append("its processes changed")
        return "; ".join(parts)


def packing(samples: Sequence[Sample]) -> str:
    """Says in which rounds one worker had all the connections, and what a request cost then and otherwise."""
    packed = [sample for sample in samples if sample.busiest_share >= PACKED]
    spread = [sample for sample in samples if sample.busiest_share < PACKED]
    parts = []
    for rounds, what in ((packed, "all in one worker"), (spread, "spread over the workers")):
        if rounds:
            numbers = ", ".join(str(sample.round) for sample in rounds)
            parts.append(f"{what} in round {numbers}: {median(sample.cost for sample in rounds):.0f} us")
    return "; ".join(parts)


def table(rows: Sequence[Row], yardsticks: Sequence[str]) -> str:
    """One line per server. A yardstick that was not measured has no column."""
    known = {row.name: row for row in rows}
    standards = [known[name] for name in yardsticks if name in known]
    header = ["server", "us CPU/request", "user+system", *(f"of {row.name}" for row in standards)]
    lines = [[*header, "requests/s", "processes", "note"]]
    for row in rows:
        user = median(sample.per_request(sample.user) for sample in row.samples)
        system = median(sample.per_request(sample.system) for sample in row.samples)
        cells = [row.name, f"{row.cost:.0f}", f"{user:.0f}+{system:.0f}"]
        cells += [spread_of(row.ratios(standard)) for standard in standards]
        cells += [f"{median(sample.rate for sample in row.samples):.0f}", str(row.samples[-1].processes)]
        lines.append([*cells, row.note()])
    return aligned(lines)


def spread_of(ratios: Sequence[float]) -> str:
    if not ratios:
        return "-"
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of numbers end, the first and the last column begin, in one place."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number in (0, last) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_data(rows: Sequence[Row], yardsticks: Sequence[str]) -> dict[str, object]:
    """For --json: every sample, and the figures of the table."""
    known = {row.name: row for row in rows}
    return {
        row.name: {
            "us_per_request": row.cost,
            "ratios": {name: row.ratios(known[name]) for name in yardsticks if name in known},
            "note": row.note(),
            "samples": [asdict(sample) for sample in row.samples],
        }
        for row in rows
    }
