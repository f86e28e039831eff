"""What can go wrong, as a tree. An error knows the stage it belongs to and the answer a client gets.

GatekeepError
├── SettingsError            a setting names itself, its value and what is allowed   (exit status 2)
├── CannotStart              no process of a group ever became ready, port in use    (exit status 3)
└── RequestFailed            ends one request; has `stage`, `status`, `outcome`
    ├── Refused              what the client sent is not acceptable                  (400 … 505)
    │   └── HeadExpired      its head did not come in time                           (408)
    ├── NotMounted           nothing is mounted where it asks                        (404)
    ├── Unauthorized         an authentication script does not know who sent it      (401)
    ├── Forbidden            an access script refuses it, or its user's groups do    (403)
    ├── ScriptFailed         a script that decides about it came to no decision      (500)
    ├── BodyExpired          its body did not come in time                           (408)
    ├── NoSpace              there is no room to keep its body                       (507)
    ├── ClientGone           nobody is there to answer
    │   ├── BodyLost         … and it went inside the request's body
    │   ├── ClientLeft       … or while the request waited for a worker
    │   └── ClientStalled    … or it stopped reading
    ├── Overloaded           too many requests wait already                          (503)
    ├── StartsFail           the group's processes fail to start                     (503)
    ├── ConnectExpired       the group's backlog stayed full for connect-timeout     (503)
    │   └── ConnectFailed    … or cannot be reached at all                           (503)
    ├── NeverClaimed         every attempt ended before a worker claimed it          (503)
    ├── QueueExpired         a worker found that it waited longer than queue-timeout (504)
    │   └── QueueOverdue     … or we did, at the deadline                            (504)
    ├── Interrupted          the application was interrupted, or given up            (504)
    ├── HopExpired           nothing came from the worker for socket-timeout         (504)
    ├── ApplicationFailed    the application raised before it produced a head        (500)
    ├── ProcessLost          a worker claimed it and ended before the head           (502)
    ├── Stopped              the gateway stops and waits no longer                   (503 or 502)
    └── Truncated            the response stopped short; what is out cannot be taken back

RequestInterrupted           raised inside an application; not an Exception
├── RequestTimeout           the request ran longer than request-timeout allows
└── ClientDisconnected       its client has gone
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import ClassVar

from gatekeep._stages import Stage


class GatekeepError(Exception):
    """The root of what this library raises on purpose."""


class SettingsError(GatekeepError):
    """A setting that cannot be: the message names it, its value and what is allowed."""


class CannotStart(GatekeepError):
    """The gateway cannot begin to serve.

    `details` is text for people that follows the one-line reason, usually the application's own traceback.
    """

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(reason)
        self.details = details


class RequestInterrupted(BaseException):
    """Raised inside an application, wherever it is, to end the request that it serves.

    Not an `Exception`, so that `except Exception:` does not catch it. Catch it to clean up, and raise it again:

        try:
            fetch_everything()
        except gatekeep.RequestInterrupted:
            session.rollback()
            raise

    Who swallows it is interrupted again, and in the end the process is replaced.
    """


class RequestTimeout(RequestInterrupted):
    """The request has run for longer than request-timeout, times 1 + ln threads; its client gets 504."""


class ClientDisconnected(RequestInterrupted):
    """The client has gone while its request runs (with cancel-on-disconnect)."""


class RequestFailed(GatekeepError):
    """One request came to an end without the application's answer.

    Attributes:
        stage: where it happened.
        status: the HTTP status of the answer, 0 where nobody can be answered.
        outcome: the word under which it is counted (`gatekeep._events.Outcome`).
        event: what the log says above debug, empty where the canonical record says enough.
        timer: the setting that fired, empty where none did.
        retry_after: seconds after which a client that got 503 may try again.
        fields: header fields that the answer has besides.
    """

    stage: Stage
    status: int
    outcome: str
    event: ClassVar[str] = ""
    timer: str = ""
    retry_after: int = 5  # about what a restart of an application takes
    fields: Sequence[tuple[str, str]] = ()


class Refused(RequestFailed):
    """The client's bytes are not a request that we accept (RFC 9112, and the policy in `transport/_http_policy`).

    After it nothing on that connection is parsed any more.
    """

    stage = Stage.PARSE
    outcome = "refused"

    def __init__(self, status: HTTPStatus | int, reason: str) -> None:
        super().__init__(reason)
        self.status = int(status)
        self.reason = reason


class NotMounted(RequestFailed):
    """Nothing is mounted where the request asks."""

    stage = Stage.ROUTE
    outcome = "refused"
    status = 404


class Unauthorized(RequestFailed):
    """Nobody knows who sent the request: it has no credentials, or an authentication script did not accept them.

    Args:
        fields: the challenge (RFC 9110 section 11.6.1).
    """

    stage = Stage.ROUTE
    outcome = "refused"
    status = 401

    def __init__(self, reason: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(reason)
        self.fields = fields


class Forbidden(RequestFailed):
    """An access script refuses the request, or its user is in none of the groups that are required."""

    stage = Stage.ROUTE
    outcome = "refused"
    status = 403


class ScriptFailed(RequestFailed):
    """A script that decides about the request came to no decision: it cannot be loaded, raised, returned something that means
    nothing, took too long, or had no thread. What does not decide refuses.

    Args:
        timer: script-timeout, if that fired.
        status: 403 where an access script would have decided.
    """

    stage = Stage.ROUTE
    outcome = "app_error"
    status = 500
    event = "route.script_failed"

    def __init__(self, reason: str, timer: str = "", status: int = 500) -> None:
        super().__init__(reason)
        self.timer = timer
        self.status = status
        if status == 403:
            self.outcome = "refused"


class HeadExpired(Refused):
    """The request's head did not come within header-timeout, or kept us longer than header-max-timeout."""

    status = 408
    timer = "header-timeout"

    def __init__(self, reason: str) -> None:
        super().__init__(HTTPStatus.REQUEST_TIMEOUT, reason)


class BodyExpired(RequestFailed):
    """The request's body did not come within body-timeout, or kept us longer than body-max-timeout."""

    stage = Stage.BODY
    outcome = "refused"
    status = 408
    event = "body.expired"
    timer = "body-timeout"


class NoSpace(RequestFailed):
    """The temporary file for the request's body cannot grow: the disk is full, or we are out of descriptors."""

    stage = Stage.BODY
    outcome = "shed"
    status = 507
    event = "body.no_space"


class ClientGone(RequestFailed):
    """The client's connection ended or broke; nobody can be answered."""

    stage = Stage.RESPOND
    outcome = "client_gone"
    status = 0


class BodyLost(ClientGone):
    """The client's connection ended inside the request's body: what was read of it is no whole body (RFC 9112 section 8).

    The client may have shut only its sending side, so an answer can still reach it.
    """

    stage = Stage.BODY
    status = 400
    event = "body.lost"


class ClientLeft(ClientGone):
    """The client ended its side while the request waited: it has not run. One that only half-closed can read the answer."""

    status = 503

    def __init__(self, reason: str, stage: Stage) -> None:
        super().__init__(reason)
        self.stage = stage


class ClientStalled(ClientGone):
    """The client took nothing of the response for response-socket-timeout."""

    event = "respond.stalled"
    timer = "response-socket-timeout"


class Overloaded(RequestFailed):
    """As many requests as max-waiting allows wait for a place in the group's backlog."""

    stage = Stage.ADMIT
    outcome = "shed"
    status = 503
    event = "admit.refused"


class StartsFail(RequestFailed):
    """No process takes requests, and the last start failed: the next one comes after a pause, and may fail too. It has not run.

    Args:
        pause: seconds until that start.
        details: the traceback, where the client is a developer who wants to see it; else empty.
    """

    stage = Stage.ADMIT
    outcome = "shed"
    status = 503
    event = "admit.no_process"

    def __init__(self, reason: str, pause: float, details: str = "") -> None:
        super().__init__(reason)
        self.details = details
        self.retry_after = max(1, math.ceil(pause) + 1)


class ConnectExpired(RequestFailed):
    """The group's backlog stayed full for connect-timeout ("On exhaustion the request is failed with HTTP 503")."""

    stage = Stage.CONNECT
    outcome = "shed"
    status = 503
    event = "connect.expired"
    timer = "connect-timeout"


class ConnectFailed(ConnectExpired):
    """The group's listener cannot be reached (a missing file, permissions): fails at once, without a retry."""

    event = "connect.failed"
    timer = ""


class NeverClaimed(RequestFailed):
    """Every attempt, at most 2 * processes + 1, ended before a worker claimed the request. It has not run."""

    stage = Stage.QUEUE
    outcome = "shed"
    status = 503
    event = "queue.exhausted"


class QueueExpired(RequestFailed):
    """It waited longer than queue-timeout and a worker discarded it at pickup. It has not run."""

    stage = Stage.PICKUP
    outcome = "queue_timeout"
    status = 504
    event = "pickup.discarded"
    timer = "queue-timeout"


class QueueOverdue(QueueExpired):
    """Nobody had claimed it when queue-timeout was over; we took it back. It has not run and will not."""

    stage = Stage.QUEUE
    event = "queue.expired"


class Interrupted(RequestFailed):
    """It ran longer than request-timeout allows. Its process says what was done about it (`run.interrupted`, …)."""

    stage = Stage.RUN
    outcome = "interrupted"
    status = 504
    timer = "request-timeout"


class HopExpired(RequestFailed):
    """Nothing came from the worker for socket-timeout, nor did it take anything. Whatever the application does goes nowhere."""

    stage = Stage.RUN
    outcome = "interrupted"
    status = 504
    event = "run.expired"
    timer = "socket-timeout"


class ApplicationFailed(RequestFailed):
    """The application raised, or broke its contract, before its head was sent. Its traceback is in the log."""

    stage = Stage.RUN
    outcome = "app_error"
    status = 500


class ProcessLost(RequestFailed):
    """The worker that claimed the request ended before the head: it may have run, so it is not sent again."""

    stage = Stage.RUN
    outcome = "lost"
    status = 502
    event = "run.lost"


class Stopped(RequestFailed):
    """The gateway stops and its grace is over: 503 where the request has not started, 502 where nobody knows how far it came."""

    status = 503

    def __init__(self, stage: Stage, *, started: bool) -> None:
        super().__init__("the gateway was stopped")
        self.stage = stage
        self.outcome = "lost" if started else "shed"
        self.status = 502 if started else 503


class Truncated(RequestFailed):
    """The response stopped short. What is out cannot be taken back: the connection is closed so that the client can tell.

    Args:
        timer: the setting that fired, if one did.
    """

    def __init__(self, reason: str, timer: str = "") -> None:
        super().__init__(reason)
        self.timer = timer

    stage = Stage.RESPOND
    outcome = "truncated"
    status = 0
    event = "respond.truncated"
