"""An application whose process, after `/break`, ends, and whose next start takes for ever."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# One for each gateway, which is this process's parent.
SIGN = Path(tempfile.gettempdir(), f"gatekeep-slow-start-{os.getppid()}")

if SIGN.exists():
    SIGN.unlink()
    time.sleep(1000000)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/break` ends the process, anything else tells its number."""
    if environ["PATH_INFO"] == "/break":
        SIGN.touch()
        os._exit(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}\n".encode()]
