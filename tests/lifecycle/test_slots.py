"""The scoreboard: what stands in it, where, and who may write it."""

from __future__ import annotations

import math
from itertools import product
from struct import unpack

import pytest
from hypothesis import given, strategies as st

from gatekeep.lifecycle._slots import (
    Board,
    FreeRows,
    Row,
    RowState,
    Running,
    board_size,
    most_processes,
    rows_for,
)


def board(rows: int = 3, threads: int = 2, memory: bytearray | None = None) -> Board:
    """One all of whose rows have been handed out."""
    made = Board(memoryview(memory or bytearray(board_size(rows, threads))), rows, threads)
    made.extend(rows)
    return made


def cells(memory: bytearray) -> list[int]:
    return list(unpack(f"{len(memory) // 8}Q", memory))


@pytest.mark.parametrize(
    ("rows", "threads", "size"), [(1, 1, 56), (2, 5, 8 + 2 * (4 + 10) * 8), (1024, 1024, 16_809_992)]
)
def test_a_row_is_four_fields_and_two_for_each_thread_behind_one_of_the_board(
    rows: int, threads: int, size: int
) -> None:
    assert board_size(rows, threads) == size


def test_each_field_has_its_place() -> None:
    memory = bytearray(board_size(2, 2))
    row = board(2, 2, memory).row(1)
    row.set_pid(4711)
    row.set_state(RowState.SERVING)
    row.set_running(2)
    row.begin(0, 101, 1.5)
    row.begin(1, 102, 2.25)
    assert cells(memory) == [2] + [0] * 8 + [4711, 1, 2, 0, 101, 1_500_000_000, 102, 2_250_000_000]


WRITES = [
    lambda row: row.set_pid(1),
    lambda row: row.set_state(RowState.STOPPING),
    lambda row: row.set_running(1),
    lambda row: row.begin(0, 1, 1.0),
    lambda row: row.begin(1, 1, 1.0),
    lambda row: row.end(1),
]


@pytest.mark.parametrize("first", range(len(WRITES)))
@pytest.mark.parametrize("second", range(len(WRITES)))
def test_fields_of_different_writers_never_touch(first: int, second: int) -> None:
    """So the order of two writes means nothing, and a reader needs no lock."""
    if {first, second} == {4, 5}:
        return  # one thread's begin and end
    outcomes = []
    for order in ((first, second), (second, first)):
        memory = bytearray(board_size(2, 2))
        row = board(2, 2, memory).row(1)
        for write in order:
            WRITES[write](row)
        outcomes.append(memory)
    assert outcomes[0] == outcomes[1]


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_a_row_is_written_without_touching_another(rows: int, threads: int, data: st.DataObject) -> None:
    memory = bytearray(b"\xaa" * board_size(rows, threads))
    index = data.draw(st.integers(0, rows - 1))
    head, width = board_size(0, threads), board_size(1, threads) - board_size(0, threads)
    row = Board(memoryview(memory), rows, threads).row(index)
    row.set_pid(1)
    row.set_state(RowState.SERVING)
    row.set_running(threads)
    for thread in range(threads):
        row.begin(thread, thread + 1, 1.0)
        row.end(thread)
    row.clear()
    begin, end = head + index * width, head + (index + 1) * width
    assert memory[begin:end] == bytes(width)
    assert set(memory[:begin] + memory[end:]) <= {0xAA}


IDLE, BUSY, STOPPING, EMPTY = "idle", "busy", "stopping", "empty"


def fill(row: Row, what: str) -> None:
    row.set_state({STOPPING: RowState.STOPPING, EMPTY: RowState.EMPTY}.get(what, RowState.SERVING))
    row.set_running(1 if what == BUSY else 0)


@pytest.mark.parametrize("others", list(product([IDLE, BUSY, STOPPING, EMPTY], repeat=2)))
@pytest.mark.parametrize("own", [IDLE, BUSY])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_another_is_idle_where_one_serves_and_runs_nothing(
    index: int, own: str, others: tuple[str, str]
) -> None:
    three = board(3)
    rows = [three.row(number) for number in range(3)]
    fill(rows.pop(index), own)
    for row, what in zip(rows, others, strict=True):
        fill(row, what)
    assert three.is_another_idle(index) == (IDLE in others)


def test_alone_there_is_no_other() -> None:
    alone = board(1)
    fill(alone.row(0), IDLE)
    assert not alone.is_another_idle(0)


def test_an_empty_board_shows_nobody() -> None:
    empty = board(3)
    assert not any(empty.is_another_idle(index) for index in range(3))
    assert [list(empty.row(index).running()) for index in range(3)] == [[], [], []]


def test_running_tells_each_thread_its_request_and_since_when() -> None:
    row = board(3, 3).row(1)
    row.begin(0, 7, 12.5)
    row.begin(2, 2**63 - 1, 1e6)
    assert list(row.running()) == [Running(0, 7, 12.5), Running(2, 2**63 - 1, 1e6)]
    row.end(0)
    assert [running.thread for running in row.running()] == [2]


@given(st.floats(0, 1e9))
def test_since_when_is_true_to_a_microsecond(now: float) -> None:
    row = board().row(0)
    row.begin(0, 1, now)
    (running,) = row.running()
    assert running.began == pytest.approx(now, abs=1e-6)


def test_a_row_that_was_cleared_is_nobodys() -> None:
    memory = bytearray(board_size(3, 2))
    row = board(3, 2, memory).row(2)
    fill(row, BUSY)
    row.set_pid(1)
    row.begin(1, 5, 1.0)
    row.clear()
    assert not any(memory[board_size(0, 2) :])
    assert list(row.running()) == []


def test_two_boards_over_one_memory_see_the_same() -> None:
    memory = bytearray(board_size(2, 1))
    writer, reader = board(2, 1, memory), board(2, 1, memory)
    writer.row(0).begin(0, 9, 3.0)
    assert list(reader.row(0).running()) == [Running(0, 9, 3.0)]


def test_memory_may_be_larger_and_is_let_go_of() -> None:
    memory = bytearray(4096)
    released = board(2, 2, memory)
    with pytest.raises(BufferError):
        memory.extend(b"x")
    released.release()
    memory.extend(b"x")


def test_a_row_knows_its_board_and_its_index() -> None:
    one = board()
    row = one.row(2)
    assert (row.board, row.index) == (one, 2)


# --- whether any thread is free


def busy(row: Row, pid: int, *began: float) -> None:
    row.set_pid(pid)
    for thread, stamp in enumerate(began):
        row.begin(thread, thread + 1, stamp)


def test_processes_are_occupied_since_the_last_of_their_threads_began() -> None:
    one = board(3, 2)
    busy(one.row(0), 10, 1.0, 4.0)
    busy(one.row(2), 11, 3.0, 2.0)
    assert one.occupied_since((10, 11)) == 4.0
    assert one.occupied_since((11,)) == 3.0


def test_a_free_thread_anywhere_is_enough() -> None:
    one = board(3, 2)
    busy(one.row(0), 10, 1.0, 4.0)
    busy(one.row(1), 11, 1.0)
    assert one.occupied_since((10, 11)) == math.inf
    one.row(0).end(0)
    assert one.occupied_since((10,)) == math.inf


def test_of_a_process_that_has_no_row_nothing_is_known() -> None:
    one = board(3, 2)
    busy(one.row(0), 10, 1.0, 4.0)
    assert one.occupied_since((10, 11)) == math.inf
    assert one.occupied_since(()) == math.inf
    assert board(1, 1).occupied_since(()) == math.inf


# --- who has which row


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=30))
def test_the_first_free_row_is_taken_and_what_was_ever_taken_is_in_reach(
    rows: int, takes: list[bool]
) -> None:
    one = Board(memoryview(bytearray(board_size(rows, 1))), rows, 1)
    free, taken, most = FreeRows(one), {}, 0
    for take in takes:
        if take and free:
            row = free.take()
            assert row.index == min({*range(rows)} - {*taken})
            row.set_pid(1)
            taken[row.index] = row
            most = max(most, row.index + 1)
        elif not take and taken:
            row = taken.pop(max(taken))
            free.give_back(row)
            assert row.pid == 0
        assert (len(free), one.reach) == (rows - len(taken), most)


def test_a_row_beyond_the_reach_is_nobodys() -> None:
    one = Board(memoryview(bytearray(board_size(3, 1))), 3, 1)
    fill(one.row(1), IDLE)
    assert not one.is_another_idle(0)
    one.extend(2)
    one.extend(1)
    assert one.is_another_idle(0)


@pytest.mark.parametrize(("processes", "most"), [(1, 32), (2, 32), (16, 32), (17, 34), (100, 200)])
def test_a_group_has_room_to_grow_and_to_be_replaced_whole(processes: int, most: int) -> None:
    assert most_processes(processes) == most
    assert rows_for(processes) == 2 * most + 1
