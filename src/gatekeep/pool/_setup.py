"""What a daemon process does to itself before it loads the application: its shown name, its folder, its limits.

User, groups, umask, environment and priority come from outside, with exec.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gatekeep.lifecycle._control import DaemonSettings
from gatekeep.pool._loader import LoadError
from gatekeep.settings._app import parse_app

KEEP_ENVIRONMENT = "SPT_NOENV"
"""The library's word for it; it looks when it is loaded."""


def show_as(name: str) -> None:
    """What tools such as `ps` show. Not done at exec: Python finds its environment by the first argument.

    The name is written over the arguments, and where it is longer than they are over what people read in
    `/proc/PID/environ`. (The library would always take both.)
    """
    if not name:
        return
    fits = len(os.fsencode(name)) < _size_of_arguments()
    if fits:
        os.environ[KEEP_ENVIRONMENT] = "1"
    try:
        from setproctitle import setproctitle

        setproctitle(name)
    finally:
        if fits:
            del os.environ[KEEP_ENVIRONMENT]


def _size_of_arguments() -> int:
    try:
        with open("/proc/self/cmdline", "rb") as file:
            return len(file.read())
    except OSError:
        return 0


def set_up(settings: DaemonSettings) -> None:
    """Go to the folder, take the limits.

    Raises:
        LoadError: the system refused; it names the setting.
    """
    try:
        if settings.home:
            _stay_with_gateway(settings)
            os.chdir(settings.home)
    except OSError as error:
        raise LoadError(f"home = {settings.home!r}: {error.strerror}") from error
    try:
        if limit := settings.virtual_memory_limit:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError) as error:
        raise LoadError(f"virtual-memory-limit = {settings.virtual_memory_limit}: {error}") from error


def _stay_with_gateway(settings: DaemonSettings) -> None:
    """Paths on the command line are meant from where it was typed."""
    for app in settings.apps:
        app.path = app.path and os.path.abspath(app.path)
    settings.import_scripts = [
        os.path.abspath(text) if parse_app(text).path else text for text in settings.import_scripts
    ]


@contextmanager
def stacks_of(size: int) -> Iterator[None]:
    """Threads that are started inside have stacks of that many bytes; 0 leaves it to the system, or the application."""
    if not size:
        yield
        return
    before = threading.stack_size(size)
    try:
        yield
    finally:
        threading.stack_size(before)
