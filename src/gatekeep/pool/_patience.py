"""How long a process that runs requests lets others go first. Pure: the numbers and one rule.

The problem: threads that share a GIL cost more than any front. A Django page of 2.6 ms took 3.5 ms of CPU with all of its
requests in one process, 2.7 spread over two. Two things help:

* An idle process comes before a busy one. A leader whose process runs requests leaves a connection that has come to the others for
  a moment, but only while the scoreboard shows an idle one.
* While a process keeps its GIL busy all by itself, one more running thread would only take turns with the others. So it waits
  for one of them to finish; a worker that finishes accepts the next request itself, at once. Where the running requests wait for
  something (a database, say) the pause is a millisecond, once after each accept.
"""

from __future__ import annotations

GIVE_WAY = 0.005
"""Seconds that a connection is left to an idle process, as in puma (`cluster_accept_loop_delay.rb`)."""

SATURATED = 0.010
"""Seconds after an accept for which a process with a saturated GIL waits for a running request to finish."""

OTHERWISE = 0.001
"""Seconds after an accept before another thread waits for a connection: most requests of a quick application are over by then."""

SATURATED_SHARE = 0.7
"""From this share of one CPU on, a process counts as saturated."""


def pause_before_wait(since_accept: float, cpu_share: float) -> float:
    """Seconds before another thread of a process that runs requests should wait for a connection; 0 or less: none.

    Args:
        since_accept: seconds since the process last accepted one.
        cpu_share: how much of one CPU it used lately.
    """
    return (SATURATED if cpu_share >= SATURATED_SHARE else OTHERWISE) - since_accept
