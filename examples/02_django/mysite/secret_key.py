"""The site's secret key: from the environment, or made once and kept in a file beside the data."""

import os
import tempfile
from pathlib import Path

from django.core.management.utils import get_random_secret_key


def secret_key(folder: Path) -> str:
    """The key that every process of this site shares."""
    if key := os.environ.get("MYSITE_SECRET_KEY"):
        return key
    file = folder / "secret_key"
    if not file.exists():
        _make(file)
    return file.read_text()


def _make(file: Path) -> None:
    # Several processes may come here at once: each writes a whole file of its own, and the first link wins.
    with tempfile.NamedTemporaryFile("w", dir=file.parent) as draft:
        draft.write(get_random_secret_key())
        draft.flush()
        try:
            os.link(draft.name, file)
        except FileExistsError:
            pass
