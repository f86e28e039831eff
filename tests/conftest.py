"""What most tests share: a gateway inside the test's process, on every event loop, with its log as data."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))

from gatekeep import Gateway, Served, Settings  # noqa: E402
from gatekeep.lifecycle import _drain  # noqa: E402
from gatekeep.testing._capture import Events  # noqa: E402
from gatekeep.transport import _admission, _http1  # noqa: E402

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background job; the programs that tests start would ignore it, too, and not end at Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


MORE_THAN_CORES = 4

PATIENCE = 40.0
"""Seconds that a test waits for what must come. It comes at once, but not where other tests have both cores."""

# How long an example may take would be a property of the machine.
hypothesis.settings.register_profile(
    "of any speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("of any speed")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """More than there are cores: a test with real processes mostly waits for a deadline of theirs."""
    return len(os.sched_getaffinity(0)) + MORE_THAN_CORES


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names of tests must not hold addresses: pytest-xdist compares them between processes."""
    return type(val).__name__ if re.search(r" at 0x[0-9a-f]+", repr(val)) else None


class LogAsData(Events):
    """A logger that keeps what it is told, debug events included; its questions have names of their own for the fields."""

    def __init__(self) -> None:
        super().__init__(debug=True)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came so far, the oldest first, and goes on to come."""
        return self._events

    def find(self, **fields: Any) -> list[dict[str, Any]]:
        """The events with those fields, oldest first."""
        with self._changed:
            return [e for e in self.events if all(e.get(k) == v for k, v in fields.items())]

    def wait_for(
        self, event: str, *, count: int = 1, timeout: float = PATIENCE, **fields: Any
    ) -> dict[str, Any]:
        """The newest event of that name with those fields, waited for."""
        return self.wait_for_any(count=count, timeout=timeout, event=event, **fields)

    def wait_for_any(self, *, count: int = 1, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """The newest event with those fields, waited for."""
        with self._changed:  # or the event might come between the look and the wait
            came = self._changed.wait_for(lambda: len(self.find(**fields)) >= count, timeout)
            found = self.find(**fields)
        if not came:
            raise AssertionError(f"no event with {fields} came; the log: {self.events[-20:]}")
        return found[-1]


class Site:
    """A gateway that serves one of `apps.py`'s applications."""

    def __init__(self, served: Served, gateway: Gateway, log: LogAsData) -> None:
        self.served = served
        self.gateway = gateway
        self.log = log

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.served.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def record(self, path: str, **fields: Any) -> dict[str, Any]:
        """The canonical record of the newest request for a path."""
        return self.log.wait_for("request.finished", path=path, **fields)


def start_site(stack: ExitStack, app: str = "apps:scripted", loop: str = "asyncio", **options: Any) -> Site:
    """A site that lasts as long as the stack."""
    backend, backend_options = LOOPS[loop]
    log = LogAsData()
    options = {"bind": "127.0.0.1:0", "processes": 2, "threads": 3, "python_path": [str(TESTS)]} | options
    gateway = Gateway(Settings.for_app(app, **options), logger=log, debug=True)
    served = stack.enter_context(gateway.serving_in_thread(backend, **backend_options))
    return Site(served, gateway, log)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for a condition that must come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


BOTH_BACKENDS = pytest.mark.parametrize("loop", ["asyncio", "trio"], scope="module")
"""For modules in whose tests uvloop would say nothing that asyncio does not."""


@pytest.fixture(scope="session", autouse=True)
def no_bytecode_of_applications() -> Iterator[None]:
    """An application that a test writes twice in one second, with one size, would be loaded as it was first.

    What lies ready for the gateway's own modules is read nevertheless.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        yield


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """For exceptions that are sent into threads.

    A collection's callbacks (Hypothesis has one) may be what runs when the exception comes, and nothing leaves a callback.
    """
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module", params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    """Every event loop in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def site(loop: str) -> Iterator[Site]:
    """`apps.scripted` on each event loop, shared by the tests of a module."""
    with ExitStack() as stack:
        yield start_site(stack, loop=loop)


@pytest.fixture
def start(loop: str) -> Iterator[Callable[..., Site]]:
    """Start sites of the test's own, on each event loop."""
    with ExitStack() as stack:
        yield lambda app="apps:scripted", **options: start_site(stack, app, loop, **options)


@pytest.fixture
def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait in turn, however long: on a busy machine the second is over soon after which the newest are first."""
    monkeypatch.setattr(_admission, "LATE", 1000.0)


@pytest.fixture
def long_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is told to end is killed half a minute later: on a busy machine its last second may not be enough."""
    monkeypatch.setattr(_drain, "LAST_WORDS", 30.0)


@pytest.fixture
def patient_discards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose request was refused has all the time to send the rest of it before its connection is closed."""
    monkeypatch.setattr(_http1, "DISCARD_TIME", 600.0)


@pytest.fixture
def crowd(site: Site, tmp_path: Path) -> Iterator[Any]:
    """Clients of the module's site: a `crowd.Crowd`."""
    from crowd import Crowd  # which imports this module

    with Crowd(site, tmp_path) as crowd:
        yield crowd


@pytest.fixture
def crowded(start: Callable[..., Site], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make a site of one worker, and its clients: a `crowd.Crowd`."""
    from crowd import crowds

    with crowds(start, tmp_path, processes=1, threads=1) as make:
        yield make
