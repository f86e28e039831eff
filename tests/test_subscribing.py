"""Hooks outside of daemon processes: who may subscribe, who is told, and what is said where no request runs."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

import gatekeep
from gatekeep import _hooks
from gatekeep._hooks import Callback, current_data, tell

EVENT = gatekeep.ProcessStopping(trigger="reload", reason="a reload was asked for")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has subscribed."""
    monkeypatch.setattr(_hooks, "subscribers", ())


def no_failure(callback: Callback, error: BaseException) -> None:
    raise AssertionError from error


def test_all_are_told_in_the_order_in_which_they_subscribed() -> None:
    told: list[Any] = []
    for name in "abc":
        gatekeep.subscribe_events(lambda event, name=name: told.append((name, event)))
    tell(EVENT, no_failure)
    assert told == [("a", EVENT), ("b", EVENT), ("c", EVENT)]


def test_it_is_a_decorator() -> None:
    def watch(event: gatekeep.Event) -> None: ...

    assert gatekeep.subscribe_events(watch) is watch
    assert _hooks.subscribers == (watch,)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="subscribe_events takes a callable, not 'watch'"):
        gatekeep.subscribe_events("watch")  # type: ignore[type-var]


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), GeneratorExit()])
def test_what_one_raises_is_told_and_the_others_hear(error: BaseException) -> None:
    told: list[Any] = []
    failures: list[Any] = []

    @gatekeep.subscribe_events
    def fail(event: gatekeep.Event) -> None:
        raise error

    gatekeep.subscribe_events(told.append)
    tell(EVENT, lambda callback, error: failures.append((callback, error)))
    assert (told, failures) == ([EVENT], [(fail, error)])


def test_an_interrupt_is_not_what_a_subscriber_raised() -> None:
    told: list[Any] = []

    @gatekeep.subscribe_events
    def hang(event: gatekeep.Event) -> None:
        raise gatekeep.RequestTimeout

    gatekeep.subscribe_events(told.append)
    with pytest.raises(gatekeep.RequestTimeout):
        tell(EVENT, no_failure)
    assert told == []


def test_who_subscribes_while_others_are_told_hears_of_the_next() -> None:
    told: list[Any] = []
    gatekeep.subscribe_events(lambda event: gatekeep.subscribe_events(told.append))
    tell(EVENT, no_failure)
    assert told == []
    tell(EVENT, no_failure)
    assert told == [EVENT]


def test_events_are_frozen_and_do_not_show_what_is_private() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        EVENT.reason = "another"  # type: ignore[misc]
    times = {f"{name}_start": 0.0 for name in ("request", "queue", "daemon", "application")}
    event = gatekeep.RequestStarted(
        request_id="1", environ={"HTTP_COOKIE": "secret"}, data={"secret": 1}, **times
    )
    assert "secret" not in repr(event)


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (gatekeep.RequestStarted, "request_started"),
        (gatekeep.RequestFinished, "request_finished"),
        (gatekeep.RequestRaised, "request_exception"),
        (gatekeep.ProcessStopping, "process_stopping"),
    ],
)
def test_events_have_the_names_of_the_field(event: type[gatekeep.Event], name: str) -> None:
    assert event.name == name
    assert issubclass(event, gatekeep.Event)


def test_outside_of_a_request_there_is_no_data() -> None:
    with pytest.raises(RuntimeError, match="no request runs here"):
        gatekeep.request_data()


def test_a_task_that_the_request_starts_has_its_data() -> None:
    async def ask() -> dict[Any, Any]:
        return await asyncio.create_task(deeper())

    async def deeper() -> dict[Any, Any]:
        return await asyncio.to_thread(gatekeep.request_data)

    data: dict[Any, Any] = {}
    token = current_data.set(data)
    try:
        assert asyncio.run(ask()) is data
    finally:
        current_data.reset(token)
