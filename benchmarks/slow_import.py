"""An application whose import takes as many seconds as $SLOW_IMPORT says; `GET /` answers which process it is, after 5 ms."""

import os
import time

time.sleep(float(os.environ.get("SLOW_IMPORT", "0")))


def application(environ, start_response):
    time.sleep(0.005)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
