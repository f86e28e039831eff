"""Load: keeps a number of connections busy for some seconds and counts the responses that came back whole.

wrk does it where it is installed. Otherwise this file does, run as a program in a process of its own: it
costs several times as much CPU as wrk, which lowers requests/s but is in nobody's figure.
"""

from __future__ import annotations

import json
import re
import selectors
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Result:
    completed: int
    """Responses with a status of 2xx that arrived whole."""
    failed: int
    """Other responses, and connections that broke or timed out."""
    seconds: float


def generate(generator: str, port: int, connections: int, seconds: float, target: str = "/") -> Result:
    """Runs `generator` ("wrk" or "python") against GET `target` on 127.0.0.1.

    Raises subprocess.CalledProcessError when the generator fails, not when the server does.
    """
    if generator == "wrk":
        return wrk(port, connections, seconds, target)
    arguments = [str(port), str(connections), str(seconds), target]
    return Result(**json.loads(run([sys.executable, str(Path(__file__).resolve()), *arguments])))


def default_generator() -> str:
    return "wrk" if shutil.which("wrk") else "python"


def run(command: list[str]) -> str:
    """The output of a command that ends with us, whatever ends us."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = child.communicate()
    finally:
        child.kill()
        child.wait()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, output)
    return output


def wrk(port: int, connections: int, seconds: float, target: str) -> Result:
    # wrk takes whole seconds only.
    duration = max(1, round(seconds))
    url = f"http://127.0.0.1:{port}{target}"
    output = run(["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--timeout", "10s", url])

    def number(pattern: str) -> int:
        found = re.search(pattern, output)
        return int(found[1]) if found else 0

    counted, refused = number(r"(\d+) requests in"), number(r"Non-2xx or 3xx responses: (\d+)")
    # "read" errors are left out: wrk counts one for every connection that the server closes between requests.
    broken = number(r"connect (\d+)") + number(r"timeout (\d+)")
    return Result(completed=counted - refused, failed=refused + broken, seconds=duration)


# The generator of our own.


class Broken(Exception):
    """The connection ended, or said something that is no response, before a response was whole."""


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    closes: bool
    """Whether the server will close the connection behind it."""


def whole_response(received: bytes | bytearray) -> Response | None:
    """What has been received of one response, once it is all there. Raises Broken."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    lines = bytes(head).lower().split(b"\r\n")
    fields = dict(line.split(b":", 1) for line in lines[1:])
    if b"content-length" not in fields:
        raise Broken("a response without Content-Length cannot be counted: use wrk")
    if len(body) < int(fields[b"content-length"]):
        return None
    closes = b"close" in fields.get(b"connection", b"") or lines[0].startswith(b"http/1.0")
    return Response(int(lines[0].split()[1]), bytes(body), closes)


def get(target: str, *fields: str) -> bytes:
    """A request. Small enough for any socket buffer."""
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]).encode()


@dataclass
class Connection:
    """One client: request, response, and again, on one connection as long as the server keeps it."""

    address: tuple[str, int]
    request: bytes
    socket: socket.socket | None = None
    received: bytearray = field(default_factory=bytearray)

    def send(self) -> socket.socket:
        """Connects when it must."""
        if self.socket is None:
            self.socket = socket.create_connection(self.address, timeout=10)
            self.socket.setblocking(False)
        self.socket.send(self.request)
        return self.socket

    def receive(self) -> Response | None:
        """The response, once it is whole. Raises Broken."""
        assert self.socket is not None
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Broken from error
        if not data:
            raise Broken
        self.received += data
        response = whole_response(self.received)
        if response is not None:
            self.received.clear()
            if response.closes:
                self.close()
        return response

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None
        self.received.clear()


class Generator:
    def __init__(self, port: int, connections: int, target: str) -> None:
        self._selector = selectors.DefaultSelector()
        request = get(target)
        self._connections = [Connection(("127.0.0.1", port), request) for _ in range(connections)]
        self._waiting = 0
        self.completed = self.failed = 0

    def run(self, seconds: float) -> Result:
        """Starts no request after `seconds`, but counts those that are under way then."""
        start = time.monotonic()
        for connection in self._connections:
            self._start(connection)
        while (now := time.monotonic() - start) < seconds or (self._waiting and now < seconds + 10):
            for key, _ in self._selector.select(0.1):
                if self._finish(key.data) and time.monotonic() - start < seconds:
                    self._start(key.data)
        return Result(self.completed, self.failed, time.monotonic() - start)

    def _start(self, connection: Connection) -> None:
        try:
            ready = connection.send()
        except OSError:
            self.failed += 1
            connection.close()
            return
        self._selector.register(ready, selectors.EVENT_READ, connection)
        self._waiting += 1

    def _finish(self, connection: Connection) -> bool:
        """Whether its request has come to an end."""
        polled = connection.socket
        assert polled is not None
        try:
            response = connection.receive()
        except Broken:
            status = 0
            connection.close()
        else:
            if response is None:
                return False
            status = response.status
        self._selector.unregister(polled)
        self._waiting -= 1
        if 200 <= status < 300:
            self.completed += 1
        else:
            self.failed += 1
        return True


if __name__ == "__main__":
    result = Generator(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4]).run(float(sys.argv[3]))
    print(json.dumps(vars(result)))
