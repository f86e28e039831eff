"""Strangers try to get past the scripts that decide, and scripts do what they should not: nothing passes that nobody allowed, and
the gateway serves on."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from client import Answer, Client
from conftest import LOOPS, TESTS, LogAsData, Site, start_site, wait_until
from gatekeep import Gateway, Settings
from gatekeep._script_files import LOOK
from gatekeep._script_threads import SIZE
from gatekeep.settings._layers import Layer, settings_from

Start = Callable[..., Site]

CHECK = "def check_password(environ, user, password): return password == 'right'\n"


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    """Where a test's script is. What hangs in it does so until the test is over."""
    yield tmp_path / "decide.py"
    (tmp_path / "decide.py.end").touch()


GOES_ON = "import os, sys, time\ndef goes_on(): return not os.path.exists(__file__ + '.end')\n"


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda app="apps:echo", **options: start_site(
            stack, app, **{"processes": 1, "threads": 2} | options
        )


@pytest.fixture
def start_on_each_loop(loop: str) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda app="apps:echo", **options: start_site(
            stack, app, loop, **{"processes": 1, "threads": 2} | options
        )


def ask(site: Site, target: str = "/", *fields: str, method: str = "GET") -> Answer:
    with Client(site.address) as client:
        return client.get(target, *fields, method=method)


def basic(user: str, password: str = "right") -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def environ_of(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200
    seen: dict[str, Any] = json.loads(answer.body)["environ"]
    return seen


def reason(site: Site, path: str = "/") -> str:
    return str(site.record(path)["reason"])


# --- beside each other


def test_a_script_that_hangs_in_all_its_threads_refuses_nobody_elsewhere(
    tmp_path: Path, script: Path
) -> None:
    script.write_text(
        f"{GOES_ON}def allow_access(environ, host):\n    while goes_on(): time.sleep(0.01)\n    return True\n"
    )
    (tmp_path / "users.py").write_text(CHECK)
    layer = Layer(
        "",
        {"app": "apps:echo", "python_path": [str(TESTS)], "bind": "127.0.0.1:0", "script_timeout": 3},
        {},
        [
            {"path": "/hangs", "access_script": str(script)},
            {"path": "/users", "auth_script": str(tmp_path / "users.py")},
        ],
    )
    log = LogAsData()
    gateway = Gateway(settings_from([layer]), logger=log, debug=True)
    with gateway.serving_in_thread() as served:
        site = Site(served, gateway, log)
        crowd = [threading.Thread(target=ask, args=(site, "/hangs")) for _ in range(2 * SIZE)]
        for each in crowd:
            each.start()
        answers = [ask(site, "/users", basic("a")).status for _ in range(20)]
        for each in crowd:
            each.join()
        assert ask(site, "/hangs").status == 403
        answers.append(ask(site, "/users", basic("a")).status)
        script.with_suffix(".py.end").touch()
    assert answers == [200] * 21


# --- around the scripts


def test_no_way_of_asking_is_a_way_around(start: Start, script: Path) -> None:
    script.write_text(CHECK)
    site = start(auth_script=str(script))
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "PROPFIND", "QUERY"):
        assert ask(site, "/", method=method).status == 401, method
    for target in ("/a", "//a", "/../a", "/%2e%2e/a", "http://other/", "/?x", "/a;b", "/%00"):
        assert ask(site, target).status in (401, 400), target
    assert ask(site, "*", method="OPTIONS").status == 401
    with Client(site.address) as client:
        assert client.get("/", version="1.0").status == 401
    with Client(site.address) as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert client.read().status == 401


def test_each_request_of_a_connection_is_decided_on_by_itself(start: Start, script: Path) -> None:
    script.write_text(CHECK)
    site = start(auth_script=str(script))
    right, nothing = f"Host: test\r\n{basic('a')}\r\n\r\n", "Host: test\r\n\r\n"
    with Client(site.address) as client:
        client.send("".join(f"GET / HTTP/1.1\r\n{rest}" for rest in (right, nothing, right, nothing)))
        assert [client.read().status for _ in range(4)] == [200, 401, 200, 401]


def test_a_body_that_nobody_wants_is_neither_invited_nor_taken_for_a_request(
    start: Start, script: Path
) -> None:
    script.write_text(CHECK)
    site = start(auth_script=str(script))
    with Client(site.address) as client:
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (401, "close")
    hidden = f"GET /hidden HTTP/1.1\r\nHost: test\r\n{basic('a')}\r\n\r\n"
    with Client(site.address) as client:
        client.send(f"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}")
        assert client.read().status == 401
        assert environ_of(client.get("/next", basic("a")))["PATH_INFO"] == "/next"
    assert site.log.find(event="request.finished", path="/hidden") == []


def test_two_of_a_field_are_not_one_that_passes(start: Start, script: Path) -> None:
    script.write_text(CHECK)
    site = start(auth_script=str(script))
    assert ask(site, "/", basic("a"), basic("b")).status == 401
    assert ask(site, "/", "Authorization: x", basic("b")).status == 401
    assert ask(site, "/", basic("b").replace("Authorization", "Proxy-Authorization")).status == 401


def test_health_probes_are_answered_before_scripts_and_tell_nothing(start: Start, script: Path) -> None:
    script.write_text("def allow_access(environ, host): return False\n")
    site = start(access_script=str(script), livez_path="/livez")
    assert ask(site, "/livez").status == 200
    for target in ("//livez", "/livez/", "/x/../livez"):
        assert ask(site, target).status == 403, target


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_under_an_asgi_server_scripts_decide_too(script: Path, backend: str) -> None:
    script.write_text(CHECK)
    settings = Settings.for_app("apps:echo", processes=1, python_path=[str(TESTS)], auth_script=str(script))

    async def main() -> None:
        gateway = Gateway(settings)
        async with gateway.lifespan():
            status, fields, _ = await ask_asgi(gateway, [])
            assert status == 401
            assert fields[b"www-authenticate"] == b'Basic realm="Restricted", charset="UTF-8"'
            value = basic("a").partition(": ")[2].encode()
            status, _, body = await ask_asgi(gateway, [(b"authorization", value)])
            assert status == 200
            environ = json.loads(body)["environ"]
            assert environ["REMOTE_USER"] == "a"
            assert "HTTP_AUTHORIZATION" not in environ

    anyio.run(main, backend=backend)


async def ask_asgi(
    gateway: Gateway, fields: list[tuple[bytes, bytes]]
) -> tuple[int, dict[bytes, bytes], bytes]:
    messages: list[dict[str, Any]] = []
    arrived = anyio.Event()

    async def receive() -> dict[str, Any]:
        if not arrived.is_set():
            arrived.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"test"), *fields], "client": ("192.0.2.7", 4711), "server": ("192.0.2.1", 8000),
    }  # fmt: skip
    await gateway(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in messages[1:])
    return messages[0]["status"], dict(messages[0]["headers"]), body


# --- who they say they are


def test_names_reach_the_application_as_text_of_an_environ(start: Start, script: Path) -> None:
    script.write_text(
        "def check_password(environ, user, password):\n"
        "    return {'alias': '日本', 'odd': 'a\\nb', 'half': '\\ud800'}.get(user, True)\n"
    )
    site = start(auth_script=str(script))
    for user in ("Jürgen", "日本", "a b", '"a"', "😀"):
        name = environ_of(ask(site, "/", basic(user)))["REMOTE_USER"]
        assert name.encode("latin-1").decode() == user
    name = environ_of(ask(site, "/", basic("alias")))["REMOTE_USER"]
    assert name.encode("latin-1").decode() == "日本"
    for user in ("a\nb", "a\0b", ""):
        assert ask(site, "/", basic(user)).status == 401
    for user in ("odd", "half"):
        assert ask(site, "/", basic(user)).status == 500


def test_what_a_script_does_to_its_environ_reaches_nobody(start: Start, script: Path) -> None:
    script.write_text(
        "def allow_access(environ, host):\n"
        "    environ.clear()\n    environ['REMOTE_USER'] = environ['HTTP_X'] = 'root'\n    return True\n"
    )
    site = start(access_script=str(script))
    with Client(site.address) as client:
        for _ in range(2):  # the same head, whose environ is kept
            environ = environ_of(client.get("/a"))
            assert environ["PATH_INFO"] == "/a"
            assert "REMOTE_USER" not in environ
            assert "HTTP_X" not in environ


def test_two_roles_of_one_file_know_the_same(start: Start, script: Path) -> None:
    script.write_text(
        "known = {}\n"
        "def check_password(environ, user, password): known[user] = ['staff']; return True\n"
        "def groups_for_user(environ, user): return known[user]\n"
    )
    site = start(auth_script=str(script), group_script=str(script), require_groups=["staff"])
    assert ask(site, "/", basic("a")).status == 200


def test_groups_see_who_it_is_and_an_access_script_comes_first(start: Start, script: Path) -> None:
    script.write_text(
        CHECK + "def groups_for_user(environ, user):\n"
        "    return [environ['REMOTE_USER'], environ['AUTH_TYPE'], environ['PATH_INFO']]\n"
        "def allow_access(environ, host): return environ['PATH_INFO'] != '/no'\n"
    )
    site = start(
        access_script=str(script), auth_script=str(script), group_script=str(script), require_groups=["/ok"]
    )
    assert [ask(site, target, basic("a")).status for target in ("/ok", "/other")] == [200, 403]
    assert ask(site, "/no").status == 403, "nobody is asked for a password in vain"


# --- digest


def digest(
    site: Site,
    *fields: str,
    ha1: str,
    nonce: str,
    uri: str = "/x",
    target: str = "/x",
    method: str = "GET",
    nc: str = "00000001",
) -> Answer:
    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    response = md5(f"{ha1}:{nonce}:{nc}:c:auth:{md5(f'GET:{uri}')}")
    return ask(
        site, target,
        f'Authorization: Digest username="a", realm="Restricted", nonce="{nonce}", uri="{uri}", '
        f'response="{response}", qop=auth, nc={nc}, cnonce="c"',
        *fields, method=method,
    )  # fmt: skip


def nonce_of(answer: Answer) -> str:
    match = re.search('nonce="([^"]+)"', answer.fields["www-authenticate"])
    assert match is not None
    return match[1]


def test_a_digest_is_good_once(start: Start, script: Path) -> None:
    ha1 = hashlib.md5(b"a:Restricted:right").hexdigest()
    script.write_text(f"def get_realm_hash(environ, user, realm): return {ha1!r}\n")
    site = start(auth_script=str(script), auth_type="digest")
    nonce = nonce_of(ask(site))
    guess = digest(site, ha1="0" * 32, nonce=nonce)
    assert (guess.status, "stale" in guess.fields["www-authenticate"]) == (401, False)
    # A browser's connections overtake each other.
    for nc in ("00000001", "00000003", "00000002", "0000000a"):
        assert digest(site, ha1=ha1, nonce=nonce, nc=nc).status == 200, "a guess has used nothing up"
        again = digest(site, ha1=ha1, nonce=nonce, nc=nc)
        assert again.status == 401
        assert again.fields["www-authenticate"].endswith(", stale=true")
        assert digest(site, ha1=ha1, nonce=nonce_of(again), nc=nc).status == 200
    for nc in ("1", "000000001", "0x000001", "-0000001", "", "00000000"):
        assert digest(site, ha1=ha1, nonce=nonce, nc=nc).status == 401


def test_a_digest_is_good_for_what_was_asked_and_no_more(start: Start, script: Path) -> None:
    ha1 = hashlib.md5(b"a:Restricted:right").hexdigest()
    script.write_text(f"def get_realm_hash(environ, user, realm): return {ha1!r} if user == 'a' else None\n")
    site = start(auth_script=str(script), auth_type="digest")
    nonce = nonce_of(ask(site))
    assert environ_of(digest(site, ha1=ha1, nonce=nonce))["AUTH_TYPE"] == "Digest"
    for wrong in ({"target": "/y"}, {"uri": "/y"}, {"method": "POST"}, {"target": "/x?y"}):
        answer = digest(site, ha1=ha1, nonce=nonce, **wrong)
        assert answer.status == 401, wrong
        assert "stale" not in answer.fields["www-authenticate"]
    # Whoever knows the password need not ask the user for it again, though the gateway has started anew.
    foreign = digest(site, ha1=ha1, nonce="1.000-" + "0" * 32)
    assert foreign.status == 401
    assert foreign.fields["www-authenticate"].endswith(", stale=true")
    guess = digest(site, ha1="0" * 32, nonce="1.000-" + "0" * 32)
    assert "stale" not in guess.fields["www-authenticate"]
    assert ask(site, "/x", basic("a")).status == 401


def test_a_digest_is_of_the_path_that_the_client_asked_a_trusted_proxy_for(
    start: Start, script: Path
) -> None:
    ha1 = hashlib.md5(b"a:Restricted:right").hexdigest()
    script.write_text(f"def get_realm_hash(environ, user, realm): return {ha1!r}\n")
    prefix = "X-Forwarded-Prefix: /shop"
    site = start(auth_script=str(script), auth_type="digest", trusted_proxy_headers="X-Forwarded-Prefix")
    for uri, status in (("/shop/x", 200), ("/x", 200), ("/shop/shop/x", 401), ("/shopx", 401)):
        nonce = nonce_of(ask(site))
        assert digest(site, prefix, ha1=ha1, nonce=nonce, uri=uri).status == status, uri
    assert digest(site, ha1=ha1, nonce=nonce_of(ask(site)), uri="/shop/x").status == 401
    unheard = start(auth_script=str(script), auth_type="digest")
    nonce = nonce_of(ask(unheard))
    assert digest(unheard, prefix, ha1=ha1, nonce=nonce, uri="/shop/x").status == 401, "nobody believes it"


@pytest.mark.parametrize("returned", ["None or 'right'", "'None'", "''", "'0' * 64", "b'0' * 32", "True"])
def test_what_is_no_hash_of_the_algorithm_is_not_compared_with(
    start: Start, script: Path, returned: str
) -> None:
    script.write_text(f"def get_realm_hash(environ, user, realm): return {returned}\n")
    site = start(auth_script=str(script), auth_type="digest")
    value = returned.partition("'")[2].partition("'")[0]
    assert digest(site, ha1=value, nonce="n").status == 500
    assert "right" not in reason(site, "/x")


# --- scripts that do what they should not


@pytest.mark.parametrize(
    "body",
    [
        "while goes_on(): time.sleep(0.01)",
        "while goes_on(): yield 'guests'",
        "yield 'guests'; sys.exit(3)",
        "yield 'guests'; raise KeyboardInterrupt",
        "yield 'staff'; yield 7",
        "yield 'staff'; 1/0",
        "yield from Endless()",
    ],
)
def test_groups_that_are_made_one_by_one_cost_no_other_request(
    start_on_each_loop: Start, script: Path, body: str
) -> None:
    script.write_text(
        GOES_ON + "class Endless:\n"
        "    def __iter__(self): return self\n"
        "    def __next__(self): time.sleep(0.01); assert goes_on(); return 'guests'\n"
        + CHECK
        + "def groups_for_user(environ, user):\n"
        f"    if environ['PATH_INFO'] == '/bad':\n        {body}\n    yield 'staff'\n"
    )
    site = start_on_each_loop(
        auth_script=str(script), group_script=str(script), require_groups=["staff"], script_timeout=3
    )
    with Client(site.address) as bad:
        bad.send(f"GET /bad HTTP/1.1\r\nHost: test\r\n{basic('a')}\r\n\r\n")
        assert ask(site, "/", basic("a")).status == 200
        assert bad.read().status == 500
    assert ask(site, "/", basic("a")).status == 200


@pytest.mark.parametrize(
    "body", ["async def f(environ, host): return True", "def f(environ, host): yield True", "f = True", "f = None",
             "def f(environ): return True", "class f:\n def __init__(self, *_): pass", "def f(environ, host): return f",
             "def f(environ, host): f(environ, host)", "def f(environ, host): del environ['nothing']",
             "def f(environ, host): environ['wsgi.errors'].write(7)"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_function_that_is_none_of_the_contract_refuses(start: Start, script: Path, body: str) -> None:
    script.write_text(body.replace("f(environ", "allow_access(environ").replace("f =", "allow_access =")
                      .replace("class f", "class allow_access").replace("return f", "return allow_access"))  # fmt: skip
    site = start(access_script=str(script))
    assert ask(site).status == 403
    assert site.log.wait_for("route.script_failed")["status"] == 403


def test_a_script_that_hangs_while_it_loads_is_given_up_when_it_is_mended(
    start_on_each_loop: Start, script: Path
) -> None:
    script.write_text(GOES_ON + "while goes_on(): time.sleep(0.05)\nallow_access = None\n")
    before = threading.active_count()
    site = start_on_each_loop(access_script=str(script), script_timeout=0.3)
    for _ in range(12):
        assert ask(site).status == 403
    assert "script-timeout" in reason(site)
    assert threading.active_count() - before < 10, "who comes later does not hang beside it"
    script.write_text("def allow_access(environ, host): return True\n")
    wait_until(lambda: ask(site).status == 200)


def test_a_crowd_before_a_script_that_hangs_makes_no_crowd_of_threads(start: Start, script: Path) -> None:
    script.write_text(
        GOES_ON + "def allow_access(environ, host):\n"
        "    while environ['PATH_INFO'] == '/hang' and goes_on(): time.sleep(0.01)\n"
        "    return True\n"
    )
    site = start(access_script=str(script), script_timeout=0.5)
    before = threading.active_count()
    clients = [Client(site.address) for _ in range(60)]
    for client in clients:
        client.send("GET /hang HTTP/1.1\r\nHost: test\r\n\r\n")
    assert {client.read().status for client in clients} == {403}
    assert threading.active_count() - before < 20
    for client in clients:
        client.close()
    Path(f"{script}.end").touch()
    wait_until(lambda: ask(site).status == 200)


# --- dispatch


def start_two_groups(stack: ExitStack, tmp_path: Path, loop: str = "asyncio", **options: Any) -> Site:
    (tmp_path / "site.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [('%s %s' % (environ['gatekeep.process_group'], __name__)).encode()]\n"
    )
    app = str(tmp_path / "site.py")
    group = {"app": app, "processes": 1, "threads": 2}
    layer = Layer(
        "", {"bind": "127.0.0.1:0", **options}, {"web": group, "api": group, "bare": {"processes": 1}},
        [
            {"path": "/", "group": "web", "dispatch_script": str(tmp_path / "decide.py")},
            {"path": "/api", "group": "api"},
            {"path": "/bare", "group": "bare", "app": app},
        ],
    )  # fmt: skip
    backend, backend_options = LOOPS[loop]
    log = LogAsData()
    gateway = Gateway(settings_from([layer]), logger=log, debug=True)
    served = stack.enter_context(gateway.serving_in_thread(backend, **backend_options))
    return Site(served, gateway, log)


@pytest.fixture(scope="module")
def chooser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two_groups") / "decide.py"


@pytest.fixture(scope="module")
def two_groups(chooser: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield start_two_groups(stack, chooser.parent)


def rewrite(script: Path, text: str) -> None:
    """Replace it at once, and wait until that is seen."""
    new = script.with_suffix(".new")
    new.write_text(text)
    os.replace(new, script)
    time.sleep(3 * LOOK)


def test_while_a_dispatch_script_is_replaced_it_decides_all_the_same(two_groups: Site, chooser: Path) -> None:
    """A request that finds it in the middle of that does not go where nobody sent it."""
    answers: list[Answer] = []
    stop = threading.Event()

    def go_on() -> None:
        with Client(two_groups.address) as client:
            while not stop.is_set():
                answers.append(client.get("/"))

    rewrite(chooser, "def process_group(environ): return 'api'\n")
    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        rewrite(
            chooser, f"import time; time.sleep(0.005)\ndef process_group(environ): return 'api'  # {number}\n"
        )
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answers) > 30
    assert {(answer.status, answer.body.split()[0]) for answer in answers} == {(200, b"api")}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no process_group or application_group or callable_object"),
        ("def proces_group(environ): return 'api'", "has no process_group"),
        ("1/0", "failed to load: ZeroDivisionError"),
        ("def process_group(environ): return 'bare'", "has no application of its own"),
        ("def process_group(environ): return ''", "allowed is a name or None"),
        ("def process_group(environ): return '%{GLOBAL}'", "there are the groups"),
        ("def process_group(environ): return '%{ENV:NONE}'", "allowed are %{GLOBAL}"),
        ("process_group = 'api'", "raised TypeError"),
        ("async def process_group(environ): return 'api'", "returned coroutine"),
        ("def callable_object(environ): return 'os.system'", "500"),
        ("def callable_object(environ): return '__builtins__.exec'", "500"),
        ("def callable_object(environ): return 'x()'", "allowed is a name"),
        ("def application_group(environ): return 'a\\0b'", "up to 200 characters"),
        ("def application_group(environ): return 'a' * 201", "up to 200 characters"),
        ("def application_group(environ): return '\\ud800'", "up to 200 characters"),
        ("def application_group(environ): return 1", "allowed is a name or None"),
        (None, "there is no"),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_dispatch_script_that_does_not_decide_refuses(
    two_groups: Site, chooser: Path, text: str | None, why: str
) -> None:
    if text is None:
        chooser.unlink()
        time.sleep(3 * LOOK)
    else:
        rewrite(chooser, text)
    path = f"/{hash(text)}"
    assert ask(two_groups, path).status == 500
    assert why == "500" or why in reason(two_groups, path)


def test_a_dispatch_script_that_names_what_there_is_is_followed(two_groups: Site, chooser: Path) -> None:
    def follow(text: str) -> list[str]:
        rewrite(chooser, text)
        return ask(two_groups).body.decode().split()

    own = follow("def process_group(environ): return None\n")
    assert own[0] == "web"
    assert follow("def application_group(environ): return '%{GLOBAL}'\n") == own
    separate = follow("def application_group(environ): return '%{RESOURCE}'\n")
    assert separate[0] == "web"
    assert separate[1] != own[1], "it is loaded once more"
    assert follow("def process_group(environ): return '%{ENV:REQUEST_METHOD}' and 'api'\n")[0] == "api"


def test_strangers_who_choose_names_do_not_fill_the_processes(two_groups: Site, chooser: Path) -> None:
    rewrite(
        chooser, "def application_group(environ): return environ['HTTP_X'] if 'HTTP_X' in environ else None\n"
    )
    statuses = [ask(two_groups, "/", f"X: {number}").status for number in range(130)]
    assert statuses[:20] == [200] * 20
    assert statuses[-1] == 500
    assert statuses.count(200) <= 100
    assert ask(two_groups, "/", "X: 7").status == 200, "those that are there are served on"
    assert ask(two_groups).status == 200
