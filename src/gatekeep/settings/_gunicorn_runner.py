"""Runs a `gunicorn.conf.py`, and prints what it says as JSON.

A program of its own, without anything of gatekeep: what such a file does to its process (monkey-patching, threads, signals) shall
not happen to the gateway.

    python -P _gunicorn_runner.py FILE NAME,NAME,...
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
import traceback
from typing import Any


def _plain(value: Any) -> Any:
    """A value as JSON has it; what is no plain data is named."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    name = getattr(value, "__qualname__", "") or type(value).__qualname__
    module = getattr(value, "__module__", "")
    full = name if module in ("", "__config__", "builtins", None) else f"{module}.{name}"
    return {"!opaque": full, "callable": callable(value)}


def _place(error: BaseException, path: str) -> tuple[int, str]:
    """The line of the file that is to blame, and what is wrong with it."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno or 0, f"it is no Python: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    last = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    return (lines[-1] or 0) if lines else 0, last[0] if last else type(error).__name__


def _run(path: str, names: list[str]) -> dict[str, Any]:
    before = dict(os.environ)
    loader = importlib.machinery.SourceFileLoader("__config__", path)
    spec = importlib.util.spec_from_file_location("__config__", path, loader=loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module
    try:
        loader.exec_module(module)
    except BaseException as error:
        line, reason = _place(error, path)
        return {"line": line, "error": reason}
    found = vars(module)
    # In the order of the file, which is that of its names.
    said = {name: _plain(value) for name, value in found.items() if name in names}
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    return {"said": said, "environment": changed}


if __name__ == "__main__":
    # What the file prints is not ours to read.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A child that the file forks neither answers in our place, nor has somebody wait for the end of our answer.
    own = os.getpid()
    os.register_at_fork(after_in_child=lambda: os.close(answer.fileno()))
    sys.path.insert(0, os.getcwd())
    sys.dont_write_bytecode = True
    found = _run(sys.argv[1], sys.argv[2].split(","))
    if os.getpid() == own:
        json.dump(found, answer)
        answer.flush()
    os._exit(0)  # without waiting for threads that the file has started
