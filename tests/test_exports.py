"""The public names, and what is loaded by whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gatekeep

NAMES = """
    CannotStart ClientDisconnected Event GatekeepError Gateway GroupSettings HttpSettings MountSettings Outcome ProcessStopping
    ReloadSettings
    RequestFinished RequestInterrupted RequestRaised RequestStarted RequestTimeout Served Settings SettingsError Stage Statistics
    request_data subscribe_events
"""

SOURCE = str(Path(gatekeep.__file__).parents[1])


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running the code."""
    program = f"import sys; sys.path.insert(0, {SOURCE!r})\n{code}\nprint('\\n'.join(sys.modules))"
    # Isolated and without `site`, which loads what the environment's `.pth` files name.
    path = [folder for folder in sys.path if folder.endswith("site-packages")]
    program = f"import sys; sys.path += {path!r}\n{program}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_these_are_the_public_names() -> None:
    assert gatekeep.__all__ == NAMES.split()
    assert dir(gatekeep) == sorted([*NAMES.split(), "__version__"])


@pytest.mark.parametrize("name", NAMES.split())
def test_every_public_name_is_there_and_is_called_so(name: str) -> None:
    found = getattr(gatekeep, name)
    assert found.__name__ == name
    assert found.__doc__
    assert found.__module__.startswith(("gatekeep._", "gatekeep.settings._"))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gatekeep' has no attribute 'gateway'"):
        gatekeep.gateway  # noqa: B018
    assert not hasattr(gatekeep, "anything")


def test_everything_can_be_imported_with_a_star() -> None:
    names: dict[str, object] = {}
    exec("from gatekeep import *", names)
    assert set(names) - {"__builtins__"} == set(NAMES.split())


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_after("import gatekeep")
    assert {name for name in loaded if name.startswith("gatekeep")} == {"gatekeep"}
    assert not {"anyio", "asyncio", "attr", "msgspec", "socket"} & loaded


def test_settings_load_no_event_loop() -> None:
    loaded = loaded_after("from gatekeep import Settings, Stage, Outcome, CannotStart, Statistics")
    assert not {"anyio", "asyncio", "trio", "socket", "click", "h11"} & loaded


HEAVY = {"anyio", "asyncio", "click", "h11", "structlog", "trio", "uvloop", "httpx", "logging", "cattrs"}


@pytest.mark.parametrize(
    "module", ["_daemon", "__main__", "_threads", "_loader", "_wsgi", "_respond", "_log"]
)
def test_a_daemon_process_loads_neither_an_event_loop_nor_the_front(module: str) -> None:
    loaded = loaded_after(f"import gatekeep.pool.{module}")
    assert not HEAVY & loaded
    front = (
        "gatekeep.transport._front",
        "gatekeep.transport._http",
        "gatekeep.transport._codec",
        "gatekeep._gateway",
    )
    assert not [name for name in loaded if name.startswith(front)]
    assert "gatekeep.lifecycle._supervisor" not in loaded


def test_hooks_load_neither_an_event_loop_nor_the_front() -> None:
    loaded = loaded_after(
        "from gatekeep import request_data, subscribe_events, ProcessStopping, RequestTimeout"
    )
    assert not (HEAVY | {"msgspec", "socket"}) & loaded


def test_a_gateway_loads_trio_and_the_second_codec_only_where_they_are_used() -> None:
    loaded = loaded_after("from gatekeep import Gateway")
    assert not {"trio", "uvloop", "h11", "click", "structlog"} & loaded


def test_the_package_is_typed() -> None:
    assert (Path(gatekeep.__file__).parent / "py.typed").exists()
