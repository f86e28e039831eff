"""The admit and connect stages: into the group's backlog in turn, within connect-timeout, or away at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import BOTH_BACKENDS, Site, wait_until
from crowd import Crowd, Guest, Hold, crowds
from gatekeep import Outcome, Stage
from gatekeep.transport import _admission, _backoff

STANDING = 2
"""Requests that a listen-backlog of 1 takes: Linux admits one more than was asked for."""

pytestmark = BOTH_BACKENDS


@pytest.fixture
def crowded(start: Callable[..., Site], tmp_path: Path) -> Iterator[Callable[..., Crowd]]:
    """Make a site of one worker and of a backlog that two requests fill."""
    with crowds(start, tmp_path, processes=1, threads=1, listen_backlog=1, connect_timeout=60.0) as make:
        yield make


def fill(crowd: Crowd) -> list[Guest]:
    """Two requests that fill the backlog."""
    clients = [crowd.note("standing") for _ in range(STANDING)]
    crowd.wait_standing(STANDING)
    return clients


# --- connect-timeout


def test_a_full_backlog_is_a_503_with_retry_after_when_connect_timeout_is_over_and_not_before(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(connect_timeout=1.0)
    hold = crowd.hold()
    standing = fill(crowd)
    client = crowd.note("shed")
    answer = client.read()
    assert (answer.status, int(answer.fields["retry-after"]) > 0, answer.complete) == (503, True, True)
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["timer"]) == ("shed", "connect", "connect-timeout")
    assert (record["action"], record["attempts"], record["pid"]) == ("answered", 1, 0)
    assert record["age"] >= 1.0
    assert crowd.site.log.wait_for("connect.expired", request_id=record["request_id"])["status"] == 503
    assert not any(client.has_answer() for client in [*hold.clients, *standing]), "only it was sent away"
    hold.release()
    assert [client.read().status for client in standing] == [200, 200]
    assert crowd.noted() == ["standing", "standing"]
    statistics = crowd.site.served.statistics()
    assert statistics.requests[Stage.CONNECT, Outcome.SHED] == 1
    assert statistics.timers["connect-timeout"] == 1


def test_without_connect_timeout_there_is_one_try(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(connect_timeout=0.0)
    crowd.hold()
    fill(crowd)
    client = crowd.note("shed")
    assert client.read().status == 503
    record = crowd.record_of(client)
    assert (record["stage"], record["timer"]) == ("connect", "connect-timeout")


def test_whoever_waits_is_let_in_when_a_place_is_free_and_not_at_the_next_try(
    crowded: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backoff, "SHORT_PAUSE", 600.0)  # which none of them would live to see
    crowd = crowded(connect_timeout=3600.0)
    hold = crowd.hold()
    fill(crowd)
    waiting = [crowd.note("waited") for _ in range(30)]
    crowd.wait_waiting(30)
    wait_until(lambda: crowd.site.served.statistics().oldest > 2.2)
    hold.release()
    assert {client.read().status for client in waiting} == {200}


@pytest.mark.usefixtures("never_late")
def test_while_the_wait_is_not_too_long_all_are_served_in_the_order_of_arrival(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded()
    hold = crowd.hold()
    order = [f"{number}" for number in range(STANDING + 6)]
    clients = []
    for number, name in enumerate(order, start=1):
        clients.append(crowd.note(name))
        wait_until(lambda number=number: crowd.unclaimed() == number)
    hold.release()
    assert {client.read().status for client in [*hold.clients, *clients]} == {200}
    assert crowd.noted() == order


def test_when_the_wait_is_too_long_the_newest_of_those_that_wait_are_served_first(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded()
    hold = crowd.hold()
    standing = fill(crowd)
    clients = []
    for number in range(5):
        clients.append(crowd.note(f"{number}"))
        crowd.wait_waiting(number + 1)
    wait_until(lambda: crowd.site.served.statistics().oldest > 1.5)
    hold.release()
    assert {client.read().status for client in [*standing, *clients]} == {200}
    assert crowd.noted() == ["standing", "standing", "4", "3", "2", "1", "0"]


def test_those_that_are_taken_back_from_the_backlog_when_the_wait_is_too_long_are_served_once(
    crowded: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = crowded(listen_backlog=100)
    names = [f"{number}" for number in range(20)]
    clients, hold = taken_back(crowd, monkeypatch, names)
    hold.release()
    assert {client.read().status for client in clients} == {200}
    assert sorted(crowd.noted(), key=int) == names
    assert max(crowd.record_of(client)["attempts"] for client in clients) == 2


def taken_back(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch, names: list[str], after: float = 1.2
) -> tuple[list[Guest], Hold]:
    """Requests of which most were in the backlog for so many seconds, and now wait for a place in it: that was too long."""
    hold = crowd.hold()
    with monkeypatch.context() as patch:
        # Or some would be too late for the backlog on a busy machine.
        patch.setattr(_admission, "LATE", 1000.0)
        clients = [crowd.note(name) for name in names[:-1]]
        crowd.wait_standing(len(clients))
    wait_until(lambda: crowd.site.served.statistics().oldest > after)
    clients.append(crowd.note(names[-1]))
    wait_until(lambda: crowd.site.served.statistics().standing <= 2)
    return clients, hold


def test_for_those_queue_timeout_still_counts_from_the_first_offer(
    crowded: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd = crowded(listen_backlog=100, queue_timeout=8.0)
    clients, _ = taken_back(crowd, monkeypatch, [f"{number}" for number in range(6)], after=4.0)
    for client in clients[:-1]:
        assert client.read().status == 504
        record = crowd.record_of(client)
        assert (record["outcome"], record["timer"]) == ("queue_timeout", "queue-timeout")
        assert 8.0 <= record["age"] < 12.0, "not from the second one on"
    assert crowd.noted() == []


# --- max-waiting


@pytest.mark.parametrize("buffering", [True, False])
def test_one_more_than_max_waiting_is_a_503_at_once_before_its_body_is_read(
    crowded: Callable[..., Crowd], buffering: bool
) -> None:
    crowd = crowded(max_waiting=3, request_buffering=buffering)
    hold = crowd.hold()
    standing = fill(crowd)
    waiting = [crowd.note("waited") for _ in range(3)]
    crowd.wait_waiting(3)
    turned_away = [
        crowd.note("turned-away"),
        crowd.note("turned-away", "Content-Length: 1000000", method="POST"),
        crowd.note("turned-away", "Content-Length: 1000000", "Expect: 100-continue", method="POST"),
        crowd.note("turned-away", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST"),
    ]
    for client in turned_away:
        answer = client.read()  # a 100 would come first
        assert (answer.status, int(answer.fields["retry-after"]) > 0) == (503, True)
        record = crowd.record_of(client)
        assert (record["outcome"], record["stage"], record["timer"]) == ("shed", "admit", "")
        assert (record["action"], record["bytes_in"]) == ("answered", 0)
        assert crowd.site.log.wait_for("admit.refused", request_id=record["request_id"])
    assert crowd.site.served.statistics().requests == {(Stage.ADMIT, Outcome.SHED): 4}
    hold.release()
    assert {client.read().status for client in [*standing, *waiting]} == {200}
    assert "turned-away" not in crowd.noted()


def test_with_max_waiting_0_a_full_backlog_is_a_503_at_once(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(max_waiting=0)
    crowd.hold()
    fill(crowd)
    client = crowd.note("turned-away")
    assert client.read().status == 503
    assert crowd.record_of(client)["stage"] == "admit"


def test_a_place_that_was_left_is_free_for_the_next(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(max_waiting=1, client_gone_delay=0.0)
    hold = crowd.hold()
    standing = fill(crowd)
    leaves = crowd.note("left")
    crowd.wait_waiting(1)
    leaves.break_off()
    crowd.wait_waiting(0)
    stays = crowd.note("stayed")
    crowd.wait_waiting(1)
    hold.release()
    assert {client.read().status for client in [*standing, stays]} == {200}
    assert sorted(crowd.noted()) == ["standing", "standing", "stayed"]


# --- what is told of them


def test_those_that_wait_and_stand_are_counted_and_so_is_the_age_of_the_oldest(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded()
    site = crowd.site
    assert (site.served.statistics().standing, site.served.statistics().oldest) == (0, 0.0)
    hold = crowd.hold()
    assert (site.served.statistics().standing, site.served.statistics().oldest) == (0, 0.0)
    standing = fill(crowd)
    waiting = [crowd.note("waited") for _ in range(3)]
    crowd.wait_waiting(3)
    before = site.served.statistics()
    assert (before.in_flight, before.waiting, before.standing) == (6, 3, 2)
    wait_until(lambda: site.served.statistics().oldest > before.oldest + 0.1 > 0.1)
    hold.read()
    assert {client.read().status for client in [*standing, *waiting]} == {200}
    wait_until(lambda: site.served.statistics().in_flight == 0)
    after = site.served.statistics()
    assert (after.waiting, after.standing, after.oldest) == (0, 0, 0.0)
    assert after.requests == {(Stage.RESPOND, Outcome.SERVED): 6}
    assert after.timers == {}
