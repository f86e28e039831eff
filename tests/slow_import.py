"""An application whose import keeps the GIL for some seconds."""

import ctypes

ctypes.PyDLL(None).sleep(4)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"loaded"]
