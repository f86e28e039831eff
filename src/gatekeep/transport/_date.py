"""The Date field (RFC 9110 section 5.6.7), made once a second. Pure."""

from __future__ import annotations

from email.utils import formatdate


class HttpDate:
    """Remembers the text of the present second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def at(self, wall: float) -> str:
        """The date for an instant given in seconds since the epoch."""
        second = int(wall)
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True)
        return self._text
