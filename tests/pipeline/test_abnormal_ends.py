"""The run and respond stages: requests that come to no good end. Their clients can always tell, and so can the log."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from conftest import BOTH_BACKENDS, Site, start_site, wait_until
from crowd import Crowd, Guest
from gatekeep import Outcome, Stage

pytestmark = BOTH_BACKENDS

TIMEOUT = 4.0
"""Seconds of socket-timeout: a worker that is to say something has the time for it on a busy machine, too."""


@pytest.fixture(scope="module")
def site(loop: str) -> Iterator[Site]:
    """A site whose workers must say something now and then."""
    with ExitStack() as stack:
        yield start_site(stack, loop=loop, socket_timeout=TIMEOUT)


def counted(site: Site, stage: Stage, outcome: Outcome) -> int:
    return site.served.statistics().requests.get((stage, outcome), 0)


# --- before the head

BEFORE = {
    "kill": (502, "lost", ""),
    "raise": (500, "app_error", ""),
    "hold": (504, "interrupted", "socket-timeout"),
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("end", BEFORE)
def test_an_end_before_the_head_is_an_error_to_the_client(
    site: Site, crowd: Crowd, end: str, version: str
) -> None:
    status, outcome, timer = BEFORE[end]
    before = counted(site, Stage.RUN, Outcome(outcome))
    client = crowd.ask(f"/{end}?{crowd.gate()}", version=version)
    answer = client.read()
    assert (answer.status, answer.complete, answer.fields["connection"]) == (status, True, "close")
    assert client.is_closed()
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["timer"]) == (outcome, "run", timer)
    assert (record["action"], record["attempts"], record["pid"] > 0) == ("answered", 1, True)
    assert record["age"] > 0
    assert counted(site, Stage.RUN, Outcome(outcome)) == before + 1


def test_a_worker_that_never_answers_is_a_504_at_socket_timeout_while_it_goes_on(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(socket_timeout=TIMEOUT)
    site = crowd.site
    hold = crowd.hold()
    assert hold.clients[0].read().status == 504
    record = crowd.record_of(hold.clients[0])
    assert record["age"] >= TIMEOUT
    assert site.log.wait_for("run.expired", request_id=record["request_id"])["timer"] == "socket-timeout"
    assert site.served.statistics().timers == {"socket-timeout": 1}
    behind = crowd.note("behind")
    crowd.wait_standing(1)
    assert crowd.noted() == [], "the worker is not free"
    hold.release()
    assert behind.read().status == 200
    assert site.served.statistics().processes == (record["pid"],), "nothing was done to the process"


def test_socket_timeout_does_not_count_the_wait_for_a_worker(crowded: Callable[..., Crowd]) -> None:
    """Each runs for a moment, and together they take longer than it."""
    crowd = crowded(socket_timeout=TIMEOUT)
    clients = [crowd.ask("/sleep?1") for _ in range(5)]
    assert [client.read().status for client in clients] == [200] * 5
    assert max(crowd.record_of(client)["duration"] for client in clients) > TIMEOUT


def test_a_response_that_goes_on_may_take_longer_than_socket_timeout(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(socket_timeout=TIMEOUT)
    client = crowd.ask("/slow-generator?1")
    answer = client.read()
    assert crowd.record_of(client)["duration"] > TIMEOUT
    assert (answer.complete, answer.body) == (True, b"0\n1\n2\n3\n4\n")


# --- inside the response

INSIDE = {"kill": "", "raise": "", "stall": "socket-timeout"}
FRAMINGS = {"length": "1.1", "chunked": "1.1", "close": "1.0"}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("end", INSIDE)
def test_an_end_inside_the_response_is_visible_whatever_its_framing(
    site: Site, crowd: Crowd, end: str, framing: str
) -> None:
    before = counted(site, Stage.RESPOND, Outcome.TRUNCATED)
    client = crowd.ask(f"/end-badly?{framing},{end},{crowd.gate()}", version=FRAMINGS[framing])
    answer = client.read()
    assert (answer.status, answer.body, answer.complete) == (200, b"first", False)
    assert ("content-length" in answer.fields) == (framing == "length")
    assert ("transfer-encoding" in answer.fields) == (framing == "chunked")
    assert client.reset == (framing == "close"), "only a reset tells there"
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["timer"]) == ("truncated", "respond", INSIDE[end])
    assert (record["action"], record["status"], record["attempts"]) == ("closed", 200, 1)
    assert (record["bytes_out"], record["pid"] > 0) == (5, True)
    assert site.log.wait_for("respond.truncated", request_id=record["request_id"])["action"] == "closed"
    assert counted(site, Stage.RESPOND, Outcome.TRUNCATED) == before + 1


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_end_inside_the_response_is_visible_to_a_client_that_is_behind(
    crowded: Callable[..., Crowd], framing: str
) -> None:
    """What it has not read yet lies with us when the process dies."""
    crowd = crowded()
    client = crowd.ask(f"/big-then-kill?{framing},20000000", version=FRAMINGS[framing])
    crowd.site.log.wait_for("process.exited")
    answer = client.read()
    assert answer.status == 200
    assert not answer.complete
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["action"]) == ("truncated", "respond", "closed")


# --- clients that go


@pytest.mark.parametrize("buffering", [True, False])
def test_a_client_that_resets_while_its_request_runs_is_gone_and_the_application_can_tell(
    crowded: Callable[..., Crowd], buffering: bool
) -> None:
    crowd = crowded(request_buffering=buffering)
    client = watched(crowd)
    name = client.name
    client.break_off()
    wait_until(lambda: len(crowd.noted()) == 2)
    assert crowd.noted() == ["running", "gone"]
    record = crowd.site.log.wait_for("request.finished", client=name)
    assert (record["outcome"], record["action"], record["timer"]) == ("client_gone", "dropped", "")
    assert (record["attempts"], record["status"], record["pid"] > 0) == (1, 0, True)
    assert record["stage"] in ("run", "respond")
    assert crowd.site.served.statistics().by_outcome() == {Outcome.CLIENT_GONE: 1}


def watched(crowd: Crowd) -> Guest:
    """A client whose request runs, and looks whether it is still there."""
    client = crowd.ask(f"/watch-client?{crowd.notes}")
    wait_until(lambda: crowd.noted()[:1] == ["running"])
    return client


def test_a_client_that_half_closes_while_its_request_runs_gets_its_answer(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(client_gone_delay=0.0)
    hold = crowd.hold()
    hold.clients[0].half_close()
    behind = crowd.note("behind")
    crowd.wait_standing(1)
    assert [answer.status for answer in hold.read()] == [200]
    assert behind.read().status == 200
    assert crowd.record_of(hold.clients[0])["outcome"] == "served"


def test_an_application_whose_request_was_given_up_can_tell(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(socket_timeout=TIMEOUT)
    client = watched(crowd)
    assert client.read().status == 504
    wait_until(lambda: crowd.noted() == ["running", "gone"])


def test_nothing_is_left_of_requests_that_came_to_no_good_end(
    site: Site, crowded: Callable[..., Crowd]
) -> None:
    others = site
    crowd = crowded(processes=2, threads=3, socket_timeout=1.0)
    site = crowd.site
    # A process that starts has descriptors in the gateway, too: also that of the other site, for one that was killed before.
    wait_until(lambda: all(len(each.served.statistics().processes) == 2 for each in (site, others)))

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def is_quiet() -> bool:
        statistics = site.served.statistics()
        return statistics.in_flight == statistics.connections == 0

    assert crowd.ask("/plain", "Connection: close").rest()
    wait_until(is_quiet)
    before = descriptors()
    gate = crowd.gate()
    with Crowd(site, gate.parent) as short:
        bad = [short.ask(f"/hold?{gate}")]
        for framing, end in itertools.product(FRAMINGS, ["raise", "stall"]):
            bad.append(short.ask(f"/end-badly?{framing},{end},{gate}", version=FRAMINGS[framing]))
        short.ask("/big?5000000").break_off()
        for client in bad:
            client.rest()
        gate.touch()
    wait_until(lambda: is_quiet() and descriptors() <= before)
