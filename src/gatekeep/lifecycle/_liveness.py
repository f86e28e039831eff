"""Whether a daemon process is alive, judged from outside by its heartbeats. Pure.

A process beats once a second, from a thread that needs the GIL. So beats end where a C extension (or a regular expression)
keeps the GIL, where the process was stopped, and where it is dead; a process that merely computes beats a little late.

    STARTING ─ready─▶ ALIVE ─two beats missed─▶ SUSPECT ─deadlock-timeout─▶ DUMPING ─written, or 1 s─▶ KILLED
                        ▲◀────────beat─────────────┴─────────beat──────────────┘

* STARTING is not judged: a start may keep the GIL for long (imports do), and it has a clock of its own.
* SUSPECT costs nobody anything: what the process has not started goes to others, and if it was only slow it goes on.
* DUMPING comes before the kill, because a killed process leaves no stack. A beat still saves it.
* KILLED is for ever.

The clocks are fair: whoever ticks reads all beats that have arrived first, and says `late` after it was stopped itself.
"""

from __future__ import annotations

import math
from enum import Enum, auto

SUSPECT_AFTER = 2.5
"""Seconds without a beat: two were missed, and half of one for its way through a busy machine."""

DUMP_WAIT = 1.0
"""Seconds that the stacks of all threads may take to be written; a process that was stopped writes none."""


class Action(Enum):
    """What to do about the process."""

    SUSPECT = auto()
    """Reclaim what it has not started."""

    ALIVE = auto()
    """It was suspected, or even being given up, wrongly."""

    DUMP_STACKS = auto()
    """Have it write the stacks of its threads."""

    KILL = auto()
    """End it by force."""


class State(Enum):
    """What is known of it."""

    STARTING = auto()
    ALIVE = auto()
    SUSPECT = auto()
    DUMPING = auto()
    KILLED = auto()


class Event(Enum):
    """What can happen to it."""

    READY = auto()
    BEAT = auto()
    SILENCE = auto()
    """Its state's time without a beat is over."""
    DUMPED = auto()


TRANSITIONS: dict[tuple[State, Event], tuple[State, Action | None]] = {
    (State.STARTING, Event.READY): (State.ALIVE, None),
    (State.STARTING, Event.BEAT): (State.STARTING, None),
    (State.ALIVE, Event.BEAT): (State.ALIVE, None),
    (State.ALIVE, Event.SILENCE): (State.SUSPECT, Action.SUSPECT),
    # The dump of a silence that is over, or one that somebody else has asked for.
    (State.ALIVE, Event.DUMPED): (State.ALIVE, None),
    (State.SUSPECT, Event.BEAT): (State.ALIVE, Action.ALIVE),
    (State.SUSPECT, Event.SILENCE): (State.DUMPING, Action.DUMP_STACKS),
    (State.SUSPECT, Event.DUMPED): (State.SUSPECT, None),
    (State.DUMPING, Event.BEAT): (State.ALIVE, Action.ALIVE),
    (State.DUMPING, Event.SILENCE): (State.KILLED, Action.KILL),
    (State.DUMPING, Event.DUMPED): (State.KILLED, Action.KILL),
    # What was on its way when it was killed.
    (State.KILLED, Event.BEAT): (State.KILLED, None),
    (State.KILLED, Event.DUMPED): (State.KILLED, None),
}


class LivenessError(Exception):
    """An event that cannot happen in that state."""


def after(state: State, event: Event) -> tuple[State, Action | None]:
    """The state that follows, and what to do.

    Raises:
        LivenessError: the two do not go together.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LivenessError(f"{event.name} while {state.name}") from None


class Liveness:
    """The judgement of one process. All times are seconds of one monotonic clock.

    Args:
        deadlock_timeout: seconds without a beat after which it is given up, `math.inf` for never. One below `SUSPECT_AFTER` is
            as long as that.

    Attributes:
        last_beat: when the last one came.
    """

    def __init__(self, deadlock_timeout: float) -> None:
        self.state = State.STARTING
        self._since = self.last_beat = 0.0
        self._patience = {
            State.ALIVE: SUSPECT_AFTER,
            State.SUSPECT: deadlock_timeout,
            State.DUMPING: DUMP_WAIT,
        }

    def ready(self, now: float) -> None:
        """It has loaded the application: it is judged from now on."""
        self._since = self.last_beat = now
        self._happened(Event.READY)

    def beat(self, now: float) -> list[Action]:
        """A beat has arrived."""
        self._since = self.last_beat = now
        return self._happened(Event.BEAT)

    def dumped(self) -> list[Action]:
        """Its stacks have been written."""
        return self._happened(Event.DUMPED)

    def late(self, now: float) -> None:
        """Whoever judges was stopped itself (see `_deadlines.lateness`): no silence until now counts."""
        self._since = now

    def tick(self, now: float) -> list[Action]:
        """What its silence asks for."""
        actions: list[Action] = []
        while now >= self.next_look():
            actions += self._happened(Event.SILENCE)
            if self.state is State.DUMPING:
                self._since = now
        return actions

    def next_look(self) -> float:
        """When to tick again at the latest; `math.inf` where only an event brings news."""
        return self._since + self._patience.get(self.state, math.inf)

    def _happened(self, event: Event) -> list[Action]:
        self.state, action = after(self.state, event)
        return [] if action is None else [action]
