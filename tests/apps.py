"""Applications that the tests serve: daemon processes find them here by name."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import http.client
import importlib
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from wsgiref.validate import validator


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world!"]


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"application"]


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"app"]


def make_app():
    return hello


validated = validator(hello)

not_callable = 7


def echo(environ, start_response):
    """What the application saw, as JSON."""
    body = environ["wsgi.input"].read()
    seen = {name: value for name, value in environ.items() if isinstance(value, (str, float, bool, tuple))}
    answer = json.dumps(
        {"environ": seen, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    ).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer]


def pid(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


class Tracked:
    """An iterable whose `close()` leaves a mark in a file."""

    def __init__(self, blocks, mark):
        self.blocks = iter(blocks)
        self.mark = mark

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        with open(self.mark, "a") as file:
            file.write("closed\n")


def append_line(path, text):
    """Write a line to the end of a file, whoever else does so too."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{text}\n".encode())
    finally:
        os.close(file)


def wait_for_file(path, seconds=60):
    """Wait until the file is there."""
    deadline = time.monotonic() + seconds
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)


def scripted(environ, start_response):
    """Does what the path says; the query string is its argument."""
    return SCRIPTS[environ["PATH_INFO"].strip("/")](environ, start_response, environ["QUERY_STRING"])


def _ok(start_response, *fields):
    start_response("200 OK", [("Content-Type", "text/plain"), *fields])


def _plain(environ, start_response, _):
    _ok(start_response)
    return [b"ok"]


def _sleep(environ, start_response, seconds):
    time.sleep(float(seconds))
    _ok(start_response)
    return [str(os.getpid()).encode()]


def _raise(environ, start_response, _):
    raise ValueError("raised on purpose")


def _exit(environ, start_response, _):
    sys.exit(5)


def _raise_late(environ, start_response, _):
    _ok(start_response)
    yield b"first"
    raise ValueError("raised late")


def _raise_late_length(environ, start_response, _):
    _ok(start_response, ("Content-Length", "100"))
    yield b"first"
    raise ValueError("raised late")


def _raise_after_all(environ, start_response, _):
    _ok(start_response, ("Content-Length", "5"))
    yield b"first"
    raise ValueError("raised after the declared length")


def _short(environ, start_response, _):
    _ok(start_response, ("Content-Length", "10"))
    yield b"short"


def _long(environ, start_response, _):
    _ok(start_response, ("Content-Length", "5"))
    yield b"12345678"
    yield b"90"


def _generator(environ, start_response, count):
    _ok(start_response)
    for number in range(int(count or 3)):
        yield b"%d\n" % number


def _slow_generator(environ, start_response, pause):
    _ok(start_response)
    for number in range(5):
        yield b"%d\n" % number
        time.sleep(float(pause))


def _lazy_start(environ, start_response, _):
    def blocks():
        yield b""
        _ok(start_response)
        yield b"lazily"

    return blocks()


def _write(environ, start_response, _):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    write(b"twice ")
    return [b"and returned"]


def _exc_info_before(environ, start_response, _):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ValueError("before the head went out")
    except ValueError:
        start_response("500 Replaced", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"replaced"]


def _exc_info_after(environ, start_response, _):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"out already")
    try:
        raise ValueError("after the head went out")
    except ValueError:
        start_response("500 Replaced", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"never"]


def _twice(environ, start_response, _):
    _ok(start_response)
    _ok(start_response)
    return [b"never"]


def _never_started(environ, start_response, _):
    return [b"no head"]


def _text(environ, start_response, _):
    _ok(start_response)
    return ["text"]


def _tracked(environ, start_response, mark):
    _ok(start_response)
    return Tracked([b"a", b"b"], mark)


def _tracked_raises(environ, start_response, mark):
    def blocks():
        yield b"a"
        raise ValueError("inside the iteration")

    _ok(start_response)
    return Tracked(blocks(), mark)


class Unclosable:
    """An iterable whose `close()` raises."""

    def __init__(self, blocks):
        self.blocks = blocks

    def __iter__(self):
        return iter(self.blocks)

    def close(self):
        raise ValueError("raised by close")


def _close_raises(environ, start_response, text):
    _ok(start_response)
    return Unclosable([letter.encode() for letter in text])


def _tracked_endless(environ, start_response, mark):
    def blocks():
        while True:
            yield b"x" * 65536

    _ok(start_response)
    return Tracked(blocks(), mark)


def _head_fields(environ, start_response, _):
    _ok(start_response, ("X-Break", "a\r\nSet-Cookie: stolen=1"))
    return [b"never"]


def _head_name(environ, start_response, _):
    _ok(start_response, ("X Break", "a"))
    return [b"never"]


def _head_reason(environ, start_response, _):
    start_response("200 OK\r\nX-Break: 1", [])
    return [b"never"]


def _head_nul(environ, start_response, _):
    _ok(start_response, ("X-Break", "a\0b"))
    return [b"never"]


def _status(environ, start_response, status):
    start_response(status.replace("+", " "), [])
    return [b"body"]


def _file(environ, start_response, size):
    handle, path = tempfile.mkstemp()
    os.ftruncate(handle, int(size))
    os.close(handle)
    file = open(path, "rb")  # noqa: SIM115
    os.unlink(path)
    _ok(start_response)
    return environ["wsgi.file_wrapper"](file)


def _big(environ, start_response, size):
    _ok(start_response, ("Content-Length", size))
    left = int(size)
    while left:
        block = b"\0" * min(left, 1 << 20)
        left -= len(block)
        yield block


def _input(environ, start_response, how):
    stream = environ["wsgi.input"]
    reads = {
        "read": lambda: [stream.read(), stream.read(), stream.read(5)],
        "parts": lambda: [stream.read(3), stream.read(0), stream.read(4), stream.read(-1), stream.read()],
        "readline": lambda: [stream.readline(), stream.readline(2), stream.readline(), stream.readline()],
        "readlines": lambda: [*stream.readlines(), *stream.readlines()],
        "iterate": lambda: [*stream, *stream],
    }[how]()
    _ok(start_response)
    return [repr(reads).encode()]


def _read_then_raise(environ, start_response, _):
    environ["wsgi.input"].read()
    _ok(start_response)
    return [b"all read"]


def _read_swallowed(environ, start_response, _):
    try:
        environ["wsgi.input"].read()
    except OSError:
        pass
    _ok(start_response)
    return [b"never mind"]


def _ignore_body(environ, start_response, _):
    _ok(start_response)
    return [b"ignored"]


def _count(environ, start_response, _):
    """Counts the body without keeping it."""
    size = 0
    while piece := environ["wsgi.input"].read(65536):
        size += len(piece)
    _ok(start_response)
    return [b"%d" % size]


def _write_before_read(environ, start_response, size):
    _ok(start_response)
    for _ in range(int(size) >> 16):
        yield b"w" * 65536
    read = len(environ["wsgi.input"].read())
    yield b"|%d" % read


def _write_then_read(environ, start_response, _):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"partial")
    return [environ["wsgi.input"].read()]


def _both_ways(environ, start_response, _):
    _ok(start_response)
    while piece := environ["wsgi.input"].read(1):
        yield piece


def _kill(environ, start_response, _):
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_late(environ, start_response, _):
    _ok(start_response)
    yield b"first"
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def _fork_and_kill(environ, start_response, _):
    """Dies while a child that it forked lives on with every descriptor."""
    if os.fork() == 0:
        time.sleep(8)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def _fork(environ, start_response, mark):
    """A child that works and exits, and another that returns into the server."""
    for way in ("exit", "return", "raise"):
        if os.fork() == 0:
            with open(mark, "a") as file:
                file.write(f"{os.getpid()} {way}\n")
            if way == "exit":
                sys.exit(7)
            if way == "raise":
                raise ValueError("raised in the child")
            return []
    _ok(start_response)
    return [b"forked"]


def _end_a_child(environ, start_response, number):
    """What `multiprocessing` does to the workers of a pool that is over."""
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    os.kill(child, int(number))
    deadline = time.monotonic() + 10
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.005)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    _ok(start_response)
    return [str(os.waitstatus_to_exitcode(status[1])).encode()]


def _fork_and_print(environ, start_response, mark):
    """A child prints while the parent's other threads do."""
    child = os.fork()
    if child == 0:
        print("in the child")
        os._exit(0)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise RuntimeError("the child was stuck")
        time.sleep(0.005)
    _ok(start_response)
    return [b"done"]


def _close_all(environ, start_response, _):
    """Closes what it takes for leftovers: our listener too."""
    _ok(start_response)
    yield b"closing"
    time.sleep(0.1)
    os.closerange(3, 200)


def _hold_gil(environ, start_response, seconds):
    ctypes.PyDLL(None).usleep(int(float(seconds) * 1e6))
    _ok(start_response)
    return [b"held"]


def _hold_gil_for_pipe(environ, start_response, path):
    """Keeps the GIL until somebody who has opened the named pipe for writing, which waits for us, closes it."""
    libc = ctypes.PyDLL(None)
    pipe = libc.open(path.encode(), os.O_RDONLY)
    libc.read(pipe, ctypes.create_string_buffer(1), 1)
    libc.close(pipe)
    _ok(start_response)
    return [b"held"]


def _print(environ, start_response, text):
    print("printed", text)
    print("to stderr", text, file=sys.stderr)
    environ["wsgi.errors"].write(f"to wsgi.errors {text}\n")
    print("unfinished", end="")
    _ok(start_response)
    return [b"printed"]


def _flood(environ, start_response, lines):
    for number in range(int(lines)):
        print(f"line {number}")
    _ok(start_response)
    return [b"flooded"]


def _log(environ, start_response, text):
    import logging

    logging.getLogger("site").warning("logged %s", text)
    try:
        raise KeyError(text)
    except KeyError:
        logging.getLogger("site").exception("with a traceback")
    _ok(start_response)
    return [b"logged"]


def _default_timeout(environ, start_response, _):
    socket.setdefaulttimeout(0.05)
    _ok(start_response)
    return [b"set"]


def _request_id(environ, start_response, _):
    _ok(start_response)
    return [environ["gatekeep.request_id"].encode()]


def _import(environ, start_response, module):
    importlib.import_module(module)
    _ok(start_response)
    return [b"imported"]


def _mark(environ, start_response, path):
    with open(path, "a") as file:
        file.write("ran\n")
    _ok(start_response)
    return [b"marked"]


def _note(environ, start_response, path_and_text):
    """Says in a file that it runs."""
    path, _, text = path_and_text.partition(",")
    append_line(path, text)
    _ok(start_response)
    return [text.encode()]


def _hold(environ, start_response, gate):
    """Runs until the file is there."""
    wait_for_file(gate)
    _ok(start_response)
    return [str(os.getpid()).encode()]


def _note_and_hold(environ, start_response, note_and_gate):
    """Says in a file which process runs it, and runs until the other file is there."""
    note, _, gate = note_and_gate.partition(",")
    append_line(note, os.getpid())
    return _hold(environ, start_response, gate)


def _hold_with_child(environ, start_response, gate):
    """As `hold`, while a child that Python knows nothing of lives on with every descriptor of this process."""
    libc = ctypes.PyDLL(None)
    if libc.fork() == 0:
        libc.sleep(6)
        libc._exit(0)
    return _hold(environ, start_response, gate)


def _read_at_gate(environ, start_response, gate):
    """Reads its input when the file is there, and counts it."""
    wait_for_file(gate)
    return _count(environ, start_response, "")


def _watch_client(environ, start_response, path):
    """Writes down when it runs and when its client is gone."""
    disconnected = environ["gatekeep.disconnected"]
    append_line(path, "running")
    deadline = time.monotonic() + 30
    while not disconnected() and time.monotonic() < deadline:
        time.sleep(0.01)
    append_line(path, "gone" if disconnected() else "stayed")
    _ok(start_response)
    return [b"watched"]


def _acknowledged(environ, start_response, path):
    """Four events; each is sent when the one before has been acknowledged by a file."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for number in range(4):
        yield b"data: %d\n\n" % number
        wait_for_file(f"{path}-{number}")


def _end_badly(environ, start_response, framing_end_and_gate):
    """A response that is killed, fails or stalls (until the file is there) behind its first bytes."""
    framing, end, gate = framing_end_and_gate.split(",")
    _ok(start_response, *([("Content-Length", "100")] if framing == "length" else []))
    yield b"first"
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "raise":
        raise ValueError("raised inside the response")
    wait_for_file(gate)
    yield b"late"


def _stream(environ, start_response, framing_and_size):
    """So many bytes, with a Content-Length or without."""
    framing, size = framing_and_size.split(",")
    blocks = int(size) >> 16
    _ok(start_response, *([("Content-Length", str(blocks << 16))] if framing == "length" else []))
    for _ in range(blocks):
        yield b"s" * 65536


def _big_then_kill(environ, start_response, framing_and_size):
    """A response whose process dies behind so many bytes of it."""
    framing, size = framing_and_size.split(",")
    _ok(start_response, *([("Content-Length", str(2 * int(size)))] if framing == "length" else []))
    for _ in range(int(size) >> 16):
        yield b"b" * 65536
    os.kill(os.getpid(), signal.SIGKILL)


def _events(environ, start_response, _):
    """A stream of events without an end."""
    start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8")])
    while True:
        yield b"data: tick\n\n"
        time.sleep(0.05)


_KEPT = []


def _grow(environ, start_response, size):
    """Keeps so many bytes for ever."""
    _KEPT.append(b"x" * int(size))
    _ok(start_response)
    return [b"grown"]


def _process(environ, start_response, _):
    """What the operating system gives this process and this thread, as JSON."""
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())  # noqa: SIM115
    seen = {
        "users": [*os.getresuid()],
        "groups": [*os.getresgid()],
        "further": sorted(os.getgroups()),
        "umask": status["Umask"].strip(),
        "folder": os.getcwd(),
        "environ": {**os.environ},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "stack": _stack_size_of_thread(),
        "stack_of_others": _in_thread(_stack_size_of_thread),
        "memory": [*resource.getrlimit(resource.RLIMIT_AS)],
        "prefix": sys.prefix,
        "imported": sorted(name for name in sys.modules if "warm_up" in name),
    }
    _ok(start_response)
    return [json.dumps(seen).encode()]


def _in_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def _stack_size_of_thread():
    libc = ctypes.CDLL(None)
    attributes, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
    libc.pthread_getattr_np(ctypes.c_void_p(threading.get_ident()), attributes)
    libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    libc.pthread_attr_destroy(attributes)
    return size.value


SCRIPTS = {
    name.lstrip("_").replace("_", "-"): function
    for name, function in list(globals().items())
    if name.startswith("_")
    and callable(function)
    and name not in ("_ok", "_in_thread", "_stack_size_of_thread")
}
SCRIPTS[""] = _plain


def wedge(environ, start_response, how):
    """Does not end, in one of many ways; what follows a second question mark is the way's argument."""
    name, _, argument = how.partition("?")
    if how.startswith("gil-"):
        name, _, argument = how.partition("-")
    result = WEDGES[name](environ, start_response, argument)
    if result is None:
        raise AssertionError("it came back")
    return result


SCRIPTS["wedge"] = wedge


def hold_gil(seconds):
    """A C extension that keeps the GIL."""
    ctypes.PyDLL(None).sleep(seconds)


def run_forever():
    while True:
        time.sleep(0.001)


@contextlib.contextmanager
def silent_peer(port):
    """A connection to a server that says nothing: the one on that port, or one of our own."""
    with contextlib.ExitStack() as stack:
        if not port:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = server.getsockname()[1]
        yield stack.enter_context(socket.create_connection(("127.0.0.1", int(port))))


def _wedge_busy(environ, start_response, _):
    while True:
        time.monotonic()


def _wedge_sleep(environ, start_response, _):
    time.sleep(1000)


def _wedge_import(environ, start_response, _):
    import endless_import  # noqa: F401


def _wedge_lock(environ, start_response, _):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _wedge_child(environ, start_response, seconds):
    child = ["sleep", seconds or "30"]
    subprocess.run(child, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wedge_gil(environ, start_response, seconds):
    hold_gil(int(seconds or 1000))
    _ok(start_response)
    return [b"it came back"]


def _wedge_regex(environ, start_response, _):
    """Likewise: a pattern that takes years."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def _wedge_recv(environ, start_response, port):
    with silent_peer(port) as connection:
        connection.recv(1)
        run_forever()


def _wedge_recv_in_poll(environ, start_response, port):
    """Where a socket has a timeout Python waits in `poll()` first."""
    with silent_peer(port) as connection:
        connection.settimeout(100)
        connection.recv(1)
        run_forever()


def _wedge_poll(environ, start_response, port):
    with silent_peer(port) as connection:
        waiter = select.poll()
        waiter.register(connection, select.POLLIN)
        waiter.poll()
        run_forever()


def _wedge_select(environ, start_response, port):
    with silent_peer(port) as connection:
        select.select([connection], [], [])
        run_forever()


def _wedge_epoll(environ, start_response, port):
    with silent_peer(port) as connection, select.epoll() as waiter:
        waiter.register(connection, select.EPOLLIN)
        waiter.poll()
        run_forever()


def _wedge_http_client(environ, start_response, port):
    client = http.client.HTTPConnection("127.0.0.1", int(port))
    with contextlib.closing(client):
        client.request("GET", "/")
        client.getresponse()
        run_forever()


def _wedge_requests(environ, start_response, port):
    import requests

    requests.get(f"http://127.0.0.1:{port}/")


def _wedge_redis(environ, start_response, port):
    import redis

    with redis.Redis(port=int(port)) as client:
        client.blpop("never-filled")


def _wedge_psycopg(environ, start_response, port_and_user):
    """Without a user's name the server is one that does not even greet."""
    import psycopg

    port, _, user = port_and_user.partition(",")
    where = {"host": "127.0.0.1", "port": int(port), "user": user or "nobody", "dbname": "postgres"}
    with psycopg.connect(**where) as connection:
        connection.execute("SELECT pg_sleep(1000)")


def _wedge_poll_everything(environ, start_response, _):
    """Waits for whatever this process has open, for what does not come."""
    waiter = select.poll()
    for number in os.listdir("/proc/self/fd"):
        waiter.register(int(number), select.POLLPRI)
    with silent_peer("") as connection:
        waiter.register(connection, select.POLLIN)
        while True:
            events = dict(waiter.poll())
            if connection.fileno() in events:
                break
            for number in events:
                waiter.unregister(number)
    run_forever()


def _wedge_swallow_twice(environ, start_response, _):
    for _ in range(2):
        try:
            run_forever()
        except BaseException:
            pass
    run_forever()


def _wedge_slow_finally(environ, start_response, _):
    try:
        run_forever()
    finally:
        time.sleep(2)


def _wedge_finally_at_gate(environ, start_response, gate):
    try:
        run_forever()
    finally:
        wait_for_file(gate)


def _wedge_nested_finallys(environ, start_response, path):
    """Each takes a second, in pieces; each writes down that it was not cut short."""
    try:
        try:
            try:
                run_forever()
            finally:
                _clean_up(path, "inner")
        finally:
            _clean_up(path, "middle")
    finally:
        _clean_up(path, "outer")


def _clean_up(path, name):
    for _ in range(100):
        time.sleep(0.01)
    append_line(path, name)


def _wedge_finish(environ, start_response, _):
    try:
        run_forever()
    except BaseException:
        _ok(start_response)
        return [b"finished"]


def _wedge_stream(environ, start_response, framing_and_stop):
    """A response that does not get on: with a Content-Length (`length`) or without, then another wedge (`sleep`)."""
    framing, _, stop = framing_and_stop.partition(",")
    _ok(start_response, *([("Content-Length", "100")] if framing == "length" else []))
    return _stream_then(WEDGES[stop or "busy"], environ, start_response)


def _stream_then(stop, environ, start_response):
    yield b"begins"
    stop(environ, start_response, "")


def _wedge_after_input(environ, start_response, _):
    environ["wsgi.input"].read()
    run_forever()


WEDGES = {
    name.removeprefix("_wedge_").replace("_", "-"): function
    for name, function in list(globals().items())
    if name.startswith("_wedge_")
}


def compute(environ, start_response, seconds):
    """Keeps the interpreter busy for so long."""
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        sum(range(1000))
    _ok(start_response)
    return [b"computed"]


SCRIPTS["compute"] = compute
