"""What the command prints, and how it ends. Nothing else prints."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

FAULT, USAGE, CANNOT_START = 1, 2, 3
"""Exit statuses: a fault of ours, or a gateway that does not answer; usage or settings, or no such gateway; cannot start."""


def die(status: int, reason: str, details: str = "") -> NoReturn:
    """End with a status and one line about why, below the details."""
    if details:
        print(details.rstrip("\n"), file=sys.stderr)
    print(f"gatekeep: {reason}", file=sys.stderr)
    sys.exit(status)


def write(text: str) -> None:
    """On standard output, whatever it can take."""
    if sys.stdout is None:
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`). Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
