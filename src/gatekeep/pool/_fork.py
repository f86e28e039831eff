"""Children that the application forks: they have our threads' stack below them, and must not come back into it.

A view that forks, works in the child and calls `sys.exit()` there is a classic. The child holds none of our connections (they are
closed in it at once), so when its request's code ends, it ends. A signal to it is its own, too: what ends a child
(`multiprocessing.Pool` does it to its workers) must not reach us through a handler that both have.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import FrameType

_is_child = False


def became_child() -> None:
    """Called in the child, right after the fork."""
    global _is_child
    _is_child = True


def take_signals(numbers: Iterable[int], tell: Callable[[int], None]) -> None:
    """Have `tell` called with the number when a signal comes to this process; a child has the handlers that were there before.

    Called on the main thread.
    """
    me = os.getpid()
    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == me:
            tell(number)
        else:  # forked by a library in C, so that Python knows nothing of it
            give_back()
            signal.raise_signal(number)

    def give_back() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    for number in numbers:
        before[number] = signal.getsignal(number)
        signal.signal(number, handle)
    _hold_signals_while_forking(frozenset(before), give_back)


def _hold_signals_while_forking(numbers: frozenset[int], give_back: Callable[[], None]) -> None:
    """A new child forgets what its parent's handlers have noted in it: one that is ended at once would live on."""
    mine = threading.local()

    def hold() -> None:
        mine.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def let_through() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mine.mask)

    def start_child() -> None:
        give_back()
        let_through()

    os.register_at_fork(before=hold, after_in_parent=let_through, after_in_child=start_child)


def end_if_child(error: BaseException | None = None) -> None:
    """In such a child, end the process: with the status of a SystemExit, with 1 and a traceback after another error."""
    if not _is_child:
        return
    status = _status(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
        return 1
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1
