"""The thread that watches the worker threads: requests that run too long, and requests whose clients have gone.

It also gives the process's signs of life. It needs the GIL for them as every thread does, which is the point.

`lifecycle/_watchdog` decides; here it is done and said. What this thread cannot do, because the GIL is held, nobody in
this process can.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from gatekeep._events import Logger, request_name
from gatekeep.lifecycle._control import BEAT_INTERVAL
from gatekeep.lifecycle._watchdog import Action, Escalate, Interrupt, Reach, Recovered, Watchdog, Watched
from gatekeep.pool import _blocked
from gatekeep.pool._log import format_error
from gatekeep.pool._region import Disconnect, Region, Timeout
from gatekeep.pool._stacks import stack_of

LOOK_FOR_CLIENTS = 0.25
"""Seconds between looks whether clients have gone, where that matters."""

REQUEST_TIMEOUT = "request-timeout"

IMPORTING = "<frozen importlib._bootstrap>"
"""The file of frames that import a module."""


class Monitor:
    """Watches the regions of a process's worker threads.

    Args:
        fire: seconds after which a request is interrupted, `math.inf` for never.
        interrupt_timeout: seconds that its end may take then, before the process is drained; 0 drains it at once.
        reach_sockets: whether the socket that a thread is blocked in may be shut.
        cancel_on_disconnect: whether requests are interrupted whose clients have gone.
        ours: descriptors that are never shut, asked for each time.
        drain: called with the reason when the process must be drained, perhaps again.
        beat: called every `BEAT_INTERVAL`, if given.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        log: Logger,
        *,
        fire: float,
        interrupt_timeout: float,
        reach_sockets: bool,
        cancel_on_disconnect: bool,
        ours: Callable[[], Sequence[int]],
        drain: Callable[[str], None],
        beat: Callable[[], None] | None,
    ) -> None:
        self._regions = regions
        self._log = log
        self._fire = fire
        self._interrupt_timeout = interrupt_timeout
        self._asked_to_reach = reach_sockets and fire < math.inf and interrupt_timeout > 0
        self._reach_sockets = reach_sockets and _blocked.is_supported()
        self._cancels = cancel_on_disconnect
        self._ours = ours
        self._drain = drain
        self._beat = beat
        self._watchdog = Watchdog(fire, interrupt_timeout, time.monotonic())
        self._cancelled: dict[int, int] = {}
        self._looking = threading.Lock()

    def start(self) -> None:
        """Watch, in a thread that delays nobody's end."""
        if self._asked_to_reach and not self._reach_sockets:
            self._log.warning("run.unreachable", timer=REQUEST_TIMEOUT, reason=_blocked.why_not())
        threading.Thread(target=self._run, name="gatekeep-monitor", daemon=True).start()

    def _run(self) -> None:
        next_beat = 0.0 if self._beat is not None else math.inf
        while True:
            now = time.monotonic()
            if self._beat is not None and now >= next_beat:
                self._beat()
                next_beat = now + BEAT_INTERVAL
            pause = min(self._watchdog.next_look(), next_beat) - now
            time.sleep(max(0.0, min(pause, LOOK_FOR_CLIENTS) if self._cancels else pause))
            try:
                self.look(time.monotonic())
            except Exception as error:
                # Without this thread nothing would be watched any more, and the process be taken for wedged.
                self._log.error(
                    "run.watch_failed", reason="a fault of the gateway", traceback=format_error(error)
                )

    def look(self, now: float) -> None:
        """Look once, and do what has to be done. Any thread may call it: the process's end wants to know what became of all."""
        with self._looking:
            self._look(now)

    def _look(self, now: float) -> None:
        running = {number: region for number, region in enumerate(self._regions) if region.request}
        watched = [
            Watched(number, region.request, region.elapsed(now), region.fate())
            for number, region in running.items()
        ]
        for action in self._watchdog.tick(now, watched):
            self._do(action, self._regions[action.thread], now)
        if self._cancels:
            for number, region in running.items():
                self._cancel_if_gone(number, region)

    def _do(self, action: Action, region: Region, now: float) -> None:
        match action:
            case Interrupt():
                self._interrupt(action, region, now)
            case Reach():
                self._reach(action.thread, action.request, region)
            case Escalate():
                self._escalate(action, region, now)
            case Recovered():
                self._log.info(
                    "run.recovered",
                    request_id=request_name(action.request),
                    thread=action.thread,
                    after=round(action.after, 3),
                )

    def _interrupt(self, action: Interrupt, region: Region, now: float) -> None:
        evidence = self._evidence(action.thread, action.request, region, now)
        stack = stack_of(region.ident)
        if region.interrupt(action.request, Timeout):
            self._log.warning("run.interrupted", **evidence, again=action.again, stack=stack)
            if IMPORTING in stack:
                self._drain("a module's import was interrupted: what is left of it is not to be trusted")

    def _evidence(self, thread: int, request: int, region: Region, now: float) -> dict[str, Any]:
        """Which request, for how long, and where its thread is."""
        blocked = _blocked.look(region.tid)
        return {
            "request_id": request_name(request),
            "thread": thread,
            "method": region.method,
            "path": region.path,
            "timer": REQUEST_TIMEOUT,
            "age": round(region.elapsed(now), 3),
            "fire": round(self._fire, 3),
            "blocked_in": blocked.call if blocked else "",
            "peers": ", ".join(blocked.peers) if blocked else "",
        }

    def _reach(self, thread: int, request: int, region: Region) -> None:
        if not self._reach_sockets or region.request != request or not region.is_inside:
            return
        reached = _blocked.shut(region.tid, self._ours())
        if reached is not None:
            self._log.warning(
                "run.reached",
                request_id=request_name(request),
                thread=thread,
                call=reached.call,
                peers=", ".join(reached.peers),
            )

    def _escalate(self, action: Escalate, region: Region, now: float) -> None:
        """The thread is not to be had back: its client is answered, its siblings get the drain's time to finish."""
        evidence = self._evidence(action.thread, action.request, region, now)
        reason = f"the request has run for {evidence['age']} s and does not end"
        if region.give_up(action.request, reason, REQUEST_TIMEOUT):
            self._log.error("run.given_up", **evidence, stack=stack_of(region.ident), reason=reason)
            self._drain("a request that does not end")

    def _cancel_if_gone(self, thread: int, region: Region) -> None:
        request, responder = region.request, region.responder
        if responder is None or not responder.is_unwanted():
            return
        if self._cancelled.get(thread) != request and region.interrupt(request, Disconnect):
            self._cancelled[thread] = request
            self._log.info("run.cancelled", request_id=request_name(request), thread=thread)
        else:
            self._reach(thread, request, region)
