"""The file that says which process the gateway is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gatekeep._errors import CannotStart


def write_pid(path: str) -> None:
    """Write this process's number, for whoever reads it at any moment.

    Raises:
        CannotStart: it cannot be written.
    """
    if not path:
        return
    beside = f"{path}.{os.getpid()}"
    try:
        with open(beside, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        os.replace(beside, path)
    except OSError as error:
        raise CannotStart(f"pid-file = {path!r}: {error.strerror}") from error


@contextmanager
def removing_pid(path: str) -> Iterator[None]:
    """Remove the file at the end, unless it is another process's by then."""
    try:
        yield
    finally:
        try:
            if path:
                with open(path, encoding="ascii") as file:
                    is_ours = file.read().strip() == str(os.getpid())
                if is_ours:
                    os.unlink(path)
        except (OSError, UnicodeDecodeError):
            pass
