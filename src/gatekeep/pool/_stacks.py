"""Python's view of a thread: its stack, the exceptions that it handles, and how to send it one."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import attrs

from gatekeep.pool._log import sendable

MOST_FRAMES = 100
"""The innermost ones: what is stuck, and in an endless recursion still what recurs."""

LONGEST_NAME = 200
"""Characters of a file's or a function's name: code that was compiled from a string may have any."""


@attrs.frozen
class ThreadStack:
    """One thread.

    Attributes:
        ident: as in `threading.get_ident()`.
        tid: the kernel's number for it; 0 for threads that Python's `threading` does not know.
        name: its name; empty for those.
        stack: as `stack_of` has it.
    """

    ident: int
    tid: int
    name: str
    stack: str


def stack_of(ident: int) -> str:
    """The Python stack of a thread, a line for each frame, the innermost last. Empty for a thread that is not, or has none.

    Never raises. Reads no source files: they may be where the thread is stuck.

    Args:
        ident: as in `threading.get_ident()`.
    """
    return _text(sys._current_frames().get(ident))


def all_stacks() -> list[ThreadStack]:
    """All threads that run Python, the caller too. Never raises, and takes no lock."""
    # `threading.enumerate` takes one, which a thread that is stuck may hold.
    known: dict[int, Any] = dict(getattr(threading, "_active", {}))
    found = []
    for ident, frame in sys._current_frames().items():
        thread = known.get(ident)
        # Not its properties: an application's own class of threads may have others of these names.
        tid = getattr(thread, "_native_id", None) or 0
        found.append(ThreadStack(ident, tid, sendable(str(getattr(thread, "_name", ""))), _text(frame)))
    return found


def _text(frame: FrameType | None) -> str:
    lines: list[str] = []
    while frame is not None and len(lines) < MOST_FRAMES:
        lines.append(_line(frame))
        frame = frame.f_back
    if frame is not None:
        lines.append("… further out there are more")
    return "\n".join(reversed(lines))


def _line(frame: FrameType) -> str:
    code = frame.f_code
    file, function = code.co_filename[-LONGEST_NAME:], code.co_qualname[-LONGEST_NAME:]
    return sendable(f'File "{file}", line {frame.f_lineno or "?"}, in {function}')


def is_in_chain(ident: int, exception_type: type[BaseException]) -> bool:
    """Whether the thread handles such an exception, or one that came up while it did.

    True in `except` and `finally`, and in whatever they call: the thread is still cleaning up. False before the exception
    has come, once it was swallowed, and for a thread that is not.

    Args:
        ident: as in `threading.get_ident()`.
    """
    handled: Any = sys._current_exceptions().get(ident)
    if isinstance(handled, tuple):
        handled = handled[1]  # type, value and traceback until Python 3.11
    return any(isinstance(error, exception_type) for error in _chain(handled))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what it came from, and what these are made of. Each once: chains can have cycles."""
    waiting = [error]
    seen = set()
    while waiting:
        error = waiting.pop()
        if error is not None and id(error) not in seen:
            seen.add(id(error))
            yield error
            waiting += (error.__cause__, error.__context__)
            if isinstance(error, BaseExceptionGroup):
                waiting += error.exceptions


NOTHING = ctypes.py_object()
"""For `set_async_exc`: takes back what was sent and has not come yet."""

# A function object of our own: argument types that are set on `ctypes.pythonapi`'s would be everybody's.
set_async_exc = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def inject(ident: int, exception_type: type[BaseException] | None) -> bool:
    """Raise an exception in a thread, as soon as it runs Python. It replaces one that was sent before and has not come yet.

    (Whoever takes one back from its own thread must not call this: to enter a Python function is to let it come.)

    A thread that is blocked in a system call, or in C code, gets it when it returns from there; one that never does, never.

    Args:
        ident: as in `threading.get_ident()`.
        exception_type: is called there without arguments. None takes one back that has not come yet.

    Returns:
        Whether there is such a thread.
    """
    sent = NOTHING if exception_type is None else ctypes.py_object(exception_type)
    return bool(set_async_exc(ident, sent))
