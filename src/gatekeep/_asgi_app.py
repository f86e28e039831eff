"""The gateway as an ASGI 3 application: what each kind of scope asks for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from gatekeep._errors import CannotStart
from gatekeep._events import Logger
from gatekeep.transport._asgi import Receive, Scope, Send, serve_request
from gatekeep.transport._front import Front

NOT_STARTED = (
    "this gateway does not serve: nothing has started it. Where it is the whole application, its server does so (unless the "
    "lifespan protocol is switched off). Mounted in another application, it is started by that one's lifespan: write "
    "FastAPI(lifespan=gateway.lifespan), or `async with gateway.lifespan(): yield` inside a lifespan of your own"
)

_NO_WEBSOCKETS = b"501 Not Implemented\n"


async def run(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    front: Front | None,
    lifespan: Callable[[], AbstractAsyncContextManager[None]],
    log: Logger,
) -> None:
    """Do what a scope asks for.

    Args:
        front: None while nothing serves.

    Raises:
        RuntimeError: nothing serves, or in another event loop.
        ValueError: the scope is of a type that is not known here.
        Exception: as `serve_request`; as the gateway does when it fails while it serves.
    """
    kind = scope["type"]
    if kind == "http":
        if front is None:
            raise RuntimeError(NOT_STARTED)
        await serve_request(front, scope, receive, send)
    elif kind == "lifespan":
        await _live(lifespan, receive, send)
    elif kind == "websocket":
        await _refuse_websocket(scope, receive, send, log)
    else:
        raise ValueError(f"an ASGI scope of type {kind!r}: known are http, lifespan and websocket")


async def _live(
    lifespan: Callable[[], AbstractAsyncContextManager[None]], receive: Receive, send: Send
) -> None:
    """From the server's start to its stop. What prevents the start is told in the protocol's words."""
    stage = "startup"
    await receive()
    try:
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            stage = "serving"
            await receive()
            stage = "shutdown"
    except Exception as error:
        if stage == "serving":
            raise  # the protocol has no word for it
        await send({"type": f"lifespan.{stage}.failed", "message": _described(error)})
    else:
        await send({"type": "lifespan.shutdown.complete"})


def _described(error: Exception) -> str:
    if isinstance(error, CannotStart) and error.details:
        return f"{error}\n{error.details}"
    return str(error) or type(error).__name__


async def _refuse_websocket(scope: Scope, receive: Receive, send: Send, log: Logger) -> None:
    """WSGI has no WebSockets. Where the server can carry an answer it is 501, elsewhere it is the server's 403."""
    await receive()
    log.info(
        "asgi.websocket_refused", path=scope.get("path", ""), reason="a WSGI application has no WebSockets"
    )
    if "websocket.http.response" in (scope.get("extensions") or {}):
        fields = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_NO_WEBSOCKETS)),
        ]
        await send({"type": "websocket.http.response.start", "status": 501, "headers": fields})
        await send({"type": "websocket.http.response.body", "body": _NO_WEBSOCKETS})
    else:
        await send({"type": "websocket.close"})
