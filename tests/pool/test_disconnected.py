"""`environ["gatekeep.disconnected"]` over a real hop."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from wsgiref.validate import validator

import pytest

from gatekeep._frames import frame
from gatekeep.pool._disconnected import Disconnected
from gatekeep.transport._wire import BODY_END, Kind

Pair = tuple[socket.SocketType, socket.socket]


@pytest.fixture
def hop() -> Iterator[Pair]:
    """The worker's end, as the listener makes it, and the front's."""
    worker, front = socket.socketpair()
    plain = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, worker.detach())
    with front:
        yield plain, front
    plain.close()


def abandon(front: socket.socket) -> None:
    """What `transport/_hop` does when the client has gone."""
    front.shutdown(socket.SHUT_WR)
    front.shutdown(socket.SHUT_RD)


def test_while_the_front_is_there_the_client_is_said_to_be(hop: Pair) -> None:
    disconnected = Disconnected(hop[0])
    assert [disconnected(), disconnected()] == [False, False]


def test_a_request_that_the_front_abandoned_is_void(hop: Pair) -> None:
    disconnected = Disconnected(hop[0])
    assert not disconnected()
    abandon(hop[1])
    assert [disconnected(), disconnected()] == [True, True]


def test_a_hop_that_the_front_closed_is_void(hop: Pair) -> None:
    hop[1].close()
    assert Disconnected(hop[0])()


def test_a_front_that_closed_with_data_unread_is_gone_too(hop: Pair) -> None:
    hop[0].send(b"unread")
    hop[1].close()
    assert Disconnected(hop[0])()


@pytest.mark.parametrize("sent", [frame(Kind.BODY, b"some"), frame(Kind.BODY, b"all") + BODY_END])
def test_a_body_that_nobody_has_read_hides_nothing_and_means_nothing(hop: Pair, sent: bytes) -> None:
    worker, front = hop
    disconnected = Disconnected(worker)
    front.sendall(sent)
    assert not disconnected()
    abandon(front)
    assert disconnected()
    assert worker.recv(100) == sent, "it was only looked at"


def test_to_ask_waits_for_nothing_and_takes_nothing(hop: Pair) -> None:
    worker, front = hop
    assert not Disconnected(worker)()
    front.sendall(b"body")
    assert not Disconnected(worker)()
    assert worker.recv(10) == b"body"


def test_after_the_end_of_the_request_it_says_what_it_said_last(hop: Pair) -> None:
    worker, front = hop
    asked, never_asked = Disconnected(worker), Disconnected(worker)
    abandon(front)
    assert asked()
    worker.close()
    assert (asked(), never_asked()) == (True, False)


def test_after_the_end_of_the_request_the_number_of_its_hop_is_never_looked_at(hop: Pair) -> None:
    worker, _ = hop
    disconnected = Disconnected(worker)
    number = worker.fileno()
    worker.close()
    # Another connection has the number now, and its peer has gone.
    one, gone = socket.socketpair()
    with one:
        recycled = fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, number) if one.fileno() != number else number
        gone.close()
        assert recycled == number
        assert not disconnected()
        if one.fileno() != number:
            os.close(recycled)


class Closing:
    """A hop whose worker closes it between the question for its number and the look, so that the number is another's."""

    def __init__(self, number: int) -> None:
        self._numbers = [number, -1]

    def fileno(self) -> int:
        return self._numbers.pop(0)


def test_an_end_that_was_seen_at_a_number_that_is_no_longer_the_hops_means_nothing() -> None:
    recycled, gone = socket.socketpair()
    gone.close()
    with recycled:
        disconnected = Disconnected(Closing(recycled.fileno()))  # type: ignore[arg-type]
        assert not disconnected()


def test_a_child_that_the_application_forked_hears_nothing_and_fails_nowhere(hop: Pair) -> None:
    disconnected = Disconnected(hop[0])
    abandon(hop[1])
    os.close(hop[0].detach())  # what the child does
    assert not disconnected()


def test_any_number_of_threads_may_ask_while_the_request_ends(hop: Pair) -> None:
    worker, _ = hop
    disconnected = Disconnected(worker)
    faults: list[Exception] = []
    stop, begun = threading.Event(), threading.Barrier(5)

    def ask() -> None:
        begun.wait()
        try:
            while not stop.is_set():
                disconnected()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    worker.close()
    # Others take its number, and their peers go.
    for _ in range(200):
        recycled, gone = socket.socketpair()
        gone.close()
        recycled.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert (faults, disconnected()) == ([], False)


def test_the_standard_librarys_validator_takes_an_environ_with_it(hop: Pair) -> None:
    from wsgiref.util import setup_testing_defaults

    environ = {"gatekeep.disconnected": Disconnected(hop[0])}
    setup_testing_defaults(environ)
    environ["QUERY_STRING"] = ""

    def application(environ, start_response):
        assert not environ["gatekeep.disconnected"]()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    result = validator(application)(environ, lambda status, headers, exc_info=None: print)
    assert list(result) == [b"x"]
    result.close()
