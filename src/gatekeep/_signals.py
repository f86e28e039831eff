"""The gateway's signals → calls. Only the command installs handlers; a program that embeds the gateway keeps its own."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

from gatekeep._events import Logger

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

UNUSED = (signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU)
"""Their default action would kill or stop the gateway, and people send them to servers for other reasons (logrotate, gunicorn's
number of workers)."""

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
    with anyio.open_signal_receiver(*STOP, *UNUSED) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if number in UNUSED:
                log.warning("signal.ignored", signal=name)
                continue
            now = anyio.current_time()
            if now - asked < REPEAT:
                continue
            first = asked == -math.inf
            log.info("signal.received", signal=name, meaning="stop" if first else "stop now")
            (stop if first else hurry)()
            asked = now


async def on_signal(
    number: signal.Signals,
    log: Logger,
    meaning: str,
    call: Callable[[], None],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Call something at each signal of one kind. Never returns; must run in the main thread."""
    with anyio.open_signal_receiver(number) as signals:
        task_status.started()
        async for _ in signals:
            log.info("signal.received", signal=number.name, meaning=meaning)
            call()


def ignore_from_now_on() -> None:
    """The program ends: who still asks it to is too late, and shall not make a failure of it."""
    for number in STOP:
        signal.signal(number, signal.SIG_IGN)
