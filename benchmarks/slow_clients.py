"""What slow clients take away from the others.

    python benchmarks/slow_clients.py
    python benchmarks/slow_clients.py --kinds uploads --rounds 5

Normal traffic is a closed loop of clients whose connections are kept, on an application that sleeps 20 ms in each request: ten
threads can serve 500 a second, which no processor limits. Its throughput is measured without slow clients and beside

    readers    200 that read a response of 5 MB at 20 KB/s each
    uploads    50 that post 1 MB at 10 KB/s each
    slowloris  500 connections whose request's head comes by a byte a second

and the ratio of the two is taken within a round. The rounds are interleaved: in each, every server has its turn without them and
beside every kind. A server that gives each slow client a thread has none left for the others.

Target: within 20 % of the throughput without slow clients. That is worth something only where the throughput without them is
near the capacity. Slow clients run in a process of their own, whose CPU time is in the table: a core that they kept busy would
be missing from everybody's throughput.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

import probe
from load import default_generator, generate
from processes import usage
from report import aligned, spread_of
from slow import KINDS, Cost, slow_clients
from starting import (
    App,
    NotMeasurable,
    Running,
    add_servers,
    allow_many_descriptors,
    chosen,
    names,
    own_folder,
    progress,
    run,
    say,
    started,
    temporary_folder,
)

APP = App("probe", "probe:application", lambda body: body == probe.BODY)
SERVERS = ["gatekeep-uvloop-strict", "gunicorn-gthread"]
COUNTS = {"readers": 200, "uploads": 50, "slowloris": 500}
TARGET = 0.8
NEAR_CAPACITY = 0.8
NOBODY = "nobody"
SETTLE = 0.5
"""Seconds between the slow clients' beginning and the measurement."""


@dataclass(frozen=True)
class Sample:
    rate: float
    """Normal requests a second."""
    capacity: float
    """How many the application can serve a second."""
    failed: int
    cores: float
    """How many processors the server kept busy meanwhile."""
    cost: Cost | None = None


def normal_traffic(one: Running, options: argparse.Namespace) -> Sample:
    before = one.session.snapshot()
    target = f"/?{options.sleep}"
    load = generate(options.load, one.port, options.connections, options.seconds, target)
    used = usage(before, one.session.snapshot())
    if one.session.has_ended():
        raise NotMeasurable(f"ended: {one.session.last_words()}")
    capacity = one.server.all_threads(options.threads) / (options.sleep / 1000)
    return Sample(load.completed / load.seconds, capacity, load.failed, used.cpu / load.seconds)


def beside(one: Running, kind: str, options: argparse.Namespace) -> Sample:
    with slow_clients(one.port, kind, COUNTS[kind]) as leave:
        time.sleep(SETTLE)
        sample = normal_traffic(one, options)
        return replace(sample, cost=leave())


def one_round(one: Running, options: argparse.Namespace) -> dict[str, Sample]:
    samples = {NOBODY: normal_traffic(one, options)}
    if not samples[NOBODY].rate:
        raise NotMeasurable(f"answered nothing: {one.session.last_words()}")
    for kind in options.kinds:
        samples[kind] = beside(one, kind, options)
        # What they left in its queues is not the next measurement's.
        one.session.wait_quiet(timeout=3.0)
    return samples


# All servers.


def measure(options: argparse.Namespace, servers: Sequence) -> dict[str, list[dict[str, Sample]]]:
    """All servers stay up through all rounds, each idle while the others are measured."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        up = []
        for number, server in enumerate(servers):
            progress(f"starting {server.name}")
            own = own_folder(folder, number)
            try:
                up.append(stack.enter_context(started(server, APP, own, threads=options.threads)))
            except NotMeasurable as reason:
                say(f"skipped: {server.name}: {reason}")
        rounds: dict[str, list[dict[str, Sample]]] = {one.server.name: [] for one in up}
        for number in range(1, options.rounds + 1):
            for one in list(up):
                progress(f"round {number} of {options.rounds}, {one.server.name}")
                try:
                    rounds[one.server.name].append(one_round(one, options))
                except NotMeasurable as reason:
                    say(f"skipped from here on: {one.server.name}: {reason}")
                    up.remove(one)
        progress("")
    return {name: samples for name, samples in rounds.items() if samples}


HEADER = [
    *(
        "server",
        "beside",
        "requests/s",
        "of capacity",
        "of those without",
        "server's CPU",
        "slow clients' CPU",
    ),
    *("their KB/s", "target", "note"),
]


def table(rounds: dict[str, list[dict[str, Sample]]]) -> str:
    lines = [HEADER]
    for name, samples in rounds.items():
        for kind in samples[0]:
            lines.append(
                [name, *cells(kind, [one[kind] for one in samples], [one[NOBODY] for one in samples])]
            )
    return aligned(lines)


def cells(kind: str, those: Sequence[Sample], without: Sequence[Sample]) -> Iterator[str]:
    ratios = [sample.rate / other.rate for sample, other in zip(those, without, strict=True)]
    costs = [sample.cost for sample in those if sample.cost]
    yield f"{COUNTS[kind]} {kind}" if costs else kind
    yield f"{median(sample.rate for sample in those):.0f}"
    yield f"{median(sample.rate / sample.capacity for sample in those):.0%}"
    yield spread_of(ratios) if costs else "-"
    yield f"{median(sample.cores for sample in those):.0%}"
    yield f"{median(cost.cpu / cost.seconds for cost in costs):.1%}" if costs else "-"
    yield f"{median(cost.moved / cost.seconds for cost in costs) / 1000:.0f}" if costs else "-"
    yield verdict(median(ratios), without) if costs else "-"
    yield note(those, costs)


def verdict(ratio: float, without: Sequence[Sample]) -> str:
    """Below the capacity, something else may bound normal traffic, and slow clients use what it leaves."""
    if ratio < TARGET:
        return "missed"
    return (
        "met" if median(sample.rate / sample.capacity for sample in without) >= NEAR_CAPACITY else "unclear"
    )


def note(samples: Sequence[Sample], costs: Sequence[Cost]) -> str:
    parts = []
    if failed := sum(sample.failed for sample in samples):
        parts.append(f"{failed} requests failed")
    if reopened := sum(cost.reopened for cost in costs):
        parts.append(f"{reopened} slow connections ended by the server")
    return "; ".join(parts)


# The command.


def make_parser() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add_servers(parser, SERVERS)
    add = parser.add_argument
    add("--kinds", type=names, default=list(KINDS), help=f"of {', '.join(KINDS)} (default: all)")
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=2, help="for each measurement; wrk rounds it (default: 2)")
    add("--sleep", type=int, default=20, metavar="MS", help="what a normal request takes (default: 20 ms)")
    add("-c", "--connections", type=int, default=20, help="of normal traffic (default: 20)")
    add("--load", choices=["wrk", "python"], default=default_generator(), help="default: wrk if there")
    return parser


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    if unknown := [kind for kind in options.kinds if kind not in KINDS]:
        parser.error(f"no such kind: {', '.join(unknown)}")
    allow_many_descriptors()
    rounds = measure(options, chosen(options, parser))
    if not rounds:
        return 1
    say(f"{options.rounds} rounds of {options.seconds:g} s, {options.connections} normal connections\n")
    say(table(rounds))
    return 0


if __name__ == "__main__":
    run(main)
