"""What is told of a running gateway when somebody asks: itself, its groups, their processes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

STOPPING = "stopping"
"""The state of a gateway that was told to stop; of a process, too."""


@attrs.frozen
class ProcessStatus:
    """One daemon process.

    Attributes:
        pid, seat: which one it is, and its place in the group.
        state: "starting", "ready", "suspect" (its heartbeats are missing), "draining" (it serves until its successor is ready),
            "finishing" (it takes no more) or "stopping".
        uptime: seconds since it was started.
        running, threads: how many of its worker threads have a request, of how many.
        memory: bytes of resident memory; 0 where that is not told.
        trigger: what asked for its end; empty where nothing did.
    """

    pid: int
    seat: int
    state: str
    uptime: float
    running: int
    threads: int
    memory: int = 0
    trigger: str = ""


@attrs.frozen
class GroupStatus:
    """One process group.

    Attributes:
        state: "ready", "starting", "sleeping" (nobody wanted it; a request starts a process) or "failing" (starts fail).
        failure: why the last start failed; empty where it did not, or a reload was asked for after it began.
        next_start: in how many seconds another start is tried after that; 0.0 where it is under way, or none failed.
        processes: those that live.
        wanted: how many it should have; 0 where its application runs in the gateway's process, which is then the only one.
        waiting: requests that wait for a place in the backlog; `standing`: that stand there; `oldest`: for how many seconds the
            oldest of both.
    """

    name: str
    state: str
    failure: str
    processes: tuple[ProcessStatus, ...]
    wanted: int
    waiting: int
    standing: int
    oldest: float
    next_start: float = 0.0


@attrs.frozen
class GatewayStatus:
    """A gateway.

    Attributes:
        state: "starting", "serving" or "stopping".
        uptime: seconds since it began.
        loop: the event loop that it runs on: "asyncio", "uvloop" or "trio".
        in_flight: requests that have not ended; `connections`: of clients.
        outcomes: how many requests ended in each way; `timers`: how many each timer ended.
    """

    version: str
    pid: int
    state: str
    uptime: float
    addresses: tuple[str, ...]
    groups: tuple[GroupStatus, ...]
    in_flight: int
    connections: int
    outcomes: Mapping[str, int]
    timers: Mapping[str, int]
    loop: str = ""
