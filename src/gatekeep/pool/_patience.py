"""How long a process that runs requests leaves new ones to others. Pure: the numbers and one rule.

The problem: threads that share a GIL cost more than any front. A Django page of 2.6 ms took 3.5 ms of CPU with all of its
requests in one process, 2.7 spread over two. Three things help:

* An idle process comes before a busy one. A leader whose process runs requests leaves a connection that has come to the
  others for a moment, but only while the scoreboard shows an idle one.
* While a process keeps its GIL busy all by itself, one more running thread would only take turns with the others. So it waits
  for one of them to finish; a worker that finishes accepts the next request itself, at once.
* Where requests compute all the time, or are over at once, the worker that accepted one is back before another thread has been
  woken to replace it. Only a request that waits (for a database, say) leaves the GIL to others: then another thread takes over
  at once. How long a request takes does not tell: one of 5 ms may compute or wait, and with one thread where five could wait
  a process served a fifth of what it can.
"""

from __future__ import annotations

GIVE_WAY = 0.005
"""Seconds that a connection is left to an idle process, as in puma (`cluster_accept_loop_delay.rb`)."""

WORTHWHILE = 0.00025
"""Seconds that requests must usually wait so that it is worth waking another thread meanwhile (some 50 µs)."""

LOOK = 0.010
"""Where they do not, another thread looks after this time (seconds) whether one takes longer for once."""

SATURATED = 0.020
"""Seconds after an accept for which a process with a saturated GIL waits for a running request to finish."""

SATURATED_SHARE = 0.7
"""From this share of one CPU on, a process counts as saturated."""

REST = 0.050
"""Seconds without an accept after which the process is idle, and its deputy may sleep until it is woken."""


def pause_before_wait(since_accept: float, usual_wait: float, cpu_share: float) -> float:
    """Seconds before another thread of a process that runs requests should wait for a connection; 0 or less: none.

    Args:
        since_accept: seconds since the process last accepted one.
        usual_wait: for how long its requests usually wait for something else than the CPU, in seconds.
        cpu_share: how much of one CPU it used lately.
    """
    if cpu_share >= SATURATED_SHARE:
        return SATURATED - since_accept
    return LOOK - since_accept if usual_wait < WORTHWHILE else 0.0
