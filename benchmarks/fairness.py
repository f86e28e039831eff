"""How evenly the processes and threads of a server share the requests.

    python benchmarks/fairness.py
    python benchmarks/fairness.py --servers gatekeep-uvloop-strict --requests 2000

The application answers with its process and thread. Each server gets 10,000 requests three times: one at a time, on kept
connections in turn; 16 at once; and 16 at once to an application that sleeps 5 ms. Connections are opened anew for each.
"max/min" is of the requests that the busiest and the idlest served, "variation" the standard deviation over the mean; a
process or thread that served none is one of those that are compared.

One at a time there is nothing to gain from sharing: a thread that is awake, and whose process has everything in its caches,
serves the next request cheapest. At once, a process that has more than its share is where requests wait for a thread or a
GIL while the other idles.
"""

from __future__ import annotations

import argparse
import selectors
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean, pstdev

import probe
from load import Broken, Connection, get
from report import aligned
from starting import (
    App,
    NotMeasurable,
    Running,
    add_servers,
    chosen,
    own_folder,
    progress,
    run,
    say,
    started,
    temporary_folder,
)

APP = App("probe", "probe:application", lambda body: body == probe.BODY)
SERVERS = ["gatekeep-uvloop-strict", "gatekeep-asyncio-strict", "gunicorn-gthread"]
STALL = 10.0
"""Seconds without any answer after which a server is given up."""

Worker = tuple[int, int]
"""A process and one of its threads."""


# Requests.


class Loop:
    """Keeps `at_once` requests under way on kept connections, which take turns."""

    def __init__(self, port: int, target: str, *, connections: int, at_once: int) -> None:
        request = get(target)
        self._idle = deque(Connection(("127.0.0.1", port), request) for _ in range(connections))
        self._at_once = at_once
        self._selector = selectors.DefaultSelector()

    def run(self, requests: int) -> Counter[Worker]:
        """Who served how many. Raises NotMeasurable."""
        counts: Counter[Worker] = Counter()
        try:
            for _ in range(min(self._at_once, requests)):
                self._start()
            unsent = requests - self._at_once
            for worker in self._answers():
                counts[worker] += 1
                if unsent > 0:
                    unsent -= 1
                    self._start()
        except (OSError, Broken) as error:
            raise NotMeasurable(f"request {counts.total() + 1} had no answer: {error!r}") from error
        finally:
            self._close()
        return counts

    def _start(self) -> None:
        connection = self._idle.popleft()
        self._selector.register(connection.send(), selectors.EVENT_READ, connection)

    def _answers(self) -> Iterator[Worker]:
        """Until no request is under way. Raises Broken, or TimeoutError when nothing is answered for STALL seconds."""
        while self._selector.get_map():
            ready = self._selector.select(STALL)
            if not ready:
                raise TimeoutError(f"nothing for {STALL:.0f} s")
            for key, _ in ready:
                response = key.data.receive()
                if response is None:
                    continue
                if response.status != 200:
                    raise Broken(f"status {response.status}")
                self._selector.unregister(key.fileobj)
                self._idle.append(key.data)
                pid, thread = response.body.split()
                yield int(pid), int(thread)

    def _close(self) -> None:
        waiting = [key.data for key in self._selector.get_map().values()]
        self._selector.close()
        for connection in [*waiting, *self._idle]:
            connection.close()


# What is said of them.


@dataclass(frozen=True)
class Shares:
    """How many requests each of a number of equals served, the idle ones included."""

    counts: list[int]

    @classmethod
    def of(cls, counts: Iterable[int], among: int) -> Shares:
        found = sorted(counts, reverse=True)
        return cls(found + [0] * (among - len(found)))

    def max_to_min(self) -> str:
        least = min(self.counts)
        return f"{max(self.counts) / least:.2f}" if least else "one had none"

    def variation(self) -> str:
        return f"{pstdev(self.counts) / fmean(self.counts):.2f}"

    def range(self) -> str:
        return f"{min(self.counts)}-{max(self.counts)}"

    def each(self) -> str:
        return " ".join(map(str, self.counts))


@dataclass(frozen=True)
class Mode:
    name: str
    connections: int
    at_once: int
    sleep: int
    """Milliseconds that the application takes."""


HEADER = [
    *("server", "requests", "per process", "max/min", "variation"),
    *("per thread", "max/min", "variation", "per thread of each process"),
]


def measure(one: Running, mode: Mode, options: argparse.Namespace) -> list[str]:
    loop = Loop(one.port, f"/who?{mode.sleep}", connections=mode.connections, at_once=mode.at_once)
    counts = loop.run(options.requests)
    by_process: Counter[int] = Counter()
    for (pid, _), number in counts.items():
        by_process[pid] += number
    processes = Shares.of(by_process.values(), one.server.processes)
    threads = Shares.of(counts.values(), one.server.all_threads(options.threads))
    within = [
        Shares.of((number for (owner, _), number in counts.items() if owner == pid), 0).each()
        for pid, _ in by_process.most_common()
    ]
    return [
        *(one.server.name, mode.name, processes.each(), processes.max_to_min(), processes.variation()),
        *(threads.range(), threads.max_to_min(), threads.variation(), " | ".join(within)),
    ]


def modes(options: argparse.Namespace) -> list[Mode]:
    many, sleep = options.connections, options.sleep
    return [
        Mode("one at a time", many, 1, 0),
        Mode(f"{many} at once", many, many, 0),
        Mode(f"{many} at once, {sleep} ms", many, many, sleep),
    ]


# The command.


def make_parser() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add_servers(parser, SERVERS)
    add = parser.add_argument
    add("--requests", type=int, default=10_000, help="in each of the three ways (default: 10000)")
    add("-c", "--connections", type=int, default=16, help="default: 16")
    add("--sleep", type=int, default=5, metavar="MS", help="in the third way (default: 5 ms)")
    return parser


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    lines = []
    with temporary_folder() as folder:
        for number, server in enumerate(chosen(options, parser)):
            try:
                with started(server, APP, own_folder(folder, number), threads=options.threads) as one:
                    # Processes that are still importing the application would have no share at first.
                    one.session.wait_quiet(timeout=15.0)
                    for mode in modes(options):
                        progress(f"{server.name}: {mode.name}")
                        lines.append(measure(one, mode, options))
            except NotMeasurable as reason:
                say(f"skipped: {server.name}: {reason}")
    progress("")
    if not lines:
        return 1
    say(f"{options.requests} requests each, {options.connections} connections\n")
    say(aligned([HEADER, *lines]))
    return 0


if __name__ == "__main__":
    run(main)
