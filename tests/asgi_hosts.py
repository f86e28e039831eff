"""ASGI applications that the tests give to real servers: the gateway whole, and mounted in Starlette and FastAPI."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from gatekeep import Gateway, Settings

TESTS = str(Path(__file__).parent)


def gateway(app: str = "apps:scripted", **options: object) -> Gateway:
    """One process with two threads; requests may run for a few seconds, and a stop is quick."""
    timers = {"request_timeout": 3, "interrupt_timeout": 1, "graceful_timeout": 5, "shutdown_timeout": 2}
    given = {"processes": 1, "threads": 2, "python_path": [TESTS]} | timers | options
    return Gateway(Settings.for_app(app, **given))


async def own(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"own {os.getpid()}")


def make_starlette() -> Starlette:
    """Two gateways, inside a lifespan of the application's own."""
    one, two = gateway(), gateway("apps:hello")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with one.lifespan(), two.lifespan():
            yield

    return Starlette(
        routes=[Route("/own", own), Mount("/legacy", one), Mount("/hello", two)],
        lifespan=lifespan,
    )


def make_fastapi() -> FastAPI:
    """One gateway, whose lifespan is the application's, behind a middleware that wraps `receive` and `send`."""
    legacy = gateway()
    app = FastAPI(lifespan=legacy.lifespan)
    app.mount("/legacy", legacy)

    @app.middleware("http")
    async def mark(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response

    @app.get("/own")
    async def own() -> str:
        return f"own {os.getpid()}"

    return app


whole, broken = gateway(), gateway("no_such_module")
starlette, fastapi = make_starlette(), make_fastapi()
