"""What stands in the place of a listener where the worker threads live in the front's process."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from gatekeep.pool._inbox import End, Inbox, make_pair


@pytest.fixture
def pair() -> Iterator[tuple[End, End]]:
    pair = make_pair()
    yield pair
    for end in pair:
        end.close()


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_who_waits_longest_is_first() -> None:
    inbox = Inbox(10)
    fronts = [inbox.connect() for _ in range(3)]
    for number, front in enumerate(fronts):
        front.send(bytes([number]))
    got = []
    while (end := inbox.accept_nowait()) is not None:
        got.append(end.recv(10))
        end.close()
    assert got == [b"\0", b"\1", b"\2"]
    for front in fronts:
        front.close()


def test_the_front_never_blocks_and_a_worker_does() -> None:
    socket.setdefaulttimeout(0.01)
    try:
        front, worker = make_pair()
    finally:
        socket.setdefaulttimeout(None)
    with pytest.raises(BlockingIOError):
        front.recv(1)
    assert worker.gettimeout() is None
    front.close()
    worker.close()


def test_when_it_is_full_nobody_comes_in_until_somebody_has_left() -> None:
    inbox = Inbox(2)
    fronts = [inbox.connect(), inbox.connect()]
    with pytest.raises(BlockingIOError):
        inbox.connect()
    taken = inbox.accept_nowait()
    fronts.append(inbox.connect())
    with pytest.raises(BlockingIOError):
        inbox.connect()
    fronts[1].close()  # it was given up
    fronts.append(inbox.connect())
    assert taken is not None
    for end in [taken, *fronts]:
        end.close()
    inbox.close()


def test_one_that_was_given_up_leaves_those_who_wait_in_their_order() -> None:
    inbox = Inbox(3)
    fronts = [inbox.connect() for _ in range(3)]
    fronts.pop(1).close()
    fronts.append(inbox.connect())
    for number, front in enumerate(fronts):
        front.send(bytes([number]))
    ends = [inbox.accept_nowait() for _ in range(3)]
    assert [end.recv(10) for end in ends if end is not None] == [b"\0", b"\1", b"\2"]
    for end in [*ends, *fronts]:
        assert end is not None
        end.close()


def test_a_thread_that_waits_is_woken_by_what_comes() -> None:
    inbox = Inbox(10)
    got: list[End | None] = []

    def take() -> None:
        while not got or got[0] is None:
            inbox.wait(busy=False)
            got[:] = [inbox.accept_nowait()]

    thread = in_thread(take)
    time.sleep(0.05)
    assert thread.is_alive()
    front = inbox.connect()
    thread.join(20)
    assert not thread.is_alive()
    assert got[0] is not None
    got[0].close()
    front.close()


def test_after_the_wake_nobody_waits_and_nobody_comes_in() -> None:
    inbox = Inbox(10)
    waiting = in_thread(lambda: inbox.wait(busy=False))
    inbox.wake()
    waiting.join(20)
    assert not waiting.is_alive()
    for _ in range(3):
        inbox.wait(busy=False)
    with pytest.raises(BlockingIOError):
        inbox.connect()


def test_what_waits_at_the_end_is_ended() -> None:
    inbox = Inbox(10)
    front = inbox.connect()
    inbox.close()
    assert front.recv(1) == b""
    front.close()


def test_a_close_ends_the_conversation_though_somebody_holds_a_copy(pair: tuple[End, End]) -> None:
    front, worker = pair
    copy = os.dup(front.fileno())
    try:
        worker.send(b"last")
        front.close()
        assert worker.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            worker.send(b"more")
    finally:
        os.close(copy)


def test_what_was_sent_before_a_close_is_still_read(pair: tuple[End, End]) -> None:
    front, worker = pair
    worker.send(b"all of it")
    worker.close()
    assert front.recv(100) == b"all of it"
    assert front.recv(100) == b""


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_was_forked_lets_go_without_a_word_to_the_parents_ends() -> None:
    inbox = Inbox(10)
    front = inbox.connect()
    child = os.fork()
    if not child:
        inbox.close_in_child()
        os._exit(0)
    os.waitpid(child, 0)
    end = inbox.accept_nowait()
    assert end is not None
    front.send(b"still there")
    assert end.recv(100) == b"still there"
    end.close()
    front.close()
