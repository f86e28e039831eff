"""A site that says which version of its code answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# What a deployment changes. It is read once, when a process loads this module.
VERSION = Path(__file__).with_name("version.txt").read_text().strip()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The version and the process, after a hundredth of a second."""
    time.sleep(0.01)
    body = f"{VERSION} {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
