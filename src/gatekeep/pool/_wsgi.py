"""The run stage: call the application as PEP 3333 says, whatever it does."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from gatekeep import __version__, _hooks
from gatekeep._errors import RequestInterrupted, RequestTimeout
from gatekeep._events import Logger
from gatekeep._stages import Stage
from gatekeep.pool._announce import tell_end, tell_start
from gatekeep.pool._fork import end_if_child
from gatekeep.pool._input import BodyCut
from gatekeep.pool._loader import Application
from gatekeep.pool._log import format_error, one_line, summarise
from gatekeep.pool._region import Region
from gatekeep.pool._respond import ContractBroken, FileWrapper, HopLost, Responder

Clock = Callable[[], float]


def base_environ(*, threads: int, processes: int, group: str, errors: Any) -> dict[str, Any]:
    """The part of the environ that is the same for every request of a process."""
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": errors,
        "wsgi.multithread": threads > 1,
        "wsgi.multiprocess": processes > 1,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "SERVER_SOFTWARE": f"gatekeep/{__version__}",
        "gatekeep.process_group": group,
    }


def run(
    application: Application,
    environ: dict[str, Any],
    body: io.BufferedIOBase,
    responder: Responder,
    region: Region,
    request: int,
    clock: Clock,
    log: Logger,
) -> None:
    """Call the application and send what it answers. Returns when its `close()` was called, whatever happened before.

    The response's end is sent after `close()`, so that the front knows when the thread is free, except for lists and
    tuples, which have none.

    Args:
        region: the thread's; the application, and nothing else, runs inside it.
        request: the request's number.
    """
    environ["wsgi.input"] = body

    def call() -> BaseException | None:
        if _hooks.subscribers:
            tell_start(environ, region, log)
        return _call(application, environ, body, responder, region, clock)

    error = region.run(request, responder, environ["REQUEST_METHOD"], environ["PATH_INFO"], call)
    if error is not None:
        _tell_error(error, responder, clock, log)
    if responder.timed_out or responder.excess:
        _tell_cuts(responder, log)
    if _hooks.subscribers:
        tell_end(environ, responder, region, request, error, log)


def _call(
    application: Application,
    environ: dict[str, Any],
    body: io.BufferedIOBase,
    responder: Responder,
    region: Region,
    clock: Clock,
) -> BaseException | None:
    """Returns what was raised."""
    try:
        try:
            _respond(application(environ, responder.start_response), responder, region, clock)
        finally:
            body.close()
    except BaseException as error:
        return error
    return None


def _tell_error(error: BaseException, responder: Responder, clock: Clock, log: Logger) -> None:
    """Whatever an application raises ends its request and nothing else, SystemExit and KeyboardInterrupt included."""
    if isinstance(error, HopLost):
        # Either the client has gone or the front is ending: the front's record tells which.
        log.debug("respond.abandoned", reason=str(error))
    elif isinstance(error, RequestInterrupted):
        if not responder.ended:  # else it came too late: the application has finished in spite of it
            _fail(
                responder,
                str(error),
                clock,
                timer="request-timeout" if isinstance(error, RequestTimeout) else "",
            )
    else:
        end_if_child(error)
        _report(error, responder, clock, log)


def _tell_cuts(responder: Responder, log: Logger) -> None:
    """Whatever the application made of it: it may have caught the error that told it so."""
    if responder.timed_out:
        log.warning(
            "respond.timed_out",
            stage=Stage.RESPOND,
            timer="socket-timeout",
            timeout=responder.timeout,
            reason="the front took nothing of the response for so long",
        )
    if responder.excess:
        log.warning(
            "respond.cut", reason="the body was longer than its Content-Length", excess=responder.excess
        )


def _respond(result: Any, responder: Responder, region: Region, clock: Clock) -> None:
    if type(result) is list or type(result) is tuple:
        region.leave()  # what is left to do is ours
        responder.end(clock(), result)
        return
    try:
        _send_blocks(result, responder)
    except BaseException:
        _close(result)
        raise
    try:
        _close(result)
    except Exception as error:
        # PEP 3333 has it called when the response is there: what goes wrong in it is logged, and costs the client nothing.
        end_if_child(error)
        _end(responder, region, clock)
        raise
    _end(responder, region, clock)


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


def _end(responder: Responder, region: Region, clock: Clock) -> None:
    region.leave()
    responder.end(clock())


def _send_blocks(result: Any, responder: Responder) -> None:
    file = result.plain_file() if type(result) is FileWrapper else None
    if file is not None:
        responder.send_file(*file)
        return
    for block in result:
        responder.write(block)


def _report(error: BaseException, responder: Responder, clock: Clock, log: Logger) -> None:
    broken = isinstance(error, ContractBroken)
    summary = one_line(str(error)) if broken or isinstance(error, BodyCut) else summarise(error)
    if isinstance(error, BodyCut):
        log.info("run.input_lost", reason=summary)
    else:
        log.error(
            "run.contract_broken" if broken else "run.failed", reason=summary, traceback=format_error(error)
        )
    if not responder.ended:
        _fail(responder, summary, clock)


def _fail(responder: Responder, message: str, clock: Clock, timer: str = "") -> None:
    try:
        responder.fail(message, clock(), timer)
    except HopLost:
        pass  # the front is inside a frame, or gone; that the hop ends there tells it enough
