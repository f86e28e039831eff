"""A page that tells who asks, and a stream of events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/` tells who asks, `/upload` how much was sent, `/events` is three events, half a second apart."""
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])
        return events()
    if environ["PATH_INFO"] == "/upload":
        size = sum(len(piece) for piece in iter(lambda: environ["wsgi.input"].read(65536), b""))
        return answer(start_response, f"{size} bytes\n")
    scheme, host, client = environ["wsgi.url_scheme"], environ["HTTP_HOST"], environ["REMOTE_ADDR"]
    return answer(start_response, f"{client} asks for {scheme}://{host}{environ['PATH_INFO']}\n")


def events() -> Iterator[bytes]:
    """One after the other."""
    for number in range(3):
        if number:
            time.sleep(0.5)
        yield f"data: {number}\n\n".encode()


def answer(start_response: Callable[..., Any], text: str) -> Iterable[bytes]:
    """One whole response of plain text."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]
