"""The simulation is tested: bugs that were planted in the code are found, each within 200 seeds, on both backends."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

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

from .runtime import BACKENDS
from .scenarios import (
    CLAIM_RACES,
    CONNECT_SCHEDULE,
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

    receive = Hop._receive_claim
    patch.setattr(Hop, "take_back", take_back)
    patch.setattr(Hop, "_receive_claim", receive_claim)


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
        response._release(response._hop)
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
