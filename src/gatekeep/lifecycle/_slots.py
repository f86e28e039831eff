"""The scoreboard's layout: what each process of a group and each of its threads is doing, in memory that all of them share. Pure.

Apache's word and idea. A wedged or killed process cannot be asked what it was doing; here it stands, and the leaders see
whether another process is idle. Every field is eight bytes with one writer, so a reader needs no lock: it may see one
field a moment older than the next, never half of one.

    board    REACH (how many rows have ever been handed out)  then its rows
    row      one process:  PID  STATE  RUNNING  (reserved)  then its slots
    slot     one thread:   REQUEST  BEGAN (nanoseconds of the shared clock)

A row is written by its process (under the lock of its worker threads). The supervisor writes REACH, and clears a row after its
process's end.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator
from enum import IntEnum

import attrs

MOST_PROCESSES = 32
"""So many processes a group can grow to while it runs, or to twice as many as it was started with."""

_BOARD_FIELDS = 1
_ROW_FIELDS = 4
_SLOT_FIELDS = 2
_FIELD_BYTES = 8
_PID, _STATE, _RUNNING = range(3)


class RowState(IntEnum):
    """What a process does."""

    EMPTY = 0
    SERVING = 1
    STOPPING = 2


@attrs.frozen
class Running:
    """A request that a thread is running: its number, and since when in seconds of the shared clock."""

    thread: int
    request: int
    began: float


def most_processes(processes: int) -> int:
    """How many processes a group that starts with so many can be told to have while it runs."""
    return max(MOST_PROCESSES, 2 * processes)


def rows_for(processes: int) -> int:
    """How many rows a group that starts with so many processes has.

    It may grow, and while some of its processes finish, others serve already in their places.
    """
    return 2 * most_processes(processes) + 1


def board_size(rows: int, threads: int) -> int:
    """The scoreboard's size in bytes."""
    return (_BOARD_FIELDS + rows * (_ROW_FIELDS + threads * _SLOT_FIELDS)) * _FIELD_BYTES


class Board:
    """The scoreboard of one group, over memory that the host hands out."""

    def __init__(self, memory: memoryview, rows: int, threads: int) -> None:
        self._cells = memory[: board_size(rows, threads)].cast("B").cast("Q")
        self._width = _ROW_FIELDS + threads * _SLOT_FIELDS
        self.rows = rows
        self.threads = threads

    def row(self, index: int) -> Row:
        """One process's row."""
        return Row(self, self._cells, _BOARD_FIELDS + index * self._width, index)

    @property
    def reach(self) -> int:
        """How many rows, from the first on, have ever been handed out: nobody need look at the others."""
        return self._cells[0]

    def extend(self, reach: int) -> None:
        """So many rows, at least, have been handed out."""
        self._cells[0] = max(reach, self._cells[0])

    def is_another_idle(self, index: int) -> bool:
        """Whether a process other than that of row `index` serves and has nothing to do."""
        cells, width = self._cells, self._width
        for other in range(cells[0]):
            start = _BOARD_FIELDS + other * width
            if other != index and cells[start + _STATE] == RowState.SERVING and not cells[start + _RUNNING]:
                return True
        return False

    def occupied_since(self, pids: Collection[int]) -> float:
        """Since when no thread of these processes has begun another request; `math.inf` where one is free, or one unknown."""
        newest, known = -math.inf, 0
        for row in map(self.row, range(self.reach)):
            if row.pid not in pids:
                continue
            began = [running.began for running in row.running()]
            if len(began) < self.threads:
                return math.inf
            newest, known = max(newest, *began), known + 1
        return newest if pids and known == len(pids) else math.inf

    def release(self) -> None:
        """Let go of the memory."""
        self._cells.release()


class FreeRows:
    """The rows that no process has, for the supervisor. The first ones are used again and again, which keeps the reach small."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._free = list(range(board.rows))

    def __len__(self) -> int:
        return len(self._free)

    def take(self) -> Row:
        """The first of them; there must be one."""
        index = heapq.heappop(self._free)
        self._board.extend(index + 1)
        return self._board.row(index)

    def give_back(self, row: Row) -> None:
        """Its process has ended, or never began."""
        row.clear()
        heapq.heappush(self._free, row.index)


class Row:
    """One process's part of the scoreboard."""

    __slots__ = ("_cells", "_slots", "_start", "board", "index")

    def __init__(self, board: Board, cells: memoryview, start: int, index: int) -> None:
        self.board = board
        self.index = index
        self._cells = cells
        self._start = start
        self._slots = start + _ROW_FIELDS

    def clear(self) -> None:
        """Nobody's."""
        for cell in range(self._start, self._slots + self.board.threads * _SLOT_FIELDS):
            self._cells[cell] = 0

    def set_pid(self, pid: int) -> None:
        """The process has this row."""
        self._cells[self._start + _PID] = pid

    @property
    def pid(self) -> int:
        """Whose row it is; 0 for nobody's."""
        return self._cells[self._start + _PID]

    def set_state(self, state: RowState) -> None:
        """What the process does."""
        self._cells[self._start + _STATE] = state

    def set_running(self, count: int) -> None:
        """How many of its threads run a request."""
        self._cells[self._start + _RUNNING] = count

    def begin(self, thread: int, request: int, now: float) -> None:
        """The thread runs the request from now on."""
        slot = self._slots + thread * _SLOT_FIELDS
        self._cells[slot + 1] = int(now * 1e9)
        self._cells[slot] = request

    def end(self, thread: int) -> None:
        """The thread runs nothing."""
        self._cells[self._slots + thread * _SLOT_FIELDS] = 0

    def running(self) -> Iterator[Running]:
        """What its threads run."""
        for thread in range(self.board.threads):
            slot = self._slots + thread * _SLOT_FIELDS
            if request := self._cells[slot]:
                yield Running(thread, request, self._cells[slot + 1] / 1e9)
