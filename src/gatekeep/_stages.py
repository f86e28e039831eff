"""The stages of a request, as data: names for the log, the statistics, the documentation and a test that walks over them.

They stand in the order in which a request passes them. An error, an event and a counter each name one of these; there is no
other list.
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where in the pipeline a request is, or where it came to its end."""

    ACCEPT = "accept"
    """The front takes the client's connection."""
    PARSE = "parse"
    """The front reads the request's head (and judges it)."""
    ROUTE = "route"
    """The front chooses a process group."""
    BODY = "body"
    """The request's body comes from the client; no worker is held meanwhile."""
    ADMIT = "admit"
    """The front takes the request among those that wait, or turns it away."""
    CONNECT = "connect"
    """The front gets it into the group's backlog, in turn."""
    QUEUE = "queue"
    """The request stands in the group's backlog: nobody has claimed it."""
    PICKUP = "pickup"
    """A worker has accepted it and decides whether to run it."""
    RUN = "run"
    """The application has it and has not yet produced a head."""
    RESPOND = "respond"
    """The response is on its way to the client."""
