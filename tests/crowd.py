"""Clients that have asked and wait, and requests that keep workers busy until a test lets them go."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from client import Answer, Client
from conftest import PATIENCE, Site, wait_until

RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"
"""`struct linger`: the close is a reset."""


class Guest(Client):
    """A client that does more than ask and read."""

    @property
    def name(self) -> str:
        """As records have it."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def has_answer(self) -> bool:
        """Whether anything has come."""
        return bool(self._buffer) or bool(select.select([self.socket], [], [], 0)[0])

    def half_close(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def break_off(self) -> None:
        """Leave with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()

    def sip(self, size: int) -> None:
        """Take so many bytes at most of what is there; `read` will have them."""
        try:
            self._buffer += self.socket.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass

    def read_until(self, text: bytes) -> None:
        """Read on until that has come."""
        seen = self._until(text)
        assert seen.endswith(text), f"it ended without {text!r}: {seen!r}"


class Hold:
    """Requests that run until they are released."""

    def __init__(self, clients: list[Guest], gate: Path) -> None:
        self.clients = clients
        self._gate = gate

    def release(self) -> None:
        """Let them end."""
        self._gate.touch()

    def read(self) -> list[Answer]:
        """Release them and read their answers."""
        self.release()
        return [client.read() for client in self.clients]


class Crowd:
    """Clients of one site, each with a connection of its own. At the end of the context workers are released, clients closed.

    Args:
        folder: where the test may put files.
        timeout: how long a client waits for bytes, in seconds.
    """

    def __init__(self, site: Site, folder: Path, timeout: float = PATIENCE) -> None:
        self.site = site
        self.notes = folder / "notes"
        self._folder = folder
        self._timeout = timeout
        self._gates: list[Path] = []
        self._clients = ExitStack()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.touch()
        self._clients.close()

    def connect(self) -> Guest:
        """One more client."""
        return self._clients.enter_context(Guest(self.site.address, self._timeout))

    def ask(self, target: str, *fields: str, method: str = "GET", version: str = "1.1") -> Guest:
        """A new client that has asked for this and has not read."""
        client = self.connect()
        lines = [f"{method} {target} HTTP/{version}", "Host: test", *fields]
        client.send("\r\n".join(lines) + "\r\n\r\n")
        return client

    def note(self, text: str, *fields: str, **how: str) -> Guest:
        """A new client whose request writes this down when it runs."""
        return self.ask(f"/note?{self.notes},{text}", *fields, **how)

    def noted(self) -> list[str]:
        """What such requests wrote, in the order in which they ran."""
        return complete_lines(self.notes) if self.notes.exists() else []

    def gate(self) -> Path:
        """A file that is made at the latest at the end."""
        self._gates.append(self._folder / f"gate-{len(self._gates)}")
        return self._gates[-1]

    def hold(self, count: int = 1, script: str = "hold") -> Hold:
        """Keep so many workers busy until the hold is released."""
        gate, claimed = self.gate(), len(self.site.log.find(event="pickup.claimed"))
        clients = [self.ask(f"/{script}?{gate}") for _ in range(count)]
        self.site.log.wait_for("pickup.claimed", count=claimed + count)
        return Hold(clients, gate)

    def unclaimed(self) -> int:
        """Requests that no worker has claimed."""
        statistics = self.site.served.statistics()
        return statistics.waiting + statistics.standing

    def wait_standing(self, count: int) -> None:
        """Until so many requests stand in the backlog."""
        wait_until(lambda: self.site.served.statistics().standing == count)

    def wait_waiting(self, count: int) -> None:
        """Until so many requests wait for a place in it."""
        wait_until(lambda: self.site.served.statistics().waiting == count)

    def record_of(self, client: Guest) -> dict[str, Any]:
        """The canonical record of the client's last request, which has ended or will soon."""
        return self.site.log.wait_for("request.finished", client=client.name)


def complete_lines(file: Path) -> list[str]:
    """Its lines; the last one may be about to be written."""
    return file.read_text().rpartition("\n")[0].splitlines()


@contextmanager
def crowds(start: Callable[..., Site], folder: Path, **defaults: Any) -> Iterator[Callable[..., Crowd]]:
    """Make sites, with these settings unless others are given, and their clients."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Crowd(start(**(defaults | options)), folder))


@contextmanager
def stranger(site: Site) -> Iterator[socket.socket]:
    """Somebody who listens in the place of the daemons."""
    group: Any = site.gateway._groups[0].group
    path = os.readlink(group.address) + ".stranger"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(30)
        listener.bind(path)
        listener.listen(10)
        group.address = path
        try:
            yield listener
        finally:
            os.unlink(path)
