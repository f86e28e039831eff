"""The body and respond stages: a slow client costs no worker, and a response that is produced slowly is not held up."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conftest import BOTH_BACKENDS, wait_until
from crowd import Crowd, Guest
from gatekeep import Outcome, Stage
from gatekeep.transport import _spool

UPLOAD = 2000
DOWNLOAD = 5_000_000

pytestmark = BOTH_BACKENDS


class Slow:
    """Clients that send or read a little ten times a second, until they are told to hurry."""

    def __init__(self, crowd: Crowd, count: int) -> None:
        self.senders = [crowd.ask("/count", f"Content-Length: {UPLOAD}", method="POST") for _ in range(count)]
        self.readers = [crowd.ask(f"/big?{DOWNLOAD}") for _ in range(count)]
        self._sent = 0

    @contextmanager
    def dribbling(self) -> Iterator[None]:
        hurry = threading.Event()
        thread = threading.Thread(target=self._dribble, args=(hurry,))
        thread.start()
        try:
            yield
        finally:
            hurry.set()
            thread.join(30)

    def _dribble(self, hurry: threading.Event) -> None:
        while self._sent < UPLOAD - 1 and not hurry.wait(0.1):
            for sender in self.senders:
                sender.send("x")
            for reader in self.readers:
                reader.sip(1000)
            self._sent += 1

    def finish(self) -> None:
        """Send and read the rest; all of it must be right."""
        for sender in self.senders:
            sender.send("x" * (UPLOAD - self._sent))
            assert sender.read().body == b"%d" % UPLOAD
        for reader in self.readers:
            answer = reader.read()
            assert (answer.status, len(answer.body), answer.complete) == (200, DOWNLOAD, True)


def test_twenty_slow_uploads_and_twenty_slow_downloads_hold_up_nobody_behind_a_single_worker(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(body_timeout=600.0, response_socket_timeout=600.0)
    site = crowd.site
    slow = Slow(crowd, 20)
    with slow.dribbling():
        site.log.wait_for("run.answered", count=20)
        for _ in range(30):
            assert crowd.ask("/plain").read().status == 200
        assert site.served.statistics().in_flight >= 40, (
            "the slow ones were no hindrance because they had ended"
        )
        wait_until(lambda: site.served.statistics().standing == 0)
    slow.finish()
    wait_until(lambda: site.served.statistics().in_flight == 0)
    assert site.served.statistics().requests == {(Stage.RESPOND, Outcome.SERVED): 70}


# --- response-socket-timeout


FRAMINGS = {"length": "1.1", "chunked": "1.1", "close": "1.0"}


def test_a_client_that_stops_reading_is_cut_off_visibly_long_after_its_worker_was_free(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(response_socket_timeout=8.0)
    site = crowd.site
    clients = {
        framing: crowd.ask(f"/stream?{framing},20000000", version=version)
        for framing, version in FRAMINGS.items()
    }
    site.log.wait_for("run.answered", count=3)
    assert crowd.ask("/plain").read().status == 200
    free, first_cut = site.record("/plain"), site.log.wait_for("respond.stalled")
    assert site.log.events.index(free) < site.log.events.index(first_cut)
    for client in clients.values():
        record = crowd.record_of(client)
        assert (record["outcome"], record["stage"]) == ("client_gone", "respond")
        assert (record["timer"], record["action"]) == ("response-socket-timeout", "dropped")
        assert record["age"] >= 8.0
    assert site.served.statistics().timers == {"response-socket-timeout": 3}
    for framing, client in clients.items():
        answer = client.read()
        assert not answer.complete, f"{framing}: it was cut, and looks whole"
        assert len(answer.body) < 20_000_000


def test_what_a_client_that_was_cut_off_asks_next_is_not_answered_inside_the_response_that_was_cut(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(response_socket_timeout=1.0)
    client = crowd.connect()
    client.send(
        "GET /stream?length,20000000 HTTP/1.1\r\nHost: test\r\n\r\n"
        f"GET /note?{crowd.notes},ran HTTP/1.1\r\nHost: test\r\n\r\n"
    )
    crowd.site.log.wait_for("respond.stalled")
    wait_until(lambda: crowd.site.served.statistics().connections == 0 or bool(crowd.noted()))
    assert crowd.noted() == [], "its answer would be taken for a piece of the first one's"


def test_a_client_that_stops_reading_is_gone_though_its_request_had_a_body(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(response_socket_timeout=1.0)
    client = crowd.ask("/stream?length,20000000", "Content-Length: 100000", method="POST")
    client.send(b"x" * 100_000)
    record = crowd.record_of(client)
    assert (record["outcome"], record["timer"]) == ("client_gone", "response-socket-timeout")


def test_a_client_that_stops_reading_holds_a_worker_no_longer_where_there_is_no_spool(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(response_socket_timeout=1.0, response_spool_size=0)
    client = crowd.ask("/big?50000000")
    crowd.site.log.wait_for("run.answered")
    assert crowd.ask("/plain").read().status == 200
    assert crowd.site.log.wait_for("respond.stalled")["timer"] == "response-socket-timeout"
    assert not client.read().complete


def test_a_client_that_reads_a_little_now_and_then_is_not_cut_off(crowded: Callable[..., Crowd]) -> None:
    """Each sip makes room for a write."""
    crowd = crowded(response_socket_timeout=5.0, response_spool_size=0)
    client = crowd.ask("/big?50000000")
    with dribbled(client, 500_000):
        crowd.site.log.wait_for("run.answered")
        threading.Event().wait(6)
        assert not crowd.site.log.find(event="respond.stalled")
    answer = client.read()
    assert (len(answer.body), answer.complete) == (50_000_000, True)


@contextmanager
def dribbled(client: Guest, size: int) -> Iterator[None]:
    """The client takes so many bytes ten times a second."""
    enough = threading.Event()

    def read() -> None:
        while not enough.wait(0.1):
            client.sip(size)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(30)


# --- as it comes


@pytest.mark.parametrize("buffering", [True, False])
def test_each_event_of_a_stream_arrives_before_the_next_is_produced(
    crowded: Callable[..., Crowd], buffering: bool
) -> None:
    crowd = crowded(request_buffering=buffering)
    for version, end in [("1.1", b"0\r\n\r\n"), ("1.0", b"")]:
        acknowledged = crowd.notes.with_name(version)
        client = crowd.ask(f"/acknowledged?{acknowledged}", version=version)
        for number in range(4):
            client.read_until(b"data: %d\n\n" % number)
            acknowledged.with_name(f"{version}-{number}").touch()
        client.read_until(end)
        assert crowd.record_of(client)["outcome"] == "served"


@pytest.mark.parametrize(("buffering", "chunked"), [(True, False), (False, False), (False, True)])
def test_an_application_may_write_5_mb_before_it_reads_a_body_of_6_mb(
    crowded: Callable[..., Crowd], buffering: bool, chunked: bool
) -> None:
    crowd = crowded(request_buffering=buffering)
    written, size = 80 << 16, 6_000_000
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"b" * size) if chunked else b"b" * size
    client = crowd.ask(f"/write-before-read?{written}", framing, method="POST")
    sender = threading.Thread(target=client.send, args=(body,))
    sender.start()
    answer = client.read()
    sender.join(30)
    assert answer.complete
    assert answer.body == b"w" * written + b"|%d" % size
    assert crowd.record_of(client)["outcome"] == "served"


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_response_whose_spool_cannot_be_read_any_more_is_cut_visibly(
    crowded: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    broken, read = threading.Event(), _spool._read

    def read_if_it_works(*how: Any) -> bytes:
        if broken.is_set():
            raise OSError(errno.EIO, "the disk is broken")
        return read(*how)

    monkeypatch.setattr(_spool, "_read", read_if_it_works)
    crowd = crowded()
    client = crowd.ask(f"/stream?{framing},20000000", version=FRAMINGS[framing])
    crowd.site.log.wait_for("run.answered")
    assert crowd.ask("/plain").read().status == 200, "all of it is in the spool, or in buffers on the way"
    broken.set()
    assert not client.read().complete
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["action"]) == ("truncated", "respond", "closed")
