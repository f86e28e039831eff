"""What the program serves, in processes of its own: the readings, and a page that hangs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/` tells of the readings, `/hang` never comes to an end."""
    while environ["PATH_INFO"] == "/hang":
        pass
    with closing(sqlite3.connect(os.environ["READINGS"])) as readings:
        (count,) = readings.execute("SELECT count(*) FROM reading").fetchone()
        last = readings.execute("SELECT degrees FROM reading ORDER BY rowid DESC LIMIT 1").fetchone()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{count} readings, the last one is {last[0] if last else 0} degrees\n".encode()]
