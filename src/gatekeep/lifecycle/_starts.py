"""The starts of a group's processes: when the next one may come, what became of the last, and whether the group has started."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from gatekeep._events import Logger
from gatekeep._group import Group
from gatekeep._host import Clock
from gatekeep.lifecycle._control import Failed
from gatekeep.lifecycle._failures import Failures
from gatekeep.lifecycle._respawn import Respawn
from gatekeep.lifecycle._slots import FreeRows, Row


class Starts:
    """The starts of one group.

    Args:
        seats: how many processes the group begins with.
        rows: those of the scoreboard: each process needs one.
        chance: gives a number from 0 to 1.
        develops: whether a developer watches: who asks sees why a start failed, and the group has started all the same.
        gives_up: whether the gateway has no sense without this group; else the group has started when its starts have failed.

    Attributes:
        failures: those that failed, for people and requests.
    """

    def __init__(
        self,
        seats: int,
        rows: FreeRows,
        group: Group,
        clock: Clock,
        chance: Callable[[], float],
        log: Logger,
        *,
        develops: bool,
        gives_up: bool,
    ) -> None:
        self._rows = rows
        self._clock = clock
        self._respawn = Respawn(chance, seats)
        self.failures = Failures(group, self._respawn, clock, log, shows=develops)
        self._develops = develops
        self._gives_up = gives_up and not develops
        self._retry = anyio.Event()
        self._row_freed = anyio.Event()
        self._first = anyio.Event()
        self._untried = set(range(seats))
        self._all_tried = anyio.Event()

    # --- when

    async def wait_for_row(self, is_wanted: Callable[[], bool]) -> Row | None:
        """Wait until the pause after a failure is over, and there is a row on the scoreboard, which is then taken.

        None when nobody wants it any more; see `look_again`.
        """
        while is_wanted():
            pause = self._respawn.next_start - self._clock.now()
            if pause > 0:
                with anyio.move_on_after(pause):
                    await self._retry.wait()
            elif self._rows:
                return self._rows.take()
            else:
                await self._row_freed.wait()
        return None

    def give_back(self, row: Row) -> None:
        """Its process has ended, or never began."""
        self._rows.give_back(row)
        self._row_freed.set()
        self._row_freed = anyio.Event()

    def look_again(self) -> None:
        """Those that wait out a pause find out anew whether they are wanted, and whether it is time."""
        self._retry.set()
        self._retry = anyio.Event()

    def forgive(self) -> None:
        """Somebody has usually mended what made starts fail: no pause is waited out, and what fails from now on is news."""
        self._respawn.forgive()
        self.failures.forget()
        self.look_again()

    def resize(self, seats: int) -> None:
        """The group shall have so many processes from now on."""
        self._respawn.seats = seats
        self.look_again()

    # --- what became of them

    def ready(self) -> None:
        """A process takes requests."""
        self._respawn.ready()
        self.failures.forget()
        self._first.set()

    def failed(self, seat: int, failure: Failed, generation: int) -> bool:
        """A process of that seat was not started, or has ended before it was ready. Returns whether this is news."""
        is_news = self.failures.note(failure, generation)
        self._respawn.failed(self._clock.now(), seat)
        if self._develops or (self._respawn.is_hopeless() and not self._gives_up):
            self._first.set()
        return is_news

    def died(self, age: float) -> None:
        """A process has ended that nobody had told to, `age` seconds after it was ready."""
        self._respawn.died(self._clock.now(), age)

    def is_hopeless(self) -> bool:
        """Whether no process was ever ready, and none will be, so that the gateway cannot start."""
        return self._gives_up and self._respawn.is_hopeless()

    # --- the group's own start

    def tried(self, seat: int) -> None:
        """The first process of that seat is ready, or was not to be had."""
        self._untried.discard(seat)
        if not self._untried:
            self._all_tried.set()

    async def wait_started(self, *, whole: bool) -> None:
        """Wait until a process is ready, or its start is not waited for any longer.

        Args:
            whole: whether to wait for each seat's first process, too.
        """
        await self._first.wait()
        if whole:
            await self._all_tried.wait()
