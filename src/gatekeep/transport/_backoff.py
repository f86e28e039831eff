"""When to try again to connect while the group's backlog is full. Pure."""

from __future__ import annotations

from collections.abc import Iterator

SHORT_PAUSE = 0.125
"""Seconds between the first tries, as mod_wsgi 6.0.5 has it (`wsgi_connect_daemon`)."""

SHORT_TOTAL = 2.0
"""After so many seconds of short pauses (16 of them) the long ones begin, as there."""

LONG_PAUSE = 1.0
"""Seconds between later tries."""


def connect_pauses(budget: float) -> Iterator[float]:
    """The pauses between attempts to connect, in seconds; they add up to `budget` exactly.

    The specification: "retries with backoff, starting at fractional-second intervals and stretching out to one-second intervals
    after a couple of seconds of accumulated wait". An attempt precedes the first pause and follows every pause, so with the
    default budget of 15 s attempts fall at 0, 0.125 … 2.0, 3, 4 … 15. The real system tests its budget before a pause
    and overshoots by up to one; here the last pause is cut to fit.
    """
    waited = 0.0
    while waited < budget:
        pause = SHORT_PAUSE if waited < SHORT_TOTAL else LONG_PAUSE
        pause = min(pause, budget - waited)
        yield pause
        waited += pause
