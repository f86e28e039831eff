"""Loads a file as a module, whatever it is called: scripts are named by their paths."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Uncached(importlib.machinery.SourceFileLoader):
    """Compiles a script each time: the cache tells versions apart by the second and the size, and a script that is to be loaded
    again when it changes may change twice within one."""

    def path_stats(self, path: str) -> Any:
        """There is nothing that a cached version could be compared with."""
        raise OSError


def load_source(name: str, path: str) -> ModuleType:
    """Run the file as the module of that name. What it raises comes out, and then there is no such module."""
    # Named by us and not by its ending, so that any file (`site.wsgi`) is taken for Python.
    loader = _Uncached(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        if sys.modules.get(name) is module:  # and not another version, which was loaded beside it
            del sys.modules[name]
        raise
    return module
