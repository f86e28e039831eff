"""An application whose requests cost what the query says: `GET /?50` takes 50 ms, which it sleeps.

`/who` says which process and thread ran it, `/bytes/N` answers N bytes, `/upload` reads the request's body to its end.
"""

import os
import threading
import time

BODY = b"Hello, world!"
CHUNK = bytes(65536)


def application(environ, start_response):
    if milliseconds := environ.get("QUERY_STRING"):
        time.sleep(int(milliseconds) / 1000)
    _, name, *rest = environ["PATH_INFO"].split("/")
    if name == "bytes":
        return answer(start_response, int(rest[0]), chunks(int(rest[0])))
    body = PAGES[name](environ)
    return answer(start_response, len(body), [body])


def answer(start_response, length, body):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
    return body


def chunks(length):
    for start in range(0, length, len(CHUNK)):
        yield CHUNK[: length - start]


def who(environ):
    return f"{os.getpid()} {threading.get_native_id()}".encode()


def upload(environ):
    received = 0
    while data := environ["wsgi.input"].read(65536):
        received += len(data)
    return str(received).encode()


PAGES = {"": lambda environ: BODY, "who": who, "upload": upload}
