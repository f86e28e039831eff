"""Into the group's backlog: when it is tried, by whom, and how that fails. Most of it with numbers for time."""

from __future__ import annotations

import errno
import getpass
import math
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, strategies as st

from conftest import LOOPS
from gatekeep._alarms import Alarm, Alarms
from gatekeep._channel import Channel
from gatekeep._errors import ConnectExpired, ConnectFailed, Overloaded
from gatekeep._group import Group
from gatekeep._host_net import RealNet
from gatekeep.transport._admission import LATE
from gatekeep.transport._connect import Entrance, Ticket

QUICK = [number * 0.125 for number in range(17)]
"""The instants of the quick tries: 0, 0.125 … 2.0."""


# --- the schedule


def instants(budget: float, began: float = 0.0) -> list[float]:
    """When a request tries whose tries all fail, in seconds after it began."""
    ticket = Ticket(1, began, began, budget)
    tries = [0.0]
    while ticket.next_try < math.inf:
        tries.append(ticket.next_try - began)
        ticket.tried(ticket.next_try)
    return tries


@pytest.mark.parametrize("began", [0.0, 4096.5, 2.0**20 - 3])
@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (15.0, [*QUICK, *map(float, range(3, 16))]),
        (2.0, QUICK),
        (2.5, [*QUICK, 2.5]),
        (0.5, [0.0, 0.125, 0.25, 0.375, 0.5]),
        (0.3125, [0.0, 0.125, 0.25, 0.3125]),
        (0.0625, [0.0, 0.0625]),
    ],
)
def test_tries_fall_at_fixed_instants_and_the_last_exactly_at_the_budget(
    budget: float, expected: list[float], began: float
) -> None:
    assert instants(budget, began) == expected


@given(st.integers(1, 10**5).map(lambda number: number / 128), st.lists(st.floats(0, 30), max_size=40))
def test_what_it_hears_between_two_instants_does_not_shift_them(began: float, heard: list[float]) -> None:
    expected = [began + instant for instant in instants(15.0)]
    ticket = Ticket(1, began, began, 15.0)
    for now in sorted(began + after for after in heard):
        ticket.tried(now)
        assert ticket.next_try == min((at for at in expected if at > now), default=math.inf)


# --- a gateway that is all numbers


class FakeSocket:
    """A connection that nothing is done with."""


class FakeWaiter:
    """Nobody waits."""

    def interrupt(self) -> None: ...


class FakeNet:
    """A backlog with so many free places."""

    describe = RealNet.describe

    def __init__(self, now: Callable[[], float]) -> None:
        self.free = 0
        self.error: OSError | None = None
        self.tries: list[float] = []
        self._now = now

    def connect(self, address: str) -> FakeSocket:
        self.tries.append(self._now())
        if self.error is not None:
            raise self.error
        if not self.free:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.free -= 1
        return FakeSocket()

    def waiter(self, sock: FakeSocket) -> FakeWaiter:
        return FakeWaiter()


class FakeHop:
    """A request that stands in the backlog."""

    pid = 0

    def __init__(self, since: float) -> None:
        self.since = since
        self.given_up = False

    def give_up_unread(self) -> None:
        self.given_up = True


class LeftError(Exception):
    """Waiting has no sense any more."""


class Request:
    """A request on its way into the backlog, and what became of it."""

    def __init__(self, number: int, alarms: Alarms, since: float = 0.0) -> None:
        self.number = number
        self.since = since
        self.alarm = Alarm(alarms)
        self.patience = math.inf
        self.scope = anyio.CancelScope()
        self.ended: float | None = None
        self.channel: Channel | None = None
        self.error: Exception | None = None
        self.hop: FakeHop | None = None

    def patience_ends(self) -> float:
        return self.patience

    def check_patience(self, now: float) -> None:
        if now >= self.patience:
            raise LeftError


class Scene:
    """An entrance, its group and its clock; time passes only in `pass_until`."""

    def __init__(self, tasks: Any, *, timeout: float = 15.0, few: int = 2, most: int = 100) -> None:
        self.time = 0.0
        self.alarms = Alarms()
        self.net = FakeNet(self.now)
        self.group = Group("default", 1, "/nowhere/default.sock")
        self.group.process_ready(1)
        self.relieved = 0
        self.entered: list[int] = []
        self.entrance = Entrance(
            self.net,  # type: ignore[arg-type]
            self,
            self.group,
            few=few,
            most=most,
            timeout=timeout,
            send_timeout=math.inf,
            relieve=self._relieve,
        )
        self._tasks = tasks

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def _relieve(self) -> None:
        self.relieved += 1

    async def settle(self) -> None:
        """Let every task do what it can do now."""
        for _ in range(60):
            await checkpoint()

    async def pass_until(self, to: float) -> None:
        while (look := self.alarms.next_look()) <= to:
            self.time = max(self.time, look)
            self.alarms.ring_due(self.time)
            await self.settle()
        self.time = to

    async def comes(self, number: int, patience: float = math.inf) -> Request:
        request = Request(number, self.alarms, self.time)
        request.patience = patience
        self._tasks.start_soon(self._enter, request)
        await self.settle()
        return request

    async def _enter(self, request: Request) -> None:
        with request.scope:
            try:
                request.channel = self.entrance.enter_nowait(self.time, request.alarm)
                if request.channel is None:
                    request.channel = await self.entrance.enter_in_turn(request, self.time)
                request.hop = self.stands()
                self.entered.append(request.number)
            except Exception as error:
                request.error = error
        request.ended = self.time

    def stands(self, since: float | None = None) -> FakeHop:
        """One more stands in the backlog."""
        hop = FakeHop(self.time if since is None else since)
        self.group.enter(hop)  # type: ignore[arg-type]
        return hop

    async def place_freed(self, hop: FakeHop | None = None) -> None:
        """A worker has taken one out of the backlog."""
        if hop is not None:
            self.group.leave(hop)  # type: ignore[arg-type]
        self.net.free += 1
        self.entrance.place_freed()
        await self.settle()


def played(loop: str, play: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    """Play a scene on one event loop."""
    backend, backend_options = LOOPS[loop]

    async def main() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                await play(Scene(tasks, **options))
                tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend, backend_options=backend_options)


# --- one request


def test_one_that_finds_a_place_waits_for_nothing(loop: str) -> None:
    async def play(scene: Scene) -> None:
        scene.net.free = 1
        request = await scene.comes(1)
        assert isinstance(request.channel, Channel)
        assert isinstance(request.channel.socket, FakeSocket)
        assert scene.net.tries == [0.0]

    played(loop, play)


@pytest.mark.parametrize("timeout", [15.0, 3.0, 0.5, 0.3125])
def test_a_backlog_that_stays_full_is_tried_at_every_instant_and_expires_at_the_last(
    loop: str, timeout: float
) -> None:
    async def play(scene: Scene) -> None:
        request = await scene.comes(1)
        await scene.pass_until(100.0)
        assert scene.net.tries == instants(timeout)
        assert isinstance(request.error, ConnectExpired)
        assert not isinstance(request.error, ConnectFailed)
        assert str(request.error) == f"the listen-backlog of group default stayed full for {timeout:g} s"
        assert request.ended == timeout
        assert scene.entrance.admission.waiting == []

    played(loop, play, timeout=timeout)


def test_the_last_try_may_succeed(loop: str) -> None:
    async def play(scene: Scene) -> None:
        request = await scene.comes(1)
        await scene.pass_until(14.5)
        scene.net.free = 1  # and nobody says so
        await scene.pass_until(100.0)
        assert (request.ended, request.error) == (15.0, None)
        assert request.channel is not None

    played(loop, play)


def test_with_connect_timeout_zero_there_is_one_try(loop: str) -> None:
    async def play(scene: Scene) -> None:
        request = await scene.comes(1)
        assert isinstance(request.error, ConnectExpired)
        assert (request.ended, scene.net.tries) == (0.0, [0.0])
        scene.net.free = 1
        assert (await scene.comes(2)).channel is not None

    played(loop, play, timeout=0.0)


def test_a_place_that_frees_up_is_taken_at_once_and_does_not_shift_the_schedule(loop: str) -> None:
    async def play(scene: Scene) -> None:
        request = await scene.comes(1)
        for at in (0.2, 5.5):
            await scene.pass_until(at)
            scene.entrance.place_freed()  # but it was taken by somebody else
            await scene.settle()
        await scene.pass_until(7.25)
        assert scene.net.tries == sorted([0.2, 5.5, *(at for at in instants(15.0) if at <= 7.25)])
        await scene.place_freed()
        assert (request.ended, request.error) == (7.25, None)

    played(loop, play)


def test_one_whose_patience_is_over_waits_no_longer(loop: str) -> None:
    async def play(scene: Scene) -> None:
        request = await scene.comes(1, patience=0.3)
        await scene.pass_until(10.0)
        assert isinstance(request.error, LeftError)
        assert request.ended == 0.3
        assert scene.net.tries == [0.0, 0.125, 0.25], "it does not try for nobody"

    played(loop, play)


def test_one_whose_alarm_is_rung_looks_whether_waiting_has_sense(loop: str) -> None:
    async def play(scene: Scene) -> None:
        request = await scene.comes(1)
        await scene.pass_until(0.2)
        request.alarm.ring_now()
        await scene.settle()
        assert request.ended is None
        request.patience = 0.2
        request.alarm.ring_now()
        await scene.settle()
        assert isinstance(request.error, LeftError)
        assert request.ended == 0.2

    played(loop, play)


# --- what cannot be waited for, and what can


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT])
def test_a_listener_that_cannot_be_reached_fails_at_once_and_says_where_who_and_why(
    loop: str, number: int
) -> None:
    error = OSError(number, os.strerror(number))

    async def play(scene: Scene) -> None:
        scene.net.error = error
        request = await scene.comes(1)
        assert type(request.error) is ConnectFailed
        assert str(request.error) == (
            f"cannot connect to /nowhere/default.sock as user {getpass.getuser()}: "
            f"[Errno {error.errno}] {error.strerror}"
        )
        assert (request.ended, len(scene.net.tries), scene.relieved) == (0.0, 1, 0)

    played(loop, play)


def test_a_listener_that_is_lost_while_a_request_waits_ends_the_wait(loop: str) -> None:
    async def play(scene: Scene) -> None:
        first, second = await scene.comes(1), await scene.comes(2)
        await scene.pass_until(0.2)
        scene.net.error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        await scene.pass_until(0.3)
        assert type(first.error) is type(second.error) is ConnectFailed
        assert first.ended == second.ended == 0.25, "whoever is next then finds out, too"

    played(loop, play)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_without_descriptors_something_is_closed_and_the_request_waits(loop: str, number: int) -> None:
    async def play(scene: Scene) -> None:
        scene.net.error = OSError(number, os.strerror(number))
        request = await scene.comes(1)
        assert scene.relieved == 1
        await scene.pass_until(0.2)
        assert scene.relieved == 2
        scene.net.error, scene.net.free = None, 1
        await scene.pass_until(1.0)
        assert (request.ended, request.error, scene.relieved) == (0.25, None, 2)

    played(loop, play)


def test_a_refusal_is_like_a_full_backlog(loop: str) -> None:
    async def play(scene: Scene) -> None:
        scene.net.error = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        request = await scene.comes(1)
        await scene.pass_until(20.0)
        assert type(request.error) is ConnectExpired
        assert (request.ended, scene.net.tries, scene.relieved) == (15.0, instants(15.0), 0)

    played(loop, play)


# --- several requests


def test_only_the_next_one_tries(loop: str) -> None:
    async def play(scene: Scene) -> None:
        requests = [await scene.comes(number) for number in (1, 2, 3)]
        assert scene.net.tries == [0.0], "a newcomer does not try where others wait"
        await scene.pass_until(0.9)
        assert scene.net.tries == [at for at in instants(15.0) if at <= 0.9]
        assert not any(request.ended for request in requests)

    played(loop, play)


def test_places_go_to_those_who_came_first(loop: str) -> None:
    async def play(scene: Scene) -> None:
        for number in (1, 2, 3):
            await scene.comes(number)
            await scene.pass_until(scene.time + 0.2)
        for number in (1, 2, 3):
            await scene.place_freed()
            assert scene.entered[-1] == number
            assert scene.net.tries[-1] == scene.time

    played(loop, play)


def test_several_places_that_free_up_at_once_are_all_taken(loop: str) -> None:
    async def play(scene: Scene) -> None:
        for number in range(1, 6):
            await scene.comes(number)
        scene.net.free = 3
        scene.entrance.place_freed()
        await scene.settle()
        assert scene.entered == [1, 2, 3]

    played(loop, play)


def test_a_newcomer_does_not_take_the_place_of_one_that_waits(loop: str) -> None:
    async def play(scene: Scene) -> None:
        await scene.comes(1)
        scene.net.free = 1
        await scene.comes(2)
        assert scene.entered == []
        await scene.pass_until(0.125)
        assert scene.entered == [1]

    played(loop, play)


def test_one_that_was_offered_before_stands_before_younger_ones(loop: str) -> None:
    async def play(scene: Scene) -> None:
        for number in (7, 9, 5):
            await scene.comes(number)
        for _ in range(3):
            await scene.place_freed()
        assert scene.entered == [5, 7, 9]

    played(loop, play)


def test_each_has_its_own_budget_whoever_is_next(loop: str) -> None:
    async def play(scene: Scene) -> None:
        first = await scene.comes(1)
        await scene.pass_until(0.2)
        second = await scene.comes(2)
        await scene.pass_until(5.0)
        assert (first.ended, second.ended) == (0.5, 0.7)
        assert type(first.error) is type(second.error) is ConnectExpired

    played(loop, play, timeout=0.5)


def test_one_that_is_cancelled_leaves_and_the_next_is_woken(loop: str) -> None:
    async def play(scene: Scene) -> None:
        first, second = await scene.comes(1), await scene.comes(2)
        await scene.pass_until(0.2)
        scene.net.free = 1
        first.scope.cancel()
        await scene.settle()
        assert (first.ended, first.channel) == (0.2, None)
        assert (second.ended, second.error) == (0.2, None)
        assert scene.entrance.admission.waiting == []

    played(loop, play)


def test_one_that_is_cancelled_in_the_moment_of_its_turn_does_not_keep_it_from_others(loop: str) -> None:
    async def play(scene: Scene) -> None:
        first, second = await scene.comes(1), await scene.comes(2)
        scene.net.free = 1
        scene.entrance.place_freed()
        first.scope.cancel()
        await scene.settle()
        assert first.ended is not None
        assert second.ended is not None or first.channel is not None
        assert scene.net.free == 0

    played(loop, play)


def test_no_more_than_max_waiting_wait(loop: str) -> None:
    async def play(scene: Scene) -> None:
        for number in (1, 2):
            await scene.comes(number)
        third = await scene.comes(3)
        assert type(third.error) is Overloaded
        assert str(third.error) == "2 requests wait already"
        assert third.ended == 0.0
        with pytest.raises(Overloaded):
            scene.entrance.check_room()
        await scene.place_freed()
        scene.entrance.check_room()
        assert scene.entered == [1]

    played(loop, play, most=2)


# --- when the wait is too long


def test_when_the_wait_is_too_long_places_go_to_the_newest(loop: str) -> None:
    async def play(scene: Scene) -> None:
        hop = scene.stands()
        for number in (1, 2, 3):
            await scene.comes(number)
        await scene.pass_until(LATE + 0.5)
        assert scene.entrance.admission.late
        await scene.place_freed(hop)
        await scene.place_freed()
        assert scene.entered == [3, 2]
        await scene.comes(4)
        for hop in tuple(scene.group.standing):  # type: ignore[assignment]
            await scene.place_freed(hop)
        assert scene.entered == [3, 2, 4, 1]

    played(loop, play)


def test_when_a_client_has_left_places_go_to_the_newest(loop: str) -> None:
    async def play(scene: Scene) -> None:
        for number in (1, 2, 3):
            await scene.comes(number)
        scene.entrance.client_left()
        await scene.place_freed()
        assert scene.entered == [3]

    played(loop, play)


def test_while_no_process_is_ready_the_order_is_that_of_arrival_however_long_it_takes(loop: str) -> None:
    async def play(scene: Scene) -> None:
        scene.group.process_ended(1)
        for number in (1, 2, 3):
            await scene.comes(number)
        await scene.pass_until(10.0)
        for _ in range(3):
            await scene.place_freed()
        assert scene.entered == [1, 2, 3]

    played(loop, play)


def test_when_the_wait_is_too_long_only_a_few_are_left_in_the_backlog(loop: str) -> None:
    async def play(scene: Scene) -> None:
        hops = [scene.stands(0.0) for _ in range(6)]
        await scene.comes(1)
        await scene.pass_until(LATE)
        assert [hop.given_up for hop in hops] == [False] * 6
        await scene.pass_until(LATE + 0.2)
        assert [hop.given_up for hop in hops] == [False, False, True, True, True, True]

    played(loop, play)


def test_while_more_than_a_few_stand_there_nobody_tries(loop: str) -> None:
    async def play(scene: Scene) -> None:
        hops = [scene.stands(0.0) for _ in range(4)]
        request = await scene.comes(1)
        await scene.pass_until(LATE + 0.2)
        tried = len(scene.net.tries)
        scene.net.free = 4
        await scene.place_freed(hops[3])
        await scene.place_freed(hops[2])
        await scene.pass_until(LATE + 2)
        assert (len(scene.net.tries), request.ended) == (tried, None)
        await scene.place_freed(hops[1])
        assert (len(scene.net.tries), request.error) == (tried + 1, None)
        assert request.ended == scene.time

    played(loop, play)


def test_a_newcomer_passes_a_full_queue_that_is_too_long(loop: str) -> None:
    async def play(scene: Scene) -> None:
        for number in (1, 2):
            await scene.comes(number)
        await scene.pass_until(LATE + 0.5)
        scene.entrance.check_room()
        scene.net.free = 1
        third = await scene.comes(3)
        assert (third.error, scene.entered) == (None, [3])

    played(loop, play, most=2)


# --- with the system's clock


class Monotonic:
    """The system's clock."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


def real(
    loop: str,
    net: Any,
    address: str,
    play: Callable[[Entrance, Alarms], Awaitable[None]],
    *,
    timeout: float = 0.5,
) -> None:
    """An entrance whose alarms ring by the system's clock."""
    backend, backend_options = LOOPS[loop]

    async def main() -> None:
        alarms = Alarms()
        host = net()
        entrance = Entrance(
            host,
            Monotonic(),
            Group("default", 1, address),
            few=2,
            most=10,
            timeout=timeout,
            send_timeout=math.inf,
            relieve=lambda: None,
        )
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(alarms.run, Monotonic())
                await play(entrance, alarms)
                tasks.cancel_scope.cancel()
        if isinstance(host, RealNet):
            host.close()

    anyio.run(main, backend=backend, backend_options=backend_options)


def test_by_the_systems_clock_it_expires_no_earlier_than_the_budget(loop: str) -> None:
    nets: list[FakeNet] = []

    async def play(entrance: Entrance, alarms: Alarms) -> None:
        request = Request(1, alarms)
        began = time.monotonic()
        assert entrance.enter_nowait(began, request.alarm) is None
        with pytest.raises(ConnectExpired):
            await entrance.enter_in_turn(request, began)
        assert 0.5 <= time.monotonic() - began < 30
        tries = [at - began for at in nets[0].tries]
        assert 2 <= len(tries) <= 5, "a machine that is busy may miss one"
        for number, at in enumerate(reversed(tries)):
            assert at >= 0.5 - number * 0.125 or len(tries) < 5

    def net() -> FakeNet:
        nets.append(FakeNet(time.monotonic))
        return nets[0]

    real(loop, net, "", play)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """With a backlog for one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "listener"))
        listener.listen(0)
        yield listener


def fill(entrance: Entrance, request: Request) -> Channel:
    """Enter until there is no room."""
    inside: list[Channel] = []
    while (channel := entrance.enter_nowait(time.monotonic(), request.alarm)) is not None:
        inside.append(channel)
    (only,) = inside
    return only


def test_into_a_backlog_of_the_kernel_that_is_full(loop: str, listener: socket.socket) -> None:
    async def play(entrance: Entrance, alarms: Alarms) -> None:
        request = Request(1, alarms)
        first = fill(entrance, request)
        with pytest.raises(ConnectExpired):
            await entrance.enter_in_turn(request, time.monotonic())
        first.close()

    real(loop, RealNet, listener.getsockname(), play)


def test_into_a_backlog_of_the_kernel_that_has_room_again(loop: str, listener: socket.socket) -> None:
    async def play(entrance: Entrance, alarms: Alarms) -> None:
        async def enter() -> None:
            inside.append(await entrance.enter_in_turn(Request(2, alarms), time.monotonic()))

        inside = [fill(entrance, Request(1, alarms))]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enter)
            await checkpoint()
            listener.accept()[0].close()
            entrance.place_freed()
        assert len(inside) == 2
        for channel in inside:
            channel.close()

    real(loop, RealNet, listener.getsockname(), play, timeout=60)


def test_a_listener_that_is_missing_on_the_system_is_named_as_people_know_it(
    loop: str, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "default.sock")

    async def play(entrance: Entrance, alarms: Alarms) -> None:
        with pytest.raises(ConnectFailed) as failed:
            entrance.enter_nowait(time.monotonic(), Alarm(alarms))
        assert str(failed.value) == (
            f"cannot connect to {tmp_path}/default.sock as user {getpass.getuser()}: "
            f"[Errno {errno.ENOENT}] {os.strerror(errno.ENOENT)}"
        )

    real(loop, RealNet, str(link), play)


def test_a_group_that_grows_while_it_is_late_takes_more_at_once(loop: str) -> None:
    async def play(scene: Scene) -> None:
        for number in range(1, 6):
            await scene.comes(number)
        await scene.pass_until(LATE + 0.5)
        assert scene.entrance.admission.late
        scene.net.free = 100
        scene.entrance.place_freed()
        await scene.settle()
        assert scene.entered == [5, 4]
        scene.group.resize(2)
        await scene.settle()
        assert scene.entered == [5, 4, 3, 2]

    played(loop, play)


# --- it becomes late, and it is late no more


def test_it_is_late_no_more_when_all_that_waited_is_served(loop: str) -> None:
    async def play(scene: Scene) -> None:
        first = await scene.comes(1)
        await scene.pass_until(LATE + 0.5)
        assert scene.entrance.admission.late
        await scene.place_freed()
        await scene.place_freed(first.hop)
        scene.net.free = 1
        await scene.pass_until(1000.0)
        third = await scene.comes(3)  # nobody waits and nothing stands in the backlog
        await scene.place_freed(third.hop)
        scene.net.free = 0
        for number in (11, 12, 13):
            await scene.comes(number)
        await scene.place_freed()
        assert scene.entered[-1] == 11

    played(loop, play)


def test_when_it_becomes_late_the_newest_tries_on_the_schedule(loop: str) -> None:
    async def play(scene: Scene) -> None:
        scene.net.error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        first, second = await scene.comes(1), await scene.comes(2)
        await scene.pass_until(3.2)
        scene.net.error, scene.net.free = None, 2
        await scene.pass_until(6.0)
        assert first.channel
        assert second.channel

    played(loop, play)


def test_a_place_that_frees_in_the_moment_it_becomes_late_is_taken(loop: str) -> None:
    async def play(scene: Scene) -> None:
        scene.group.process_ended(1)
        hop = scene.stands()
        await scene.comes(1)
        await scene.comes(2)
        await scene.pass_until(LATE + 0.05)
        scene.group.process_ready(1)
        await scene.place_freed(hop)
        assert scene.entered == [2]

    played(loop, play)


@pytest.mark.parametrize(("began", "budget"), [(2038.382331001559, 10.1), (1015.7478993493834, 10.1)])
def test_the_last_try_is_exactly_at_the_end_of_the_budget_whatever_the_sums_round_to(
    began: float, budget: float
) -> None:
    ticket = Ticket(1, began, began, budget)
    while ticket.next_try < math.inf:
        last = ticket.next_try
        ticket.tried(last)
    assert last == ticket.ends


def test_one_that_is_next_ends_with_its_budget_whatever_the_sums_round_to(loop: str) -> None:
    async def play(scene: Scene) -> None:
        await scene.pass_until(1015.7478993493834)
        r = await scene.comes(1)
        await scene.pass_until(5000.0)
        assert type(r.error) is ConnectExpired

    played(loop, play, timeout=10.1)
