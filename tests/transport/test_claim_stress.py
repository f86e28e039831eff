"""The claim on real sockets: give-up races GO, and nobody is in doubt afterwards (hard facts in `transport/_claim`)."""

from __future__ import annotations

import random
import socket
import threading
import time

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gatekeep._alarms import Alarm, Alarms
from gatekeep._channel import Channel, WaitExpired
from gatekeep._events import Record
from gatekeep._host_net import RealNet
from gatekeep.pool._pickup import pick_up
from gatekeep.transport import _wire
from gatekeep.transport._claim import SETTLED, State
from gatekeep.transport._hop import Hop

RACES = 11_000
AT_ONCE = 16
LATEST = 0.002
"""Seconds until the latest of the deadlines; most claims come sooner."""


class Workers:
    """Threads that accept and claim as a daemon's do, and note what they would have run."""

    def __init__(self, path: str, count: int) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1000)
        self.ran: list[int] = []
        self.threads = [
            threading.Thread(target=self.work, args=(number,), daemon=True) for number in range(count)
        ]

    def work(self, number: int) -> None:
        while True:
            try:
                hop, _ = self.listener.accept()
            except OSError:
                return
            with hop:
                envelope = pick_up(hop, 1, number, 0.0)
                if envelope is not None:
                    self.ran.append(envelope.request)

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.listener.close()


class Monotonic:
    """The system's clock."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


WAYS = ["take back", "give up", "cancel", "settle", "deadline"]


class Races:
    """Requests that are offered and given up at some moment, on one event loop.

    Attributes:
        started, unstarted: the requests that count as that, by the way in which they were given up.
    """

    def __init__(self, path: str) -> None:
        self.started: dict[str, set[int]] = {way: set() for way in WAYS}
        self.unstarted: dict[str, set[int]] = {way: set() for way in WAYS}
        self._path = path
        self._net = RealNet()
        self._alarms = Alarms()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._alarms.run, Monotonic())
            async with anyio.create_task_group() as racers:
                for first in range(AT_ONCE):
                    racers.start_soon(self._race_all, first)
            tasks.cancel_scope.cancel()
        await checkpoint()
        self._net.close()

    async def _race_all(self, first: int) -> None:
        chance = random.Random(first)
        for request in range(first, RACES, AT_ONCE):
            way = chance.choice(WAYS)
            won = await self._race(request, way, chance)
            (self.started if won else self.unstarted)[way].add(request)

    async def _race(self, request: int, way: str, chance: random.Random) -> bool:
        """Offer one request and give it up at some moment. Whether it counts as started."""
        alarm = Alarm(self._alarms)
        channel = Channel(self._net, self._net.connect(self._path), alarm)
        hop = Hop(channel, 0.0, Record(1, "", 0.0))
        envelope = _wire.encode(_wire.Envelope(request, 0.0, 0.0, 0.0, 1, {}, b"", False))
        if way == "deadline":
            alarm.set(time.monotonic() + chance.random() * LATEST)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_offer, channel, hop, envelope)
            if way != "deadline":
                for _ in range(chance.randrange(4)):
                    await checkpoint()
            if way == "take back":
                hop.take_back()
            elif way == "give up":
                hop.give_up()
            elif way == "cancel":
                tasks.cancel_scope.cancel()
            elif way == "settle":
                # As when the wait has no sense any more: whoever waits for the claim finds it settled.
                hop.settle_nowait()
        started = hop.settle_nowait() is State.STARTED
        assert (hop.go is not None) is started
        alarm.close()
        hop.close()
        return started


async def _offer(channel: Channel, hop: Hop, envelope: bytes) -> None:
    """Write the envelope and wait for the claim, until the alarm rings: what then counts is what is queued."""
    rest = hop.offer_nowait(envelope)
    assert rest is None
    while hop.state not in SETTLED:
        try:
            hop.receive_claim(await channel.receive_next())
        except WaitExpired:
            hop.settle_nowait()
        except OSError as error:
            hop.broke(error)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_giving_up_races_go_and_no_request_runs_for_nobody_or_is_taken_for_unstarted(
    tmp_path, backend: str
) -> None:
    path = str(tmp_path / "listener")
    workers = Workers(path, 3)
    for thread in workers.threads:
        thread.start()
    made: list[Races] = []

    async def main() -> None:
        made.append(Races(path))
        await made[0].run()

    anyio.run(main, backend=backend)
    workers.stop()
    races = made[0]
    assert len(workers.ran) == len(set(workers.ran)), "none was run twice"
    assert set(workers.ran) == set().union(*races.started.values())
    for way in WAYS:
        assert len(races.started[way]) + len(races.unstarted[way]) > RACES / 10
        assert len(races.started[way]) > 5, f"{way}: a claim won often enough"
        assert len(races.unstarted[way]) > 5, f"{way}: giving up won often enough"
