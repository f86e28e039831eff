"""`environ["gatekeep.disconnected"]`: whether somebody still waits for the response."""

from __future__ import annotations

import socket
from select import POLLERR, POLLHUP, POLLRDHUP, poll

_ENDED = POLLRDHUP | POLLHUP | POLLERR
"""The front never shuts its sending side in order (see `transport/_wire`), so any end means that the request is void."""


class Disconnected:
    """Called without arguments: True once nobody waits for this request's response any more, else False.

    That is, once the gateway knows that the client has gone, or has given the request up for another reason, or is done with
    the response: a Content-Length was given and everything that it promised has been sent. A request that is served already
    has nothing to gain from an early end.

        def application(environ, start_response):
            disconnected = environ["gatekeep.disconnected"]
            start_response("200 OK", [("Content-Type", "text/csv")])
            for row in slow_query():
                if disconnected():
                    return
                yield row

    It asks the kernel, waits for nothing, takes a few microseconds, and can be called from any thread, at any time. What it
    has once said of a client that is gone it says ever after; of a request that ended otherwise it says False.
    """

    __slots__ = ("_gone", "_hop")

    def __init__(self, hop: socket.SocketType) -> None:
        self._hop = hop
        self._gone = False

    def __call__(self) -> bool:
        return self._gone or self._look()

    def __repr__(self) -> str:
        return "<gatekeep.disconnected>"

    def _look(self) -> bool:
        number = self._hop.fileno()
        if number < 0:
            return False  # the request is over, or this is a child that the application forked
        looker = poll()  # of its own: no two threads may share one
        looker.register(number, _ENDED)
        ended = any(event & _ENDED for _, event in looker.poll(0))
        # The worker may have closed the hop meanwhile and the number be another's. It is closed only after our socket object has
        # let go of the number, so if that is unchanged the number was the hop's when we looked.
        if ended and self._hop.fileno() == number:
            self._gone = True
        return self._gone
