"""What front and supervisor know of a group: suspicion, trust, deaths, and which requests are offered again."""

from __future__ import annotations

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


def test_what_stands_from_before_its_end_is_taken_back_later() -> None:
    old, new = FakeHop(since=1.0), FakeHop(since=5.0)
    group = group_with(old, new, ready=(11,))
    group.take_back(before=4.0)
    assert (old.told, new.told) == (["take back"], [])


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
