"""Ask a site without a pause, from several clients at once, and count what became of it.

    python load.py [ADDRESS [SECONDS]]

Half of the clients keep their connections, the others make a new one for each request. Nobody asks again: what fails is counted.
"""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections import Counter

CLIENTS = 8


class Load:
    """Clients at work, from `start` to `stop`.

    Attributes:
        answers: how often each version was what answered.
        failures: how often each thing went wrong.
    """

    def __init__(self, address: str) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._place = address.removeprefix("http://").rstrip("/")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._clients = [
            threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(CLIENTS)
        ]

    def start(self) -> None:
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()

    def wait_for(self, version: str, count: int, seconds: float = 60) -> None:
        """Until that version has answered so often from now on."""
        until = time.monotonic() + seconds
        wanted = self.answers[version] + count
        while self.answers[version] < wanted:
            if time.monotonic() > until:
                raise SystemExit(f"{version} has not answered {count} times within {seconds:g} s; {self}")
            time.sleep(0.01)

    def __str__(self) -> str:
        by_version = ", ".join(f"{count} by {version}" for version, count in sorted(self.answers.items()))
        what = "".join(f"\n  {count} times {failure}" for failure, count in self.failures.items())
        return f"{by_version or 'nothing'}; failed: {self.failures.total()}{what}"

    def _ask(self, keeps: bool) -> None:
        connection = http.client.HTTPConnection(self._place, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                version = answer.read().decode().split(" ")[0]
                if answer.status == 200:
                    self._count(self.answers, version)
                else:
                    self._count(self.failures, str(answer.status))
                if not keeps:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                self._count(self.failures, repr(error))
                connection.close()
        connection.close()

    def _count(self, counter: Counter[str], what: str) -> None:
        with self._lock:
            counter[what] += 1


if __name__ == "__main__":
    load = Load(sys.argv[1] if sys.argv[1:] else "http://127.0.0.1:8000")
    load.start()
    try:
        time.sleep(float(sys.argv[2]) if sys.argv[2:] else 3600)
    except KeyboardInterrupt:
        pass
    load.stop()
    print(load)
