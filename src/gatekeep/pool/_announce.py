"""Tells the application's subscribers (`gatekeep._hooks`) of requests and of the process's end.

Subscribers are the application's code, so they may hang or raise as it may: they run inside the region, where the monitor ends
what takes too long. What they are told at a request's end comes after its client has the answer, and is watched as a
request of its own, whose number is the negative one.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from gatekeep import _hooks
from gatekeep._errors import RequestInterrupted
from gatekeep._events import Logger
from gatekeep._hooks import Event, ProcessStopping, RequestFinished, RequestRaised, RequestStarted
from gatekeep.lifecycle._control import Why
from gatekeep.pool._fork import end_if_child
from gatekeep.pool._input import BodyCut
from gatekeep.pool._log import format_error, summarise
from gatekeep.pool._region import Region
from gatekeep.pool._respond import HopLost, Responder


def tell_start(environ: dict[str, Any], region: Region, log: Logger) -> None:
    """The application is about to be called; the region is entered.

    Raises:
        RequestInterrupted: the request's time is over already.
    """
    _tell(RequestStarted(**_story(environ)), region, log)


def tell_end(
    environ: dict[str, Any],
    responder: Responder,
    region: Region,
    request: int,
    error: BaseException | None,
    log: Logger,
) -> None:
    """All of the request is over, and the region left. `error` is what came out of the application."""
    story = _story(environ)
    took = time.monotonic() - region.began
    finished = RequestFinished(
        **story,
        status=responder.sent_status,
        complete=responder.ended,
        application_finish=story["application_start"] + took,
        application_time=took,
    )

    def tell() -> None:
        if error is not None and _is_its_own(error, responder):
            exc_info = type(error), error, error.__traceback__
            _tell(RequestRaised(**story, exc_info=exc_info), region, log)
        _tell(finished, region, log)

    interrupted = region.run(-request, _NOBODY, region.method, region.path, tell)
    if interrupted is not None:
        log.error("hook.interrupted", reason=str(interrupted), traceback=format_error(interrupted))


class _Nobody:
    """In the responder's place: nobody waits for a response any more."""

    def is_unwanted(self) -> bool:
        return False

    def give_up(self, message: str, now: float, timer: str) -> None:
        pass


_NOBODY: Any = _Nobody()


def _is_its_own(error: BaseException, responder: Responder) -> bool:
    """Whether the application is to be told of it, and not only that its client has gone or its answer came late."""
    if isinstance(error, RequestInterrupted):
        return not responder.ended
    return not isinstance(error, (HopLost, BodyCut))


def _story(environ: dict[str, Any]) -> dict[str, Any]:
    """The application may have taken anything out of its environ."""
    times = ("request_start", "queue_start", "daemon_start", "application_start")
    return {
        "request_id": environ.get("gatekeep.request_id", ""),
        "environ": environ,
        "data": _hooks.request_data(),
        **{name: environ.get(f"gatekeep.{name}", 0.0) for name in times},
    }


def _tell(event: Event, region: Region, log: Logger) -> None:
    def failed(callback: _hooks.Callback, error: BaseException) -> None:
        with region:
            _report(event, callback, error, log)

    _hooks.tell(event, failed)


def _report(event: Event, callback: _hooks.Callback, error: BaseException, log: Logger) -> None:
    end_if_child(error)
    log.error(
        "hook.failed",
        hook=getattr(callback, "__qualname__", type(callback).__qualname__),
        told=event.name,
        reason=summarise(error),
        traceback=format_error(error),
    )


class Farewell:
    """Tells of the process's end, once, in a thread of its own: the main thread has the gateway's word to hear meanwhile."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._over = threading.Event()
        self._began = False

    def begin(self, why: Why) -> None:
        """The process accepts no more."""
        if self._began:
            return
        self._began = True
        if not _hooks.subscribers:
            self._over.set()
            return
        thread = threading.Thread(target=self._tell, args=(why,), name="gatekeep-farewell", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no room for another one
            self._over.set()
            self._log.error("hook.failed", told=ProcessStopping.name, reason=str(error))

    def is_over(self) -> bool:
        """Whether all subscribers know."""
        return self._over.is_set()

    def _tell(self, why: Why) -> None:
        event = ProcessStopping(trigger=why.trigger, reason=why.reason)
        try:
            _hooks.tell(event, lambda callback, error: _report(event, callback, error, self._log))
        except BaseException as error:
            self._log.error("hook.failed", told=event.name, reason=summarise(error))
        finally:
            end_if_child()
            self._over.set()
