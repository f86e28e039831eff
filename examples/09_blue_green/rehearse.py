"""Every way of replacing processes, one after the other, while clients ask without a pause.

Serves a copy of this folder on any free port.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from load import Load

GATEKEEP = [sys.executable, "-m", "gatekeep"]


class Site:
    """`gatekeep serve` in a folder, its log as data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        command = [*GATEKEEP, "serve", "--bind", "127.0.0.1:0", "--log-format", "json", "--no-access-log"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        self.gateway = process.pid
        self._reader = reader
        self.url = self.wait_for("gateway.ready", 1)["addresses"][0]

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Until the last one that writes there has ended: the gateway, or one that has taken over."""
        for line in process.stdout or ():
            if line.startswith("{"):
                with self._changed:
                    self._events.append(json.loads(line))
                    self._changed.notify_all()
        process.wait()

    def wait_for(self, event: str, count: int) -> dict[str, Any]:
        """The newest event of that name, once there were so many."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self._events if one["event"] == event]

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= count, timeout=60):
                raise SystemExit(f"{event} has not come {count} times")
            return found()[-1]

    def stop(self) -> None:
        """End it, and wait for its log's end."""
        os.kill(self.gateway, signal.SIGTERM)
        self._reader.join(60)

    def command(self, *arguments: str) -> str:
        """Run one of gatekeep's commands; what it prints."""
        run = subprocess.run([*GATEKEEP, *arguments], check=True, stdout=subprocess.PIPE, text=True)
        return run.stdout

    def processes(self) -> list[int]:
        """Those that serve, by `gatekeep status`."""
        (status,) = json.loads(self.command("status", "--json", str(self.gateway)))["gateways"]
        return [process["pid"] for group in status["groups"] for process in group["processes"]]

    def deploy(self, version: str) -> None:
        """New code, which nobody has loaded yet."""
        (self._folder / "version.txt").write_text(version)


def rehearse(site: Site, load: Load) -> None:
    """Drain one process, reload all, replace the gateway, and go back."""
    site.wait_for("process.ready", 2)  # both have loaded it
    load.wait_for("blue", 100)
    site.deploy("green")

    first, second = site.processes()
    site.command("drain", "--gateway", str(site.gateway), str(first))
    load.wait_for("green", 50)
    load.wait_for("blue", 50)
    print(f"one process drained: green and blue side by side; {load}", flush=True)

    os.kill(second, signal.SIGUSR1)
    site.wait_for("process.exited", 2)
    load.wait_for("green", 100)
    print(f"the other one got SIGUSR1: all is green; {load}", flush=True)

    site.deploy("blue")
    site.command("reload", "--wait", str(site.gateway))
    load.wait_for("blue", 100)
    print(f"reloaded: all is blue again; {load}", flush=True)

    site.deploy("green")
    os.kill(site.gateway, signal.SIGUSR2)
    site.gateway = site.wait_for("gateway.replaced", 1)["successor"]
    site.wait_for("gateway.stopped", 1)
    load.wait_for("green", 100)
    print(f"another gateway has taken over: all is green; {load}", flush=True)


def main() -> int:
    """The exit status: 1 if any request failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "shop")
        shutil.copytree(Path(__file__).parent, folder)
        site = Site(folder)
        load = Load(site.url)
        load.start()
        try:
            rehearse(site, load)
        finally:
            load.stop()
            site.stop()
    print(f"failed: {load.failures.total()}")
    return 1 if load.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
