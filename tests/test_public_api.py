"""The public interface, as it was agreed. What is changed here, people notice.

After a change that is meant: `python tests/test_public_api.py > tests/public_api.txt`, and a line in CHANGELOG.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import gatekeep
import gatekeep.testing

MADE_BY_US = (gatekeep.Served, gatekeep.testing.Server, gatekeep.testing.StartServer)
"""What they are made with is nobody's business."""

AGREED = Path(__file__).with_name("public_api.txt")


def lines_of(module: ModuleType) -> Iterator[str]:
    """A line for each public name and all that it has: the arguments of a class with many have one each."""
    for name in sorted(module.__all__):
        yield from _describe(f"{module.__name__}.{name}", getattr(module, name))


def _describe(name: str, found: Any) -> Iterator[str]:
    if not inspect.isclass(found):
        yield f"{name}{_signature(found)}"
        return
    bases = [base.__name__ for base in found.__mro__[1:-1] if not base.__name__.startswith("_")]
    yield f"{name}: class" + (f" of {', '.join(bases)}" if bases else "")
    if issubclass(found, Enum):
        yield from (f"{name}.{member.name} = {member.value!r}" for member in found)
        return
    arguments = {} if found in MADE_BY_US else _arguments(found)
    yield from (f"{name}({text})" for text in arguments.values())
    for attribute in sorted(dir(found)):
        is_ours = attribute not in arguments and not hasattr(BaseException, attribute)
        if attribute == "__call__" or (is_ours and not attribute.startswith("_")):
            yield from _member(f"{name}.{attribute}", inspect.getattr_static(found, attribute), found)


def _arguments(found: type) -> dict[str, str]:
    """What makes one, by name; most are attributes, too."""
    if not inspect.isfunction(found.__init__):
        return {}
    return {
        name: ("*, " if parameter.kind is parameter.KEYWORD_ONLY else "")
        + name
        + ("" if parameter.default is parameter.empty else " = …")
        for name, parameter in inspect.signature(found).parameters.items()
    }


def _member(name: str, found: Any, owner: type) -> Iterator[str]:
    if isinstance(found, property):
        yield f"{name}: property"
    elif isinstance(found, (staticmethod, classmethod)):
        yield f"{name}{_signature(getattr(owner, found.__name__))}"
    elif callable(found):
        yield f"{name}{_signature(found)}"
    elif isinstance(found, str):
        yield f"{name} = {found!r}"
    else:
        yield f"{name}: attribute"


def _signature(function: Any) -> str:
    """Names, kinds and defaults; annotations differ in how Pythons print them, and mypy sees to them."""
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def the_interface() -> list[str]:
    return [*lines_of(gatekeep), *lines_of(gatekeep.testing)]


def test_the_interface_is_the_one_that_was_agreed() -> None:
    assert the_interface() == AGREED.read_text().splitlines(), __doc__


def test_all_of_it_is_described() -> None:
    for module in (gatekeep, gatekeep.testing):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name


if __name__ == "__main__":
    print("\n".join(the_interface()))
