"""What is told of a group's processes when somebody asks: who they are, and what each of their threads does. Pure."""

from __future__ import annotations

import attrs


@attrs.frozen
class ThreadReport:
    """One thread.

    Attributes:
        name: its name in Python; empty where `threading` does not know it.
        number: which of the worker threads it is; -1 for any other.
        request_id, method, path: the request that it runs; empty where it runs none, or only the scoreboard knows of it.
        age: for how many seconds it has had that request; 0 for none.
        stack: a line for each frame, the innermost last; empty where the process was not able to tell.
    """

    name: str
    number: int = -1
    request_id: str = ""
    method: str = ""
    path: str = ""
    age: float = 0.0
    stack: str = ""


@attrs.frozen
class ProcessReport:
    """One process.

    Attributes:
        group: its group's name.
        pid, seat: which one it is.
        state: "starting", "ready", "suspect" (its heartbeats are missing) or "stopping".
        uptime: seconds since it was started.
        threads: all of its threads that run Python, the workers first; of a process that did not answer only those that run a
            request.
        dump: what faulthandler wrote of a process that did not answer, with the innermost frame first; else empty.
        note: why something is missing; empty where nothing is.
    """

    group: str
    pid: int
    seat: int
    state: str
    uptime: float
    threads: tuple[ThreadReport, ...] = ()
    dump: str = ""
    note: str = ""
