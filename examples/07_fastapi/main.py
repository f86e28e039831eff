"""A FastAPI application, and inside it an old WSGI application in processes of its own."""

from __future__ import annotations

import structlog
from fastapi import FastAPI

from gatekeep import Gateway, Settings

legacy = Gateway(
    Settings.for_app("legacy:application", processes=2, threads=3, request_timeout=1),
    logger=structlog.get_logger(),
)

# The gateway starts and stops with the application. With a lifespan of your own: `async with legacy.lifespan(): yield`.
app = FastAPI(lifespan=legacy.lifespan)
app.mount("/legacy", legacy)


@app.get("/ping")
async def ping() -> dict[str, bool]:
    """Answers whatever the old application does."""
    return {"pong": True}
