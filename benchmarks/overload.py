"""Three times as many requests as the application can serve, from clients that wait for a second and leave.

    python benchmarks/overload.py
    python benchmarks/overload.py --servers gatekeep-uvloop-strict --factor 5 --seconds 30

The load is open: a client comes when its time has come, whatever became of those before it, on a connection of its own, and
closes it when the answer is whole or its patience is at an end. "In time" is a 200 that was whole before that. A server that
works through its queue in order, whether or not anybody still waits, is busy all the time and answers nobody in time.

Target: at least 80 % of the capacity is answered in time, and one second after the last client left, a fresh request is served
at once. The first requests find an empty queue, which flatters a short run: the second half of the load has a column of
its own.
"""

from __future__ import annotations

import argparse
import http.client
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import probe
from load import Broken, get, whole_response
from report import aligned
from starting import (
    App,
    NotMeasurable,
    Running,
    add_servers,
    allow_many_descriptors,
    chosen,
    fetch,
    own_folder,
    progress,
    run,
    say,
    started,
    temporary_folder,
)

APP = App("probe", "probe:application", lambda body: body == probe.BODY)
SERVERS = ["gatekeep-uvloop-strict", "gatekeep-asyncio-strict", "gunicorn-gthread"]
TARGET = 0.8
AT_ONCE = 0.25
"""Seconds beyond the application's own that a fresh request may take: as two noisy cores have it, not as a server needs it."""
FRESH_PATIENCE = 30.0


# Clients.


class End(StrEnum):
    """What became of a client's request."""

    ANSWERED = "answered"
    UNAVAILABLE = "503"
    OTHER_STATUS = "other status"
    BROKEN = "broken"
    LEFT = "left"


@dataclass(eq=False)
class Client:
    """One request on a connection of its own."""

    due: float
    request: bytes
    socket: socket.socket = field(default_factory=socket.socket)
    received: bytearray = field(default_factory=bytearray)
    end: End | None = None

    def connect(self, port: int) -> None:
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))

    def send(self) -> None:
        """When the connection stands. A connection that failed says so to who reads from it."""
        try:
            self.socket.send(self.request)
        except OSError:
            self.end = End.BROKEN

    def receive(self) -> None:
        try:
            data = self.socket.recv(65536)
            self.received += data
            response = whole_response(self.received)
        except BlockingIOError:
            return
        except (OSError, Broken):
            self.end = End.BROKEN
            return
        if response is not None:
            ends = {200: End.ANSWERED, 503: End.UNAVAILABLE}
            self.end = ends.get(response.status, End.OTHER_STATUS)
        elif not data:
            self.end = End.BROKEN


@dataclass
class Outcome:
    """What became of one load."""

    seconds: float
    ends: Counter[End] = field(default_factory=Counter)
    answered_at: list[float] = field(default_factory=list)
    """Seconds after the start of the load, of each answer in time."""
    lag: float = 0.0
    """Seconds that the latest client came late, through our own fault."""

    def rate(self, start: float, end: float) -> float:
        """Answers in time a second, between two moments of the load."""
        return sum(start <= moment < end for moment in self.answered_at) / (end - start)


class OpenLoad:
    """Clients that come at `rate` a second for `seconds`, evenly, and wait `patience` seconds each."""

    def __init__(self, port: int, request: bytes, *, rate: float, seconds: float, patience: float) -> None:
        self._port, self._request, self._patience = port, request, patience
        self._due = deque(number / rate for number in range(round(rate * seconds)))
        self._present: deque[Client] = deque()
        self._selector = selectors.DefaultSelector()
        self._start = 0.0
        self._outcome = Outcome(seconds)

    def run(self) -> Outcome:
        """Returns when the last client has left."""
        self._start = time.monotonic()
        while self._due or self._present:
            now = self._now()
            self._leave(now)
            self._arrive(now)
            for key, _ in self._selector.select(max(0.0, self._next() - self._now())):
                self._serve(key.data)
        self._selector.close()
        return self._outcome

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _next(self) -> float:
        """When something is to be done, even if no server says anything."""
        moments = [*list(self._due)[:1], *(client.due + self._patience for client in list(self._present)[:1])]
        return min(moments, default=0.0)

    def _arrive(self, now: float) -> None:
        while self._due and self._due[0] <= now:
            client = Client(self._due.popleft(), self._request)
            self._outcome.lag = max(self._outcome.lag, now - client.due)
            client.connect(self._port)
            self._selector.register(client.socket, selectors.EVENT_WRITE, client)
            self._present.append(client)

    def _leave(self, now: float) -> None:
        """They came in order and are equally patient, so they leave in order."""
        while self._present and (self._present[0].end or self._present[0].due + self._patience <= now):
            client = self._present.popleft()
            if client.end is None:
                self._finish(client, End.LEFT)

    def _serve(self, client: Client) -> None:
        if self._selector.get_key(client.socket).events == selectors.EVENT_WRITE:
            client.send()
            self._selector.modify(client.socket, selectors.EVENT_READ, client)
        else:
            client.receive()
        if client.end is not None:
            self._finish(client, client.end)

    def _finish(self, client: Client, end: End) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        now = self._now()
        if end is End.ANSWERED and now > client.due + self._patience:
            end = End.LEFT
        client.end = end
        self._outcome.ends[end] += 1
        if end is End.ANSWERED:
            self._outcome.answered_at.append(now)


# One server.


@dataclass(frozen=True)
class Row:
    name: str
    capacity: float
    outcome: Outcome
    fresh: float | None
    """Seconds that a request took after the load; None when it was not served within FRESH_PATIENCE."""
    own: float
    """Of these, the application's."""

    def cells(self) -> Iterator[str]:
        seconds, ends = self.outcome.seconds, self.outcome.ends
        rate, late_rate = self.outcome.rate(0.0, seconds), self.outcome.rate(seconds / 2, seconds)
        yield self.name
        yield f"{self.capacity:.0f}/s"
        yield f"{rate:.1f}/s"
        yield f"{rate / self.capacity:.0%}"
        yield f"{late_rate / self.capacity:.0%}"
        yield str(ends[End.UNAVAILABLE])
        yield str(ends[End.LEFT])
        yield str(ends[End.BROKEN] + ends[End.OTHER_STATUS])
        yield f"> {FRESH_PATIENCE:.0f} s" if self.fresh is None else f"{self.fresh:.3f} s"
        yield "met" if self.meets(rate, late_rate) else "missed"

    def meets(self, *rates: float) -> bool:
        in_time = min(rates) >= TARGET * self.capacity
        return in_time and self.fresh is not None and self.fresh <= self.own + AT_ONCE


HEADER = [
    *("server", "capacity", "in time", "of capacity", "second half"),
    *("503", "left", "other ends", "fresh request", "target"),
]


def measure(one: Running, options: argparse.Namespace) -> Row:
    own = options.sleep / 1000
    capacity = one.server.all_threads(options.threads) / own
    target = f"/?{options.sleep}"
    load = OpenLoad(
        one.port,
        get(target, "Connection: close"),
        rate=options.factor * capacity,
        seconds=options.seconds,
        patience=options.patience,
    )
    outcome = load.run()
    time.sleep(1.0)
    if one.session.has_ended():
        raise NotMeasurable(f"ended under the load: {one.session.last_words()}")
    return Row(one.server.name, capacity, outcome, fresh_request(one.port, target), own)


def fresh_request(port: int, target: str) -> float | None:
    start = time.monotonic()
    try:
        status, _ = fetch(port, target, timeout=FRESH_PATIENCE)
    except (OSError, http.client.HTTPException):
        return None
    return time.monotonic() - start if status == 200 else None


# The command.


def make_parser() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add_servers(parser, SERVERS)
    add = parser.add_argument
    add("--seconds", type=float, default=10, help="of load for each server (default: 10)")
    add("--factor", type=float, default=3, help="the load, in capacities (default: 3)")
    add("--sleep", type=int, default=50, metavar="MS", help="what a request takes (default: 50 ms)")
    add("--patience", type=float, default=1, help="seconds after which a client leaves (default: 1)")
    return parser


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    allow_many_descriptors()
    rows = []
    with temporary_folder() as folder:
        for number, server in enumerate(chosen(options, parser)):
            progress(f"{server.name}: {options.seconds:g} s of load")
            try:
                with started(server, APP, own_folder(folder, number), threads=options.threads) as one:
                    rows.append(measure(one, options))
            except NotMeasurable as reason:
                say(f"skipped: {server.name}: {reason}")
    progress("")
    if not rows:
        return 1
    load = f"{options.factor:g} times the capacity for {options.seconds:g} s"
    say(f"{load}; a request takes {options.sleep} ms, a client leaves after {options.patience:g} s\n")
    say(aligned([HEADER, *(list(row.cells()) for row in rows)]))
    say(f"\nThe latest client came {1000 * max(row.outcome.lag for row in rows):.0f} ms behind its time.")
    return 0


if __name__ == "__main__":
    run(main)
