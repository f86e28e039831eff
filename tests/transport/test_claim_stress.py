"""The claim on real sockets: give-up races GO, and nobody is in doubt afterwards (hard facts in `transport/_claim`)."""

from __future__ import annotations

import random
import socket
import threading

import anyio
import pytest

from gatekeep._channel import Channel
from gatekeep._host_real import RealNet
from gatekeep.pool._pickup import pick_up
from gatekeep.transport import _wire
from gatekeep.transport._claim import State
from gatekeep.transport._hop import Hop

RACES = 11_000
AT_ONCE = 16


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


async def race(net: RealNet, path: str, request: int, chance: random.Random) -> bool:
    """Offer one request and give it up at some moment. Whether it counts as started."""
    hop = Hop(Channel(net, net.connect(path)), 0.0)
    envelope = _wire.encode(_wire.Envelope(request, 0.0, 0.0, 0.0, 1, {}, b"", False))
    turns = chance.randrange(4)
    way = chance.choice(["take back", "cancel"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hop.offer, envelope)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        if way == "take back":
            hop.take_back()
        elif way == "cancel":
            tasks.cancel_scope.cancel()
    started = hop.settle_nowait() is State.STARTED
    hop.close()
    return started


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_giving_up_races_go_and_no_request_runs_for_nobody_or_is_taken_for_unstarted(
    tmp_path, backend: str
) -> None:
    path = str(tmp_path / "listener")
    workers = Workers(path, 3)
    for thread in workers.threads:
        thread.start()
    started: set[int] = set()

    async def racer(first: int) -> None:
        net = nets[0]
        chance = random.Random(first)
        for request in range(first, RACES, AT_ONCE):
            if await race(net, path, request, chance):
                started.add(request)

    nets: list[RealNet] = []

    async def main() -> None:
        nets.append(RealNet())
        async with anyio.create_task_group() as tasks:
            for first in range(AT_ONCE):
                tasks.start_soon(racer, first)
        nets[0].close()

    anyio.run(main, backend=backend)
    workers.stop()
    assert len(workers.ran) == len(set(workers.ran)), "none was run twice"
    assert set(workers.ran) == started
    assert 100 < len(started) < RACES - 100, "both sides won often enough"
