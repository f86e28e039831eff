"""A trio program: a gateway in its nursery, and a task that hears what the gateway says."""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path
from typing import Any

import trio

from gatekeep import Gateway, Served, Settings

Event = dict[str, Any]


class Listener:
    """A logger for the gateway: requests that have ended go into a channel, troubles to standard error."""

    def __init__(self, requests: trio.MemorySendChannel[Event]) -> None:
        self._requests = requests

    def debug(self, event: str, **fields: Any) -> None: ...

    def info(self, event: str, **fields: Any) -> None:
        if event == "request.finished":
            self._requests.send_nowait(fields)

    def warning(self, event: str, **fields: Any) -> None:
        print(event, fields, file=sys.stderr)

    error = warning


async def report(requests: trio.MemoryReceiveChannel[Event]) -> None:
    """One line for each request."""
    async for one in requests:
        print(
            f"{one['method']} {one['path']}: {one['status']} by process {one['pid']}, {one['duration']:.3f} s",
            flush=True,
        )


async def count(served: Served) -> None:
    """How many there were, now and then."""
    await trio.sleep(10)
    while True:
        ended = served.statistics().by_outcome()
        print("so far:", ", ".join(f"{number} {outcome}" for outcome, number in ended.items()), flush=True)
        await trio.sleep(60)


async def stop_when_told(nursery: trio.Nursery) -> None:
    """End everything in the nursery at Ctrl-C, or SIGTERM."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            print("stopped by", signal.Signals(number).name)
            nursery.cancel_scope.cancel()


async def main(address: str) -> None:
    """Serve until somebody wants it to stop."""
    send, receive = trio.open_memory_channel[Event](math.inf)
    settings = Settings.for_app(
        "hello:application", bind=address, python_path=[str(Path(__file__).parent)], graceful_timeout=1
    )
    async with Gateway(settings, logger=Listener(send)).serving() as served, trio.open_nursery() as nursery:
        print(f"serving at {served.url}", flush=True)
        nursery.start_soon(report, receive)
        nursery.start_soon(count, served)
        nursery.start_soon(stop_when_told, nursery)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if sys.argv[1:] else "127.0.0.1:8000")
