"""The pytest plugin: the fixture `gatekeep_server`. pytest finds it by an entry point and loads it in every run, so it imports
nothing but pytest until a test asks for a server."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gatekeep.testing import Server, StartServer

_SERVERS = pytest.StashKey["list[Server]"]()


@pytest.fixture
def gatekeep_server(request: pytest.FixtureRequest) -> Iterator[StartServer]:
    """Serve applications on gatekeep while the test lasts: `server = gatekeep_server("mysite.wsgi:application", threads=2)`.

    Takes what `gatekeep.testing.serving` takes. `server.url` is where it is, `server.events` what was logged.
    """
    from gatekeep.testing import serving

    servers = request.node.stash.setdefault(_SERVERS, [])
    with ExitStack() as stack:

        def start(app: Any, **options: Any) -> Server:
            server = stack.enter_context(serving(app, **options))
            servers.append(server)
            return server

        yield start


# The old way of wrapping, which every pytest knows: this runs in all test suites of people who have gatekeep installed.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Beside a failure, what the test's servers have to say."""
    outcome = yield
    servers = item.stash.get(_SERVERS, [])
    if not servers:
        return
    report = outcome.get_result()
    if report.failed:
        report.sections.extend(("gatekeep", server.report()) for server in servers)
    if call.when == "teardown":
        servers.clear()
