"""Clients that take their time, in a process of their own: each comes to its turn once in a period, and does little then.

Nothing is waited for but the next turn, so a thousand of them cost a few percent of a processor. A connection that a server
ends is opened again.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from load import get

TICK = 0.02
BEGINNING = 6.0
"""Seconds for a server that buffers to take in what slow readers will ask for: 200 times 5 MB keep a core busy for three. Where
each reader has a thread, most never begin."""


@dataclass(frozen=True)
class Cost:
    """What slow clients used and did from when they had begun."""

    seconds: float
    cpu: float
    """Seconds of CPU time."""
    moved: int
    """Bytes that all of them read or wrote."""
    reopened: int
    """Connections that the server had ended."""


class SlowClient:
    """One connection after another. A turn never waits."""

    first = b""
    """What is sent as soon as the connection stands."""
    per_turn = 0
    receive_buffer = 0
    """Of the socket, in bytes; 0 is the system's, which takes megabytes off the server for a client that reads nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.moved = self.opened = 0
        self._open()

    def _open(self) -> None:
        self._socket = socket.socket()
        if self.receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        self._socket.setblocking(False)
        self._socket.connect_ex(("127.0.0.1", self._port))
        self._unsent = self.first
        self.opened += 1

    def turn(self) -> None:
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            elif not self.proceed():
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            self._socket.close()
            self._open()

    def proceed(self) -> bool:
        """Reads or writes a little; whether the connection still stands."""
        raise NotImplementedError

    def read(self, size: int) -> bytes:
        data = self._socket.recv(size)
        self.moved += len(data)
        return data

    def write(self, data: bytes) -> bool:
        """Sends, unless the server has answered or gone already."""
        try:
            if not self._socket.recv(65536):
                return False
        except BlockingIOError:
            pass
        self.moved += self._socket.send(data)
        return True


class Reader(SlowClient):
    """Reads 5 MB at 20 KB/s."""

    period = 0.5
    first = get("/bytes/5000000")
    per_turn = 10_000
    receive_buffer = 32768

    def proceed(self) -> bool:
        return bool(self.read(self.per_turn))


class Uploader(SlowClient):
    """Posts 1 MB at 10 KB/s."""

    period = 0.5
    first = b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
    per_turn = 5_000

    def proceed(self) -> bool:
        return self.write(bytes(self.per_turn))


class Slowloris(SlowClient):
    """Begins a request and sends a byte of its head each second."""

    period = 1.0
    first = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "

    def proceed(self) -> bool:
        return self.write(b"a")


KINDS: dict[str, type[SlowClient]] = {"readers": Reader, "uploads": Uploader, "slowloris": Slowloris}


# The process they live in.


def live(port: int, kind: str, count: int) -> Cost:
    """Until standard input ends. Says "ready" when all have begun, or after BEGINNING seconds."""
    clients = [KINDS[kind](port) for _ in range(count)]
    turns = take_turns(clients, KINDS[kind].period)
    wait_begun(clients, turns)
    start, cpu, before = time.monotonic(), time.process_time(), sum(client.moved for client in clients)
    reopened = -sum(client.opened for client in clients)
    print("ready", flush=True)
    for _ in turns:
        pass
    return Cost(
        seconds=time.monotonic() - start,
        cpu=time.process_time() - cpu,
        moved=sum(client.moved for client in clients) - before,
        reopened=reopened + sum(client.opened for client in clients),
    )


def wait_begun(clients: list[SlowClient], turns: Iterator[None]) -> None:
    limit = time.monotonic() + BEGINNING
    for _ in turns:
        if time.monotonic() > limit or all(client.moved for client in clients):
            return


def take_turns(clients: list[SlowClient], period: float) -> Iterator[None]:
    """Pauses with each tick; ends with standard input."""
    start, done = time.monotonic(), 0
    while not has_ended(sys.stdin.fileno(), TICK):
        due = int((time.monotonic() - start) / period * len(clients))
        # A process that was kept waiting for long does not make up for it in one burst.
        for number in range(max(done, due - len(clients)), due):
            clients[number % len(clients)].turn()
        done = due
        yield


def has_ended(descriptor: int, timeout: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout)[0])


@contextmanager
def slow_clients(port: int, kind: str, count: int) -> Iterator[Callable[[], Cost]]:
    """They have begun, and live until the function that is given is called, which says what they cost, or the block is left."""
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(port), kind, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        if child.stdout.readline() != "ready\n":
            raise subprocess.CalledProcessError(child.wait(), child.args)
        yield lambda: Cost(**json.loads(child.communicate()[0]))
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    cost = live(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print(json.dumps(vars(cost)))
