"""The gateway's signals → calls. Only the command installs handlers; a program that embeds the gateway keeps its own."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping

import anyio
from anyio.abc import TaskStatus

from gatekeep._events import Logger

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

REPEAT = 0.5
"""Seconds within which a second signal is the first one's echo: `timeout` and terminals send one to the whole group, too."""


async def watch(
    log: Logger,
    stop: Callable[[], None],
    hurry: Callable[[], None],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Call `stop` at the first signal that asks for it and `hurry` at every later one. Never returns.

    Restores the handlers that it found when it is cancelled. Must run in the main thread.
    """
    asked = -math.inf
    with anyio.open_signal_receiver(*STOP) as signals:
        task_status.started()
        async for number in signals:
            now = anyio.current_time()
            if now - asked < REPEAT:
                continue
            first = asked == -math.inf
            log.info(
                "signal.received", signal=signal.Signals(number).name, meaning="stop" if first else "stop now"
            )
            (stop if first else hurry)()
            asked = now


async def obey(
    log: Logger,
    orders: Mapping[signal.Signals, tuple[str, Callable[[], None]]],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Do at each of these signals what it means: its words for the log, and what to call.

    Never returns; must run in the main thread.
    """
    with anyio.open_signal_receiver(*orders) as signals:
        task_status.started()
        async for number in signals:
            meaning, call = orders[signal.Signals(number)]
            log.info("signal.received", signal=signal.Signals(number).name, meaning=meaning)
            call()


def ignore_from_now_on() -> None:
    """The program ends: who still asks it to is too late, and shall not make a failure of it."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
