"""Where a script is that decides about requests. Pure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._app import parse_app
from gatekeep.settings._spec import Spec

DISPATCH = ("process_group", "application_group", "callable_object")
ACCESS = ("allow_access",)
AUTHENTICATION = ("check_password", "get_realm_hash")
GROUPS = ("groups_for_user",)
"""What scripts may define, by role; the names are mod_wsgi's."""


@attrs.frozen
class ScriptTarget:
    """Where a script is: a file, a module, or an object of the program around us. One of the three is set.

    Attributes:
        path: a file's path.
        module: a dotted module name; the module's file is loaded a second time, under a name of its own.
        value: what has the functions as attributes; it is never loaded again.
    """

    path: str = ""
    module: str = ""
    value: Any = attrs.field(default=None, eq=id)

    def __str__(self) -> str:
        if self.value is None:
            return self.path or self.module
        shown = self.value
        if isinstance(shown, SimpleNamespace):
            shown = next(iter(vars(shown).values()))
        return str(getattr(shown, "__qualname__", None) or getattr(shown, "__name__", type(shown).__name__))


def parse_script(name: str, functions: tuple[str, ...], value: object) -> ScriptTarget | None:
    """A script as it is given: a path, a module's name, an object with those functions, or one function itself.

    Args:
        name: the setting's.

    Raises:
        SettingsError: it is none of these.
    """
    if value is None or value == "":
        return None
    if isinstance(value, ScriptTarget):
        return value
    if isinstance(value, str):
        return _parse_text(name, value)
    if any(callable(getattr(value, function, None)) for function in functions):
        return ScriptTarget(value=value)
    if callable(value):
        # Of the two kinds of authentication the one that is asked for; of the functions of dispatch the first.
        meant = functions if functions is AUTHENTICATION else functions[:1]
        return ScriptTarget(value=SimpleNamespace(**dict.fromkeys(meant, value)))
    raise SettingsError(
        f"{name} = {value!r}: allowed is a script's path, a module's name, a function, or an object with {' or '.join(functions)}"
    )


def _parse_text(name: str, text: str) -> ScriptTarget:
    try:
        target = parse_app(text)
    except SettingsError:
        target = None
    if target is None or target.attribute or "\0" in text:
        raise SettingsError(
            f"{name} = {text!r}: allowed is a script's path (site/auth.py) or a module's name; the functions' names are fixed"
        )
    return ScriptTarget(path=target.path, module=target.module)


def script_setting(name: str, functions: tuple[str, ...], help: str, **spec: Any) -> Any:
    """Declare a setting that is a script."""

    def convert(value: object) -> ScriptTarget | None:
        return parse_script(name, functions, value)

    return attrs.field(default=None, converter=convert, metadata={"spec": Spec(help, **spec)})
