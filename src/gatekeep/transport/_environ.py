"""The CGI part of the WSGI environ (PEP 3333, RFC 3875 §4.1), made from a request's head. Pure.

No stranger can set a variable that the gateway or the operating system means: what comes from fields is HTTP_*, CONTENT_TYPE
or CONTENT_LENGTH, and the names that CGI would mix up were dropped with the head (`_http_policy`).
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from gatekeep.transport._codec import Head
from gatekeep.transport._http_policy import COMMON_NAMES

# By exact spelling. Strangers choose the names, so it is bounded, and the common ones are in it before they come.
_keys: dict[str, str] = {}
_NAMES_KEPT = 1000
_NAME_KEPT = 64


def _learn(name: str) -> str:
    key = name.upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    if len(_keys) < _NAMES_KEPT and len(name) <= _NAME_KEPT:
        _keys[name] = key
    return key


for _name in COMMON_NAMES:
    _learn(_name)
    _learn(_name.lower())


def build(
    head: Head,
    *,
    scheme: str,
    client: tuple[str, int | None] | None,
    server: tuple[str, str],
    script_name: str = "",
    prefix: str = "",
    host: str = "",
    fields: Iterable[tuple[str, str]] | None = None,
) -> dict[str, str]:
    """The variables of one request, and `wsgi.url_scheme`; all values are latin-1 text as PEP 3333 has it.

    Args:
        client: its address and port, if that is known; None where it has none (a UNIX socket), which makes REMOTE_ADDR empty.
        server: SERVER_NAME and SERVER_PORT.
        script_name: what the application is mounted at, decoded; the caller has seen that the path begins with it.
        prefix: what a proxy has taken from the path, so that the path does not begin with it.
        host: what counts instead of the head's own host, where it is not empty.
        fields: what counts instead of the head's own fields.
    """
    path = head.path
    if path == "*":
        path = "/"  # a path of CGI begins with one (RFC 3875 section 4.1.5); REQUEST_URI tells the difference
    elif "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    environ = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": prefix + script_name,
        "PATH_INFO": path.removeprefix(script_name),
        "QUERY_STRING": head.query,
        "REQUEST_URI": head.target,
        "RAW_URI": head.target,
        "SERVER_PROTOCOL": head.version,
        "SERVER_NAME": server[0],
        "SERVER_PORT": server[1],
        "REMOTE_ADDR": "",
        "wsgi.url_scheme": scheme,
    }
    if scheme == "https":
        environ["HTTPS"] = "on"
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        if client[1] is not None:
            environ["REMOTE_PORT"] = str(client[1])
    _add_fields(environ, head.fields if fields is None else fields)
    if host or head.host:
        environ["HTTP_HOST"] = host or head.host
    else:
        # An empty one, which is allowed, says no more than none; but applications that find the key trust it.
        environ.pop("HTTP_HOST", None)
    return environ


def with_length(environ: dict[str, str], length: int) -> dict[str, str]:
    """The same for a body that is here, whole: whatever coding it came in is off, and its length is known (RFC 3875 §4.1.2).

    Without one frameworks take a chunked upload for none (Django), or look for chunks in it (Bottle). waitress does this, too.
    """
    rest = {key: value for key, value in environ.items() if key != "HTTP_TRANSFER_ENCODING"}
    return {**rest, "CONTENT_LENGTH": str(length)}


def _add_fields(environ: dict[str, str], fields: Iterable[tuple[str, str]]) -> None:
    for name, value in fields:
        key = _keys.get(name)
        if key is None:
            key = _learn(name)
        if key in environ:
            value = _join(key, environ[key], value)
        environ[key] = value


def _join(key: str, before: str, value: str) -> str:
    """The value of a field that came more than once (RFC 9110 §5.3, RFC 3875 §4.1.18)."""
    if key == "HTTP_COOKIE":
        return f"{before}; {value}"
    if key == "CONTENT_TYPE":
        # No list, so a comma would make a type that nobody sent. Of two the first is taken: it is what most parsers of
        # requests return, so what stands before us has judged the request by it.
        return before
    return f"{before},{value}"
