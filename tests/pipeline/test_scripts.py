"""The route stage's scripts: mod_wsgi's contracts, under script-timeout, and closed wherever they fail."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client import Answer, Client
from conftest import LOOPS, LogAsData, Site, start_site, wait_until
from gatekeep import Gateway, GroupSettings, MountSettings, Settings, SettingsError

Start = Callable[..., Site]

APPLICATION = """
names = ("REMOTE_USER", "AUTH_TYPE", "HTTP_AUTHORIZATION", "gatekeep.process_group", "SCRIPT_NAME")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["|".join([__name__, *(str(environ.get(name)) for name in names)]).encode()]

def other(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"other"]
"""

MODULE, USER, KIND, AUTHORIZATION, GROUP, SCRIPT_NAME = range(6)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    """Where a test's script is. What hangs in it may do so until the test is over."""
    yield tmp_path / "script.py"
    (tmp_path / "script.py.end").touch()


@pytest.fixture
def start(loop: str, tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "site.py").write_text(APPLICATION)
    with ExitStack() as stack:
        yield lambda **options: start_site(
            stack, str(tmp_path / "site.py"), loop, **{"processes": 1, "threads": 2} | options
        )


def ask(site: Site, target: str = "/", *fields: str, method: str = "GET") -> Answer:
    with Client(site.address) as client:
        return client.get(target, *fields, method=method)


def basic(user: str, password: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def told(answer: Answer) -> list[str]:
    assert answer.status == 200
    return answer.body.decode().split("|")


# --- access


def test_access_is_decided_with_the_environ_and_the_address(start: Start, script: Path) -> None:
    script.write_text(
        "def allow_access(environ, host):\n"
        "    return {'/no': False, '/none': None}.get(environ['PATH_INFO'], host == '127.0.0.1')\n"
    )
    site = start(access_script=str(script))
    assert [ask(site, target).status for target in ("/", "/none", "/no")] == [200, 200, 403]
    assert ask(site, "/no", method="HEAD").status == 403
    assert site.record("/no")["outcome"] == "refused"


FAILURES = {
    "raise ValueError('x')": "raised ValueError",
    "raise SystemExit(0)": "raised SystemExit",
    "return 7": "returned 7",
}


@pytest.mark.parametrize(("body", "why"), FAILURES.items())
def test_an_access_script_that_does_not_decide_refuses_with_403(
    start: Start, script: Path, body: str, why: str
) -> None:
    script.write_text(f"def allow_access(environ, host):\n    {body}\n")
    site = start(access_script=str(script))
    assert ask(site).status == 403
    assert why in site.log.wait_for("route.script_failed", status=403)["reason"]


@pytest.mark.parametrize(("body", "why"), FAILURES.items())
def test_an_authentication_script_that_does_not_decide_refuses_with_500(
    start: Start, script: Path, body: str, why: str
) -> None:
    script.write_text(f"def check_password(environ, user, password):\n    {body}\n")
    site = start(auth_script=str(script))
    assert ask(site, "/", basic("a", "b")).status == 500
    assert why in site.log.wait_for("route.script_failed", status=500)["reason"]


@pytest.mark.parametrize("text", ["1/0", "def something_else(): ...", "def", None])
def test_a_script_that_does_not_load_refuses_until_it_does(
    start: Start, script: Path, text: str | None
) -> None:
    if text is not None:
        script.write_text(text)
    site = start(access_script=str(script))
    assert [ask(site).status for _ in range(2)] == [403, 403]
    script.write_text("def allow_access(environ, host): return True\n")
    wait_until(lambda: ask(site).status == 200)
    script.write_text("1/0")
    wait_until(lambda: ask(site).status == 403)
    assert (
        "ZeroDivisionError" in site.log.wait_for("script.load_failed", script=str(script))["traceback"]
        or text
    )


def test_a_script_that_hangs_costs_its_request_and_no_other(start: Start, script: Path) -> None:
    script.write_text(
        "import os, time\ndef allow_access(environ, host):\n"
        "    while environ['PATH_INFO'] == '/hang' and not os.path.exists(__file__ + '.end'): time.sleep(0.01)\n"
        "    return True\n"
    )
    site = start(access_script=str(script), script_timeout=3)
    with Client(site.address) as hanging:
        hanging.send("GET /hang HTTP/1.1\r\nHost: test\r\n\r\n")
        assert ask(site).status == 200
        assert hanging.read().status == 403
    hangs = site.log.wait_for("script.hangs", timer="script-timeout")
    assert "allow_access" in hangs["stack"]
    record = site.record("/hang")
    assert (record["timer"], record["stage"]) == ("script-timeout", "route")


def test_when_all_threads_hang_requests_are_refused_at_once_and_later_served_again(
    start: Start, script: Path
) -> None:
    script.write_text(
        "import time\ndef allow_access(environ, host):\n"
        "    if environ['PATH_INFO'] == '/hang': time.sleep(3)\n    return True\n"
    )
    site = start(access_script=str(script), script_timeout=0.3)
    crowd = [threading.Thread(target=ask, args=(site, "/hang")) for _ in range(8)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    if ask(site).status == 403:  # unless this machine was busy for so long that they are back already
        assert "threads for scripts hang" in site.log.wait_for("route.script_failed", timer="")["reason"]
    wait_until(lambda: ask(site).status == 200)


# --- who asks


CHECK = "def check_password(environ, user, password): return {'a': password == 'right', 'b': 'c', '': True}.get(user)\n"


def test_who_asks_is_known_to_the_application_and_how_it_was_found_out(start: Start, script: Path) -> None:
    script.write_text(CHECK)
    site = start(auth_script=str(script), auth_realm="Shop")
    for fields in (
        (),
        (basic("a", "wrong"),),
        (basic("nobody", "x"),),
        (basic("", ""),),
        ("Authorization: Bearer x",),
    ):
        answer = ask(site, "/", *fields)
        assert answer.status == 401
        assert answer.fields["www-authenticate"] == 'Basic realm="Shop", charset="UTF-8"'
    assert told(ask(site, "/", basic("a", "right")))[USER:GROUP] == ["a", "Basic", "None"]
    assert told(ask(site, "/", basic("b", "")))[USER] == "c", "granted as somebody else"


def test_a_client_that_is_asked_for_a_password_answers_on_its_connection(start: Start, script: Path) -> None:
    script.write_text(CHECK)
    site = start(auth_script=str(script))
    with Client(site.address) as client:
        assert client.get("/").status == 401
        assert client.get("/", basic("a", "right")).status == 200


@pytest.mark.parametrize("http", ["strict", "h11"])
def test_a_small_upload_that_needs_a_password_costs_no_connection(
    start: Start, script: Path, http: str
) -> None:
    script.write_text(CHECK)
    with Client(start(auth_script=str(script), http=http).address) as client:
        for field, status in (("X: y", 401), (basic("a", "right"), 200), ("X: y", 401)):
            assert client.post("/", b"abc", field).status == status
        client.send(
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        assert client.read().status == 401
        # What is not here yet may never come, and is not waited for.
        client.send("POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        answer = client.read()
        assert (answer.status, answer.fields["connection"]) == (401, "close")
        assert client.is_closed()


def test_authorization_reaches_applications_that_check_it_themselves(start: Start) -> None:
    field = basic("a", "b")
    assert told(ask(start(), "/", field))[USER:GROUP] == ["None", "None", field.partition(": ")[2]]


def test_no_field_of_a_client_makes_it_somebody(start: Start) -> None:
    answer = ask(start(), "/", "Remote-User: root", "Remote_User: root", "Auth-Type: Basic")
    assert told(answer)[USER:AUTHORIZATION] == ["None", "None"]


def test_a_digest_is_asked_for_and_checked(start: Start, script: Path) -> None:
    script.write_text(
        "import hashlib\ndef get_realm_hash(environ, user, realm):\n"
        "    return hashlib.md5(f'{user}:{realm}:right'.encode()).hexdigest() if user == 'a' else None\n"
    )
    site = start(auth_script=str(script), auth_type="digest")
    challenge = ask(site).fields["www-authenticate"]
    assert challenge.startswith('Digest realm="Restricted", nonce="')
    nonce = challenge.split('nonce="')[1].split('"')[0]

    def answer_with(password: str, nonce: str) -> Answer:
        def md5(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        ha1, ha2 = md5(f"a:Restricted:{password}"), md5("GET:/x")
        response = md5(f"{ha1}:{nonce}:00000001:c:auth:{ha2}")
        return ask(
            site, "/x",
            f'Authorization: Digest username="a", realm="Restricted", nonce="{nonce}", uri="/x", '
            f'response="{response}", qop=auth, nc=00000001, cnonce="c"',
        )  # fmt: skip

    assert told(answer_with("right", nonce))[USER:GROUP] == ["a", "Digest", "None"]
    assert answer_with("wrong", nonce).status == 401
    assert answer_with("right", "1.000-" + "0" * 32).status == 401, "a nonce of somebody else's"


def test_a_user_must_be_in_a_group_that_is_required(start: Start, script: Path) -> None:
    script.write_text(
        CHECK + "def groups_for_user(environ, user): return {'a': ['staff'], 'c': ['guests']}[user]\n"
    )
    site = start(auth_script=str(script), group_script=str(script), require_groups=["staff", "boss"])
    assert ask(site, "/", basic("a", "right")).status == 200
    assert ask(site, "/", basic("b", "")).status == 403


# --- who serves it


def test_a_dispatch_script_chooses_group_application_and_callable(loop: str, tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(APPLICATION)
    (tmp_path / "choose.py").write_text(
        "places = {'/api': 'api', '/bytes': b'api', '/nix': 'nix', '/odd': 7}\n"
        "def process_group(environ): return places.get(environ['PATH_INFO'])\n"
        "def callable_object(environ): return {'/other': 'other', '/bad': 'a b', '/none': 'missing'}.get(environ['PATH_INFO'])\n"
        "def application_group(environ): return {'/separate': 'x'}.get(environ['PATH_INFO'])\n"
    )
    app = str(tmp_path / "site.py")
    settings = Settings(
        binds="127.0.0.1:0",
        groups=[GroupSettings(name=name, app=app, processes=1) for name in ("web", "api")],
        mounts=[
            MountSettings(group="web", dispatch_script=str(tmp_path / "choose.py")),
            MountSettings(path="/plain", group="api"),
        ],
    )
    backend, options = LOOPS[loop]
    log = LogAsData()
    gateway = Gateway(settings, logger=log, debug=True)
    with gateway.serving_in_thread(backend, **options) as served:
        site = Site(served, gateway, log)
        assert told(ask(site))[GROUP] == "web"
        assert [told(ask(site, target))[GROUP] for target in ("/api", "/bytes", "/plain")] == ["api"] * 3
        assert ask(site, "/other").body == b"other"
        assert told(ask(site, "/separate"))[MODULE] != told(ask(site))[MODULE], "it is loaded once more"
        assert [ask(site, target).status for target in ("/nix", "/odd", "/bad", "/none")] == [500] * 4
        assert "there are the groups web, api" in log.wait_for("route.script_failed", path="/nix")["reason"]


def test_scripts_of_one_mount_have_no_say_in_another(loop: str, tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text(APPLICATION)
    (tmp_path / "auth.py").write_text(CHECK)
    settings = Settings(
        binds="127.0.0.1:0",
        groups=[GroupSettings(app=str(tmp_path / "site.py"), processes=1)],
        mounts=[MountSettings(), MountSettings(path="/admin", auth_script=str(tmp_path / "auth.py"))],
    )
    backend, options = LOOPS[loop]
    gateway = Gateway(settings)
    with gateway.serving_in_thread(backend, **options) as served:
        site = Site(served, gateway, LogAsData())
        assert ask(site).status == 200
        for way in (
            "/admin",
            "/admin/",
            "//admin",
            "/x/../admin",
            "/./admin/x",
            "/%61dmin",
            "http://test/admin",
        ):
            assert ask(site, way).status == 401, way
        assert told(ask(site, "/admin", basic("a", "right")))[SCRIPT_NAME] == "/admin"


# --- in programs


def test_python_callables_are_scripts_too(start: Start) -> None:
    users = SimpleNamespace(check_password=lambda environ, user, password: user == password)
    site = start(access_script=lambda environ, host: environ["PATH_INFO"] != "/no", auth_script=users)
    assert told(ask(site, "/", basic("x", "x")))[USER] == "x"
    assert ask(site, "/", basic("x", "y")).status == 401
    assert ask(site, "/no", basic("x", "x")).status == 403


def test_what_scripts_write_is_logged(start: Start, script: Path) -> None:
    script.write_text(
        "def allow_access(environ, host):\n    print('hello', file=environ['wsgi.errors'])\n    return True\n"
    )
    site = start(access_script=str(script))
    assert ask(site).status == 200
    assert site.log.wait_for("script.said", text="hello")["script"] == str(script)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"access_script": 7}, "access-script = 7: allowed is a script's path, a module's name, a function"),
        ({"access_script": "a:b"}, "access-script = 'a:b': allowed is a script's path"),
        ({"auth_type": "ntlm"}, "auth-type = 'ntlm': allowed is one of basic, digest"),
        ({"group_script": "a"}, "group-script = 'a': auth-script is needed"),
        ({"require_groups": ["a"]}, "require-groups: group-script is needed"),
        ({"auth_script": "a", "group_script": "b"}, "group-script = 'b': require-groups is needed"),
        ({"script_timeout": -1}, "script-timeout = -1: allowed is 0 seconds or more"),
    ],
    ids=str,
)
def test_settings_of_scripts_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.for_app("apps", **options)
    assert str(refused.value).startswith(said)
