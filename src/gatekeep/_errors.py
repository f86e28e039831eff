"""What can go wrong, as a tree. An error knows the stage it belongs to and the answer a client gets.

    GatekeepError
    ├── SettingsError            a setting names itself, its value and what is allowed   (exit status 2)
    ├── CannotStart              no process of a group ever became ready, port in use    (exit status 3)
    └── RequestFailed            ends one request; has `stage`, `status`, `outcome`
        ├── Refused              what the client sent is not acceptable                  (400 … 505)
        ├── ClientGone           nobody is there to answer
        ├── ConnectExpired       the group's backlog stayed full for connect-timeout     (503)
        ├── ConnectFailed        the group's listener cannot be reached at all           (503)
        ├── NeverClaimed         every attempt ended before a worker claimed it          (503)
        ├── ApplicationFailed    the application raised before it produced a head        (500)
        ├── ProcessLost          a worker claimed it and ended before the head           (502)
        └── Truncated            the response stopped short; what is out cannot be taken back
"""

from __future__ import annotations

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


class RequestFailed(GatekeepError):
    """One request came to an end without the application's answer.

    Attributes:
        stage: where it happened.
        status: the HTTP status of the answer, 0 where nobody can be answered.
        outcome: the word under which it is counted (`gatekeep._events.Outcome`).
    """

    stage: ClassVar[Stage]
    status: int
    outcome: ClassVar[str]


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
