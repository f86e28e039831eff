"""Whether the gateway would serve a request that came now, and how that is told to whoever probes it. Pure.

A gateway is ready unless it is stopping, or one of its groups could not serve:

* No process is ready, or those that are give no sign of life (`lifecycle/_liveness`). One that sleeps because nobody wanted it
  is ready: a request wakes it.
* As many requests wait as max-waiting allows: one more would be turned away.
* It is wedged. Processes beat, and yet nothing moves: every thread has been busy with one and the same request for longer than
  `WEDGED_AFTER`, or a request waits for as long and nobody has claimed any meanwhile.

Being slow is not being wedged: under overload the oldest request may wait for long while many others are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import attrs
import msgspec

WEDGED_AFTER = 5.0
"""Seconds without any motion after which a group is taken for wedged: what is asked of it now would wait as well."""


@attrs.frozen
class GroupState:
    """What is known of a process group. Stamps are seconds of the clock that `now` is of.

    Attributes:
        name: the group's.
        processes: how many it should have.
        ready: how many of them take requests and give signs of life.
        suspect: how many were ready and give none.
        waiting: requests that wait for a place in the backlog.
        standing: requests that stand in the backlog.
        is_full: whether a request that came now would be turned away.
        oldest: since when the oldest request waits that no process has claimed; `now` where there is none.
        last_claim: when a process claimed a request last.
        occupied: since when no thread of the ready processes has got another request; `math.inf` where one is free.
        is_asleep: whether it has no process because nobody wanted one.
        is_failing: whether its starts fail.
    """

    name: str
    processes: int
    ready: int
    suspect: int
    waiting: int
    standing: int
    is_full: bool
    oldest: float
    last_claim: float
    occupied: float
    is_asleep: bool = False
    is_failing: bool = False


class Verdict(NamedTuple):
    """What whoever probes is told: an HTTP status and a JSON object."""

    status: int
    body: bytes


def obstacle(group: GroupState, now: float) -> str:
    """Why the group would not serve a request that came now; empty where it would."""
    if group.is_asleep:
        return ""
    if group.is_failing:
        return "its processes fail to start"
    if not group.ready:
        return "no ready process gives a sign of life" if group.suspect else "no process is ready"
    if group.is_full:
        return "as many requests wait as max-waiting allows"
    if now - group.occupied > WEDGED_AFTER:
        return f"every thread has been busy with one request for {now - group.occupied:.0f} s"
    unclaimed = now - max(group.oldest, group.last_claim)
    if unclaimed > WEDGED_AFTER:
        return f"requests wait and none was claimed for {unclaimed:.0f} s"
    return ""


def livez() -> Verdict:
    """Whether the gateway runs. Whoever can be told this is told yes."""
    return Verdict(200, msgspec.json.encode({"status": "ok"}))


def readyz(groups: Sequence[GroupState], now: float, *, is_stopping: bool) -> Verdict:
    """Whether it would serve a request that came now, in whichever group."""
    obstacles = {group.name: obstacle(group, now) for group in groups}
    named = [
        f"group {name}: {reason}" if len(groups) > 1 else reason
        for name, reason in obstacles.items()
        if reason
    ]
    if is_stopping:
        named.insert(0, "stopping")
    if not named:
        return livez()
    body = {
        "status": "unavailable",
        "reason": named[0],
        "groups": {group.name: _described(group, obstacles[group.name]) for group in groups},
    }
    return Verdict(503, msgspec.json.encode(body))


def _described(group: GroupState, reason: str) -> dict[str, Any]:
    return {
        "ready": group.ready,
        "processes": group.processes,
        "suspect": group.suspect,
        "waiting": group.waiting,
        "standing": group.standing,
        "reason": reason,
    }
