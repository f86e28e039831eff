"""What front and supervisor both must know of a group: which processes are ready, and which requests stand where. Pure.

The two never see each other. The supervisor tells the group of starts and ends; the front enters its hops here and is told
through them. The news of a death comes this way and not from the end of a stream, because none arrives while a child that the
application forked still holds the hop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Protocol

from gatekeep._errors import StartsFail
from gatekeep._events import Record

REMEMBERED = 256
"""Records of requests that came to their end last: a process's connections break before the news of its end is here."""


class Hop(Protocol):
    """What the group asks of a hop."""

    pid: int
    """The process that claimed it; 0 while none did."""

    since: float
    """When its request was first offered to the group, in seconds of the shared clock."""

    record: Record
    """Its request's."""

    def take_back(self) -> None:
        """Give it up, so that the request is offered again, if a worker has it in hand and has not spoken."""

    def give_up_unread(self) -> None:
        """Give it up, so that the request is offered again, if no worker has read it."""

    def reclaim(self) -> None:
        """Give it up, so that the request is offered again, unless it has an answer."""

    def end_stream(self) -> None:
        """Its response is a stream of events: end it in order, after what has been sent."""

    def process_ended(self) -> None:
        """The process that claimed it is gone: what it sent is still read, then comes the end."""


class Group:
    """One process group's common knowledge.

    Attributes:
        name: the group's name.
        processes: how many processes it should have.
        address: what `Net.connect` needs to reach its listener.
        standing: the hops that no process has claimed, oldest offer first.
        wake: called at each offer while processes sleep that were idle for too long; None while none does.
        on_failing: called when the group's starts begin to fail, for those that wait for a place in its backlog.
        on_resized: called when it has another number of processes.
    """

    def __init__(self, name: str, processes: int, address: str) -> None:
        self.name = name
        self.processes = processes
        self.address = address
        self.standing: dict[Hop, None] = {}
        self.wake: Callable[[], None] | None = None
        self.on_failing: Callable[[], None] = lambda: None
        self.on_resized: Callable[[], None] = lambda: None
        self._claimed: dict[Hop, None] = {}
        self._streams: dict[Hop, None] = {}
        self._is_stopping = False
        self._ready: dict[int, None] = {}
        self._accepting: dict[int, None] = {}
        self._next_start: float | None = None
        self._failure = "", ""
        self._gone: set[int] = set()
        self._suspects: dict[int, float] = {}
        self._left: deque[Record] = deque(maxlen=REMEMBERED)

    def resize(self, processes: int) -> None:
        """It should have so many processes from now on."""
        self.processes = processes
        self.on_resized()

    def enter(self, hop: Hop) -> None:
        """A request goes to the group over this hop."""
        self.standing[hop] = None
        if self.wake is not None:
            self.wake()

    def leave(self, hop: Hop) -> None:
        """The hop has come to its end."""
        if hop in self._claimed:
            del self._claimed[hop]
            if self._streams:
                self._streams.pop(hop, None)
            self._left.append(hop.record)
        else:
            self.standing.pop(hop, None)

    def claimed(self, hop: Hop) -> None:
        """The hop's claim has arrived. It may be older than the news of its process's end."""
        self.standing.pop(hop, None)
        self._claimed[hop] = None
        if hop.pid in self._gone:
            hop.process_ended()

    def oldest_offer(self, now: float) -> float:
        """Since when the oldest request stands unclaimed; `now` where there is none."""
        # One step for other threads that ask, where a look and then a `next` are two.
        for hop in self.standing:
            return hop.since
        return now

    def last_claim(self) -> float:
        """When a process claimed a request last, in seconds of the shared clock; `-math.inf` where none is remembered."""
        running = next(reversed(self._claimed), None)
        records = self._left if running is None else (*self._left, running.record)
        return max((record.claimed for record in records), default=-math.inf)

    def process_started(self, pid: int) -> None:
        """A process with this pid exists (again)."""
        self._gone.discard(pid)

    def process_ready(self, pid: int) -> None:
        """It has loaded the application and takes requests."""
        self._ready[pid] = self._accepting[pid] = None
        self._next_start = None
        self._reclaim()

    def process_finishing(self, pid: int) -> None:
        """It was told to accept no more, and ends when nothing runs: streams of events would run for ever."""
        self._accepting.pop(pid, None)
        for hop in tuple(self._streams):
            if hop.pid == pid:
                hop.end_stream()

    def streaming(self, hop: Hop) -> None:
        """The response of a claimed hop is a stream of events."""
        self._streams[hop] = None
        if self._is_stopping or hop.pid not in self._accepting:
            hop.end_stream()

    def end_streams(self) -> None:
        """The gateway stops."""
        self._is_stopping = True
        for hop in tuple(self._streams):
            hop.end_stream()

    def process_suspected(self, pid: int, since: float) -> None:
        """It gives no sign of life, and has accepted nothing since that moment.

        What it may have in hand unclaimed is offered to the others, as soon as there is one: who claims late finds that the front
        has given it up. Nobody knows which process has accepted a hop, so it is all that was offered before that moment.
        """
        self._suspects[pid] = since
        self._reclaim()

    def process_trusted(self, pid: int) -> None:
        """It lives after all."""
        self._suspects.pop(pid, None)
        self._reclaim()

    def _reclaim(self) -> None:
        if self._suspects and any(pid not in self._suspects for pid in self._accepting):
            moment = max(self._suspects.values())
            self._suspects = dict.fromkeys(self._suspects, -math.inf)  # they get nothing new
            for hop in tuple(self.standing):
                if hop.since < moment:
                    hop.reclaim()

    def find(self, request: int) -> Record | None:
        """The record of a request that a process has claimed, or had until just now."""
        records = chain((hop.record for hop in self._claimed), self._left)
        return next((record for record in records if record.number == request), None)

    def process_ended(self, pid: int, *, in_order: bool = False) -> None:
        """It is gone: its requests end, and what it may have had in hand unclaimed is offered to the others, in order.

        Nobody knows which process has read a hop that has no claim (the listener's creator is all that SO_PEERCRED tells), so
        all of the group's unclaimed hops may be taken back; a request keeps its first stamp. A process that never was ready has
        accepted none.

        Args:
            in_order: whether it ended by itself when it was told to: then it has none in hand. To take hops back without need
                may cost a request: of one whose claim comes between the last look and the shut.
        """
        was_ready = pid in self._ready
        self._ready.pop(pid, None)
        self._accepting.pop(pid, None)
        self._suspects.pop(pid, None)
        self._gone.add(pid)
        for hop in tuple(self._claimed):
            if hop.pid == pid:
                hop.process_ended()
        if was_ready and not in_order:
            for hop in tuple(self.standing):
                hop.take_back()

    def starts_fail(self, next_start: float, reason: str = "", details: str = "") -> None:
        """No process takes requests, and the next start, at that time, is expected to fail as the last one did.

        Whoever waits is told so at once: nobody knows how long it will last.

        Args:
            reason, details: what clients are to see of it, who are developers; else empty.
        """
        self._next_start = next_start
        self._failure = reason or f"the processes of group {self.name} fail to start", details
        for hop in tuple(self.standing):
            hop.reclaim()
        self.on_failing()

    def check_up(self, now: float) -> None:
        """Raise `StartsFail` if waiting for a process has no sense now."""
        if self._next_start is not None:
            reason, details = self._failure
            raise StartsFail(reason, self._next_start - now, details)

    def is_ready(self) -> bool:
        """Whether any process takes requests."""
        return bool(self._accepting)

    def ready(self) -> tuple[int, ...]:
        """The pids of the processes that take requests, oldest first."""
        return tuple(self._accepting)

    def trusted(self) -> tuple[int, ...]:
        """Of these, those that give signs of life."""
        return tuple(pid for pid in self._accepting if pid not in self._suspects)

    def is_asleep(self) -> bool:
        """Whether it has no process because nobody wanted one: the next request starts one.

        Where starts fail it is awake, though seats may still be empty for want of requests: the next one is turned away.
        """
        return self.wake is not None and not self._accepting and not self.is_failing()

    def is_failing(self) -> bool:
        """Whether its starts fail."""
        return self._next_start is not None

    def describe_state(self) -> str:
        """For people: see `_status.GroupStatus`."""
        if self._accepting:
            return "ready"
        if self.is_failing():
            return "failing"
        return "sleeping" if self.is_asleep() else "starting"
