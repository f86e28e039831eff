"""What an application may hook into: the data of the request that runs, and events that it is told.

Loaded by daemon processes, so it knows no front. There `pool/_announce` tells, and in a program whose gateway has a group with
`processes = 0`; in any other program nobody does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import attrs

from gatekeep._errors import RequestInterrupted

current_data: ContextVar[dict[Any, Any] | None] = ContextVar("gatekeep.request_data", default=None)
"""The dict of the request that this context works for; None outside of one."""


def request_data() -> dict[Any, Any]:
    """A dict of the request's own, the same one wherever it is asked for: code deep inside an application can leave things there.

    It is empty when the request begins, and let go after its response's `close()` and the subscribers of `RequestFinished`.
    It is found by the context (`contextvars`), so a task that the request starts in an event loop has it too. A thread that the
    request starts has it only where the context is handed to it (`contextvars.copy_context().run`), or the dict itself.

    Raises:
        RuntimeError: no request runs here.
    """
    data = current_data.get()
    if data is None:
        raise RuntimeError(
            "gatekeep.request_data(): no request runs here; it is called outside of one, outside of gatekeep, "
            "or in a thread that the request's context was not handed to"
        )
    return data


# --- events ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Event:
    """What subscribers are told of.

    Attributes:
        name: as mod_wsgi calls it.
    """

    name: ClassVar[str] = ""


@attrs.frozen(kw_only=True)
class _OfRequest(Event):
    """An event in a request's life. Times are seconds since the epoch.

    Attributes:
        request_id: as in the log.
        environ: the request's WSGI environ, the application's own: it may have changed it.
        data: its `request_data`.
        request_start: its first byte was read.
        queue_start: it was offered to the daemon processes.
        daemon_start: a worker had it.
        application_start: the application was called.
    """

    request_id: str
    environ: dict[str, Any] = attrs.field(repr=False)
    data: dict[Any, Any] = attrs.field(repr=False)
    request_start: float
    queue_start: float
    daemon_start: float
    application_start: float


@attrs.frozen(kw_only=True)
class RequestStarted(_OfRequest):
    """The application is about to be called. What subscribers take is part of the request's time, and may be interrupted."""

    name: ClassVar[str] = "request_started"


@attrs.frozen(kw_only=True)
class RequestRaised(_OfRequest):
    """An exception left the application, the one that interrupted it included. Its client has its answer already.

    That the client has gone is no exception of the application's, and not told.

    Attributes:
        exc_info: as `sys.exc_info()`.
    """

    name: ClassVar[str] = "request_exception"

    exc_info: tuple[type[BaseException], BaseException, TracebackType | None]


@attrs.frozen(kw_only=True)
class RequestFinished(_OfRequest):
    """The response has gone out as far as it will, and was closed.

    Attributes:
        status: what the application's response began with; 0 where none of it went out, and the client got an answer of ours.
        complete: whether all of it went out.
        application_finish: when that was.
        application_time: seconds from `application_start` until then.
    """

    name: ClassVar[str] = "request_finished"

    status: int
    complete: bool
    application_finish: float
    application_time: float


@attrs.frozen(kw_only=True)
class ProcessStopping(Event):
    """This daemon process accepts no more requests and will end; those that it has may still run.

    Told once, in a thread of its own; the end waits for the subscribers, within graceful-timeout and shutdown-timeout. A process
    that crashes, is killed, or ends before it was ready tells nothing. With `processes = 0` it is told when the gateway stops,
    once for each such group, and the process may go on.

    Attributes:
        trigger: what asked for it, as in the log: a setting's name (`maximum-requests`, `script-reloading`, …), `reload`,
            `eviction` (SIGUSR1), `a signal to this process`, `stop` (the gateway stops) or `gateway-gone`. The first one counts.
        reason: the same in a sentence.
    """

    name: ClassVar[str] = "process_stopping"

    trigger: str
    reason: str


Callback = Callable[[Event], object]
C = TypeVar("C", bound=Callback)

subscribers: tuple[Callback, ...] = ()
"""In the order in which they subscribed. Replaced, never changed: who tells needs no lock."""

_subscribing = threading.Lock()


def subscribe_events(callback: C) -> C:
    """Have a callable called with every event in this process from now on; can be used as a decorator.

        @gatekeep.subscribe_events
        def watch(event: gatekeep.Event) -> None:
            if isinstance(event, gatekeep.RequestFinished):
                metrics.timing(event.environ["PATH_INFO"], event.application_time)

    Subscribe where the application is loaded. Events of a request come in its worker's thread, one subscriber after the other, in
    the order of subscription. What one raises is logged (`hook.failed`) and harms nothing. One that does not end is interrupted
    after request-timeout, as a request is. In a program that is no daemon process of gatekeep, and has
    no group with `processes = 0`, nothing is ever told.

    Raises:
        TypeError: it cannot be called.
    """
    global subscribers
    if not callable(callback):
        raise TypeError(f"subscribe_events takes a callable, not {callback!r}")
    with _subscribing:
        subscribers = (*subscribers, callback)
    return callback


def tell(event: Event, failed: Callable[[Callback, BaseException], None]) -> None:
    """Tell all subscribers.

    Args:
        failed: called with what a subscriber raised.

    Raises:
        RequestInterrupted: it took too long; those that follow are not told.
    """
    for callback in subscribers:
        try:
            callback(event)
        except RequestInterrupted:
            raise
        except BaseException as error:
            failed(callback, error)
