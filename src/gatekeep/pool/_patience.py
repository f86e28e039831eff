"""How long a process that runs requests leaves new ones to others. Pure: the numbers and one rule.

The problem: threads that share a GIL cost more than any front. A Django page of 2.6 ms took 3.5 ms of CPU with all of its
requests in one process, 2.7 spread over two. Three things help:

* An idle process comes before a busy one. A leader whose process runs requests leaves a connection that has come to the
  others for a moment, but only while the scoreboard shows an idle one.
* While a process keeps its GIL busy all by itself, one more running thread would only take turns with the others. So it waits
  for one of them to finish; a worker that finishes accepts the next request itself, at once.
* Where requests are brief, the worker that accepted one is back before another thread has been woken to replace it.

Where requests take longer and mostly wait (for a database, say), another thread takes over at once.
"""

from __future__ import annotations

GIVE_WAY = 0.005
"""Seconds that a connection is left to an idle process, as in puma (`cluster_accept_loop_delay.rb`)."""

BRIEF = 0.010
"""Requests that usually take less (seconds) are brief; one that takes longer is replaced as the waiting thread after this."""

SATURATED = 0.020
"""Seconds after an accept for which a process with a saturated GIL waits for a running request to finish."""

SATURATED_SHARE = 0.7
"""From this share of one CPU on, a process counts as saturated."""

REST = 0.050
"""Seconds without an accept after which the process is idle, and its deputy may sleep until it is woken."""


def pause_before_wait(since_accept: float, usual: float, cpu_share: float) -> float:
    """Seconds before another thread of a process that runs requests should wait for a connection; 0 or less: none.

    Args:
        since_accept: seconds since the process last accepted one.
        usual: how long its requests usually take, in seconds.
        cpu_share: how much of one CPU it used lately.
    """
    if cpu_share >= SATURATED_SHARE:
        return SATURATED - since_accept
    return BRIEF - since_accept if usual < BRIEF else 0.0
