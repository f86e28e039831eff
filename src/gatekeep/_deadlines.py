"""When a request counts as wedged, and when a clock may be believed. Pure: numbers in, numbers out.

"The intent is to grant proportionally more patience as parallel capacity grows: a wedge in 1-of-10 threads costs less than a
wedge in 1-of-1, so the threshold should grow with pool size, but only sub-linearly."
"""

from __future__ import annotations

import math

LATE = 1.0
"""Seconds by which a look comes too late for an overloaded machine to be the reason: the process was stopped (Ctrl-Z, a paused
container), or a C extension kept the GIL. A live process under full load is late by tenths."""


def fire_after(request_timeout: float, threads: int) -> float:
    """T_fire: seconds that the application may have one request, in a process of so many threads; `math.inf` for ever.

    Args:
        request_timeout: seconds; 0 or `math.inf` for never.
    """
    return request_timeout * (1 + math.log(threads)) or math.inf


def describe_fire(request_timeout: float, threads: int) -> str:
    """T_fire in words: "a request on these 5 threads is interrupted after 156.6 s"."""
    fire = fire_after(request_timeout, threads)
    which = "this thread" if threads == 1 else f"these {threads} threads"
    return f"a request on {which} is " + (
        "never interrupted" if fire == math.inf else f"interrupted after {fire:.1f} s"
    )


def is_stale(elapsed: float, fire: float, interrupt_timeout: float) -> bool:
    """Whether a request will not end by itself any more, so that no drain waits for it.

    A request that the watchdog has escalated is stale from that very moment.

    Args:
        elapsed: seconds that the application has had it.
        fire: T_fire in seconds.
        interrupt_timeout: seconds that it has to unwind after T_fire.
    """
    return elapsed >= fire + interrupt_timeout


def lateness(planned: float, now: float) -> float:
    """Seconds that a look planned for one moment and taken at another has missed; 0 while that is nothing unusual."""
    late = now - planned
    return late if late > LATE else 0.0
