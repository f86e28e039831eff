"""The effective schedule as text for people, in plain ASCII at 100 columns, and as JSON. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import msgspec

from gatekeep._console_view import printable
from gatekeep._explain._model import Explanation, Finding, GroupPlan, Limit, StagePlan, Timeline, Value
from gatekeep._explain._words import seconds, shown

WIDTH = 100
NAME, BOUND, AT = 9, 32, 11
"""Columns: a stage's name, a setting with its value, a moment."""


def render(explanation: Explanation) -> str:
    """All of it, the warnings last, with a line's end."""
    return "\n".join(printable(line.rstrip()) for line in _lines(explanation)) + "\n"


def render_warnings(explanation: Explanation) -> str:
    """The warnings alone; empty where there are none."""
    if not explanation.warnings:
        return ""
    return "\n".join(_warnings(explanation.warnings, several=len(explanation.groups) > 1)) + "\n"


def to_json(explanation: Explanation) -> str:
    """The same for machines, with a line's end."""
    return msgspec.json.format(msgspec.json.encode(explanation), indent=2).decode() + "\n"


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"clients connect to {', '.join(explanation.addresses)}"
    if explanation.health_addresses:
        yield f"health is told at {', '.join(explanation.health_addresses)}, whatever becomes of users"
    yield ""
    yield "Every request: setting, effective value, what the client gets"
    yield from _stages(explanation.stages)
    for group in explanation.groups:
        yield ""
        yield from _group(group)
    yield ""
    yield from _timeline(explanation.stop)
    yield ""
    yield from _warnings(explanation.warnings, several=len(explanation.groups) > 1)


# --- a group


def _group(group: GroupPlan) -> Iterator[str]:
    yield from _wrapped(f"group {group.name}: {_size(group)}, serves {', '.join(group.applications)}")
    yield from _wrapped(f"  mounted at {', '.join(group.mounts)}", indent="    ")
    for note in group.notes:
        yield from _wrapped(f"  {note}", indent="    ")
    yield ""
    yield f"Its requests in group {group.name}"
    yield from _stages(group.stages)
    for timeline in group.timelines:
        yield ""
        yield from _timeline(timeline)
    if group.lifetime:
        yield ""
        yield f"The life of a process of group {group.name}"
        yield from _limits("", group.lifetime)


def _size(group: GroupPlan) -> str:
    threads = "1 thread" if group.threads == 1 else f"{group.threads} threads"
    if not group.processes:
        return f"embedded, {threads}"
    processes = "1 process" if group.processes == 1 else f"{group.processes} processes"
    return f"{processes} of {threads}, T_fire {shown(Value('T_fire', group.t_fire, 'seconds'))}"


# --- what bounds a stage


def _stages(stages: Sequence[StagePlan]) -> Iterator[str]:
    for stage in stages:
        yield from _limits(stage.stage, stage.limits)


def _limits(name: str, limits: Sequence[Limit]) -> Iterator[str]:
    """Those that are in effect; the others in one line."""
    for limit in limits:
        if limit.bound.value is not None:
            yield from _limit(name, limit)
            name = ""
    if off := [limit.bound.setting for limit in limits if limit.bound.value is None]:
        yield from _wrapped(f"  {name.ljust(NAME)}off: {', '.join(off)}", indent=" " * (NAME + 7))


def _limit(name: str, limit: Limit) -> Iterator[str]:
    bound = f"{limit.bound.setting} {shown(limit.bound, limit.at_most)}"
    status = str(limit.status) if limit.status else ""
    head = f"  {name.ljust(NAME)}{bound.ljust(BOUND)}{status.rjust(4)}  "
    sentence = "; ".join(part for part in (limit.since, limit.then) if part)
    yield from _wrapped(head + sentence, indent=" " * len(head))
    if limit.bound.derived:
        yield from _wrapped(" " * len(head) + f"= {limit.bound.derived}", indent=" " * (len(head) + 2))


# --- timelines


def _timeline(timeline: Timeline) -> Iterator[str]:
    yield from _wrapped(f"{timeline.title}: seconds from {timeline.since}", indent="    ")
    last = len(timeline.moments) - 1
    for number, moment in enumerate(timeline.moments):
        what = ": ".join(part for part in (moment.setting, moment.what) if part)
        status = f"{moment.status}  " if moment.status else "     "
        rest = " " if number == last else "|"
        yield from _wrapped(
            f"{seconds(moment.at).rjust(AT)} o  {status}{what}", indent=" " * (AT + 1) + rest + " " * 7
        )
    if timeline.note:
        yield from _wrapped(" " * (AT + 4) + timeline.note, indent=" " * (AT + 4))


# --- warnings


def _warnings(warnings: Sequence[Finding], *, several: bool) -> Iterator[str]:
    if not warnings:
        yield "No warnings: nothing hides or defeats another."
        return
    yield "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    for warning in warnings:
        settings = ", ".join(f"{value.setting} {shown(value)}" for value in warning.settings)
        group = f"{warning.group}: " if several and warning.group else ""
        yield from _wrapped(f"! {group}{settings}: {warning.why}. Better: {warning.advice}.", indent="    ")


def _wrapped(line: str, indent: str = "  ") -> Iterator[str]:
    """A line, broken at the width; what was given in front of it stays as it is."""
    lead = line[: len(line) - len(line.lstrip(" "))]
    words = textwrap.wrap(
        line.lstrip(" "),
        WIDTH,
        initial_indent=lead,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
    yield from words or [""]
