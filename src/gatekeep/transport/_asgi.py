"""A request that an ASGI server hands in, and its response: what the front sees of them.

The server reads and writes the client's connection, so it judges the sizes and times of heads, connections that idle, and the
framing on the wire. From there on everything is as for a client of our own: the policy for fields, the limit of bodies, the
timers of body and response, the spools, the claim.

`send` and `receive` are somebody else's code, often several middlewares deep. Two things follow:

* Only `send` itself knows whether it waits for the client, and it cannot be asked. So nothing ever "goes at once"
  (`flush_nowait`): a response that does not come in one piece is carried as to a slow client, through a spool, and its worker is
  never held.
* That the client has left is heard only by a `receive` that waits, in a task of its own. Most requests are over before that would
  be worth its price, so the task starts after `WATCH_AFTER`.
"""

from __future__ import annotations

import contextvars
import functools
import math
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import anyio
from anyio.abc import TaskGroup

from gatekeep._alarms import Alarm
from gatekeep._errors import (
    BodyExpired,
    BodyLost,
    ClientGone,
    ClientLeft,
    ClientStalled,
    NoSpace,
    Refused,
    Truncated,
)
from gatekeep._events import Action
from gatekeep.transport import _environ, _http_policy
from gatekeep.transport._budget import Budget
from gatekeep.transport._codec import ALLOWED, TOKEN, Delimiter, Framing, Head, WrongUse, frame_response
from gatekeep.transport._exchange import error_body
from gatekeep.transport._proxies import shown
from gatekeep.transport._spool import Spool, keep_body
from gatekeep.transport._wire import SMALL_BODY

if TYPE_CHECKING:
    from gatekeep.transport._front import Front

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WATCH_AFTER = 0.05
"""Seconds after which somebody listens for the end of a request's client."""

LAST_WORDS = 1.0
"""Seconds that the answer to a request which a stop has ended may take to be sent."""

NOT_ALL = "gatekeep.response.truncated"
"""A message that no server knows: whoever gets it must fail, and so cannot take what it has for the whole response."""

_OF_THE_CONNECTION = frozenset({"connection", "transfer-encoding"})


async def serve_request(front: Front, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request of an `http` scope.

    Raises:
        Truncated: the response stopped short, or the client does not read it: the server shall close the connection.
        RuntimeError: the gateway serves in another event loop.
        Exception: what `receive` or `send` raised.
    """
    front.guests.check_loop()
    exchange = AsgiExchange(front, scope, receive, send)
    front.guests.enter(exchange)
    try:
        await exchange.serve()
    finally:
        front.guests.leave(exchange)
        await exchange.aclose()
    exchange.check_end()


class AsgiExchange:
    """One request and its response: see `_front.Exchange` for what each method means. It is its own client, too.

    Attributes:
        address: the client's, for the log.
        began: when the server handed the request in.
        left: when the client's end was heard; `math.inf` if it was not.
        broken: whether nobody can be there to be answered.
    """

    def __init__(self, front: Front, scope: Scope, receive: Receive, send: Send) -> None:
        self._front = front
        self._scope = scope
        self._receive, self._send = receive, send
        self._fields, self.head = _fields_of(scope), _head_of(scope)
        self.address = _address_of(scope)
        self.via: str | None = None  # the server around us judges proxies
        self.began = front.now()
        self.alarm = Alarm(front.alarms)
        self.left, self.broken = math.inf, False
        self.record = front.begin_request(self)
        self._tasks: TaskGroup | None = None
        self._watch_alarm = Alarm(front.alarms)
        self._watching = self._stopped = False
        self._hosts_error: Exception | None = None
        # the request's body
        self.spool: Spool | None = None
        self._budget: Budget = front.patience.for_body()
        self._early = b""
        self._ended = False
        # the response
        self._start: Message | None = None
        self._out: list[bytes | memoryview] = []
        self._delimiter, self._rest = Delimiter.CHUNKED, 0
        self.response_started = self._finished = self._lost = self._last_sent = False
        self.delivered = False

    async def serve(self) -> None:
        """From its head to its end."""
        error: Exception | None = None
        async with anyio.create_task_group() as self._tasks:
            # What the watcher awaits shall find the request's own context, not that of whoever rings alarms.
            context = contextvars.copy_context()
            self._watch_alarm.ring = functools.partial(context.run, self._start_watching, self._tasks)
            try:
                await self._handle()
            except Exception as raised:  # not to be wrapped in a group
                error = raised
            self._watch_alarm.close()
            if self._watching:
                self._tasks.cancel_scope.cancel()
        if error is not None:
            raise error
        if self._stopped and not self.delivered:
            await self._say_last_words()
        if self._is_cut:
            await self._break_off()

    async def _handle(self) -> None:
        failure = self._front.guests.refusal()
        try:
            _check(self.head, self._fields, allow_trace=self._front.settings.allow_trace)
            _http_policy.judge(self.head, self._fields, self._front.limits)
        except Refused as refusal:
            failure = failure or refusal
        if failure is not None:
            await self._front.turn_away(self, failure)
        else:
            await self._front.handle(self)

    def stop(self) -> None:
        """The gateway's grace is over."""
        self._stopped = True
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    async def _say_last_words(self) -> None:
        try:
            with anyio.move_on_after(LAST_WORDS):
                await self.flush()
        except ClientGone:
            pass

    @property
    def _is_cut(self) -> bool:
        """Whether the client has some of the response, and waits for the rest."""
        return self.response_started and self._start is None and not (self.delivered or self.broken)

    async def _break_off(self) -> None:
        """Fail where an error that is raised does not: Starlette's BaseHTTPMiddleware would end the response in order first."""
        try:
            with anyio.move_on_after(LAST_WORDS):
                await self._send({"type": NOT_ALL, "reason": self.record.reason, "more_body": True})
        except Exception:
            pass  # as it should be

    async def aclose(self) -> None:
        """Hold on to nothing."""
        self._watch_alarm.close()
        self.alarm.close()
        if self.spool is not None:
            await self.spool.aclose()

    def check_end(self) -> None:
        """Let the server know how it came out, where it cannot see that for itself.

        Raises:
            Truncated, Exception: as `serve_request`.
        """
        if self._hosts_error is not None:
            raise self._hosts_error
        if not self.delivered and not self.broken:
            raise Truncated(self.record.reason)

    # --- the client

    @property
    def client(self) -> AsgiExchange:
        """Whose request it is."""
        return self

    def _client_left(self) -> None:
        """Nobody is there any more: whatever the request waits for will want to know."""
        if not self.broken:
            self.left, self.broken = self._front.now(), True
            self.alarm.ring_now()

    def _host_failed(self, error: Exception) -> ClientGone:
        """`receive` or `send` raised something. It is none of our faults, and goes back where it came from."""
        self._client_left()
        if not isinstance(error, OSError):  # which is how servers say that the client has gone
            self._hosts_error = error
        return ClientGone(f"the server around: {type(error).__name__}: {error}")

    def _start_watching(self, tasks: TaskGroup) -> None:
        if not self._watching:
            self._watching = True
            tasks.start_soon(self._watch)

    async def _watch(self) -> None:
        """Listen for the client's end until the request is over."""
        try:
            while (await self._receive())["type"] != "http.disconnect":
                await anyio.sleep(WATCH_AFTER)  # some would say the same again and again
        except OSError:
            pass
        except Exception:
            return  # it tells nothing about the client
        if not self._last_sent:
            self._client_left()

    # --- the request

    def environ(self) -> dict[str, str]:
        """The CGI part of the WSGI environ."""
        scope = self._scope
        client, server = scope.get("client"), scope.get("server")
        scheme = scope.get("scheme", "http")
        environ = _environ.build(
            self.head,
            scheme=scheme,
            client=(client[0], client[1]) if client else None,
            server=_server(server, scheme),
        )
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = _places(scope)
        return environ

    @property
    def scheme(self) -> str:
        """By which the client has come, http or https."""
        return str(self._scope.get("scheme", "http"))

    def small_body(self) -> bytes | None:
        """The whole body where it is small and has come."""
        if self.spool is not None or not self._ended or len(self._early) > SMALL_BODY:
            return None
        body, self._early = self._early, b""
        return body

    @property
    def body_complete(self) -> bool:
        """Whether all of the body has been taken."""
        return self._ended and not self._early and (self.spool is None or not self.spool.size)

    @property
    def body_arrived(self) -> bool:
        """Whether all of the body is here. Without a word from `receive` not even the absence of one is known: HTTP/2 needs no
        field for a body, and a middleware may have changed it."""
        return self._ended

    async def invite_body(self) -> None:
        """The server does that when it is asked for the body."""

    async def buffer_body(self) -> None:
        """Receive all of the body before anybody asks for it.

        Raises:
            Refused, BodyLost, BodyExpired, ClientLeft: as `read_body`.
            NoSpace: it cannot be kept.
        """
        pieces, size = [], 0
        while size <= SMALL_BODY and (piece := await self.read_body()):
            pieces.append(piece)
            size += len(piece)
        start = b"".join(pieces)
        if self._ended and size <= SMALL_BODY:
            self._early = start
            return
        settings = self._front.settings
        spool = Spool(self._front.host, settings.spool_dir, settings.request_buffer_size)
        try:
            await keep_body(spool, start, self.read_body)
        finally:
            self.spool = spool

    async def read_body(self) -> bytes:
        """The next piece of the body; empty when it is complete.

        Raises:
            Refused: it is not as long as declared, or longer than allowed.
            BodyLost, ClientLeft: the client has gone.
            BodyExpired: it did not come in time.
        """
        if self._early:
            early, self._early = self._early, b""
            return early
        if self.spool is not None:
            return await self._take_from(self.spool)
        while not self._ended:
            if piece := await self._receive_piece():
                return piece
        return b""

    async def _take_from(self, spool: Spool) -> bytes:
        try:
            return await spool.take()
        except OSError as error:
            raise NoSpace(f"the temporary file could not be read: {error}") from error

    async def _receive_piece(self) -> bytes:
        message = await self._receive_in_time()
        if message["type"] == "http.disconnect":
            self._client_left()
            raise self._body_lost()
        piece = bytes(message.get("body", b""))
        self.record.body_in += len(piece)
        ended = not message.get("more_body", False)
        self._check_length(ended)
        if ended:
            self._ended = True
            self._watch_alarm.set(self._front.now() + WATCH_AFTER)
        return piece

    async def _receive_in_time(self) -> Message:
        now = self._front.now()
        with anyio.move_on_after(self._budget.wait_from(now) - now):
            try:
                message = await self._receive()
            except Exception as error:
                raise self._host_failed(error) from error
            self._budget.received(len(message.get("body", b"")), self._front.now())
            return message
        raise BodyExpired("the request's body did not come in time")

    def _body_lost(self) -> ClientGone:
        if self.head.framing is Framing.NONE and not self.record.body_in:
            return ClientLeft("the client left before its request was passed on", self.record.stage)
        return BodyLost("the client left inside the request's body")

    def _check_length(self, ended: bool) -> None:
        """What the application reads goes by the declared length: another body than that one is none."""
        head, size, most = self.head, self.record.body_in, self._front.limits.body
        if most and size > most:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of more than {most} bytes")
        if head.framing is Framing.LENGTH and (size > head.length or (ended and size < head.length)):
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                f"a body of {size} bytes{'' if ended else ' and more'}, declared are {head.length}",
            )

    # --- the response

    @property
    def response_complete(self) -> bool:
        """Whether what was produced is all that the client is to have."""
        if not self.response_started:
            return False
        if self._delimiter is Delimiter.LENGTH:
            return not self._rest
        return self._finished or self._delimiter is Delimiter.NOTHING

    def start(self, status: int, reason: str, fields: Sequence[tuple[str, str]]) -> None:
        """Begin the response."""
        self.record.status = status
        self._front.answered(self.record, fields)
        self._begin(status, fields)

    def _begin(self, status: int, fields: Iterable[tuple[str, str]]) -> None:
        # Date and Server are the server's, as is everything about its connection.
        response = frame_response(self.head, status, "", fields, date="", server="", close=False)
        self.response_started = True
        self._delimiter, self._rest = response.delimiter, response.length
        self._start = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in response.fields
                if name.lower() not in _OF_THE_CONNECTION
            ],
        }

    def write(self, data: bytes) -> None:
        """A piece of the response's body."""
        self.record.body_out += len(data)
        if self._delimiter is Delimiter.NOTHING:
            return
        if self._delimiter is Delimiter.LENGTH:
            self._rest -= len(data)
            if self._rest < 0:
                raise WrongUse("more than the declared length of a response")
        self._out.append(data)

    def finish(self) -> None:
        """The response's body is complete."""
        if self._delimiter is Delimiter.LENGTH and self._rest:
            raise WrongUse("less than the declared length of a response")
        self._finished = True

    def flush_nowait(self) -> bool:
        """Whether nothing is left to be sent: nothing goes without a wait."""
        return not (self._out or self._start or (self.response_complete and not self._last_sent))

    async def flush(self) -> None:
        """Send what was collected, and the end where that was all.

        Raises:
            ClientStalled: the client took nothing for response-socket-timeout.
            ClientGone: nobody is there.
        """
        await self._send_start()
        parts, self._out = self._out, []
        if self.response_complete and not self._last_sent:
            self._last_sent = True
            await self._put({"type": "http.response.body", "body": b"".join(parts), "more_body": False})
            self.delivered = not self._lost
        elif parts:
            await self.send(b"".join(parts))

    async def send(self, data: bytes | memoryview) -> None:
        """Send a piece of the body, past what is collected.

        Raises:
            ClientStalled, ClientGone: as `flush`.
        """
        await self._send_start()
        await self._put({"type": "http.response.body", "body": bytes(data), "more_body": True})

    async def _send_start(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._put(start)

    async def _put(self, message: Message) -> None:
        if self.broken:
            raise ClientGone("the client has disconnected")
        timeout = self._front.patience.response_socket_timeout
        with anyio.move_on_after(timeout):
            try:
                await self._send(message)
            except Exception as error:
                raise self._host_failed(error) from error
            return
        raise ClientStalled(f"the client stopped reading: nothing was taken for {timeout:g} s")

    def take_output(self) -> list[bytes | memoryview]:
        """What was collected and not sent; whoever takes it sends it."""
        parts, self._out = self._out, []
        return parts

    def lose_output(self) -> None:
        """What was taken cannot be sent: the response will never be whole."""
        self._lost = True

    def part(self) -> None:
        """Whether the client stays is the server's business."""

    def open_spool(self) -> Spool:
        """A spool for a response that the client may read too slowly."""
        settings = self._front.settings
        return Spool(
            self._front.host, settings.spool_dir, settings.response_buffer_size, settings.response_spool_size
        )

    def disk_failed(self, error: OSError) -> None:
        """The spool's file could not grow."""
        self._front.disk_failed(self.record, error)

    # --- answers of the gateway's own

    async def answer_in_order(self, status: int, fields: Sequence[tuple[str, str]], body: bytes) -> None:
        """Answer in the application's place.

        Raises:
            ClientGone, ClientStalled: as `flush`.
        """
        self.record.status = status
        self._begin(status, [*fields, ("Content-Length", str(len(body)))])
        self.write(body)
        self.finish()
        await self.flush()

    async def answer(self, status: int, fields: Sequence[tuple[str, str]] = ()) -> None:
        """Answer an error in the application's place.

        Raises:
            ClientGone, ClientStalled: as `flush`.
        """
        own = [("Content-Type", "text/plain; charset=utf-8")]
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            own.append(ALLOWED)
        await self.answer_in_order(status, [*fields, *own], error_body(status))

    def answer_nowait(self, status: int, fields: Sequence[tuple[str, str]] = ()) -> None:
        """Its task was cancelled: by our stop, after which there is a moment for an answer, or by the program around."""
        if not self._stopped:
            self.record.status, self.record.action = 0, Action.DROPPED
            self.record.reason = "the program around has cancelled it"
            return
        body = error_body(status)
        self._begin(
            status,
            [*fields, ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
        )
        self.write(body)
        self.finish()


# --- the scope


_are_names = re.compile(rf"(?:{TOKEN}++:)*+").fullmatch
_are_values = re.compile(r"[\t\x20-\x7e\x80-\xff]*+").fullmatch
_is_token = re.compile(rf"{TOKEN}++").fullmatch
_is_target = re.compile(r"[!-~]++").fullmatch


def _fields_of(scope: Scope) -> list[tuple[str, str]]:
    return [
        (bytes(name).decode("latin-1"), bytes(value).decode("latin-1").strip(" \t"))
        for name, value in scope["headers"]
    ]


def _head_of(scope: Scope) -> Head:
    """What is known before anything is judged; the path is as on the wire, with what the application is mounted at."""
    _, path = _path_of(scope)
    query = bytes(scope.get("query_string") or b"").decode("latin-1")
    target = f"{path}?{query}" if query else path
    return Head(scope["method"], target, f"HTTP/{scope.get('http_version', '1.1')}", "", path, query)


def _check(head: Head, fields: list[tuple[str, str]], *, allow_trace: bool) -> None:
    """What our own front would have refused of a head before its meaning is judged.

    Raises:
        Refused: 400, 405 or 501.
    """
    if not _is_token(head.method) or not _is_target(head.target):
        raise Refused(HTTPStatus.BAD_REQUEST, "a malformed method or request-target")
    if not head.path.startswith("/") and (head.path != "*" or head.method != "OPTIONS"):
        # Servers hand on whatever stands there, `GET http://example.com/` whole.
        raise Refused(HTTPStatus.BAD_REQUEST, "a request-target that is no path")
    if head.method == "CONNECT":
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "CONNECT: this is no tunnel")
    if head.method == "TRACE" and not allow_trace:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "TRACE is not allowed")
    if not _are_names("".join([f"{name}:" for name, _ in fields])):
        raise Refused(HTTPStatus.BAD_REQUEST, "a field whose name is no token")
    if not _are_values("".join([value for _, value in fields])):
        raise Refused(HTTPStatus.BAD_REQUEST, "a control character in a field")


def _path_of(scope: Scope) -> tuple[bytes, str]:
    """The path, decoded, and as it is on the wire.

    `path` is text, in which what was no UTF-8 is lost; so `raw_path` counts, unless somebody on the way has changed `path` alone.
    """
    path = scope["path"]
    raw = bytes(scope.get("raw_path") or b"").partition(b"?")[0]
    decoded = unquote_to_bytes(raw)
    if decoded.decode("utf-8", "replace") == path:
        return decoded, raw.decode("latin-1") or "/"
    decoded = path.encode("utf-8", "surrogatepass")
    return decoded, quote_from_bytes(decoded, safe="/*~!$&'()+,;=:@") or "/"


def _places(scope: Scope) -> tuple[str, str]:
    """SCRIPT_NAME and PATH_INFO.

    `path` has `root_path` at its beginning, or, from older servers, has not. Where a proxy has taken its own part away and
    the server's `root_path` names that, a mount of Starlette's adds to it what still stands in `path`; its `app_root_path` tells
    the two apart.
    """
    path = _path_of(scope)[0].decode("latin-1")
    root = _root(scope.get("root_path", ""))
    taken_away = _root(scope.get("app_root_path", ""))
    within = root[len(taken_away) :] if taken_away and _is_below(taken_away, root) else root
    if _is_below(root, path):
        path = path[len(root) :]
    elif _is_below(within, path):
        path = path[len(within) :]
    if path == "*" or not (path or root):
        path = "/"
    return root, path


def _root(text: str) -> str:
    """A path that others stand below, as latin-1 text with a slash at its beginning and none at its end; empty for all."""
    root = text.encode("utf-8", "surrogatepass").decode("latin-1").strip("/")
    return f"/{root}" if root else ""


def _is_below(root: str, path: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _server(server: Sequence[Any] | None, scheme: str) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT, which must not be empty (PEP 3333); behind a UNIX socket they mean nothing."""
    if not server or not server[0] or server[1] is None:
        return "localhost", "443" if scheme == "https" else "80"
    return server[0], str(server[1])


def _address_of(scope: Scope) -> str:
    client = scope.get("client")
    return shown((client[0], client[1])) if client else "unknown"
