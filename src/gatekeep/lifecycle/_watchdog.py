"""What to do about requests that the application does not finish, in one process. Pure.

Each thread is judged alone. A request's life:

    RUNNING ─T_fire─▶ INTERRUPTED ─interrupt-timeout─▶ ESCALATED     (interrupt-timeout = 0: from RUNNING at once)
       │end               │end                             │end
     ENDED            RECOVERED                          ENDED

* INTERRUPTED: `RequestTimeout` was sent into the thread. What became of it (`Fate`) decides what is done meanwhile. It waits: the
  thread is perhaps blocked in a system call, so its socket is shut, and again, for it may block in the next one. It is
  unwinding: a `finally` that takes its time is cleaning up, and a second exception would cut it short. It was swallowed: it is
  sent again. The grace is counted from the first time, whatever happens.
* ESCALATED: the process must be drained. The request may still unwind; nothing more is done about it.
* A thread's next request is a new story.

The clocks are fair. `elapsed` comes from outside and goes on while the process is stopped or another thread keeps the GIL. A
look that comes late shows it, and what was missed is given back once before T_fire and once during the grace: a request
whose container was paused is not wedged. Only once, or one that keeps the GIL for seconds again and again would never be met.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum, auto

import attrs

from gatekeep._deadlines import lateness

MOMENT = 0.5
"""Seconds until an exception that has not been raised says that the thread is blocked. Python raises it when the thread has the
GIL next: 5 ms for each other one that computes, so within this with 25 of them. The least grace that is advised is 10 s."""

REACH_AGAIN = 1.0
"""Seconds before a thread is reached again: what follows a broken connection (a retry, a log record) needs a moment too."""

LOOK = 1.0
"""Seconds between looks at the most, so that a late one is noticed; the process beats as often anyway."""

LEAST = 0.001
"""Seconds between looks at the least: the remainder of a subtraction of floats must not make a look come to nothing."""


class Fate(Enum):
    """What became of the exception that was last sent into a thread."""

    PENDING = auto()
    """It was not raised yet, or none was sent."""
    UNWINDING = auto()
    """It is in the thread's chain of current exceptions."""
    SWALLOWED = auto()
    """It was raised, and is gone."""


@attrs.frozen
class Watched:
    """A thread that runs a request.

    Attributes:
        request: the request's number.
        elapsed: seconds that the application has had it, without waits for a slow client.
    """

    thread: int
    request: int
    elapsed: float
    fate: Fate = Fate.PENDING


@attrs.frozen
class Interrupt:
    """Send `RequestTimeout` into the thread, for the first time or again."""

    thread: int
    request: int
    again: bool = False


@attrs.frozen
class Reach:
    """Shut the socket that the thread's system call waits for, if there is one."""

    thread: int
    request: int


@attrs.frozen
class Escalate:
    """The thread cannot be had back: drain the process."""

    thread: int
    request: int


@attrs.frozen
class Recovered:
    """The request ended after it was interrupted and before it was escalated; `after` seconds, seen at this look."""

    thread: int
    request: int
    after: float


Action = Interrupt | Reach | Escalate | Recovered


class State(Enum):
    """What has been done about a request."""

    RUNNING = auto()
    INTERRUPTED = auto()
    ESCALATED = auto()
    RECOVERED = auto()
    ENDED = auto()


class Event(Enum):
    """What can happen to it."""

    FIRE = auto()
    GRACE_OVER = auto()
    END = auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.RUNNING, Event.FIRE): State.INTERRUPTED,
    # There is no grace.
    (State.RUNNING, Event.GRACE_OVER): State.ESCALATED,
    (State.RUNNING, Event.END): State.ENDED,
    (State.INTERRUPTED, Event.GRACE_OVER): State.ESCALATED,
    (State.INTERRUPTED, Event.END): State.RECOVERED,
    (State.ESCALATED, Event.END): State.ENDED,
}


class WatchdogError(Exception):
    """An event that cannot happen in that state."""


def after(state: State, event: Event) -> State:
    """The state that follows.

    Raises:
        WatchdogError: the two do not go together.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise WatchdogError(f"{event.name} while {state.name}") from None


@attrs.define
class _Story:
    """What is known of one request; `due` and `elapsed` in seconds that the application had it, the others in the clock's."""

    thread: int
    request: int
    due: float
    elapsed: float = 0.0
    excused: bool = False
    state: State = State.RUNNING
    interrupted_at: float = 0.0
    next_try: float = math.inf

    def observe(self, elapsed: float, missed: float) -> None:
        """Note how long the application has had the request; `missed` are the seconds by which the look comes late."""
        if missed and not self.excused:
            self.due += min(missed, elapsed - self.elapsed)
            self.excused = True
        self.elapsed = elapsed

    def is_due(self) -> bool:
        return self.state is not State.ESCALATED and self.elapsed >= self.due

    def fire(self, now: float, grace: float) -> Action:
        """T_fire has passed, or the grace."""
        self.state = after(
            self.state, Event.FIRE if self.state is State.RUNNING and grace else Event.GRACE_OVER
        )
        if self.state is State.ESCALATED:
            return Escalate(self.thread, self.request)
        self.due, self.excused = self.elapsed + grace, False
        self.interrupted_at, self.next_try = now, now + MOMENT
        return Interrupt(self.thread, self.request)

    def try_again(self, now: float, fate: Fate) -> list[Action]:
        """It was interrupted and still runs."""
        if self.state is not State.INTERRUPTED or now < self.next_try or fate is Fate.UNWINDING:
            return []
        if fate is Fate.SWALLOWED:
            self.next_try = now + MOMENT
            return [Interrupt(self.thread, self.request, again=True)]
        self.next_try = now + REACH_AGAIN
        return [Reach(self.thread, self.request)]

    def end(self, now: float) -> list[Action]:
        self.state = after(self.state, Event.END)
        if self.state is State.RECOVERED:
            return [Recovered(self.thread, self.request, now - self.interrupted_at)]
        return []

    def look_in(self, now: float) -> float:
        """Seconds until something may be due."""
        if self.state is State.ESCALATED:
            return math.inf
        try_in = self.next_try - now if self.next_try > now else MOMENT
        return min(self.due - self.elapsed, try_in)


class Watchdog:
    """Judges the running requests of one process.

    Args:
        fire: T_fire in seconds, `math.inf` for never.
        interrupt_timeout: seconds that an interrupted request has to unwind; 0: none is interrupted.
        now: seconds of the monotonic clock that `tick` is told too.
    """

    def __init__(self, fire: float, interrupt_timeout: float, now: float) -> None:
        self._fire = fire
        self._grace = interrupt_timeout
        self._stories: dict[int, _Story] = {}
        self._next_look = math.inf
        self._plan(now)

    def tick(self, now: float, running: Iterable[Watched]) -> list[Action]:
        """What to do, in this order. `running` are all threads that run a request, as they are `now`."""
        missed = lateness(self._next_look, now)
        known, self._stories = self._stories, {}
        begun: list[Action] = []
        for watched in running:
            story = known.get(watched.thread)
            if story is None or story.request != watched.request:
                story = _Story(watched.thread, watched.request, due=self._fire)
            else:
                del known[watched.thread]
            self._stories[watched.thread] = story
            story.observe(watched.elapsed, missed)
            begun += [story.fire(now, self._grace)] if story.is_due() else story.try_again(now, watched.fate)
        self._plan(now)
        return [action for story in known.values() for action in story.end(now)] + begun

    def next_look(self) -> float:
        """When to tick again at the latest, `math.inf` for never. Requests that begin meanwhile change nothing about it."""
        return self._next_look

    def _plan(self, now: float) -> None:
        if self._fire < math.inf:
            soonest = min(LOOK, self._fire, *(story.look_in(now) for story in self._stories.values()))
            self._next_look = now + max(LEAST, soonest)
