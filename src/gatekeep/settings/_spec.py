"""How a setting is declared: once, with its type, default and its precedent, limits and help. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._units import parse_duration, parse_size, parse_whole


@attrs.frozen
class Alias:
    """Flags of other servers by which a setting is understood, where their value or their meaning is not quite its own.

    Attributes:
        flags: as they are typed.
        unit: what a plain number is there, such as `ms` or `MiB`.
        separator: what stands between several values that are typed as one.
        value: what they stand for, where nothing is typed after them.
        note: how the meaning differs; it is said once, where one of them is typed.
    """

    flags: tuple[str, ...]
    unit: str = ""
    separator: str = ""
    value: str = ""
    note: str = ""

    def read(self, text: str) -> str | list[str]:
        """What was typed, as the setting takes it."""
        if self.separator:
            return [part.strip() for part in text.split(self.separator) if part.strip()]
        return f"{text}{self.unit}" if self.unit and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else text


@attrs.frozen
class Spec:
    """What is declared of a setting beside its type and default.

    Attributes:
        help: one or two sentences for people.
        unit: "seconds", "bytes", or empty for a plain number.
        precedent: where the default comes from.
        aliases: further flags that mean the same, as people know them from other servers.
        foreign: such flags that do not quite.
        least, most: the allowed range of a number, both inclusive.
        choices: the allowed words.
        pattern, described: the allowed form of a text, as a regular expression and in words.
        derived: what the value is made from where none is given.
        item: what one of several values is, for a setting that takes any number of them.
        bare: the value that the flag stands for where it is typed without one.
    """

    help: str
    unit: str = ""
    precedent: str = ""
    aliases: tuple[str, ...] = ()
    foreign: tuple[Alias, ...] = ()
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    described: str = ""
    derived: str = ""
    item: str = ""
    bare: str = ""

    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.described:
            return self.described
        if self.choices:
            return "one of " + ", ".join(self.choices)
        unit = f" {self.unit}" if self.unit else ""
        if self.most is None:
            return f"{self.least:g}{unit} or more"
        return f"{self.least:g} to {self.most}{unit}"

    def example(self) -> str:
        """How a value may be written, where that is not plain."""
        return {"seconds": "90 or 1m30s", "bytes": "1024 or 8MiB"}.get(self.unit, "")


LONGEST = 10**9
"""Seconds, some thirty years: clocks of the system have ends. Who means never says 0, or `math.inf`."""

LARGEST = 1 << 60
"""What any other number may be: messages between processes hold 64 bits."""


def _check(name: str, value: object, spec: Spec) -> None:
    if spec.pattern and not re.fullmatch(spec.pattern, cast("str", value)):
        raise SettingsError(f"{dashed(name)} = {value!r}: allowed is {spec.allowed()}")
    if spec.choices and value not in spec.choices:
        raise SettingsError(f"{dashed(name)} = {value!r}: allowed is {spec.allowed()}")
    if spec.least is None or isinstance(value, str):
        return
    number = cast("float", value)
    # The negated form refuses NaN too.
    if not number >= spec.least or (spec.most is not None and number > spec.most):
        raise SettingsError(f"{dashed(name)} = {value}: allowed is {spec.allowed()}")
    longest = LONGEST if spec.unit == "seconds" else LARGEST
    if longest < number < math.inf:
        raise SettingsError(
            f"{dashed(name)} = {value}: allowed is {spec.least:g} to {longest} {spec.unit}".rstrip()
        )


def plain_type(attribute: attrs.Attribute[Any]) -> type | None:
    """A setting's type, without the None of those that are derived where they are not given."""
    kind: Any = attribute.type
    if kind == (float | None):
        return float
    return int if kind == (int | None) else kind


WORDS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text (in quotes)",
}
"""Types of settings, as people write their values in files."""


def validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    kind = plain_type(attribute)
    if value is None and attribute.default is None:
        return
    if kind is float and type(value) is int:
        pass
    elif isinstance(kind, type) and (not isinstance(value, kind) or (kind is int and type(value) is bool)):
        raise SettingsError(
            f"{dashed(attribute.name)} = {value!r}: {_needed(kind, attribute.metadata['spec'])}"
        )
    _check(attribute.name, value, attribute.metadata["spec"])


def _needed(kind: type, spec: Spec) -> str:
    """What is needed in place of a value of another type, in the words of files rather than of Python."""
    is_bounded = spec.described or spec.choices or spec.least is not None
    allowed = f": {spec.allowed()}" if is_bounded else ""
    if spec.example():
        allowed += f", such as {spec.example()}"
    return f"{WORDS.get(kind, f'a value of type {kind.__name__}')} is needed{allowed}"


def _read(value: object, field: attrs.Attribute[Any]) -> object:
    """A text where a number is needed is one with a unit."""
    if not isinstance(value, str) or plain_type(field) not in (int, float):
        return value
    return number_of(field, value)


_READ: Any = attrs.Converter(_read, takes_field=True)


def setting(default: Any, help: str, *, check: Callable[[Any], None] | None = None, **spec: Any) -> Any:
    """Declare a setting.

    Args:
        check: called with each value that is otherwise allowed; raises `SettingsError`.
    """
    declared = Spec(help, **spec)

    def validate_all(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        validate(instance, attribute, value)
        if check is not None:
            check(value)

    converter = _READ if declared.unit else None
    return attrs.field(
        default=default, converter=converter, validator=validate_all, metadata={"spec": declared}
    )


def number_of(attribute: attrs.Attribute[Any], text: str) -> int | float:
    """A number as people write it for this setting: `90`, and with its unit `1m30s` or `8MiB`.

    Raises:
        SettingsError: it is none.
    """
    spec: Spec = attribute.metadata["spec"]
    wants_float = plain_type(attribute) is float
    try:
        if spec.unit == "seconds":
            return parse_duration(text) if wants_float else int(parse_duration(text))
        if spec.unit == "bytes":
            return parse_size(text)
        return float(text) if wants_float else parse_whole(text)
    except (ValueError, OverflowError):
        example = f", such as {spec.example()}" if spec.example() else ""
        raise SettingsError(
            f"{dashed(attribute.name)} = {text!r}: allowed is {spec.allowed()}{example}"
        ) from None


_SWITCH = {
    "on": True,
    "true": True,
    "yes": True,
    "1": True,
    "off": False,
    "false": False,
    "no": False,
    "0": False,
}


_COMMA = re.compile(r",(?!proxy-protocol=)")
"""What stands between several values, and not within an address of bind."""


def value_of(attribute: attrs.Attribute[Any], text: str) -> Any:
    """A setting's value from text, such as an environment variable's; several are separated by commas.

    Raises:
        SettingsError: it is none.
    """
    kind = plain_type(attribute)
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise SettingsError(f"{dashed(attribute.name)} = {text!r}: allowed is on or off")
        return _SWITCH[text.lower()]
    if kind in (int, float):
        return number_of(attribute, text)
    if attribute.metadata["spec"].item:
        return tuple(item.strip() for item in _COMMA.split(text) if item.strip())
    return text


def dashed(name: str) -> str:
    """A setting's name as people type it."""
    return name.replace("_", "-")


def several(
    name: str, help: str, check: Callable[[str], str] = str, default: tuple[str, ...] = (), **spec: Any
) -> Any:
    """Declare a setting that takes any number of texts; `check` returns one of them as it is kept, or refuses it."""

    def convert(value: object) -> tuple[str, ...]:
        return tuple(check(text_of(name, item)) for item in items_of(value))

    return attrs.field(default=default, converter=convert, metadata={"spec": Spec(help, **spec)})


def listed(
    name: str, help: str, check: Callable[[str, str], str], default: tuple[str, ...], **spec: Any
) -> Any:
    """The same for texts without commas, any number of which may be given as one text with commas between them; each once."""

    def convert(value: object) -> tuple[str, ...]:
        texts = [text.strip() for item in items_of(value) for text in text_of(name, item).split(",")]
        return tuple(dict.fromkeys(check(name, text) for text in texts if text))

    return attrs.field(default=default, converter=convert, metadata={"spec": Spec(help, **spec)})


def items_of(value: object) -> list[object]:
    """What was given, as several or as one."""
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)


def text_of(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{name} = {value!r}: text is needed")
    return value


def never_if_zero(seconds: float) -> float:
    """A timer's setting as the code has it: 0 switches it off, which inside is `math.inf`."""
    return seconds or math.inf
