"""The simulation is tested: bugs that were planted in the code are found, each within 200 seeds, on both backends."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from anyio.abc import TaskGroup

from gatekeep._group import Group
from gatekeep.lifecycle._child import Child
from gatekeep.lifecycle._control import Ready
from gatekeep.lifecycle._drain import Life, Order
from gatekeep.lifecycle._sleep import Sleep
from gatekeep.lifecycle._supervisor import Supervisor
from gatekeep.lifecycle._triggers import Trigger
from gatekeep.lifecycle._turns import Turns
from gatekeep.transport import _claim, _relay
from gatekeep.transport._admission import Admission
from gatekeep.transport._budget import Budget
from gatekeep.transport._claim import Attempts, Event, State
from gatekeep.transport._connect import Entrance, Ticket
from gatekeep.transport._dispatch import _Claim
from gatekeep.transport._hop import Hop
from gatekeep.transport._http1 import Http1Connection
from gatekeep.transport._relay import _Response
from gatekeep.transport._spool import Spool

from .changes import (
    BROKEN_DEPLOYMENT,
    EVICTION,
    INACTIVITY_OF_ONE,
    MAXIMUM_REQUESTS,
    RELOAD,
    RESIZED,
    SICKLY_REPLACEMENTS,
    STOP_OF_THE_UNIT,
)
from .runtime import BACKENDS
from .scenarios import (
    CLAIM_RACES,
    CONNECT_SCHEDULE,
    FAILED_STARTS,
    FULL_BACKLOG,
    LEAVING,
    ONE_FROZEN,
    OVERLOAD,
    QUEUE_DEADLINE,
    RETRY,
    SLOW_READERS,
    STORM,
    TRUNCATION,
    UNBUFFERED_UPLOADS,
    Failed,
    Scenario,
    play,
)

SEEDS = 200

Plant = Callable[[pytest.MonkeyPatch], None]


def peek_instead_of_the_claim(patch: pytest.MonkeyPatch) -> None:
    """Gives a hop up by closing it when a peek shows no claim: the worker may send it between the two."""

    def is_claimed(hop: Hop) -> bool:
        try:
            return bool(hop._channel.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def settle_nowait(hop: Hop) -> State:
        if hop.state is State.STANDING and not is_claimed(hop):
            hop.state = State.UNSTARTED
            return hop.state
        return settle(hop)

    settle = Hop.settle_nowait
    patch.setattr(Hop, "settle_nowait", settle_nowait)


def giving_up_without_the_claim(patch: pytest.MonkeyPatch) -> None:
    """Offers the request to the next process at once, without reading what the hop's worker has sent."""

    def take_back(hop: Hop) -> None:
        if hop.state is State.STANDING:
            hop.taken_back, hop.state = True, State.UNSTARTED
            hop._channel.stop_reading()

    def receive_claim(hop: Hop, data: bytes) -> None:
        if hop.state is not State.UNSTARTED:
            receive(hop, data)

    receive = Hop.receive_claim
    patch.setattr(Hop, "take_back", take_back)
    patch.setattr(Hop, "receive_claim", receive_claim)


def no_retry(patch: pytest.MonkeyPatch) -> None:
    """Answers 503 as soon as a worker ends before the claim."""
    patch.setattr(Attempts, "is_exhausted", lambda attempts: True)


def the_end_of_the_stream_taken_for_the_end_of_the_response(patch: pytest.MonkeyPatch) -> None:
    """What came before the worker's end closed is taken for the whole."""

    async def receive(response: _Response) -> None:
        exchange = response._exchange
        while not response._pass_on():
            await exchange.flush()
            if not await response._hop.read_more():
                if not exchange.response_started:
                    raise response._ended_early("its process ended")
                exchange.finish()
                break
        await exchange.flush()

    patch.setattr(_relay._Response, "receive", receive)


def a_late_claim_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A claim that is found after the front has begun to give up counts for nothing."""
    patch.setitem(_claim.TRANSITIONS, (State.GIVING_UP, Event.GO), State.UNSTARTED)


def no_news_of_deaths(patch: pytest.MonkeyPatch) -> None:
    """The front relies on the end of the stream, which a forked child holds back."""
    patch.setattr(Hop, "process_ended", lambda hop: None)
    patch.setattr(Hop, "take_back", lambda hop: None)


def nobody_reclaims(patch: pytest.MonkeyPatch) -> None:
    """What a wedged process has in hand waits for its end."""
    patch.setattr(Hop, "reclaim", lambda hop: None)


def giving_up_without_a_look(patch: pytest.MonkeyPatch) -> None:
    """Gives up hops whose claim is there already: they are started, but the worker's response is cut off."""
    patch.setattr(Hop, "take_back", lambda hop: hop.give_up())


def the_deadline_is_answered_without_giving_up(patch: pytest.MonkeyPatch) -> None:
    """504 at queue-timeout, 503 when the client leaves: whatever the hop's worker has said."""

    def lose_patience(claim: _Claim, hop: Hop) -> None:
        claim.check_patience(claim._clock.now())
        claim.alarm.set(claim.patience_ends())

    patch.setattr(_Claim, "_lose_patience", lose_patience)


def the_stamp_is_renewed(patch: pytest.MonkeyPatch) -> None:
    """Each attempt counts as the first: a request that met many deaths waits for ever."""

    def seal(claim: _Claim, now: float) -> bytes:
        claim._is_offered = False
        return seal_once(claim, now)

    seal_once = _Claim._seal
    patch.setattr(_Claim, "_seal", seal)


def a_client_leaves_and_the_hop_is_closed(patch: pytest.MonkeyPatch) -> None:
    """A hop is dropped without reading what its worker has sent."""

    def settle_nowait(hop: Hop) -> State:
        if hop.state is State.STANDING:
            hop.taken_back, hop.state = True, State.UNSTARTED
        return hop.state

    patch.setattr(Hop, "settle_nowait", settle_nowait)


def nobody_hears_that_a_client_left(patch: pytest.MonkeyPatch) -> None:
    """Its request goes on waiting, and running."""
    patch.setattr(Http1Connection, "_client_ended", lambda connection: None)


def a_freed_place_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    """Who waits for a place in the backlog tries by the schedule alone."""
    patch.setattr(Entrance, "place_freed", lambda entrance: None)


def the_schedule_is_lost(patch: pytest.MonkeyPatch) -> None:
    """Who waits for a place in the backlog tries when one is freed, and never by himself."""

    def tried(ticket: Ticket, now: float) -> None:
        ticket.next_try = ticket.ends

    patch.setattr(Ticket, "tried", tried)


def first_come_first_served_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Under overload every request is served just when its client has left."""
    patch.setattr(Admission, "judge", lambda admission, *args: None)
    patch.setattr(Admission, "client_left", lambda admission, standing: None)


def the_worker_is_let_go_before_its_end(patch: pytest.MonkeyPatch) -> None:
    """The hop is released as soon as the response goes into a spool."""

    async def receive_into(response: _Response, spool: Spool) -> None:
        response._keeper.release(response._hop)
        await receive(response, spool)

    receive = _Response._receive_into
    patch.setattr(_Response, "_receive_into", receive_into)


def the_newest_leave_the_spool_first(patch: pytest.MonkeyPatch) -> None:
    """What is in memory overtakes what is in the file."""

    async def take(spool: Spool) -> bytes:
        return spool._take_from_memory() if spool._tail else await take_in_order(spool)

    take_in_order = Spool.take
    patch.setattr(Spool, "take", take)


def the_client_pays_for_a_slow_worker(patch: pytest.MonkeyPatch) -> None:
    """Time in which nobody reads from the client counts as the client's."""

    def wait_from(budget: Budget, now: float) -> float:
        budget._since = budget._since or now
        return budget._since + min(budget._left, budget._most)

    patch.setattr(Budget, "wait_from", wait_from)


def accepting_no_more_before_the_replacement_is_ready(patch: pytest.MonkeyPatch) -> None:
    """A planned change begins with the end of what there is."""

    def drained(life: Life, trigger: Trigger, now: float, *, is_needed: bool) -> list[Order]:
        return drain(life, trigger, now, is_needed=is_needed) + life.succeed(now)

    drain = Life.drain
    patch.setattr(Life, "drain", drained)


def the_deadline_is_set_with_each_trigger(patch: pytest.MonkeyPatch) -> None:
    """Who is evicted again and again never has to go."""

    def open_window(life: Life, now: float) -> None:
        life._is_window_open = False
        open_once(life, now)
        life._is_window_open = False

    open_once = Life._open_window
    patch.setattr(Life, "_open_window", open_window)


def all_at_once(patch: pytest.MonkeyPatch) -> None:
    """Who is due is replaced, whoever else is."""
    patch.setattr(Turns, "ask", lambda turns, who: who)


def the_turn_is_kept(patch: pytest.MonkeyPatch) -> None:
    """Who had the turn and is gone has it still."""
    patch.setattr(Turns, "done", lambda turns, who: None)


def a_replacement_that_died_is_taken_for_ready(patch: pytest.MonkeyPatch) -> None:
    """The old process goes when the start of the new one has failed."""

    def bury(supervisor: Supervisor, child: Child) -> object:
        for other in supervisor._children.values():
            if other.seat == child.seat and other is not child and child.ready_at is None:
                supervisor._succeed(other)
        return bury_once(supervisor, child)

    bury_once = Supervisor._bury
    patch.setattr(Supervisor, "_bury", bury)


def one_that_goes_is_taken_for_a_replacement(patch: pytest.MonkeyPatch) -> None:
    """The old process goes when the new one is ready, though that was told to end while it started."""

    def said_ready(supervisor: Supervisor, child: Child, ready: Ready) -> None:
        say(supervisor, child, ready)
        for other in supervisor._children.values():
            if other.seat == child.seat and other is not child:
                supervisor._succeed(other)

    say = Supervisor.said_ready
    patch.setattr(Supervisor, "said_ready", said_ready)


def whose_seat_is_gone_goes_at_once(patch: pytest.MonkeyPatch) -> None:
    """Although no other process takes requests yet."""
    patch.setattr(Supervisor, "_leave", Supervisor._succeed)


def two_tasks_keep_one_seat(patch: pytest.MonkeyPatch) -> None:
    """A seat that is given up has its task still when it is wanted again."""

    def keep_seats(self: Supervisor) -> None:
        for seat in range(len(self._kept), self._seats):
            self._kept.add(seat)
            self._tasks.start_soon(self._keep_seat, seat)
        self._kept &= {*range(self._seats)}

    patch.setattr(Supervisor, "_keep_seats", keep_seats)


def nobody_is_needed(patch: pytest.MonkeyPatch) -> None:
    """The only process is told to leave when it is idle, as if others were there."""

    def drained(life: Life, trigger: Trigger, now: float, *, is_needed: bool) -> list[Order]:
        return drain(life, trigger, now, is_needed=False)

    drain = Life.drain
    patch.setattr(Life, "drain", drained)


def all_wait_while_starts_fail(patch: pytest.MonkeyPatch) -> None:
    """Nobody is told that no process will take his request."""
    patch.setattr(Group, "starts_fail", lambda group, next_start: None)


def starts_fail_for_ever(patch: pytest.MonkeyPatch) -> None:
    """503 as soon as a process has died, though the next one will start."""

    def ended(group: Group, pid: int, *, in_order: bool = False) -> None:
        end(group, pid, in_order=in_order)
        if not group.is_ready():
            group.starts_fail(0.0)

    end = Group.process_ended
    patch.setattr(Group, "process_ended", ended)


def nobody_wakes_those_who_sleep(patch: pytest.MonkeyPatch) -> None:
    """What comes when all processes have gone to sleep waits for ever."""
    patch.setattr(Sleep, "_wake", lambda sleep, tasks: None)


def who_came_a_moment_before_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    """What was offered to the last process, and not taken, before it was told to go."""

    def lie_down(sleep: Sleep, child: Child, tasks: TaskGroup) -> int:
        standing, sleep._group.standing = sleep._group.standing, {}
        try:
            return lie(sleep, child, tasks)
        finally:
            sleep._group.standing = standing

    lie = Sleep.lie_down
    patch.setattr(Sleep, "lie_down", lie_down)


def the_order_to_finish_is_lost(patch: pytest.MonkeyPatch) -> None:
    """The old process goes on accepting until its window is over."""

    def order(child: Child, order: Order) -> None:
        if order is not Order.FINISH:
            tell(child, order)

    tell = Child.order
    patch.setattr(Child, "order", order)


def a_signal_counts_at_once(patch: pytest.MonkeyPatch) -> None:
    """Processes are replaced that got the signal with which the gateway is stopped, too."""
    patch.setattr("gatekeep.lifecycle._supervisor.ECHO", 0.0)


PLANTS: list[tuple[Plant, Scenario]] = [
    (peek_instead_of_the_claim, CLAIM_RACES),
    (giving_up_without_the_claim, CLAIM_RACES),
    (no_retry, RETRY),
    (the_end_of_the_stream_taken_for_the_end_of_the_response, TRUNCATION),
    (a_late_claim_is_ignored, QUEUE_DEADLINE),
    (no_news_of_deaths, STORM),
    (giving_up_without_a_look, STORM),
    (nobody_reclaims, ONE_FROZEN),
    (the_deadline_is_answered_without_giving_up, QUEUE_DEADLINE),
    (the_stamp_is_renewed, QUEUE_DEADLINE),
    (a_client_leaves_and_the_hop_is_closed, LEAVING),
    (nobody_hears_that_a_client_left, LEAVING),
    (a_freed_place_wakes_nobody, FULL_BACKLOG),
    (the_schedule_is_lost, CONNECT_SCHEDULE),
    (first_come_first_served_for_ever, OVERLOAD),
    (the_worker_is_let_go_before_its_end, SLOW_READERS),
    (the_newest_leave_the_spool_first, SLOW_READERS),
    (the_client_pays_for_a_slow_worker, UNBUFFERED_UPLOADS),
    (accepting_no_more_before_the_replacement_is_ready, RELOAD),
    (the_deadline_is_set_with_each_trigger, EVICTION),
    (all_at_once, MAXIMUM_REQUESTS),
    (the_turn_is_kept, RELOAD),
    (a_replacement_that_died_is_taken_for_ready, BROKEN_DEPLOYMENT),
    (one_that_goes_is_taken_for_a_replacement, SICKLY_REPLACEMENTS),
    (nobody_is_needed, EVICTION),
    (whose_seat_is_gone_goes_at_once, RESIZED),
    (two_tasks_keep_one_seat, RESIZED),
    (all_wait_while_starts_fail, FAILED_STARTS),
    (starts_fail_for_ever, FAILED_STARTS),
    (nobody_wakes_those_who_sleep, INACTIVITY_OF_ONE),
    (who_came_a_moment_before_wakes_nobody, INACTIVITY_OF_ONE),
    (the_order_to_finish_is_lost, RELOAD),
    (a_signal_counts_at_once, STOP_OF_THE_UNIT),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("plant", "scenario"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_it_is_found(plant: Plant, scenario: Scenario, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS):
        try:
            play(scenario, backend, seed)
        except Failed:
            return
    pytest.fail(f"not found within {SEEDS} seeds")
