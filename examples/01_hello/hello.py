"""The smallest application: it says hello, shows what it was sent, and can be told to take its time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/` says hello, `/sleep?seconds=1` waits first, `/echo` sends the body back, `/raise` fails."""
    path = environ["PATH_INFO"]
    if path == "/":
        body = f"Hello from process {os.getpid()}, {threading.current_thread().name}\n".encode()
        return answer(start_response, "200 OK", body)
    if path == "/sleep":
        seconds = float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["1"])[0])
        time.sleep(seconds)
        return answer(start_response, "200 OK", f"slept {seconds:g} s\n".encode())
    if path == "/echo":
        return answer(start_response, "200 OK", environ["wsgi.input"].read())
    if path == "/raise":
        raise RuntimeError("this page fails on purpose")
    return answer(start_response, "404 Not Found", b"no such page\n")


def answer(start_response: Callable[..., Any], status: str, body: bytes) -> Iterable[bytes]:
    """One whole response of plain text."""
    start_response(
        status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    )
    return [body]
