"""What a developer sees in the browser while the application cannot be imported. Pure."""

from __future__ import annotations

from html import escape

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{reason}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 2em; }}
pre {{ background: #f4f4f4; padding: 1em; overflow: auto; }}
</style>
<h1>{reason}</h1>
<pre>{details}</pre>
<p>gatekeep tries again as soon as a file changes (<code>--reload</code>).</p>
</html>
"""

FIELDS = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")]


def error_page(reason: str, details: str) -> bytes:
    """The page.

    Args:
        reason: one line.
        details: the traceback.
    """
    return _PAGE.format(reason=escape(reason), details=escape(details)).encode("utf-8", "replace")
