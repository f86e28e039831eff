"""Applications that do not end, one for each path: what `recovery.py` asks for."""

import ctypes
import time


def application(environ, start_response):
    kind, seconds = environ["PATH_INFO"].strip("/").split("/")
    try:
        WEDGES[kind](float(seconds))
    except BaseException:
        if kind != "swallow":
            raise
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"it came back\n"]


def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def hold_gil(seconds):
    ctypes.PyDLL(None).sleep(int(seconds))


WEDGES = {"spin": spin, "swallow": spin, "sleep": time.sleep, "gil": hold_gil, "brief": time.sleep}
