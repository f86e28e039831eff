"""What becomes of requests that do not end, and of those beside them: the cases that were measured of mod_wsgi, run here.

    python benchmarks/recovery.py [CASE ...]

Each case starts a gateway of its own, asks for one wedge and then for its siblings, and prints what each of them got and when,
in seconds after its own start. mod_wsgi's column was measured black-box on mod_wsgi 6.0.5 with the same settings.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from gatekeep import Gateway, Settings

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One experiment.

    Attributes:
        wedge: the path of the request that does not end.
        siblings: paths asked for a moment later, all at once.
        theirs: what mod_wsgi did.
    """

    name: str
    settings: dict[str, Any]
    wedge: str
    theirs: str
    siblings: tuple[str, ...] = ()
    what: str = ""


def _case(name: str, what: str, wedge: str, theirs: str, *siblings: str, **settings: Any) -> Case:
    return Case(name, settings, wedge, theirs, siblings, what)


CASES = (
    _case(
        "E5", "rt 2, it 0, 1 thread, busy loop", "/spin/600", "502 at 7.7, replaced",
        request_timeout=2, interrupt_timeout=0, threads=1, processes=1,
    ),
    _case(
        "E5b", "rt 2, it 0, 2 threads, busy loop + sibling of 4 s", "/spin/600", "502 at 11.0; sibling 200",
        "/brief/4", request_timeout=2, interrupt_timeout=0, threads=2, processes=1,
    ),
    _case(
        "E6", "rt 2, it 4, 2 threads, busy loop", "/spin/600", "504 at 3.8, same process",
        request_timeout=2, interrupt_timeout=4, threads=2, processes=1,
    ),
    _case(
        "E6b", "the same, sleep(60)", "/sleep/60", "502 at 13.0, replaced",
        request_timeout=2, interrupt_timeout=4, threads=2, processes=1,
    ),
    _case(
        "E6c", "the same, sleep(6)", "/sleep/6", "504 at 6.0, same process",
        request_timeout=2, interrupt_timeout=4, threads=2, processes=1,
    ),
    _case(
        "E6d", "the same, the application swallows it and answers", "/swallow/600", "200 at 3.9, same process",
        request_timeout=2, interrupt_timeout=4, threads=2, processes=1,
    ),
    _case(
        "E7", "dt 4, 2 processes of 5, held GIL, 10 siblings", "/gil/600",
        "502 at 9.0; 6 x 200 at once, 4 x 502 at 8.4",
        *["/brief/0.01"] * 10, deadlock_timeout=4, threads=5, processes=2,
    ),
    _case(
        "E43", "socket-timeout 3, rt 3, it 10, 5 threads, busy loop", "/spin/600",
        "504 at 3.0; interrupted at 9, when nobody waited",
        socket_timeout=3, request_timeout=3, interrupt_timeout=10, threads=5, processes=1,
    ),
    _case(
        "E44", "rt 2, it 3, dt 6, 2 threads, held GIL for 22 s + sibling", "/gil/22",
        "504 at 22.0, never replaced; sibling 200 after 21",
        "/brief/0.01", request_timeout=2, interrupt_timeout=3, deadlock_timeout=6, threads=2, processes=1,
    ),
    _case(
        "E44b", "the same with it 0", "/gil/22", "502 at 8.5, replaced; sibling 502 at 7.5",
        "/brief/0.01", request_timeout=2, interrupt_timeout=0, deadlock_timeout=6, threads=2, processes=1,
    ),
)  # fmt: skip


@dataclass
class Log:
    """What the gateway says, kept."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def _keep(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    debug = info = warning = error = _keep


@dataclass
class Answer:
    """What one client got, and how many seconds after it had asked."""

    status: int = 0
    after: float = 0.0


def ask(address: str, path: str, answer: Answer) -> None:
    began = time.monotonic()
    host, port = address.removeprefix("http://").rstrip("/").rsplit(":", 1)
    connection = HTTPConnection(host, int(port), timeout=120)
    try:
        connection.request("GET", path)
        answer.status = connection.getresponse().status
    except OSError:
        answer.status = -1
    finally:
        connection.close()
    answer.after = time.monotonic() - began


def play(case: Case) -> tuple[Answer, list[Answer], str]:
    """Run it: the wedge's answer, the siblings', and whether its process was replaced."""
    settings = {"graceful_timeout": 15, "shutdown_timeout": 5, **case.settings}
    app = f"{HERE / 'wedges.py'}"
    log = Log()
    gateway = Gateway(Settings.for_app(app, bind="127.0.0.1:0", **settings), logger=log)
    answers = [Answer() for _ in range(1 + len(case.siblings))]
    with gateway.serving_in_thread() as served:
        while len(served.statistics().processes) < settings["processes"]:
            time.sleep(0.05)
        threads = []
        for index, (path, answer) in enumerate(zip((case.wedge, *case.siblings), answers, strict=True)):
            thread = threading.Thread(target=ask, args=(served.addresses[0], path, answer))
            thread.start()
            threads.append(thread)
            if index == 0:
                time.sleep(0.5)
        for thread in threads:
            thread.join()
        time.sleep(1.0)
    # Events and not pids: a process that drains is still there.
    ends = {event for event, _ in log.events} & {"drain.started", "process.deadlocked"}
    replaced = "replaced" if ends else "same process"
    return answers[0], answers[1:], replaced


def describe(wedge: Answer, siblings: list[Answer], end: str) -> str:
    text = f"{wedge.status} at {wedge.after:.1f}, {end}"
    counts = Counter(answer.status for answer in siblings)
    for status, count in sorted(counts.items()):
        slowest = max(answer.after for answer in siblings if answer.status == status)
        text += f"; {count} x {status}, the last after {slowest:.1f}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"some of {', '.join(case.name for case in CASES)}")
    wanted = parser.parse_args().cases
    print("| case | settings | mod_wsgi | gatekeep |\n|---|---|---|---|")
    for case in CASES:
        if not wanted or case.name in wanted:
            print(f"| {case.name} | {case.what} | {case.theirs} | {describe(*play(case))} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
