"""An application that gets stuck in a way of your choice."""

from __future__ import annotations

import atexit
import ctypes
import os
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Whatever it does takes `?s=` seconds, or for ever.

    `/` tells the process's number, `/compute` computes, `/sleep` waits in C, `/gil` keeps the GIL, `/big` sends 64 MiB, and
    `/stay` makes the process take its time when it is told to end.
    """
    seconds = int(parse_qs(environ["QUERY_STRING"]).get("s", ["1000000"])[0])
    path = environ["PATH_INFO"]
    if path == "/compute":
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
    elif path == "/sleep":
        time.sleep(seconds)
    elif path == "/gil":
        ctypes.PyDLL(None).sleep(seconds)
    elif path == "/stay":
        atexit.register(time.sleep, seconds)
    elif path == "/big":
        start_response("200 OK", [("Content-Length", str(64 << 20))])
        return (bytes(1 << 20) for _ in range(64))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}\n".encode()]
