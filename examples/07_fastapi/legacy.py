"""The old application. It knows nothing of FastAPI, nor where it is mounted, and has its bad days."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A greeting, a request that never ends, and one that takes its process with it."""
    if environ["PATH_INFO"] == "/hang":
        while True:
            time.sleep(0.1)
    if environ["PATH_INFO"] == "/crash":
        os.kill(os.getpid(), signal.SIGKILL)
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"Hello from process {os.getpid()}, mounted at {environ['SCRIPT_NAME']}\n".encode()]
