"""What a worker thread does with a connection, from the pickup to the end of the request."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from gatekeep import _hooks
from gatekeep._events import Logger, request_name
from gatekeep.lifecycle._control import Thread
from gatekeep.lifecycle._slots import Row
from gatekeep.pool._applications import Applications
from gatekeep.pool._disconnected import Disconnected
from gatekeep.pool._fork import end_if_child
from gatekeep.pool._input import body_stream
from gatekeep.pool._log import current_request, format_error
from gatekeep.pool._memory import Memory
from gatekeep.pool._pickup import pick_up
from gatekeep.pool._respond import Responder
from gatekeep.pool._stacks import all_stacks
from gatekeep.pool._threads import Worker
from gatekeep.pool._wsgi import run as run_application
from gatekeep.transport._wire import Envelope

MOST_STACKS = 1 << 20
"""Characters of all threads' stacks: what is sent over the control socket has its limit (`_frames.LIMIT`)."""


class Service:
    """Serves connections for the worker threads of one process.

    Args:
        base: the part of the environ that is the same for every request.
        row: the process's row on the scoreboard.
        queue_timeout: seconds that a request may have waited, `math.inf` for ever.
        socket_timeout: seconds that one read or write may wait for the front, `math.inf` for ever.
        memory: whose growth is told with the responses.
        finish_lines: called when a thread is done with a request: what it wrote without ending the line is to be said.
        rejects: whether requests must not be run any more, asked before each.
    """

    def __init__(
        self,
        applications: Applications,
        base: dict[str, Any],
        row: Row,
        log: Logger,
        *,
        queue_timeout: float,
        socket_timeout: float,
        memory: Memory | None,
        finish_lines: Sequence[Callable[[], None]],
        rejects: Callable[[], bool],
    ) -> None:
        self._applications = applications
        self._base = base
        self._row = row
        self._log = log
        self._pid = os.getpid()
        self._queue_timeout = queue_timeout
        self._socket_timeout = socket_timeout
        self._memory = memory
        self._finish_lines = finish_lines
        self._rejects = rejects

    def serve(self, hop: socket.SocketType, worker: Worker) -> bool:
        """Serve one connection, in the worker's thread. Whether there was a request that was run."""
        accepted = worker.accepted_at
        envelope = pick_up(
            hop, self._pid, worker.number, accepted, queue_timeout=self._queue_timeout,
            socket_timeout=self._socket_timeout, rejects=self._rejects, log=self._log,
        )  # fmt: skip
        if envelope is None:
            return False
        self._row.begin(worker.number, envelope.request, accepted)
        token = current_request.set(envelope.request)
        _hooks.current_data.set({})
        try:
            self._run(hop, envelope, worker, accepted)
        except Exception as error:
            self._log.error("run.failed", reason="a fault of the gateway", traceback=format_error(error))
        finally:
            end_if_child()
            for finish_line in self._finish_lines:
                finish_line()
            current_request.reset(token)
            _hooks.current_data.set(None)
            self._row.end(worker.number)
        return True

    def _run(self, hop: socket.SocketType, envelope: Envelope, worker: Worker, accepted: float) -> None:
        environ: dict[str, Any] = envelope.environ
        environ.update(self._base)
        _stamp(environ, envelope, accepted)
        environ["gatekeep.disconnected"] = Disconnected(hop)
        method = environ["REQUEST_METHOD"]
        responder = Responder(hop, method, self._socket_timeout, worker.region, self._memory)
        body = body_stream(envelope, hop, self._socket_timeout, worker.region)
        run_application(
            self._applications.find(envelope.app), environ, body, responder,
            worker.region, envelope.request, time.monotonic, self._log,
        )  # fmt: skip


def _stamp(environ: dict[str, Any], envelope: Envelope, accepted: float) -> None:
    """The request's name and its stamps, in seconds since the epoch as mod_wsgi's are."""
    offset = envelope.wall - envelope.stamp
    environ["gatekeep.request_id"] = request_name(envelope.request)
    environ["gatekeep.request_start"] = envelope.began + offset
    environ["gatekeep.queue_start"] = envelope.wall
    environ["gatekeep.daemon_start"] = accepted + offset
    environ["gatekeep.application_start"] = time.monotonic() + offset


def threads_of(workers: Sequence[Worker]) -> list[Thread]:
    """What all threads of this process do, the workers first."""
    known = {worker.region.ident: worker for worker in workers}
    now = time.monotonic()
    threads, size = [], 0
    for found in all_stacks():
        size += len(found.stack)
        stack = found.stack if size < MOST_STACKS else "… there are too many"
        threads.append(_describe(found.name, stack, known.get(found.ident), now))
    return sorted(threads, key=lambda thread: (thread.number < 0, thread.number))


def _describe(name: str, stack: str, worker: Worker | None, now: float) -> Thread:
    """One thread, as the gateway is told of it."""
    if worker is None:
        return Thread(name, -1, 0, "", "", 0.0, stack)
    region = worker.region
    if not region.request:
        return Thread(name, worker.number, 0, "", "", 0.0, stack)
    elapsed = region.elapsed(now)
    return Thread(name, worker.number, abs(region.request), region.method, region.path, elapsed, stack)
