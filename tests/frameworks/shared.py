"""What these tests share beside fixtures: the kinds of server, and clients of both libraries that behave alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import httpx
import requests

from served import Served

KINDS = {
    "uvloop-strict": ("--loop", "uvloop", "--http", "strict"),
    "asyncio-strict": ("--loop", "asyncio", "--http", "strict"),
    "trio-h11": ("--loop", "trio", "--http", "h11"),
}
USUAL_KIND = "uvloop-strict"

ServerOfKind = Callable[..., Served]


class RequestsClient(requests.Session):
    """A session that, as httpx has it, resolves addresses against a base and does not wait for ever."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self.base_url = base_url
        self.trust_env = False

    def request(self, method: Any, url: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        options.setdefault("timeout", 20)
        return super().request(method, urljoin(self.base_url, url), **options)


def make_client(library: str, base_url: str) -> Any:
    """A client that follows redirects and keeps cookies and connections."""
    if library == "requests":
        return RequestsClient(base_url)
    return httpx.Client(base_url=base_url, follow_redirects=True, timeout=20, trust_env=False)
