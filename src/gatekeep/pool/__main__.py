"""The program of a daemon process: `python -P …/pool/__main__.py CONTROL LOG LISTENER BOARD DUMP`, all of them descriptors."""

from __future__ import annotations

import sys
from pathlib import Path


def main(descriptors: list[str]) -> None:
    """Run a daemon process to its end. Never returns."""
    # Started by path, so that nothing of the present folder can shadow the standard library; last in the path, so that we
    # cannot either. Where gatekeep is installed this changes nothing.
    sys.path.append(str(Path(__file__).parents[2]))
    from gatekeep.pool._daemon import run

    run(*map(int, descriptors))


# `multiprocessing` imports a program's main module again in the children that it spawns.
if __name__ == "__main__":
    main(sys.argv[1:])
