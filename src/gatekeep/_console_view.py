"""What processes and their threads do, as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gatekeep._processes import ProcessReport, ThreadReport

WAITING_IN = ('/gatekeep/pool/_threads.py"', '/gatekeep/pool/_listener.py"')
"""Where the innermost frame of a worker is that only waits for a connection."""

OUR_THREADS = frozenset({"MainThread", "gatekeep-guard", "gatekeep-monitor"})
"""Threads whose stacks tell nothing while they are where they always are."""

OUR_PLACE = "/gatekeep/pool/"


def render(processes: Sequence[ProcessReport]) -> str:
    """All of it, with a line's end. What cannot be printed is escaped: paths come from clients, and a terminal obeys some."""
    if not processes:
        return "no process runs at this moment\n"
    return "\n\n".join("\n".join(map(printable, _process(process))) for process in processes) + "\n"


def _process(process: ProcessReport) -> Iterator[str]:
    yield (
        f"process {process.pid}: group {process.group}, seat {process.seat}, {process.state}, "
        f"up {duration(process.uptime)}"
    )
    if process.note:
        yield f"  {process.note}"
    busy = [thread for thread in process.threads if not is_idle(thread) and not is_ours(thread)]
    # Whoever looks wants to know who has been at it for longest.
    for thread in sorted(busy, key=lambda thread: (not thread.request_id, -thread.age)):
        yield from _thread(thread)
    if idle := sum(map(is_idle, process.threads)):
        yield f"  {idle} worker thread{' waits' if idle == 1 else 's wait'} for a connection"
    if ours := [thread.name for thread in process.threads if is_ours(thread)]:
        yield f"  of gatekeep's own, where they always are: {', '.join(ours)}"
    if process.dump:
        yield "  all threads, the innermost frame first:"
        yield from _indented(process.dump)


def _thread(thread: ThreadReport) -> Iterator[str]:
    yield f"  thread {thread.name or '(without a name)'}{_request(thread)}"
    yield from _indented(thread.stack)


def _request(thread: ThreadReport) -> str:
    if not thread.request_id:
        return ""
    what = f"{thread.method} {thread.path}".strip() or "(what it asked for is not known)"
    return f": request {thread.request_id}, {what}, for {duration(thread.age)}"


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"      {line}".rstrip()


def is_idle(thread: ThreadReport) -> bool:
    """Whether it is a worker that only waits for a connection. One that has any, or does anything else, is worth a look."""
    if thread.number < 0 or thread.request_id:
        return False
    return any(place in _innermost(thread) for place in WAITING_IN)


def is_ours(thread: ThreadReport) -> bool:
    """Whether it is a thread that each process has besides its workers, and none of the application's code runs in it."""
    return thread.name in OUR_THREADS and OUR_PLACE in _innermost(thread)


def _innermost(thread: ThreadReport) -> str:
    return thread.stack.rpartition("\n")[2]


def duration(seconds: float) -> str:
    """A time span: "1.2 s", "3 min 4 s", "5 h 6 min", "7 d 8 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {smaller}"
    raise AssertionError(seconds)


def printable(line: str) -> str:
    """A line with everything escaped that a terminal might obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
