"""A gateway for a test: in a thread of the test's process, on a free port, its log as data."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from gatekeep import CannotStart, Gateway, Settings, SettingsError, Statistics
from gatekeep.testing._capture import Event, Events, describe
from gatekeep.testing._leftovers import MARK, check_nothing_left

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

DEFAULTS: dict[str, Any] = {
    "binds": "127.0.0.1:0",
    "processes": 1,
    "graceful_timeout": 1.0,
    "shutdown_timeout": 2.0,
}
"""Where a test wants something else than a site: any free port, one process (it starts quickly, and the next request finds
what the last one left), and an end that does not wait for long."""

App = str | Callable[..., Any]


class Server:
    """An application that is being served. `serving` and the fixture `gatekeep_server` make it.

    Attributes:
        app: what is served, as text.
        url: where, such as `http://127.0.0.1:40123`, without a slash at the end; empty where it listens on UNIX sockets only.
        addresses: all of them.
    """

    def __init__(self, app: App, *, loop: str, debug: bool, settings: dict[str, Any]) -> None:
        is_embedded = settings.get("processes", settings.get("workers")) == 0
        served = app if is_embedded else _findable(app)
        self.app = served if isinstance(served, str) else repr(served)
        self.url = ""
        self.addresses: tuple[str, ...] = ()
        self._events = Events(debug=debug)
        self._mark = uuid.uuid4().hex
        completed = _completed(settings, "" if is_embedded else self._mark)
        self._gateway = Gateway(Settings.for_app(served, **completed), logger=self._events, debug=debug)
        self._running = ExitStack()
        self._start(*_backend(loop))

    def __repr__(self) -> str:
        return f"<Server of {self.app} at {self.url or ', '.join(self.addresses)}>"

    def _start(self, backend: str, options: dict[str, Any]) -> None:
        try:
            served = self._running.enter_context(self._gateway.serving_in_thread(backend, **options))
        except CannotStart as error:
            if error.details:
                error.add_note(error.details)
            error.add_note(self.report())
            raise
        self.addresses = served.addresses
        self.url = next((address for address in served.addresses if address.startswith("http")), "")

    @property
    def events(self) -> list[Event]:
        """What was logged so far, the oldest first: each a dict with `event`, `level` and the event's own fields.

        A request's `request.finished` comes a moment after its client has the answer: see `wait_for_event`.
        """
        return self._events.all()

    def find_events(self, name: str | None = None, **fields: Any) -> list[Event]:
        """The events so far of that name, or any, with those fields."""
        return self._events.find(name, fields)

    def wait_for_event(self, name: str, *, count: int = 1, timeout: float = 10.0, **fields: Any) -> Event:
        """The newest event of that name with those fields, waited for; it may be there already.

        Args:
            count: wait until there are so many of them.
            timeout: seconds to wait.

        Raises:
            EventMissing: it did not come; the message has those that came.
        """
        return self._events.wait_for(name, fields, count, timeout)

    def statistics(self) -> Statistics:
        """A snapshot of what it has done: see `gatekeep.Statistics`."""
        return self._gateway.statistics()

    def reload(self) -> int:
        """Replace its processes, as `gatekeep reload` does. Returns at once, with their number; `process.ready` tells of each."""
        return self._gateway.reload()

    def report(self) -> str:
        """What was logged, for people."""
        return f"what gatekeep logged while it served {self.app}:\n{describe(self.events)}"

    def stop(self) -> None:
        """Stop it now, and not at the test's end. Again does nothing.

        Raises:
            ProcessLeft: the application started a process that is still there.
        """
        self._running.close()
        check_nothing_left(self._mark)


class StartServer(Protocol):
    """The type of the fixture `gatekeep_server`: call it as `serving`; the server stops at the test's end."""

    def __call__(self, app: App, *, loop: str = ..., debug: bool = ..., **settings: Any) -> Server: ...


@contextmanager
def serving(app: App, *, loop: str = "asyncio", debug: bool = False, **settings: Any) -> Iterator[Server]:
    """Serve an application while the context lasts; it is entered when the first process is ready.

    It gets any free port of 127.0.0.1, one process, a graceful-timeout of 1 s and a shutdown-timeout of 2 s, where nothing else
    is said. What can be imported here can be imported there: the module path is passed on, and the present folder.

    Args:
        app: as for `gatekeep serve`, or a callable at the top level of a module or of a test's file. Processes import it anew, so
            they see nothing of what a test has patched. With `processes=0` it runs in the test's own process: any callable.
        loop: the gateway's event loop: "asyncio", "uvloop" or "trio".
        debug: whether events at debug are kept, too.
        settings: any setting of `gatekeep.Settings.for_app` by its name.

    Raises:
        CannotStart: it cannot be loaded; the notes have its traceback and what was logged.
        SettingsError: a setting is unknown, or its value is not allowed; or other processes could not find the callable.
        ProcessLeft: on leaving, the application has started a process that is still there.
    """
    server = Server(app, loop=loop, debug=debug, settings=settings)
    try:
        yield server
    except Exception as error:
        error.add_note(server.report())
        raise
    finally:
        server.stop()


def _backend(loop: str) -> tuple[str, dict[str, Any]]:
    if loop not in LOOPS:
        raise SettingsError(f"loop = {loop!r}: allowed is {', '.join(LOOPS)}")
    if find_spec(loop) is None:
        raise SettingsError(f"loop = {loop!r}: {loop} is not installed")
    return LOOPS[loop]


def _completed(settings: dict[str, Any], mark: str) -> dict[str, Any]:
    """With the defaults of tests, and the mark in the processes' environment, where there is one."""
    named = {"bind": "binds", "workers": "processes"}
    given = {named.get(name, name) for name in settings}
    defaults = {name: value for name, value in DEFAULTS.items() if name not in given}
    if not mark:
        return {**defaults, **settings}
    env = settings.get("env", ())
    env = [env] if isinstance(env, str) else [*env]
    return {**defaults, **settings, "env": [*env, f"{MARK}={mark}"]}


def _findable(app: App) -> str:
    """As text that other processes can find. A test's file is often no module that they could import: it is taken as a script."""
    text = str(Settings.for_app(app).groups[0].app)
    module = sys.modules.get(getattr(app, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if isinstance(app, str) or module is None or not file or not file.endswith(".py"):
        return text
    return text if _is_on_path(module.__name__, file) else f"{file}:{app.__qualname__}"


def _is_on_path(module: str, file: str) -> bool:
    """Whether that name leads to that file from a folder of the module path, or the present one."""
    place = module.replace(".", os.sep)
    ends = (place + ".py", os.path.join(place, "__init__.py"))
    return any(
        os.path.abspath(os.path.join(folder, end)) == file for folder in [*sys.path, ""] for end in ends
    )
