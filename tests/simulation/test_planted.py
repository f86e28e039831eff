"""The simulation is tested: bugs that were planted in the code are found, each within 200 seeds, on both backends."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from gatekeep.transport import _claim, _relay
from gatekeep.transport._claim import Attempts, Event, State
from gatekeep.transport._hop import Hop
from gatekeep.transport._relay import _Response

from .runtime import BACKENDS
from .scenarios import CLAIM_RACES, RETRY, STORM, TRUNCATION, Failed, Scenario, play

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


def giving_up_without_a_look(patch: pytest.MonkeyPatch) -> None:
    """Gives up hops whose claim is there already: they are started, but the worker's response is cut off."""
    patch.setattr(Hop, "take_back", lambda hop: hop._give_up() if hop.state is State.STANDING else None)


PLANTS: list[tuple[Plant, Scenario]] = [
    (peek_instead_of_the_claim, CLAIM_RACES),
    (giving_up_without_the_claim, CLAIM_RACES),
    (no_retry, RETRY),
    (the_end_of_the_stream_taken_for_the_end_of_the_response, TRUNCATION),
    (a_late_claim_is_ignored, CLAIM_RACES),
    (no_news_of_deaths, STORM),
    (giving_up_without_a_look, CLAIM_RACES),
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
