"""How much the process's memory has grown lately: who leaks stands in the record of a request."""

from __future__ import annotations

import os

WORTH_TELLING = 1 << 20
"""Bytes of growth below which nothing is said."""

LENGTHY = 0.001
"""Seconds below which a request is not looked at: to touch so much new memory takes tenths of a millisecond at the least, and a
look costs microseconds, which brief requests would feel."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Memory:
    """The resident memory of this process (Linux; elsewhere it never grows).

    Requests of several threads share it: growth is told of the one that ends first.
    """

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1
        self._last = self._resident()

    def growth(self) -> int:
        """Bytes by which it has grown since the last look; 0 where that is not worth telling."""
        now = self._resident()
        grown, self._last = now - self._last, now
        return grown if grown >= WORTH_TELLING else 0

    def _resident(self) -> int:
        if self._file < 0:
            return 0
        try:
            return int(os.pread(self._file, 64, 0).split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0  # the application has closed what is not its own
