"""Where an application is. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

from gatekeep._errors import SettingsError


@attrs.frozen
class AppTarget:
    """Where the application is. Make it with `parse_app`, or `target_of` a callable.

    Attributes:
        module: a dotted module name, or empty where `path` is given.
        path: a script's path.
        attribute: a dotted name in it; empty for `application`, then `app`.
        factory: whether that is to be called, without arguments, for the application.
        callable: the application itself, where it was given as such; what the others say is then its name, which need not lead
            to it.
    """

    module: str = ""
    path: str = ""
    attribute: str = ""
    factory: bool = False
    callable: Callable[..., Any] | None = attrs.field(default=None, eq=False, repr=False)

    def __str__(self) -> str:
        place = self.path or self.module
        call = "()" if self.factory else ""
        return f"{place}:{self.attribute}{call}" if self.attribute else place


_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_APP = re.compile(rf"(?P<place>[^:]+?)(?::(?P<attribute>{_DOTTED})(?P<call>\(\))?)?")


def parse_app(text: str, *, factory: bool = False) -> AppTarget:
    """`module:callable`, `module`, `module:factory()` or a script's path (`site/wsgi.py`, `site/wsgi.py:callable`).

    A path has a slash in it or ends in `.py`: `mysite.wsgi` is a module, `./mysite.wsgi` a file.

    Raises:
        SettingsError: it is none of these.
    """
    found = _APP.fullmatch(text.strip())
    if found and not any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes that are no UTF-8
        place, attribute = found["place"], found["attribute"] or ""
        called = factory or bool(found["call"])
        if "/" in place or place.endswith(".py"):
            return AppTarget(path=place, attribute=attribute, factory=called)
        if re.fullmatch(_DOTTED, place):
            return AppTarget(module=place, attribute=attribute, factory=called)
    raise SettingsError(
        f"app = {text!r}: allowed is module:callable, module, module:factory() or a script's path (site/wsgi.py)"
    )


def target_of(value: object) -> AppTarget:
    """The target that a text, a target or a callable stands for.

    Raises:
        SettingsError: it is none of these.
    """
    if isinstance(value, AppTarget):
        return value
    if isinstance(value, str):
        return parse_app(value)
    if not callable(value):
        raise SettingsError(f"app = {value!r}: allowed is module:callable, a script's path or a callable")
    if not why_unreachable(value):
        return attrs.evolve(parse_app(":".join(_name(value))), callable=value)
    # Two that have one name are two applications.
    module, name = _name(value)
    kind = type(value)
    place = f"{name or kind.__qualname__}@{id(value):x}"
    return AppTarget(module=module or kind.__module__, attribute=place, callable=value)


def _name(app: object) -> tuple[str, str]:
    return str(getattr(app, "__module__", None) or ""), str(getattr(app, "__qualname__", None) or "")


def why_unreachable(app: object) -> str:
    """Why another process cannot find a callable by its name, and what to do; empty where it can."""
    module, name = _name(app)
    if not module or not name:
        return "daemon processes must find it by name: give it as 'module:callable'"
    if module == "__main__" or "<" in name:
        place = "the main program" if module == "__main__" else "a local function"
        return (
            f"daemon processes cannot reach {place}: put it at the top level of a module of its own and give it as "
            "'module:callable'"
        )
    try:
        parse_app(f"{module}:{name}")
    except SettingsError:
        return "daemon processes cannot find it by that name: give it as 'module:callable'"
    return ""


def check_reachable(target: AppTarget) -> None:
    """Raise `SettingsError` if daemon processes could not find the application."""
    app = target.callable
    reason = "" if app is None else why_unreachable(app)
    if reason:
        raise SettingsError(f"app = {app!r}: {reason}, or run it in this process with processes = 0")
