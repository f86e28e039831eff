"""A report that takes its time, and puts its working file away whatever happens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

FOLDER = Path(os.environ.get("REPORT_FOLDER", "/tmp"))


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/report?rows=100` adds up so many rows, each takes a hundredth of a second."""
    if environ["PATH_INFO"] == "/":
        return answer(start_response, "200 OK", "see /report?rows=10\n")
    if environ["PATH_INFO"] != "/report":
        return answer(start_response, "404 Not Found", "no such page\n")
    rows = int(parse_qs(environ["QUERY_STRING"]).get("rows", ["10"])[0])
    return answer(start_response, "200 OK", f"the sum of {rows} rows is {add_up(rows)}\n")


def add_up(rows: int) -> int:
    """The sum; the file is gone afterwards, also where the request is interrupted."""
    working = FOLDER / f"report-{os.getpid()}.txt"
    try:
        with working.open("w") as file:
            for row in range(1, rows + 1):
                file.write(f"{row}\n")
                time.sleep(0.01)
        return sum(map(int, working.read_text().split()))
    finally:
        working.unlink(missing_ok=True)


def answer(start_response: Callable[..., Any], status: str, text: str) -> Iterable[bytes]:
    """One whole response of plain text."""
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
