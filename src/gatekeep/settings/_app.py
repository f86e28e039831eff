"""Where an application is. Pure."""

from __future__ import annotations

import re

import attrs

from gatekeep._errors import SettingsError


@attrs.frozen
class AppTarget:
    """Where the application is. Make it with `parse_app`.

    Attributes:
        module: a dotted module name, or empty where `path` is given.
        path: a script's path.
        attribute: a dotted name in it; empty for `application`, then `app`.
        factory: whether that is to be called, without arguments, for the application.
    """

    module: str = ""
    path: str = ""
    attribute: str = ""
    factory: bool = False

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


def _app_text(app: object) -> str:
    """An application as text that another process can find; callables that it could not find are refused."""
    if isinstance(app, str):
        return app
    module, name = getattr(app, "__module__", None), getattr(app, "__qualname__", None)
    if not module or not name:
        raise SettingsError(
            f"app = {app!r}: daemon processes must find it by name: give it as 'module:callable'"
        )
    if module == "__main__" or "<" in name:
        raise SettingsError(
            f"app = {app!r}: daemon processes cannot reach {'the main program' if module == '__main__' else 'a local function'}: "
            "put it at the top level of a module of its own and give it as 'module:callable'"
        )
    return f"{module}:{name}"


def target_of(value: object) -> AppTarget:
    return value if isinstance(value, AppTarget) else parse_app(_app_text(value))
