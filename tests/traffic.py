"""Clients that ask all the time while something happens to the processes, and remember every answer."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from client import Client
from conftest import wait_until

APPLICATION = """
import os, threading, time

VERSION = {version!r}
{imports}
def application(environ, start_response):
    size = len(environ["wsgi.input"].read())
    how, _, argument = environ["QUERY_STRING"].partition("&")[0].partition("=")
    globals().get(how, time.sleep)(float(argument or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{VERSION}} {{os.getpid()}} {{size}}".encode()]


def compute(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


hoard = []


def eat(mebibytes):
    if len(hoard) < 500:
        hoard.append(b"x" * int(mebibytes * (1 << 20)))
"""


def write_script(path: Path, version: str, imports: str = "") -> Path:
    """Put an application at this path, from one moment to the next.

    Its answers are its version, its process and the size of the request's body. The query says what it does: `sleep=0.1`,
    `compute=0.1`, `eat=1`.

    Args:
        imports: what is done when it is loaded.
    """
    new = path.with_suffix(".new")
    new.write_text(APPLICATION.format(version=version, imports=imports))
    os.replace(new, path)
    return path


class Reply(NamedTuple):
    """An answer with status 200. `began` is on the monotonic clock, `took` in seconds."""

    began: float
    took: float
    version: str
    pid: int


class Traffic:
    """Clients that ask from the beginning of the context to its end.

    Args:
        kept: clients that keep their connections; every third posts a body.
        new: clients that make a connection for each request.
        query: what the requests do, with a `{}` for a time of 5 to 50 ms.
        pause: seconds between a client's requests.

    Attributes:
        replies: the answers of status 200.
        failures: everything else, in words.
    """

    def __init__(
        self, site: Any, *, kept: int = 4, new: int = 2, query: str = "sleep={}", pause: float = 0.0
    ) -> None:
        self._address = site.address
        self._query = query
        self._pause = pause
        self._over = threading.Event()
        self.replies: list[Reply] = []
        self.failures: list[str] = []
        self._rounds = [0] * (kept + new)
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number, number < kept), daemon=True)
            for number in range(kept + new)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ask no more, and wait for the last answers."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "a client has no answer after a minute"

    # --- asking

    def _ask_on(self, number: int, keeps: bool) -> None:
        chance = random.Random(number)
        client: Client | None = None
        while not self._over.wait(self._pause * chance.uniform(0.5, 1.5)):
            began = time.monotonic()
            try:
                client = client or Client(self._address, 60)
                goes_on = self._ask(client, began, chance, posts=number % 3 == 0)
            except OSError as error:
                goes_on = False
                self.failures.append(
                    f"{type(error).__name__}: {error} after {time.monotonic() - began:.3f} s"
                )
            self._rounds[number] += 1
            if client is not None and not (keeps and goes_on):
                client.close()
                client = None
        if client is not None:
            client.close()

    def _ask(self, client: Client, began: float, chance: random.Random, *, posts: bool) -> bool:
        """One request. Whether its connection is good for another."""
        target = "/?" + self._query.format(chance.uniform(0.005, 0.05))
        size = chance.choice([1, 1000, 30_000, 200_000]) if posts else 0
        answer = client.post(target, b"b" * size) if posts else client.get(target)
        took = time.monotonic() - began
        version, pid, seen = [*answer.body.decode("latin-1").split(), "", "", ""][:3]
        if answer.status == 200 and answer.complete and seen == str(size):
            self.replies.append(Reply(began, took, version, int(pid)))
        else:
            self.failures.append(f"{answer} after {took:.3f} s")
        return answer.complete and answer.fields.get("connection") != "close"

    # --- what came of it

    @property
    def versions(self) -> set[str]:
        """Of the code that has answered so far."""
        return {reply.version for reply in tuple(self.replies)}

    @property
    def longest(self) -> float:
        """The longest time, in seconds, that anybody has waited for an answer."""
        return max(reply.took for reply in tuple(self.replies))

    def by_pid(self) -> Counter[int]:
        """How many requests each process has answered."""
        return Counter(reply.pid for reply in tuple(self.replies))

    def since(self, moment: float) -> list[Reply]:
        """The answers to what was asked after a moment."""
        return [reply for reply in tuple(self.replies) if reply.began > moment]

    def wait_for_more(self, count: int = 20) -> None:
        """Until so many more have come."""
        so_far = len(self.replies)
        wait_until(lambda: len(self.replies) >= so_far + count, 40)

    def wait_for_everybody(self) -> None:
        """Until each client has asked from now on, and has its answer."""
        so_far = list(self._rounds)
        # The first of two may have been asked for before.
        wait_until(lambda: all(now >= past + 2 for now, past in zip(self._rounds, so_far, strict=True)), 40)

    def wait_for_version(self, version: str) -> None:
        """Until an answer of that code has come."""
        wait_until(lambda: version in self.versions, 40)
