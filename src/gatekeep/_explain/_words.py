"""Values as people read them, and as the schedule keeps them. Pure."""

from __future__ import annotations

import math
from typing import Any

import attrs

from gatekeep._explain._model import Value
from gatekeep.settings._spec import dashed
from gatekeep.settings._units import show_duration, show_size

LARGEST = (1 << 63) - 1
"""Numbers beyond it are shown as it: not every reader of JSON knows larger ones."""


def finite(number: float) -> float | None:
    """As the schedule keeps it: None for ever."""
    return None if number == math.inf else number


def seconds(number: float) -> str:
    """A time in seconds, as a timeline has it: `0.25 s`, `156.6 s`; whole hours and days beyond an hour."""
    if number >= 3600:
        return show_duration(number)
    return f"{number:.3g} s" if number < 10 else f"{round(number, 1):g} s"


def shown(value: Value, at_most: int | float | None = None) -> str:
    """A value with its unit; `at_most` is the other end of a range."""
    if at_most is not None and at_most != value.value:
        return f"{_shown(value.value, value.unit)} to {_shown(at_most, value.unit)}"
    return _shown(value.value, value.unit)


def _shown(value: int | float | str | None, unit: str) -> str:
    if value is None:
        return "for ever" if unit == "seconds" else "no limit"
    if isinstance(value, str):
        return value
    if not value:
        return "0"
    if unit == "seconds":
        return seconds(value)
    return _size(int(value)) if unit == "bytes" else str(value)


def _size(size: int) -> str:
    """Not rounded, where that would hide what was set."""
    return f"{size} B" if size % 1024 and size < 1 << 20 else show_size(size)


def value_of(holder: Any, name: str, derived: str = "") -> Value:
    """A setting of this section of the settings as it is; what 0 stands for is the caller's affair."""
    unit: str = attrs.fields_dict(type(holder))[name].metadata["spec"].unit
    return Value(dashed(name), _kept(getattr(holder, name)), unit, derived)


def limit_of(holder: Any, name: str, derived: str = "") -> Value:
    """The same for a setting that 0 switches off."""
    plain = value_of(holder, name, derived)
    return Value(plain.setting, plain.value or None, plain.unit, derived)


def time_value(setting: str, number: float, derived: str = "") -> Value:
    """An effective time; `math.inf` for ever."""
    return Value(setting, finite(number), "seconds", derived)


def _kept(value: Any) -> int | float | str | None:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return finite(value)
    return min(value, LARGEST) if isinstance(value, int) else value if value is None else str(value)
