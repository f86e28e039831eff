"""Requests that wait for a worker: for queue-timeout at most, and not for clients that have left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from conftest import BOTH_BACKENDS, wait_until
from crowd import Crowd, stranger
from gatekeep import Outcome, Stage

pytestmark = BOTH_BACKENDS

TIMEOUT = 4.0
"""Seconds of queue-timeout: who is to be picked up in time is so on a busy machine, too."""


# --- queue-timeout


def test_a_request_is_a_504_at_the_deadline_while_the_worker_is_busy_and_never_runs(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(queue_timeout=TIMEOUT)
    hold = crowd.hold()
    clients = [crowd.note("late") for _ in range(3)]
    assert [client.read().status for client in clients] == [504, 504, 504]
    assert not hold.clients[0].has_answer()
    for client in clients:
        record = crowd.record_of(client)
        assert (record["outcome"], record["stage"], record["timer"]) == (
            "queue_timeout",
            "queue",
            "queue-timeout",
        )
        assert (record["action"], record["attempts"], record["pid"]) == ("answered", 1, 0)
        assert record["age"] >= TIMEOUT
        assert (
            crowd.site.log.wait_for("queue.expired", request_id=record["request_id"])["age"] == record["age"]
        )
    statistics = crowd.site.served.statistics()
    assert statistics.requests[Stage.QUEUE, Outcome.QUEUE_TIMEOUT] == 3
    assert (statistics.timers, statistics.standing) == ({"queue-timeout": 3}, 0)
    hold.read()
    expect_only(crowd, [])


def expect_only(crowd: Crowd, names: list[str]) -> None:
    """Whatever stood in the backlog has been looked at; these have run, and nothing else has."""
    assert crowd.note("fresh").read().status == 200
    assert crowd.noted() == [*names, "fresh"]


def test_with_pickup_a_request_is_a_504_when_a_worker_finds_it_too_old_and_not_before(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(queue_timeout=TIMEOUT, queue_shed="pickup")
    hold = crowd.hold()
    clients = [crowd.note("late") for _ in range(3)]
    crowd.wait_standing(3)
    wait_until(lambda: crowd.site.served.statistics().oldest > TIMEOUT + 0.5)
    assert not any(client.has_answer() for client in clients)
    assert hold.read()[0].status == 200
    assert [client.read().status for client in clients] == [504, 504, 504]
    for client in clients:
        record = crowd.record_of(client)
        assert (record["outcome"], record["stage"], record["timer"]) == (
            "queue_timeout",
            "pickup",
            "queue-timeout",
        )
        assert (record["action"], record["attempts"]) == ("answered", 1)
        assert record["age"] >= TIMEOUT
        assert crowd.site.log.wait_for("pickup.discarded", level="warning", request_id=record["request_id"])
    assert crowd.site.served.statistics().requests[Stage.PICKUP, Outcome.QUEUE_TIMEOUT] == 3
    assert crowd.site.served.statistics().timers == {"queue-timeout": 3}
    expect_only(crowd, [])


def test_a_request_that_is_picked_up_within_queue_timeout_may_run_longer_than_that(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(queue_timeout=TIMEOUT)
    client = crowd.ask(f"/sleep?{TIMEOUT + 0.5}")
    assert client.read().status == 200
    assert crowd.record_of(client)["outcome"] == "served"


def test_queue_timeout_counts_from_the_first_offer_although_the_request_was_offered_again(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(queue_timeout=8.0)
    with stranger(crowd.site) as listener:
        client = crowd.note("late")
        hop = listener.accept()[0]
        wait_until(lambda: crowd.site.served.statistics().oldest > 4)
        hop.close()
        with listener.accept()[0]:
            assert client.read().status == 504
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["attempts"]) == ("queue_timeout", "queue", 2)
    assert 8.0 <= record["age"] < 12.0, "not eight seconds from the second offer on"


def test_queue_timeout_counts_on_while_the_process_is_killed_and_replaced(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(queue_timeout=8.0)
    site = crowd.site
    first = crowd.hold()
    crowd.ask(f"/hold?{crowd.gate()}")  # the second process runs it, or finds it too old
    crowd.wait_standing(1)
    client = crowd.note("late")
    crowd.wait_standing(2)
    wait_until(lambda: site.served.statistics().oldest > 4)
    (pid,) = site.served.statistics().processes
    os.kill(pid, signal.SIGKILL)
    assert first.clients[0].read().status == 502
    assert client.read().status == 504
    record = crowd.record_of(client)
    assert (record["outcome"], record["timer"]) == ("queue_timeout", "queue-timeout")
    assert 8.0 <= record["age"] < 12.0, "not eight seconds from the second process on"
    assert crowd.noted() == []


# --- clients that leave while they wait

STAGES = {"in the backlog": "queue", "before it": "connect"}


@pytest.mark.parametrize("place", ["in the backlog", "before it"])
@pytest.mark.parametrize("way", ["close", "break_off"])
def test_a_request_whose_client_has_gone_while_it_waited_never_runs(
    crowded: Callable[..., Crowd], place: str, way: str
) -> None:
    crowd = crowded(**({"listen_backlog": 1} if place == "before it" else {}))
    hold = crowd.hold()
    ahead = [crowd.note("ahead") for _ in range(2)]
    crowd.wait_standing(2)
    client = crowd.note("gone")
    name = client.name
    wait_until(lambda: crowd.unclaimed() == 3)
    getattr(client, way)()
    record = crowd.site.log.wait_for("request.finished", client=name)
    assert (record["outcome"], record["stage"], record["attempts"]) == ("client_gone", STAGES[place], 1)
    assert (record["pid"], record["timer"]) == (0, "")
    assert record["action"] in ("dropped", "answered")
    if way == "break_off":
        assert record["action"] == "dropped"
    assert crowd.unclaimed() == 2
    hold.read()
    assert {client.read().status for client in ahead} == {200}
    expect_only(crowd, ["ahead", "ahead"])


@pytest.mark.parametrize("place", ["in the backlog", "before it"])
def test_a_client_that_has_half_closed_and_waits_longer_than_client_gone_delay_reads_a_503(
    crowded: Callable[..., Crowd], place: str
) -> None:
    crowd = crowded(client_gone_delay=0.5, **({"listen_backlog": 1} if place == "before it" else {}))
    hold = crowd.hold()
    ahead = [crowd.note("ahead") for _ in range(2)]
    crowd.wait_standing(2)
    client = crowd.note("gone")
    wait_until(lambda: crowd.unclaimed() == 3)
    client.half_close()
    answer = client.read()
    assert (answer.status, answer.complete) == (503, True)
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["action"]) == (
        "client_gone",
        STAGES[place],
        "answered",
    )
    assert record["age"] >= 0.5
    hold.read()
    assert {client.read().status for client in ahead} == {200}
    expect_only(crowd, ["ahead", "ahead"])


def test_a_client_that_has_half_closed_gets_its_answer_if_it_is_picked_up_soon(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(client_gone_delay=30.0)
    hold = crowd.hold()
    clients = [crowd.note("one"), crowd.note("two")]
    crowd.wait_standing(2)
    for client in clients:
        client.half_close()
    hold.release()
    for client in clients:
        answer = client.read()
        assert (answer.status, answer.complete) == (200, True)
        assert client.is_closed()
        assert crowd.record_of(client)["outcome"] == "served"
    assert sorted(crowd.noted()) == ["one", "two"]


def test_a_client_that_has_half_closed_before_its_request_was_offered_is_served_by_an_idle_worker(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(client_gone_delay=5.0)
    for number in range(20):
        client = crowd.connect()
        client.send(f"GET /note?{crowd.notes},{number} HTTP/1.1\r\nHost: test\r\n\r\n")
        client.half_close()
        assert client.read().status == 200
    assert crowd.noted() == [f"{number}" for number in range(20)]
