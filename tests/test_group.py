"""What front and supervisor know of a group: suspicion, trust, deaths, and which requests are offered again."""

from __future__ import annotations

import math
import sys
import threading
import time

import pytest

from gatekeep._errors import StartsFail
from gatekeep._events import Record
from gatekeep._group import REMEMBERED, Group


class FakeHop:
    """A hop that notes what is asked of it."""

    def __init__(self, number: int = 1, since: float = 0.0, pid: int = 0) -> None:
        self.record = Record(number, "", since)
        self.since = since
        self.pid = pid
        self.told: list[str] = []

    def take_back(self) -> None:
        self.told.append("take back")

    def reclaim(self) -> None:
        self.told.append("reclaim")

    def give_up_unread(self) -> None:
        self.told.append("give up unread")

    def process_ended(self) -> None:
        self.told.append("process ended")


def group_with(*hops: FakeHop, ready: tuple[int, ...] = ()) -> Group:
    group = Group("default", 2, "address")
    for pid in ready:
        group.process_started(pid)
        group.process_ready(pid)
    for hop in hops:
        group.enter(hop)
    return group


def test_any_thread_may_ask_for_how_long_the_oldest_request_has_waited() -> None:
    """`Served.statistics` is called by other threads than the event loop's, while requests come and go."""
    group, is_over = group_with(), threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            hop = FakeHop(since=1.0)
            group.enter(hop)
            group.leave(hop)

    thread = threading.Thread(target=come_and_go)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            assert group.oldest_offer(2.0) in (1.0, 2.0)
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_what_a_suspect_may_have_in_hand_is_reclaimed_where_another_process_lives() -> None:
    old, new = FakeHop(since=1.0), FakeHop(since=5.0)
    group = group_with(old, new, ready=(10, 11))
    group.process_suspected(10, since=4.0)
    assert (old.told, new.told) == (["reclaim"], [])


def test_nothing_is_reclaimed_while_nobody_else_could_take_it() -> None:
    hop = FakeHop(since=1.0)
    group = group_with(hop, ready=(10,))
    group.process_suspected(10, since=4.0)
    assert hop.told == []


def test_it_is_reclaimed_as_soon_as_another_process_is_ready() -> None:
    hop = FakeHop(since=1.0)
    group = group_with(hop, ready=(10,))
    group.process_suspected(10, since=4.0)
    group.process_ready(11)
    assert hop.told == ["reclaim"]


def test_it_is_reclaimed_as_soon_as_one_of_two_suspects_is_trusted_again() -> None:
    hop = FakeHop(since=1.0)
    group = group_with(hop, ready=(10, 11))
    group.process_suspected(10, since=2.0)
    hop.told.clear()
    group.process_suspected(11, since=4.0)
    assert hop.told == []
    group.process_trusted(10)
    assert hop.told == ["reclaim"]


def test_one_suspicion_reclaims_once() -> None:
    hop = FakeHop(since=1.0)
    group = group_with(hop, ready=(10, 11))
    group.process_suspected(10, since=4.0)
    group.process_ready(12)
    assert hop.told == ["reclaim"]


def test_a_dead_process_is_no_suspect_any_more() -> None:
    hop = FakeHop(since=1.0)
    group = group_with(ready=(10, 11))
    group.process_suspected(10, since=4.0)
    group.process_ended(10)
    group.enter(hop)
    group.process_suspected(11, since=0.5)
    group.process_ready(12)
    assert hop.told == []


def test_a_death_ends_what_the_process_had_claimed_and_takes_back_what_nobody_had() -> None:
    claimed, others, standing = FakeHop(1, pid=10), FakeHop(2, pid=11), FakeHop(3)
    group = group_with(claimed, others, standing, ready=(10, 11))
    group.claimed(claimed)
    group.claimed(others)
    group.process_ended(10)
    assert (claimed.told, others.told, standing.told) == (["process ended"], [], ["take back"])


def test_a_process_that_ended_in_order_takes_nothing_back() -> None:
    claimed, standing = FakeHop(1, pid=10), FakeHop(2)
    group = group_with(claimed, standing, ready=(10, 11))
    group.claimed(claimed)
    group.process_ended(10, in_order=True)
    assert (claimed.told, standing.told) == (["process ended"], [])


def test_a_request_is_found_while_it_is_claimed_and_for_a_while_afterwards() -> None:
    hop = FakeHop(7, pid=10)
    group = group_with(hop, ready=(10,))
    assert group.find(7) is None
    group.claimed(hop)
    assert group.find(7) is hop.record
    group.leave(hop)
    assert group.find(7) is hop.record
    for number in range(100, 100 + REMEMBERED):
        later = FakeHop(number, pid=10)
        group.enter(later)
        group.claimed(later)
        group.leave(later)
    assert group.find(7) is None


# --- who takes requests


def test_a_process_that_finishes_takes_no_requests_and_still_has_those_that_it_runs() -> None:
    running = FakeHop(1, pid=10)
    group = group_with(running, ready=(10, 11))
    group.claimed(running)
    group.process_finishing(10)
    assert group.ready() == (11,)
    assert group.is_ready()
    assert running.told == []


def test_the_group_is_not_ready_while_all_that_it_has_finish() -> None:
    group = group_with(ready=(10, 11))
    group.process_finishing(10)
    group.process_finishing(11)
    assert not group.is_ready()
    assert group.ready() == ()
    group.process_ready(12)
    assert group.ready() == (12,)


def test_what_is_told_twice_or_of_a_process_that_is_gone_changes_nothing() -> None:
    group = group_with(ready=(10, 11))
    group.process_finishing(10)
    group.process_finishing(10)
    group.process_ended(10)
    group.process_finishing(10)
    group.process_finishing(99)
    assert group.ready() == (11,)


def test_the_end_of_a_process_that_finished_ends_what_it_ran_and_takes_back_what_nobody_claimed() -> None:
    """It may have accepted a connection in the moment before it was told."""
    running, standing = FakeHop(1, pid=10), FakeHop(2)
    group = group_with(running, standing, ready=(10, 11))
    group.claimed(running)
    group.process_finishing(10)
    group.process_ended(10)
    assert (running.told, standing.told) == (["process ended"], ["take back"])


def test_the_end_of_a_process_in_order_takes_nothing_back() -> None:
    """It had nothing in hand, and to take back what another one is about to claim may cost that one its response."""
    running, standing = FakeHop(1, pid=10), FakeHop(2)
    group = group_with(running, standing, ready=(10, 11))
    group.claimed(running)
    group.process_finishing(10)
    group.process_ended(10, in_order=True)
    assert (running.told, standing.told) == (["process ended"], [])
    assert group.ready() == (11,)


def test_the_end_of_a_process_that_never_was_ready_takes_nothing_back() -> None:
    standing = FakeHop(1)
    group = group_with(standing, ready=(10,))
    group.process_started(11)
    group.process_ended(11)
    assert standing.told == []
    assert group.ready() == (10,)


def test_a_pid_may_come_again() -> None:
    hop = FakeHop(1, pid=10)
    group = group_with(ready=(10,))
    group.process_ended(10)
    group.process_started(10)
    group.process_ready(10)
    group.enter(hop)
    group.claimed(hop)
    assert (group.ready(), hop.told) == ((10,), [])


def test_where_only_processes_that_finish_are_left_beside_a_suspect_nothing_is_reclaimed() -> None:
    hop = FakeHop(since=1.0)
    group = group_with(hop, ready=(10, 11))
    group.process_finishing(11)
    group.process_suspected(10, since=4.0)
    assert hop.told == [], "nobody else could take it"
    group.process_ready(12)
    assert hop.told == ["reclaim"]


def test_a_suspect_that_finishes_is_a_suspect_still() -> None:
    """It was told to accept no more, which it may not have heard."""
    hop = FakeHop(since=1.0)
    group = group_with(hop, ready=(10,))
    group.process_finishing(10)
    group.process_suspected(10, since=4.0)
    group.process_ready(11)
    assert hop.told == ["reclaim"]


# --- starts that fail


def test_as_long_as_starts_succeed_everybody_may_wait() -> None:
    group = Group("default", 2, "address")
    group.check_up(0.0)
    group.process_ready(10)
    group.process_ended(10)
    group.check_up(1e9)


def test_when_starts_fail_all_that_wait_are_told_and_new_ones_are_turned_away() -> None:
    told: list[str] = []
    hops = [FakeHop(number) for number in range(3)]
    group = group_with(*hops)
    group.on_failing = lambda: told.append("failing")
    group.starts_fail(105.0)
    assert [hop.told for hop in hops] == [["reclaim"]] * 3
    assert told == ["failing"]
    with pytest.raises(StartsFail, match=r"^the processes of group default fail to start$"):
        group.check_up(100.0)


@pytest.mark.parametrize(
    ("pause", "seconds"), [(5.0, 6), (4.2, 6), (0.0, 1), (0.25, 2), (29.9, 31), (-1000.0, 1)]
)
def test_a_client_is_asked_to_come_again_after_the_next_start_and_never_at_once(
    pause: float, seconds: int
) -> None:
    group = Group("default", 2, "address")
    group.starts_fail(1000.0 + pause)
    with pytest.raises(StartsFail) as caught:
        group.check_up(1000.0)
    assert (caught.value.status, caught.value.retry_after) == (503, seconds)


def test_a_process_that_is_ready_ends_it() -> None:
    group = Group("default", 2, "address")
    group.starts_fail(105.0)
    group.process_ready(10)
    group.check_up(100.0)


def test_a_process_that_only_started_does_not() -> None:
    group = Group("default", 2, "address")
    group.starts_fail(105.0)
    group.process_started(10)
    with pytest.raises(StartsFail):
        group.check_up(1e9)


# --- processes that sleep


def test_each_offer_wakes_while_somebody_sleeps_and_only_then() -> None:
    woken: list[int] = []
    group = group_with(ready=(10,))
    group.enter(FakeHop(1))
    group.wake = lambda: woken.append(len(group.standing))
    group.enter(FakeHop(2))
    group.enter(FakeHop(3))
    group.wake = None
    group.enter(FakeHop(4))
    assert woken == [2, 3], "the request stands there already when it wakes"


def test_a_group_whose_starts_fail_does_not_pass_for_one_that_sleeps() -> None:
    group = group_with()
    group.wake = lambda: None
    assert group.is_asleep()
    group.starts_fail(105.0)
    assert (group.is_asleep(), group.describe_state()) == (False, "failing"), (
        "it is not ready, and its probe must say so"
    )
    group.process_started(10)
    group.process_ready(10)
    group.process_ended(10, in_order=True)
    assert group.is_asleep(), "the last start was well"


def test_whoever_wakes_may_say_that_nobody_sleeps_any_more() -> None:
    group = Group("default", 2, "address")

    def wake() -> None:
        group.wake = None

    group.wake = wake
    group.enter(FakeHop(1))
    group.enter(FakeHop(2))
    assert len(group.standing) == 2


def test_the_oldest_offer_is_the_first_that_stands() -> None:
    group = group_with(FakeHop(1, since=3.0), FakeHop(2, since=5.0))
    assert group.oldest_offer(9.0) == 3.0
    assert group_with().oldest_offer(9.0) == 9.0


# --- what probes ask


def claimed_at(number: int, stamp: float) -> FakeHop:
    hop = FakeHop(number, pid=10)
    hop.record.claimed = stamp
    return hop


def test_the_last_claim_is_known_while_its_request_runs_and_for_a_while_afterwards() -> None:
    first, second = claimed_at(1, 5.0), claimed_at(2, 6.0)
    group = group_with(first, second, ready=(10,))
    assert group.last_claim() == -math.inf
    group.claimed(first)
    assert group.last_claim() == 5.0
    group.claimed(second)
    assert group.last_claim() == 6.0
    group.leave(second)
    assert group.last_claim() == 6.0
    group.leave(first)
    assert group.last_claim() == 6.0, "the last that left was not the last that was claimed"


def test_a_request_that_nobody_claimed_leaves_no_claim() -> None:
    hop = FakeHop()
    group = group_with(hop, ready=(10,))
    group.leave(hop)
    assert group.last_claim() == -math.inf


def test_a_suspect_is_ready_and_not_trusted_until_it_lives_after_all() -> None:
    group = group_with(ready=(10, 11))
    group.process_suspected(10, since=1.0)
    assert (group.ready(), group.trusted()) == ((10, 11), (11,))
    group.process_suspected(11, since=2.0)
    assert group.trusted() == ()
    group.process_trusted(10)
    assert group.trusted() == (10,)
    group.process_ended(10)
    assert group.trusted() == ()
