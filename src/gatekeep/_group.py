"""What front and supervisor both must know of a group: which processes are ready, and which requests stand where. Pure.

The two never see each other. The supervisor tells the group of starts and ends; the front enters its hops here and is told
through them. The news of a death comes this way and not from the end of a stream, because none arrives while a child that the
application forked still holds the hop.
"""

from __future__ import annotations

from typing import Protocol


class Hop(Protocol):
    """What the group asks of a hop."""

    pid: int
    """The process that claimed it; 0 while none did."""

    def take_back(self) -> None:
        """Give it up, so that the request is offered again, unless a claim is already on its way."""

    def process_ended(self) -> None:
        """The process that claimed it is gone: what it sent is still read, then comes the end."""


class Group:
    """One process group's common knowledge.

    Attributes:
        name: the group's name.
        processes: how many processes it should have.
        address: what `Net.connect` needs to reach its listener.
    """

    def __init__(self, name: str, processes: int, address: str) -> None:
        self.name = name
        self.processes = processes
        self.address = address
        self._ready: dict[int, None] = {}
        self._gone: set[int] = set()
        self._hops: dict[Hop, None] = {}

    def enter(self, hop: Hop) -> None:
        """A request goes to the group over this hop."""
        self._hops[hop] = None

    def leave(self, hop: Hop) -> None:
        """The hop has come to its end."""
        self._hops.pop(hop, None)

    def claimed(self, hop: Hop) -> None:
        """The hop's claim has arrived. It may be older than the news of its process's end."""
        if hop.pid in self._gone:
            hop.process_ended()

    def standing(self) -> int:
        """How many requests no process has claimed yet."""
        # A copy, made in one step: other threads may ask.
        return sum(not hop.pid for hop in list(self._hops))

    def process_started(self, pid: int) -> None:
        """A process with this pid exists (again)."""
        self._gone.discard(pid)

    def process_ready(self, pid: int) -> None:
        """It has loaded the application and takes requests."""
        self._ready[pid] = None

    def process_ended(self, pid: int) -> None:
        """It is gone: its requests end, and what it may have had in hand unclaimed is offered to the others, in order.

        Nobody knows which process has read a hop that has no claim (the listener's creator is all that SO_PEERCRED tells), so
        all of the group's unclaimed hops may be taken back; a request keeps its first stamp. A process that never was ready has
        accepted none.
        """
        was_ready = pid in self._ready
        self._ready.pop(pid, None)
        self._gone.add(pid)
        for hop in tuple(self._hops):
            if hop.pid == pid:
                hop.process_ended()
            elif not hop.pid and was_ready:
                hop.take_back()

    def ready(self) -> tuple[int, ...]:
        """The pids of the processes that are ready, oldest first."""
        return tuple(self._ready)
