"""The worker threads over a real listener: who waits, who serves, and that nobody is forgotten."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from conftest import wait_until
from gatekeep.lifecycle._slots import Board, RowState, board_size
from gatekeep.pool import _threads
from gatekeep.pool._listener import Listener
from gatekeep.pool._threads import Crew, Worker

WAIT = 40.0
PROMPT = 10.0
"""Seconds: far longer than any pause of a crew, far shorter than a request that is held up by another."""

QUICK, SLOW, RAISE = b"q", b"s", b"r"


class Process:
    """What a daemon process is to its listener: a crew whose requests do what their one byte says."""

    def __init__(self, listener: socket.socket, threads: int, board: Board, index: int = 0) -> None:
        self.listener = Listener(os.dup(listener.fileno()))
        self.row = board.row(index)
        board.extend(board.rows)
        self.row.set_state(RowState.SERVING)
        self.crew = Crew(self.listener, threads, self.serve, self.row)
        self.gate = threading.Event()
        self.slow = threading.Semaphore(0)
        self.served: list[tuple[bytes, bool]] = []
        self.threads: set[threading.Thread] = set()

    def start(self) -> None:
        before = set(threading.enumerate())
        self.crew.start()
        self.crew.open()
        self.threads = set(threading.enumerate()) - before

    def serve(self, hop: socket.SocketType, worker: Worker) -> None:
        command = hop.recv(1)
        self.served.append((command, self.gate.is_set()))
        if command == RAISE:
            raise RuntimeError("a fault of ours")
        if command == SLOW:
            self.slow.release()
            assert self.gate.wait(WAIT)
        hop.send(bytes([worker.number]))

    def wait_slow(self, count: int = 1) -> None:
        """Wait until so many slow requests (more) have begun."""
        for _ in range(count):
            assert self.slow.acquire(timeout=PROMPT), "an idle thread was there, and did not take it"

    def wait_quiet(self) -> None:
        """Until nothing runs: a client has its answer a moment before its thread is done."""
        wait_until(lambda: self.crew.quiet_since() < math.inf)

    def stop(self) -> None:
        """Stop it and wait for the end of its threads."""
        self.crew.stop()
        self.join()

    def join(self) -> None:
        for thread in self.threads:
            thread.join(WAIT)
            assert not thread.is_alive()

    def close(self) -> None:
        self.gate.set()
        self.stop()
        self.listener.close_in_child()
        os.close(self.listener._wake_reader)
        os.close(self.listener._wake_writer)


class Client:
    """A connection of the front."""

    def __init__(self, path: str, command: bytes = QUICK) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT)
        self.socket.connect(path)
        self.socket.send(command)

    def answer(self) -> int:
        """The number of the thread that served it; the connection has ended then."""
        with self.socket:
            answer = self.socket.recv(10)
            assert len(answer) == 1, "the connection was closed without an answer"
            assert self.socket.recv(10) == b""
        return answer[0]

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "listener")


@pytest.fixture
def listener(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(1000)
        yield sock


Make = Callable[..., Process]


@pytest.fixture
def make(listener: socket.socket) -> Iterator[Make]:
    """Make processes on one listener, all on one scoreboard."""
    made: list[Process] = []
    boards: dict[int, Board] = {}

    def make(threads: int, rows: int = 1, *, start: bool = True) -> Process:
        board = boards.setdefault(
            rows, Board(memoryview(bytearray(board_size(rows, threads))), rows, threads)
        )
        process = Process(listener, threads, board, len(made) % rows)
        made.append(process)
        if start:
            process.start()
        return process

    yield make
    for process in made:
        process.close()


def ask(path: str, command: bytes = QUICK) -> int:
    return Client(path, command).answer()


def prompt(path: str) -> None:
    """A quick request, which must be answered soon."""
    began = time.monotonic()
    ask(path)
    assert time.monotonic() - began < PROMPT


@pytest.mark.parametrize("threads", [1, 2, 5, 20])
def test_a_crew_serves_as_many_at_once_as_it_has_threads_and_no_more(
    path: str, make: Make, threads: int
) -> None:
    process = make(threads)
    clients = [Client(path, SLOW) for _ in range(threads)]
    process.wait_slow(threads)
    one_more = Client(path)
    assert process.crew.quiet_since() == math.inf
    process.gate.set()
    assert sorted(client.answer() for client in clients) == list(range(threads))
    one_more.answer()
    assert process.served == [(SLOW, False)] * threads + [(QUICK, True)]


@pytest.mark.parametrize("before", [0, 50])
def test_a_slow_request_does_not_hold_up_a_quick_one(path: str, make: Make, before: int) -> None:
    process = make(3)
    for _ in range(before):  # so that requests are known to be brief
        ask(path)
    slow = Client(path, SLOW)
    process.wait_slow()
    for _ in range(20):
        prompt(path)
    process.gate.set()
    slow.answer()


def test_all_threads_but_one_may_be_slow(path: str, make: Make) -> None:
    process = make(5)
    slow = []
    for _ in range(4):
        slow.append(Client(path, SLOW))
        process.wait_slow()
        prompt(path)
    process.gate.set()
    assert len({client.answer() for client in slow}) == 4


def test_workers_that_wake_for_no_reason_forget_nobody(path: str, make: Make) -> None:
    """A bell may be rung when its worker has just woken by itself: its next sleep is over at once."""
    process = make(6)
    for _ in range(10):
        over = threading.Event()

        def ring(over: threading.Event = over) -> None:
            while not over.is_set():
                for worker in process.crew.workers:
                    worker.ring()
                time.sleep(0.0001)

        ringer = threading.Thread(target=ring)
        ringer.start()
        for _ in range(5):
            ask(path)
        over.set()
        ringer.join()
        with ExitStack() as stack:
            slow = []
            for _ in range(6):
                slow.append(stack.enter_context(closing(Client(path, SLOW))))
                process.wait_slow()
            process.gate.set()
            for client in slow:
                client.answer()
        process.gate.clear()


def test_sequential_requests_are_served_by_few_threads(path: str, make: Make) -> None:
    process = make(20)
    wait_until(lambda: len(process.crew._parked) == 18)
    assert len({ask(path) for _ in range(100)}) <= 3


def test_no_first_request_is_lost_while_the_threads_are_still_starting(path: str, make: Make) -> None:
    """Counters and slots are made before the first thread: mod_wsgi before 6.1.1 corrupted memory there."""
    for _ in range(200):
        process = make(6, start=False)
        clients = [Client(path) for _ in range(4)]
        process.start()
        clients += [Client(path) for _ in range(4)]
        assert all(client.answer() in range(6) for client in clients)
        # A stop may let go of a connection that nobody has claimed: the front's next try would find the next process.
        process.stop()


def test_each_connection_is_closed_when_it_was_served(path: str, make: Make) -> None:
    process = make(2)
    for _ in range(10):
        ask(path)
    process.wait_quiet()
    assert [worker.hop for worker in process.crew.workers] == [None, None]


def test_a_serve_that_raises_costs_its_connection_and_no_thread(path: str, make: Make, capsys) -> None:
    process = make(2)
    for _ in range(5):
        with closing(Client(path, RAISE)) as client:
            assert client.socket.recv(10) == b""
    slow = [Client(path, SLOW) for _ in range(2)]
    process.wait_slow(2)
    process.gate.set()
    assert {client.answer() for client in slow} == {0, 1}
    assert capsys.readouterr().err.count("RuntimeError: a fault of ours") == 5


# --- the stop


def test_a_stop_lets_finish_what_runs_and_accepts_nothing_more(path: str, make: Make) -> None:
    process = make(3)
    running = [Client(path, SLOW) for _ in range(2)]
    process.wait_slow(2)
    process.crew.stop()
    # The one that waited for connections may still take one, and let go of it, while it ends.
    wait_until(lambda: sum(thread.is_alive() for thread in process.threads) == 2)
    late = Client(path)
    assert process.crew.quiet_since() == math.inf
    process.gate.set()
    for client in running:
        client.answer()
    process.wait_quiet()
    process.join()
    assert process.served == [(SLOW, False)] * 2
    with late.socket:
        late.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.socket.recv(1)


@pytest.mark.parametrize("threads", [1, 2, 10])
def test_an_idle_crew_stops_at_once(path: str, make: Make, threads: int) -> None:
    make(threads).stop()


def test_a_stop_before_the_threads_have_started_is_a_stop(path: str, make: Make) -> None:
    process = make(3, start=False)
    process.crew.stop()
    process.start()
    process.join()


def test_what_one_process_leaves_when_it_stops_another_serves(path: str, make: Make) -> None:
    first, second = make(3, 2), make(3, 2)
    for _ in range(20):
        clients = [Client(path) for _ in range(4)]
        assert all(client.answer() in range(3) for client in clients)
    first.stop()
    served = len(first.served)
    for _ in range(20):
        ask(path)
    assert (len(first.served), len(second.served)) == (served, 100 - served)


def test_a_crew_is_quiet_since_the_last_request_has_ended_and_while_nothing_runs(
    path: str, make: Make
) -> None:
    process = make(2)
    began = process.crew.quiet_since()
    assert began <= time.monotonic()
    client = Client(path, SLOW)
    process.wait_slow()
    assert process.crew.quiet_since() == math.inf
    before = time.monotonic()
    process.gate.set()
    client.answer()
    process.wait_quiet()
    assert began < before <= process.crew.quiet_since() <= time.monotonic()


# --- other processes


def test_the_scoreboard_shows_how_many_run(path: str, make: Make) -> None:
    process, other = make(3, 2, start=False), make(3, 2, start=False)
    process.start()
    board = process.row.board
    assert board.is_another_idle(other.row.index)
    slow = Client(path, SLOW)
    process.wait_slow()
    assert not board.is_another_idle(other.row.index)
    process.gate.set()
    slow.answer()
    process.wait_quiet()
    assert board.is_another_idle(other.row.index)


def test_a_busy_process_leaves_work_to_an_idle_one(
    path: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as a busy machine may keep the idle one from it.
    monkeypatch.setattr(_threads, "GIVE_WAY", PROMPT)
    busy, idle = make(5, 2), make(5, 2, start=False)
    slow = Client(path, SLOW)
    busy.wait_slow()
    idle.start()
    for _ in range(50):
        ask(path)
        idle.wait_quiet()
    assert len(idle.served) == 50
    busy.gate.set()
    slow.answer()


def test_work_that_an_idle_process_does_not_take_is_done_soon_nevertheless(path: str, make: Make) -> None:
    busy, _wedged = make(3, 2), make(3, 2, start=False)
    slow = Client(path, SLOW)
    busy.wait_slow()
    for _ in range(20):
        prompt(path)
    busy.gate.set()
    slow.answer()
