"""What the program serves, in processes of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/?seconds=1` says hello after a second; there is nothing else."""
    found = environ["PATH_INFO"] == "/"
    time.sleep(float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["0"])[0]))
    status = "200 OK" if found else "404 Not Found"
    start_response(status, [("Content-Type", "text/plain")])
    return [b"hello\n" if found else f"{status}\n".encode()]
