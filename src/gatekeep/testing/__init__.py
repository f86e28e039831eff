"""Serve an application inside a test, and see what the gateway says of it.

    def test_login(gatekeep_server):                       # a pytest fixture, there when gatekeep is installed
        server = gatekeep_server("mysite.wsgi:application", request_timeout=1)
        httpx.get(server.url + "/login")
        record = server.wait_for_event("request.finished", path="/login")

    with gatekeep.testing.serving("mysite.wsgi:application") as server:   # without pytest
        ...

It is the real thing: daemon processes, sockets, timers, in a thread beside the test.

serving       serve while a context lasts
Server        where it is, what it said
StartServer   the type of the fixture `gatekeep_server`
EventMissing, ProcessLeft   what makes a test fail
wedge         an application that gets stuck in every way, for those who test their alarms

Names load when they are used: a daemon process that runs `wedge` loads no gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatekeep.testing._capture import EventMissing
    from gatekeep.testing._leftovers import ProcessLeft
    from gatekeep.testing._server import Server, StartServer, serving
    from gatekeep.testing._wedge import wedge

_HOMES = {
    "EventMissing": "_capture",
    "ProcessLeft": "_leftovers",
    "Server": "_server",
    "StartServer": "_server",
    "serving": "_server",
    "wedge": "_wedge",
}

__all__ = ["EventMissing", "ProcessLeft", "Server", "StartServer", "serving", "wedge"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gatekeep.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"gatekeep.testing.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
