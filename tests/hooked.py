"""An application whose subscribers write down what they are told, one JSON object a line, into the file that TOLD names."""

import contextvars
import json
import os
import sys
import threading
import time

import gatekeep
from apps import append_line, wait_for_file


@gatekeep.subscribe_events
def write_down(event):
    fields = {"name": event.name, "thread": threading.current_thread().name}
    if isinstance(event, gatekeep.ProcessStopping):
        fields |= {"trigger": event.trigger, "reason": event.reason, "pid": os.getpid()}
    else:
        times = [event.request_start, event.queue_start, event.daemon_start, event.application_start]
        fields |= {
            "id": event.request_id,
            "path": event.environ["PATH_INFO"],
            "ordered": times == sorted(times),
        }
        fields |= {"age": time.time() - times[0], "data": dict(event.data)}
        fields["same"] = event.data is gatekeep.request_data()
        event.data[event.name] = "seen"
    if isinstance(event, gatekeep.RequestRaised):
        kind, error, traceback = event.exc_info
        fields |= {"kind": kind.__name__, "text": str(error), "traced": traceback is not None}
    if isinstance(event, gatekeep.RequestFinished):
        fields |= {"status": event.status, "complete": event.complete, "took": event.application_time}
        fields["sum"] = (
            abs(event.application_start + event.application_time - event.application_finish) < 1e-3
        )
    append_line(os.environ["TOLD"], json.dumps(fields))


@gatekeep.subscribe_events
def misbehave(event):
    how = (
        event.environ["QUERY_STRING"]
        if isinstance(event, gatekeep.Event) and hasattr(event, "environ")
        else ""
    )
    when, _, what = how.partition(",")
    if when != event.name and not (isinstance(event, gatekeep.ProcessStopping) and "MISBEHAVE" in os.environ):
        return
    what = what or os.environ["MISBEHAVE"]
    if what == "raise":
        raise ValueError("raised by a subscriber")
    if what == "exit":
        sys.exit(7)
    if what == "hang":
        while True:
            time.sleep(0.01)
    if what == "swallow":
        while True:
            try:
                time.sleep(0.01)
            except BaseException:
                pass
    if what == "fork" and os.fork() == 0:
        sys.exit(0)


@gatekeep.subscribe_events
def come_last(event):
    append_line(os.environ["TOLD"], json.dumps({"name": f"last {event.name}"}))


def app(environ, start_response):
    return globals()["_" + environ["PATH_INFO"].strip("/")](environ, start_response)


def _plain(environ, start_response):
    start_response("200 OK", [])
    return [b"plain"]


def _raise(environ, start_response):
    raise ValueError("raised by the application")


def _exit(environ, start_response):
    sys.exit(3)


def _cut(environ, start_response):
    start_response("201 Created", [])
    yield b"first"
    raise ValueError("raised late")


def _hang(environ, start_response):
    while True:
        time.sleep(0.01)


def _hold(environ, start_response):
    wait_for_file(environ["QUERY_STRING"])
    start_response("200 OK", [])
    return [b"held"]


def _endless(environ, start_response):
    start_response("200 OK", [])
    while True:
        yield b"x" * 65536


class _Closing:
    def __init__(self, blocks):
        self.blocks = blocks

    def __iter__(self):
        return iter(self.blocks)

    def close(self):
        gatekeep.request_data()["closed"] = True


def _data(environ, start_response):
    """Leaves something in the request's data here, deep inside, in close() and in threads."""
    data = gatekeep.request_data()
    before = sorted(data)
    data["here"] = 1
    _deep_inside()
    context = contextvars.copy_context()
    _in_thread(lambda: context.run(lambda: gatekeep.request_data().update(thread=3)))
    refused = []

    def ask():
        try:
            gatekeep.request_data()
        except RuntimeError as error:
            refused.append(str(error))

    _in_thread(ask)
    start_response("200 OK", [("Content-Type", "application/json")])
    return _Closing([json.dumps({"before": before, "after": data, "refused": refused}).encode()])


def _deep_inside():
    gatekeep.request_data()["deep"] = 2


def _in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
