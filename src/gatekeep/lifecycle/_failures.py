"""What is known of a group's starts that failed: for the log, for requests that wait, and for people who ask."""

from __future__ import annotations

from gatekeep._errors import CannotStart
from gatekeep._events import Logger
from gatekeep._group import Group
from gatekeep._host import Clock
from gatekeep.lifecycle._control import Failed
from gatekeep.lifecycle._respawn import Respawn

_NONE = Failed("no process became ready", "")


class Failures:
    """The last start that failed, and whether another has succeeded since.

    Args:
        respawn: says whether the last start failed, and when the next one comes.
        shows: whether a client may see why (a developer's own).
    """

    def __init__(self, group: Group, respawn: Respawn, clock: Clock, log: Logger, *, shows: bool) -> None:
        self._group = group
        self._respawn = respawn
        self._clock = clock
        self._log = log
        self._shows = shows
        self._last = _NONE
        self._generation = -1

    def note(self, failure: Failed, generation: int) -> bool:
        """A start of that generation has failed. Returns whether this is news: the same fault once more is none."""
        is_news = failure != self._last
        self._last, self._generation = failure, generation
        return is_news

    def forget(self) -> None:
        """A process is ready, or somebody has mended something: what comes now is news."""
        self._last = _NONE

    def error(self) -> CannotStart:
        """Why no process became ready."""
        return CannotStart(self._last.reason, self._last.traceback)

    def say(self) -> None:
        """Tell requests not to wait, and the log, if no process takes requests and the last start has failed."""
        if not self._respawn.failing or self._group.is_ready():
            return
        now = self._clock.now()
        next_start = max(now, self._respawn.next_start)
        reason = self._last.reason
        self._log.error(
            "group.failing", group=self._group.name, next_start=round(next_start - now, 3), reason=reason
        )
        shown = (reason, self._last.traceback) if self._shows else ("", "")
        self._group.starts_fail(next_start, *shown)

    def reason(self, generation: int) -> str:
        """Why the last start failed; empty where it did not, or was of an earlier generation."""
        return self._last.reason if self._is_of(generation) else ""

    def next_start(self, generation: int) -> float:
        """In how many seconds the next process is started, where the last start of that generation failed; else 0.0."""
        return max(0.0, self._respawn.next_start - self._clock.now()) if self._is_of(generation) else 0.0

    def _is_of(self, generation: int) -> bool:
        return self._respawn.failing and self._generation == generation
