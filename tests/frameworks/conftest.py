"""Fixtures for real applications and real clients, and the servers' logs when a test fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import served
from frameworks.shared import KINDS, USUAL_KIND, ServerOfKind


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder with the examples."""
    return Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def server_of_kind() -> Iterator[ServerOfKind]:
    """Call it with a kind and the arguments of `serve` for a server that lives until the module's end."""
    running: dict[str, served.Served] = {}
    with ExitStack() as stack:

        def of_kind(kind: str, app: str, **options: Any) -> served.Served:
            if kind not in running:
                processes = "2" if kind == USUAL_KIND else "1"
                context = served.serve(app, *KINDS[kind], "--processes", processes, **options)
                running[kind] = stack.enter_context(context)
            return running[kind]

        yield of_kind


@pytest.fixture(params=["requests", "httpx"])
def library(request: pytest.FixtureRequest) -> str:
    """The client's library."""
    name: str = request.param
    return name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure, what the servers that run have to say."""
    report = yield
    if report.failed:
        for server in served.RUNNING:
            report.sections.append(("gatekeep", server.report()))
    return report
