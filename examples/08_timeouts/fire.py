"""Serve this folder, make timers fire, and print what the client got and what the log says.

python fire.py                     all of them, at once
python fire.py request-timeout     one of them
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Event = dict[str, Any]
FOLDER = Path(__file__).parent


class Gateway:
    """`gatekeep serve` in this folder, on any free port, and its log as data."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "gatekeep", "serve", "--bind", "127.0.0.1:0", "--log-format", "json"]
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self.event("gateway.ready")["addresses"][0].rpartition(":")[2])

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("{"):
                with self._changed:
                    self._events.append(json.loads(line))
                    self._changed.notify_all()

    def event(self, name: str, **fields: Any) -> Event:
        """The first event of that name with those fields, waited for."""
        wanted = {"event": name} | fields
        with self._changed:
            if not self._changed.wait_for(lambda: self._find(wanted), timeout=60):
                raise SystemExit(f"the log has no {wanted}")
            return self._find(wanted)[0]

    def _find(self, wanted: Event) -> list[Event]:
        return [event for event in self._events if wanted.items() <= event.items()]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    # --- clients --------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[str, str]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode().strip()
        connection.close()
        return f"{answer.status} {answer.reason}", text

    def several(self, path: str, count: int) -> list[str]:
        """The statuses of so many requests at once."""
        with ThreadPoolExecutor(count) as pool:
            return [status for status, _ in pool.map(self.get, [path] * count)]

    def raw(self, data: str) -> socket.socket:
        """A connection on which those bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(data.replace("\n", "\r\n").encode())
        return connection


# --- how each of them is made to fire: what the client got, and the event that tells of it ------------------


def connect_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    got = gateway.several("/connect/sleep?s=2", 6)
    return f"{got.count('200 OK')} times 200 OK, the others {max(got)}", gateway.event("connect.expired")


def queue_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    got = gateway.several("/queue/sleep?s=3", 2)
    return f"the first {min(got)}, the second {max(got)}", gateway.event("queue.expired")


def request_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    before = gateway.get("/request/")[1]
    got, _ = gateway.get("/request/compute")
    same = gateway.get("/request/")[1] == before
    return f"{got}, and then {'the same' if same else 'another'} process", gateway.event(
        "run.interrupted", path="/compute"
    )


def interrupt_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    before = gateway.get("/interrupt/")[1]
    got, _ = gateway.get("/interrupt/sleep")
    same = gateway.get("/interrupt/")[1] == before
    return f"{got}, and then {'the same' if same else 'another'} process", gateway.event(
        "run.given_up", path="/sleep"
    )


def deadlock_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    got, _ = gateway.get("/deadlock/gil")
    return f"{got}, and then {gateway.get('/deadlock/')[0]}", gateway.event("process.deadlocked")


def startup_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    got = [gateway.get("/startup/break")[0], gateway.get("/startup/")[0]]
    event = gateway.event("process.start_expired")
    while (status := gateway.get("/startup/")[0]) != "200 OK":
        time.sleep(0.2)
    return ", then ".join([*got, status]), event


def inactivity_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    before = gateway.get("/inactivity/")[1]
    event = gateway.event("drain.started", group="inactivity", pid=int(before))
    gateway.event("process.exited", pid=int(before))
    same = gateway.get("/inactivity/")[1] == before
    return f"{'the same' if same else 'another'} process after the pause", event


def socket_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    return gateway.get("/socket/sleep?s=3")[0], gateway.event("run.expired")


def response_socket_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    with gateway.raw("GET /big HTTP/1.1\nHost: localhost\n\n") as connection:
        event = gateway.event("respond.stalled")
        size = 0
        try:
            while piece := connection.recv(1 << 20):
                size += len(piece)
        except ConnectionResetError:
            pass
    return f"{'less than' if size < 64 << 20 else 'all of'} 64 MiB, then the connection's end", event


def header_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    with gateway.raw("GET / HTTP/1.1\n") as connection:
        got = connection.recv(1000).decode()
    return got.split("\r\n")[0], gateway.event("request.finished", stage="parse")


def body_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    head = "POST / HTTP/1.1\nHost: localhost\nContent-Length: 10\n\n"
    with gateway.raw(head + "half") as connection:
        got = connection.recv(1000).decode()
    return got.split("\r\n")[0], gateway.event("body.expired")


def keep_alive_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    with gateway.raw("GET /big HTTP/1.1\nHost: localhost\n\n") as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()
        since = time.monotonic()
        ended = connection.recv(1) == b""
    waited = time.monotonic() - since
    return f"{answer.status} {answer.reason}, and {waited:.0f} s later {'the end' if ended else 'more'}", None


def shutdown_timeout(gateway: Gateway) -> tuple[str, Event | None]:
    process = int(gateway.get("/shutdown/stay")[1])
    os.kill(process, signal.SIGUSR1)
    event = gateway.event("process.killed", pid=process)
    return f"{gateway.get('/shutdown/')[0]} from its successor", event


TIMERS: dict[str, Callable[[Gateway], tuple[str, Event | None]]] = {
    fire.__name__.replace("_", "-"): fire
    for fire in (
        connect_timeout,
        queue_timeout,
        request_timeout,
        interrupt_timeout,
        deadlock_timeout,
        startup_timeout,
        inactivity_timeout,
        socket_timeout,
        response_socket_timeout,
        header_timeout,
        body_timeout,
        keep_alive_timeout,
        shutdown_timeout,
    )
}


def report(name: str, gateway: Gateway) -> str:
    """Make a timer fire, and say what happened."""
    got, event = TIMERS[name](gateway)
    lines = [name, f"  client  {got}"]
    if event:
        shown = ("timer", "trigger", "group", "method", "path", "status", "age", "silent", "reason")
        said = " ".join(f"{key}={event[key]!r}" for key in shown if event.get(key) not in (None, ""))
        lines.append(f"  log     {event['event']} {said}")
    return re.sub(r"(\.\d)\d+", r"\1", "\n".join(lines))


def main(names: list[str]) -> None:
    """Make those fire, or all."""
    if unknown := set(names) - set(TIMERS):
        raise SystemExit(f"no timer is called {', '.join(unknown)}; there are {', '.join(TIMERS)}")
    gateway = Gateway()
    try:
        with ThreadPoolExecutor(len(TIMERS)) as pool:
            for said in pool.map(report, names or TIMERS, [gateway] * len(TIMERS)):
                print(said, flush=True)
    finally:
        gateway.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
