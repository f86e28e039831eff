"""Whether to start a process again after one has ended. Pure."""

from __future__ import annotations

FIRST_TRIES = 3
"""So many ends before the first process of a group was ever ready are taken for a fault that will not mend itself."""


class Respawn:
    """What the ends of a group's processes say about the next start."""

    __slots__ = ("_ends", "_was_ready")

    def __init__(self) -> None:
        self._was_ready = False
        self._ends = 0

    def ready(self) -> None:
        """A process has loaded the application: it can be done, so every later end is followed by a start."""
        self._was_ready = True

    def ended(self) -> None:
        """A process has ended, or could not be started."""
        self._ends += 1

    def is_hopeless(self) -> bool:
        """Whether to give up."""
        return not self._was_ready and self._ends >= FIRST_TRIES
