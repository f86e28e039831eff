"""Runs an anyio program in virtual time with seeded, replayable scheduling, on asyncio and on trio.

Time stands still while any task can run. When all of them wait, `idle` is called: it lets the rest of the world move, or sets
the time forward. Nothing ever waits for real.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import weakref
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import anyio

BACKENDS = ("asyncio", "trio")

HORIZON = 100_000.0
"""Seconds of virtual time after which a program counts as stuck."""


class VirtualTime:
    """What time it is; whoever is called when all tasks wait may set it forward."""

    def __init__(self) -> None:
        self.now = 0.0


Idle = Callable[[VirtualTime, float], None]
"""Called when every task waits, with the time and the loop's next deadline. It must make a task ready or move the time."""


def skip_to_deadline(time: VirtualTime, deadline: float) -> None:
    """The idle hook of a world in which there is nothing but the program."""
    if deadline == inf:
        raise RuntimeError("deadlock: every task waits and no timer is set")
    time.now = deadline


def run(
    main: Callable[[VirtualTime], Awaitable[Any]], backend: str, seed: int, idle: Idle = skip_to_deadline
) -> Any:
    """Run `main` to its end and return what it returns.

    Raises:
        TimeoutError: it did not end before `HORIZON`.
        BaseException: what `idle` raised; `main` was cancelled.
    """
    time = VirtualTime()
    guard = _Guard(idle)

    async def bounded() -> Any:
        try:
            with anyio.fail_after(HORIZON), anyio.CancelScope() as guard.scope:
                return await main(time)
        finally:
            guard.over = True

    run_on = _run_asyncio if backend == "asyncio" else _run_trio
    result = run_on(bounded, time, seed, guard)
    if guard.failure is not None:
        raise guard.failure
    return result


class _Guard:
    """Neither loop survives an exception out of the idle hook, so it is kept, and the program is cancelled."""

    def __init__(self, idle: Idle) -> None:
        self._idle = idle
        self.scope: anyio.CancelScope | None = None
        self.over = False
        self.failure: BaseException | None = None

    def __call__(self, time: VirtualTime, deadline: float) -> None:
        if self.over:
            return  # the backend tidies up, and may wait for a descriptor of its own
        try:
            (self._idle if self.failure is None else skip_to_deadline)(time, deadline)
        except BaseException as error:
            if self.failure is not None or self.scope is None:
                raise  # cancelled, it waits for ever under a shield: crash rather than hang
            self.failure = error
            self.scope.cancel()


def call_soon(callback: Callable[[], None]) -> None:
    """Let the event loop call this in its turn, as it would if a descriptor had become ready."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        async def call() -> None:
            callback()

        trio.lowlevel.spawn_system_task(call)
    else:
        loop.call_soon(callback)


# --- asyncio --------------------------------------------------------------------------------------------------------


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: when nothing is ready, the world moves."""

    loop: _SimulatedLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self.loop.be_idle()
        return []


class _SimulatedLoop(asyncio.SelectorEventLoop):
    """A selector loop in virtual time that orders what is ready by chance, and by nothing else.

    anyio keeps tasks in sets, which are ordered by address: without a stable order before the shuffle the same seed gives
    different runs. The shuffle is fair: every ready callback runs in each round.
    """

    def __init__(self, time: VirtualTime, seed: int, idle: Idle) -> None:
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self
        self._virtual = time
        self._idle = idle
        self._random = random.Random(seed)
        self._numbers: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()
        self._created = 0
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        return self._virtual.now

    def be_idle(self) -> None:
        # `_run_once` has just removed the cancelled timers from the top.
        deadline = self._scheduled[0].when() if self._scheduled else inf
        self._idle(self._virtual, deadline)

    def _new_task(self, loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        self._created += 1
        self._numbers[task] = self._created
        return task

    def _number(self, handle: asyncio.Handle) -> int:
        owner = getattr(handle._callback, "__self__", None)
        return self._numbers.get(owner, 0) if isinstance(owner, asyncio.Task) else 0

    def _run_once(self) -> None:
        if len(self._ready) > 1:
            ready = sorted(self._ready, key=self._number)
            self._random.shuffle(ready)
            self._ready.clear()
            self._ready.extend(ready)
        super()._run_once()


def _run_asyncio(main: Callable[[], Awaitable[Any]], time: VirtualTime, seed: int, idle: Idle) -> Any:
    for name in ("_run_once",):
        assert hasattr(asyncio.SelectorEventLoop, name), f"asyncio changed: its loop has no {name} any more"
    options = {"loop_factory": lambda: _SimulatedLoop(time, seed, idle)}
    return anyio.run(main, backend="asyncio", backend_options=options)


# --- trio -----------------------------------------------------------------------------------------------------------


def _run_trio(main: Callable[[], Awaitable[Any]], time: VirtualTime, seed: int, idle: Idle) -> Any:
    import trio
    import trio._core._run as trio_run

    class Clock(trio.abc.Clock):
        """Unlike trio's own `MockClock` it is set to a deadline exactly, not by adding a rounded difference."""

        def start_clock(self) -> None:
            pass

        def current_time(self) -> float:
            if crash:
                raise crash[0]  # trio swallows an instrument's exceptions, but not a clock's
            return time.now

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return 0.0  # trio may never wait; when all tasks do, the instrument is asked

    class WhenIdle(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            now, time.now = time.now, 0.0
            statistics = trio.lowlevel.current_statistics()
            time.now = now
            if not statistics.tasks_runnable:
                try:
                    # Asked at the time 0, trio tells the deadline itself.
                    idle(time, statistics.seconds_to_next_deadline)
                except BaseException as error:
                    crash.append(error)

    crash: list[BaseException] = []
    switch = "_ALLOW_DETERMINISTIC_SCHEDULING"
    assert hasattr(trio_run, switch), "trio changed: find its switch for deterministic scheduling again"
    assert isinstance(trio_run._r, random.Random), "trio changed: find the generator of its scheduler again"
    before = getattr(trio_run, switch)
    setattr(trio_run, switch, True)
    trio_run._r.seed(seed)
    try:
        return anyio.run(
            main, backend="trio", backend_options={"clock": Clock(), "instruments": [WhenIdle()]}
        )
    finally:
        setattr(trio_run, switch, before)
