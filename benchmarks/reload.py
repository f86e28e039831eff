"""What users notice of a reload: SIGHUP at servers whose application takes seconds to import, while clients ask.

    python benchmarks/reload.py [--servers NAMES] [--import SECONDS] [--processes N]

Half of the clients keep their connections, the others open a new one for each request; all ask again at once. A request that is
answered with anything but 200, or not at all, has failed. "away" is the longest time in which no request was answered.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise

from report import aligned
from servers import SERVERS
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

APP = App("slow import", "slow_import:application", lambda body: body.isdigit())

COMPARED = ["gatekeep-uvloop-strict", "gatekeep-asyncio-strict", "gunicorn-gthread", "granian"]

HEADER = ["server", "answered", "failed", "kept", "new", "longest", "away", "all new after", "of which"]

LEAD = 1.0
"""Seconds of load before the signal."""

PATIENCE = 60.0
"""Seconds for a request."""


@dataclass
class Asker:
    """A client that asks again and again."""

    port: int
    keeps: bool
    failures: list[str] = field(default_factory=list)
    answers: list[tuple[float, float, bytes]] = field(default_factory=list)
    """When it came, how long it took, which process gave it."""

    def run(self, over: threading.Event) -> None:
        client = None
        while not over.is_set():
            client = client or http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            if not self._ask(client) or not self.keeps:
                client.close()
                client = None
        if client is not None:
            client.close()

    def _ask(self, client: http.client.HTTPConnection) -> bool:
        """Whether the connection can be used again."""
        began = time.monotonic()
        try:
            client.request("GET", "/")
            answer = client.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(type(error).__name__)
            time.sleep(0.01)
            return False
        now = time.monotonic()
        if answer.status == 200:
            self.answers.append((now, now - began, body))
        else:
            self.failures.append(str(answer.status))
        return answer.getheader("connection", "") != "close"


def measure(one: Running, options: argparse.Namespace) -> list[str]:
    over = threading.Event()
    askers = [Asker(one.port, number % 2 == 0) for number in range(options.clients)]
    threads = [threading.Thread(target=asker.run, args=(over,)) for asker in askers]
    for thread in threads:
        thread.start()
    time.sleep(LEAD)
    told = time.monotonic()
    os.kill(one.session.pid, signal.SIGHUP)
    time.sleep(options.load * options.processes + options.rest)
    over.set()
    for thread in threads:
        thread.join()
    if one.session.has_ended():
        raise NotMeasurable(f"ended at the signal: {one.session.last_words()}")
    return row(one.server.name, askers, told)


def row(name: str, askers: list[Asker], told: float) -> list[str]:
    answers = sorted(answer for asker in askers for answer in asker.answers)
    before = {body for at, _, body in answers if at < told}
    old = [at for at, _, body in answers if body in before]
    renewed = any(body not in before for _, _, body in answers)
    failures = [failure for asker in askers for failure in asker.failures]
    times = [at for at, _, _ in answers]
    away = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    kinds = ", ".join(f"{failures.count(kind)} {kind}" for kind in sorted(set(failures)))
    return [
        name,
        str(len(answers)),
        str(len(failures)),
        str(sum(len(asker.failures) for asker in askers if asker.keeps)),
        str(sum(len(asker.failures) for asker in askers if not asker.keeps)),
        f"{max(took for _, took, _ in answers):.2f} s",
        f"{away:.2f} s",
        f"{max(old) - told:.1f} s" if renewed else "never",
        kinds or "-",
    ]


def make_parser() -> argparse.ArgumentParser:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    add_servers(parser, [name for name in COMPARED if name in SERVERS])
    add = parser.add_argument
    add(
        "--import",
        type=float,
        default=6,
        dest="load",
        metavar="SECONDS",
        help="what an import takes (default: 6)",
    )
    add("--clients", type=int, default=8, help="that ask at the same time (default: 8)")
    add("--rest", type=float, default=6, help="seconds of load after the imports (default: 6)")
    return parser


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    rows = []
    with temporary_folder() as folder:
        for number, server in enumerate(chosen(options, parser)):
            progress(f"{server.name}: a reload, with imports of {options.load:g} s")
            try:
                with started(
                    server, APP, own_folder(folder, number),
                    threads=options.threads, environment={"SLOW_IMPORT": str(options.load)},
                ) as one:  # fmt: skip
                    rows.append(measure(one, options))
            except NotMeasurable as reason:
                say(f"skipped: {server.name}: {reason}")
    if not rows:
        return 1
    size = f"{options.processes} processes of {options.threads} threads"
    say(f"SIGHUP with imports of {options.load:g} s, {size}, {options.clients} clients\n")
    say(aligned([HEADER, *rows]))
    return 0


if __name__ == "__main__":
    run(main)
