"""A client whose request is known to run, and runs until it is let go."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from client import Answer, Client
from conftest import wait_until

_numbers = count()


class Held(Client):
    """One, of `apps.scripted`. When it has been made, a worker runs its request.

    Args:
        folder: where the test may put files.
        root: where the application is mounted.

    Attributes:
        pid: the process that runs it.
    """

    def __init__(self, address: tuple[str, int], folder: Path, root: str = "") -> None:
        super().__init__(address, timeout=60)
        number = next(_numbers)
        note, self._gate = folder / f"note-{number}", folder / f"gate-{number}"
        self.send(f"GET {root}/note-and-hold?{note},{self._gate} HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: note.exists() and note.read_text().endswith("\n"))
        self.pid = int(note.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self.close()

    def release(self) -> None:
        """Let it end."""
        self._gate.touch()

    def finish(self) -> Answer:
        """Let it end, and read its answer."""
        self.release()
        return self.read()
