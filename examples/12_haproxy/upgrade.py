"""Serve two nodes behind HAProxy, and upgrade one after the other while clients ask without a pause.

Serves a copy of this folder on any free ports.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from load import Load


class Node:
    """A gatekeep: where it serves, and where it answers health probes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port, self.health_port = free_port(), free_port()
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it; it is ready some time later."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gatekeep", "serve", "--log-level", "error"),
                *("--bind", f"127.0.0.1:{self.port}", "--health-bind", f"127.0.0.1:{self.health_port}"),
            ],
            cwd=self._folder,
        )

    def wait_ready(self) -> None:
        """Wait until /readyz says 200."""
        until = time.monotonic() + 60
        while status("/readyz", self.health_port) != 200:
            if time.monotonic() > until:
                raise SystemExit(f"node {self.name} does not become ready")
            time.sleep(0.1)

    def stop(self) -> None:
        """Tell it to stop: it says so to HAProxy, serves on for shutdown-delay, finishes what it has, and ends."""
        self.process.terminate()
        self.process.wait()


def end(nodes: list[Node]) -> None:
    """Nobody asks any more: a second signal means now."""
    for _ in range(2):
        for node in nodes:
            node.process.terminate()
        time.sleep(0.5)
    for node in nodes:
        node.process.wait()


def free_port() -> int:
    """A port that nobody used a moment ago.

    It is below those that the system hands out to clients, so that a node gets it back when it starts again.
    """
    while True:
        port = random.randrange(10000, 32000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def status(path: str, port: int) -> int:
    """What is answered there; 0 if nobody does."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


def haproxy(front: int, nodes: list[Node], folder: Path) -> subprocess.Popen[bytes]:
    """HAProxy with this folder's configuration, once it finds both nodes ready."""
    addresses = {"FRONT": f"127.0.0.1:{front}"}
    for node in nodes:
        addresses[f"NODE_{node.name}"] = f"127.0.0.1:{node.port}"
        addresses[f"HEALTH_{node.name}"] = str(node.health_port)
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    process = subprocess.Popen(
        [program, "-q", "-f", "haproxy.cfg"], cwd=folder, env={**os.environ, **addresses}
    )
    until = time.monotonic() + 60
    while status("/", front) != 200:
        if time.monotonic() > until:
            raise SystemExit("HAProxy does not find the nodes")
        time.sleep(0.1)
    return process


def upgrade(nodes: list[Node], folder: Path, load: Load) -> None:
    """New code, one node after the other."""
    load.wait_for("blue", 100)
    (folder / "version.txt").write_text("green")
    for node in nodes:
        node.stop()
        print(f"node {node.name} has stopped; {load}", flush=True)
        node.start()
        node.wait_ready()
        load.wait_for("green", 100)
        print(f"node {node.name} is green; {load}", flush=True)


def main() -> int:
    """The exit status: 1 if any request failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "shop")
        shutil.copytree(Path(__file__).parent, folder)
        nodes = [Node("A", folder), Node("B", folder)]
        for node in nodes:
            node.wait_ready()
        front = free_port()
        balancer = haproxy(front, nodes, folder)
        load = Load(f"http://127.0.0.1:{front}")
        load.start()
        try:
            upgrade(nodes, folder, load)
        finally:
            load.stop()
            balancer.terminate()
            balancer.wait()
            end(nodes)
    print(f"failed: {load.failures.total()}")
    return 1 if load.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
