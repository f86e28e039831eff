"""Several process groups and mounts behind one gateway: who serves what, and that no group is another one's trouble."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from client import Answer, Client
from conftest import LOOPS, TESTS, LogAsData, Site, wait_until
from crowd import Crowd
from gatekeep import CannotStart, Gateway, GroupSettings, Settings, _groups
from gatekeep.settings._mount import MountSettings

pytestmark = pytest.mark.slow

WHERE = """
import json, os
from wsgiref.validate import validator

def where(environ, start_response):
    names = ["SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "gatekeep.process_group", "wsgi.multithread", "wsgi.multiprocess"]
    body = json.dumps({"said": SAID, "pid": os.getpid(), **{name: environ.get(name) for name in names}}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

application = validator(where)
"""

Open = Callable[..., Site]


def script(folder: Path, name: str, said: str, before: str = "") -> str:
    """A script that tells where it was asked, and says that."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"SAID = {said!r}\n{before}\n{WHERE}")
    return str(path)


def group(name: str, app: str | None = "apps:scripted", **options: Any) -> GroupSettings:
    options = {"processes": 1, "threads": 2, "python_path": [str(TESTS)], "shutdown_timeout": 1.0} | options
    return GroupSettings(name=name, app=app, **options)


def mount(path: str, group: str = "", **options: Any) -> MountSettings:
    return MountSettings(path=path, group=group, **options)


@pytest.fixture
def open_site() -> Iterator[Open]:
    """Start gateways of several groups."""
    with ExitStack() as stack:
        yield lambda groups, mounts, **options: opened(stack, groups, mounts, **options)


def opened(
    stack: ExitStack,
    groups: Sequence[GroupSettings],
    mounts: Sequence[MountSettings],
    loop: str = "asyncio",
) -> Site:
    backend, backend_options = LOOPS[loop]
    log = LogAsData()
    gateway = Gateway(Settings(binds="127.0.0.1:0", groups=groups, mounts=mounts), logger=log, debug=True)
    return Site(stack.enter_context(gateway.serving_in_thread(backend, **backend_options)), gateway, log)


def ask(site: Site, target: str, host: str = "test") -> Answer:
    with Client(site.address) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        return client.read()


def seen(site: Site, target: str, host: str = "test") -> dict[str, Any]:
    """What the application saw."""
    answer = ask(site, target, host)
    assert answer.status == 200, answer
    return json.loads(answer.body)  # type: ignore[no-any-return]


def processes(site: Site) -> set[int]:
    return set(site.served.statistics().processes)


# --- what goes where


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def town(folder: Path, loop: str) -> Iterator[Site]:
    """Two groups, several applications, hosts, and nothing at the root of other hosts than one."""
    shop, desk = script(folder, "shop.py", "shop"), script(folder, "desk.py", "desk")
    api = script(folder, "api.py", "api")
    groups = [group("shop", shop, threads=1, processes=2), group("api", api, threads=3, env=["SIDE=left"])]
    mounts = [
        mount("/shop", "shop"),
        mount("/shop/desk", "shop", app=desk),
        mount("/api", "api"),
        mount("/gr\xf6\xdfe", "api"),
        mount("/", "shop", host="www.example.com"),
        mount("/", "api", host="*.example.com"),
        mount("/", "api", host="[::1]"),
    ]
    with ExitStack() as stack:
        yield opened(stack, groups, mounts, loop)


def test_two_groups_have_applications_settings_and_processes_of_their_own(town: Site) -> None:
    shop, api = seen(town, "/shop"), seen(town, "/api")
    assert (shop["said"], shop["gatekeep.process_group"]) == ("shop", "shop")
    assert (api["said"], api["gatekeep.process_group"]) == ("api", "api")
    assert (shop["wsgi.multithread"], shop["wsgi.multiprocess"]) == (False, True)
    assert (api["wsgi.multithread"], api["wsgi.multiprocess"]) == (True, False)
    assert shop["pid"] != api["pid"]
    wait_until(lambda: len(processes(town)) == 3)
    assert {shop["pid"], api["pid"]} <= processes(town)


def test_two_applications_share_the_processes_of_one_group(town: Site) -> None:
    shop, desk = [{seen(town, path)["pid"] for _ in range(30)} for path in ("/shop", "/shop/desk")]
    assert seen(town, "/shop/desk")["said"] == "desk"
    assert shop | desk <= processes(town)
    assert seen(town, "/api")["pid"] not in shop | desk


PLACES = [
    # target, host, who answers, SCRIPT_NAME, PATH_INFO
    ("/shop", "test", "shop", "/shop", ""),
    ("/shop/", "test", "shop", "/shop", "/"),
    ("/shop/x/y?z=/api", "test", "shop", "/shop", "/x/y"),
    ("/shop/desktop", "test", "shop", "/shop", "/desktop"),
    ("/shop/desk/x", "test", "desk", "/shop/desk", "/x"),
    ("/shop/%64esk/x", "test", "desk", "/shop/desk", "/x"),
    ("/shop%2Fdesk/x", "test", "desk", "/shop/desk", "/x"),
    ("//shop/desk//x", "test", "desk", "/shop/desk", "/x"),
    ("/shop/x/../desk/y", "test", "desk", "/shop/desk", "/y"),
    ("/api/../shop/desk", "test", "desk", "/shop/desk", ""),
    ("/shop/a//b", "test", "shop", "/shop", "/a//b"),
    ("/shop/a%20b/%C3%A4", "test", "shop", "/shop", "/a b/\xc3\xa4"),
    ("/gr%C3%B6%C3%9Fe/x", "test", "api", "/gr\xc3\xb6\xc3\x9fe", "/x"),
    ("/", "www.example.com", "shop", "", "/"),
    ("/x", "WWW.Example.com:8080", "shop", "", "/x"),
    ("/api/x", "www.example.com", "shop", "", "/api/x"),
    ("/x", "a.b.example.com", "api", "", "/x"),
    ("/x", "[::1]:8000", "api", "", "/x"),
    ("/shop/x", "example.com", "shop", "/shop", "/x"),
    ("http://www.example.com/x", "www.example.com", "shop", "", "/x"),
]


@pytest.mark.parametrize(
    ("target", "host", "said", "script_name", "path_info"), PLACES, ids=[" ".join(p[:2]) for p in PLACES]
)
def test_the_application_sees_where_it_is_mounted_and_the_rest(
    town: Site, target: str, host: str, said: str, script_name: str, path_info: str
) -> None:
    found = seen(town, target, host)
    assert (found["said"], found["SCRIPT_NAME"], found["PATH_INFO"]) == (said, script_name, path_info)
    assert found["REQUEST_URI"] == target, "as it came"


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/", "test"),
        ("/shopping", "test"),
        ("/Shop", "test"),
        ("/shop/../x", "test"),
        ("/", "example.com"),
        ("*", "test"),
    ],
)
def test_where_nothing_is_mounted_the_answer_is_404_and_nobody_is_asked(
    town: Site, target: str, host: str
) -> None:
    with Client(town.address) as client:
        client.send(f"OPTIONS {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc")
        answer = client.read()
    assert answer.status == 404
    record = town.record(target, status=404)
    assert (record["stage"], record["outcome"]) == ("route", "refused")


def test_a_connection_goes_from_group_to_group_and_through_what_is_not_mounted(town: Site) -> None:
    with Client(town.address) as client:
        statuses = [client.get(path).status for path in ("/shop", "/api", "/nowhere", "/shop/desk", "/api")]
    assert statuses == [200, 200, 404, 200, 200]


# --- scripts of one name


def test_scripts_of_one_name_in_two_folders_are_two_applications_in_one_process(
    tmp_path: Path, open_site: Open
) -> None:
    one, two = script(tmp_path / "one", "site.py", "one"), script(tmp_path / "two", "site.py", "two")
    site = open_site([group("both", one)], [mount("/one"), mount("/two", app=two)])
    first, second = seen(site, "/one"), seen(site, "/two")
    assert (first["said"], second["said"]) == ("one", "two")
    assert first["pid"] == second["pid"]


def test_two_groups_have_modules_of_one_name_each_from_its_own_folder(
    tmp_path: Path, open_site: Open
) -> None:
    for name in ("one", "two"):
        script(tmp_path / name, "site.py", name, "import helper_of_the_site\nSAID = helper_of_the_site.SAID")
        (tmp_path / name / "helper_of_the_site.py").write_text(f"SAID = 'helper {name}'")
    groups = [group(name, str(tmp_path / name / "site.py"), python_path=[]) for name in ("one", "two")]
    site = open_site(groups, [mount("/one", "one"), mount("/two", "two")])
    assert [seen(site, f"/{name}")["said"] for name in ("one", "two")] == ["helper one", "helper two"]


def test_a_group_may_have_no_application_but_those_of_its_mounts(tmp_path: Path, open_site: Open) -> None:
    one, two = script(tmp_path, "one.py", "one"), script(tmp_path, "two.py", "two")
    site = open_site([group("both", None)], [mount("/one", app=one), mount("/two", app=two)])
    assert [seen(site, path)["said"] for path in ("/one", "/two")] == ["one", "two"]


def test_a_changed_script_replaces_the_processes_of_its_own_group_alone(
    tmp_path: Path, open_site: Open
) -> None:
    groups = [group(name, script(tmp_path, f"{name}.py", name)) for name in ("one", "two")]
    more = script(tmp_path, "more.py", "more")
    site = open_site(groups, [mount("/one", "one"), mount("/more", "one", app=more), mount("/two", "two")])
    untouched = seen(site, "/two")["pid"]
    script(tmp_path, "more.py", "more of it")
    wait_until(lambda: seen(site, "/more")["said"] == "more of it")
    assert seen(site, "/one")["said"] == "one"
    assert seen(site, "/two")["pid"] == untouched


# --- one group's trouble


@contextmanager
def asking(site: Site, target: str) -> Iterator[list[int]]:
    """Somebody who asks all the time; the statuses."""
    statuses: list[int] = []
    is_over = threading.Event()

    def ask_on() -> None:
        while not is_over.is_set():
            statuses.append(ask(site, target).status)

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        thread.join()


BOTH = [mount("/site", "site"), mount("/api", "api")]


def test_one_group_is_wedged_and_the_other_answers_every_request(open_site: Open) -> None:
    groups = [group("site", request_timeout=0.5, interrupt_timeout=0.5, graceful_timeout=0.5), group("api")]
    site = open_site(groups, BOTH)
    with ExitStack() as stack:
        for way in ("sleep", "busy", "lock", "gil-60"):
            client = stack.enter_context(Client(site.address))
            client.send(f"GET /site/wedge?{way} HTTP/1.1\r\nHost: test\r\n\r\n")
        with asking(site, "/api/plain") as statuses:
            site.log.wait_for("process.exited", group="site", timeout=60)
            site.log.wait_for("process.ready", group="site", count=2, timeout=60)
    assert set(statuses) == {200}
    assert len(site.log.find(event="process.ready", group="api")) == 1


def test_one_groups_processes_die_all_the_time_and_the_other_answers_every_request(open_site: Open) -> None:
    site = open_site([group("site"), group("api")], BOTH)
    with asking(site, "/api/plain") as statuses, asking(site, "/site/kill") as killed:
        site.log.wait_for("process.exited", group="site", count=3, timeout=60)
    assert set(statuses) == {200}
    assert 200 not in killed
    assert len(site.log.find(event="process.ready", group="api")) == 1


def test_one_group_is_full_and_the_other_has_room(tmp_path: Path, open_site: Open) -> None:
    full = group("site", threads=1, listen_backlog=1, max_waiting=0)
    site = open_site([full, group("api")], BOTH)
    with Crowd(site, tmp_path) as crowd:
        crowd.hold(script="site/hold")
        # From here on nobody leaves the group, so the one that is refused is not the last.
        places = f"/site/hold?{crowd.gate()}"
        for _ in range(8):
            crowd.ask(places)
        site.log.wait_for("request.finished", status=503)
        assert ask(site, places).status == 503
        assert {ask(site, "/api/plain").status for _ in range(20)} == {200}
    wait_until(lambda: ask(site, "/site/plain").status == 200)


def test_one_group_cannot_start_and_the_other_serves_until_it_can(tmp_path: Path, open_site: Open) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import a_module_that_nobody_has")
    site = open_site([group("site", str(path)), group("api")], BOTH)
    assert ask(site, "/api/plain").status == 200
    assert ask(site, "/site/plain").status == 503
    assert ask(site, "/api/plain").status == 200
    script(tmp_path, "broken.py", "mended")
    assert site.served.reload() >= 1
    wait_until(lambda: ask(site, "/site/plain").status == 200)
    assert seen(site, "/site/plain")["said"] == "mended"


def test_one_group_that_hangs_while_it_is_loaded_delays_the_others_start_for_a_moment_only(
    tmp_path: Path, open_site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_groups, "LATE", 0.3)
    gate = tmp_path / "open"
    waits = f"import time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)"
    slow = script(tmp_path, "slow.py", "slow", f"import os\n{waits}")
    site = open_site(
        [group("well", "apps:pid"), group("slow", slow)], [mount("/", "well"), mount("/slow", "slow")]
    )
    assert site.log.wait_for("group.late")["group"] == "slow"
    assert ask(site, "/").status == 200
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(site, "/slow")))
    waiting.start()
    site.log.wait_for("connect.finished", count=2)
    gate.touch()
    waiting.join(60)
    assert [answer.status for answer in answers] == [200]


def test_several_groups_that_cannot_be_loaded_into_this_process_are_one_plain_error(open_site: Open) -> None:
    groups = [group(name, "apps:nothing", processes=0) for name in ("one", "two", "three")]
    with pytest.raises(CannotStart, match="nothing"):
        open_site(groups, [mount(f"/{each.name}", each.name) for each in groups])


def test_where_no_group_can_start_the_gateway_does_not(tmp_path: Path, open_site: Open) -> None:
    groups = [group(name, f"no_such_module_{name}") for name in ("site", "api")]
    with pytest.raises(CannotStart, match=r"no module named 'no_such_module_(site|api)'"):
        open_site(groups, BOTH)


def test_one_application_of_several_that_cannot_be_loaded_is_named(open_site: Open) -> None:
    with pytest.raises(CannotStart, match=r"no module named 'no_such_module'"):
        open_site([group("site")], [mount("/site"), mount("/more", app="no_such_module")])


# --- all of them at once


def test_a_reload_replaces_the_processes_of_all_groups_and_no_request_notices(open_site: Open) -> None:
    site = open_site([group("site", processes=2), group("api")], BOTH)
    wait_until(lambda: len(processes(site)) == 3)
    old = processes(site)
    with asking(site, "/api/plain") as of_api, asking(site, "/site/plain") as of_site:
        assert site.served.reload() == 3
        wait_until(lambda: len(processes(site)) == 3 and not processes(site) & old, 60)
    assert set(of_api) == set(of_site) == {200}


def test_a_stop_lets_the_requests_of_all_groups_end_and_leaves_no_process(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with ExitStack() as clients:
        with ExitStack() as stack:
            site = opened(stack, [group("site"), group("api")], BOTH)
            wait_until(lambda: len(processes(site)) == 2)
            pids = processes(site)
            asked = [clients.enter_context(Client(site.address)) for _ in BOTH]
            for client, path in zip(asked, ("/site", "/api"), strict=True):
                client.send(f"GET {path}/hold?{gate} HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until(lambda: site.served.statistics().in_flight == 2)
            threading.Timer(0.3, gate.touch).start()
        assert [client.read().status for client in asked] == [200, 200]
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_statistics_are_those_of_all_groups(tmp_path: Path, open_site: Open) -> None:
    site = open_site([group("site", processes=2), group("api")], BOTH)
    wait_until(lambda: len(processes(site)) == 3)
    for path in ("/site/plain", "/api/plain", "/nowhere"):
        ask(site, path)
    gate = tmp_path / "gate"
    with Client(site.address) as one, Client(site.address) as two:
        for client, path in ((one, "/site"), (two, "/api")):
            client.send(f"GET {path}/hold?{gate} HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: site.served.statistics().in_flight == 2)
        gate.touch()
        assert (one.read().status, two.read().status) == (200, 200)
    site.log.wait_for("request.finished", count=5)
    numbers = site.served.statistics()
    assert {str(outcome): count for outcome, count in numbers.by_outcome().items()} == {
        "served": 4,
        "refused": 1,
    }
    assert (numbers.process_starts, numbers.process_ends) == (3, 0)


# --- asked by others


@pytest.fixture
def asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_site: Open
) -> tuple[Site, Callable[..., Any]]:
    """Two groups, and the command that asks this process's gateway."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    site = open_site([group("site", processes=2), group("api")], BOTH)
    wait_until(lambda: len(processes(site)) == 3)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gatekeep", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=TESTS,
        )

    return site, command


def groups_told(command: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    done = command("status", str(os.getpid()), "--json")
    assert done.returncode == 0, done.stderr
    (status,) = json.loads(done.stdout)["gateways"]
    return {each["name"]: each for each in status["groups"]}


def test_status_tells_of_each_group(asked: tuple[Site, Callable[..., Any]]) -> None:
    site, command = asked
    groups = groups_told(command)
    assert {name: (each["state"], each["wanted"]) for name, each in groups.items()} == {
        "site": ("ready", 2),
        "api": ("ready", 1),
    }
    assert {process["pid"] for each in groups.values() for process in each["processes"]} == processes(site)
    text = command("status", str(os.getpid())).stdout
    assert "site" in text
    assert "api" in text


def test_stacks_are_those_of_all_groups(tmp_path: Path, asked: tuple[Site, Callable[..., Any]]) -> None:
    site, command = asked
    with Crowd(site, tmp_path) as crowd:
        for script in ("site/hold", "api/hold"):
            crowd.hold(script=script)
        wait_until(lambda: command("stacks", str(os.getpid())).stdout.count("in _hold") == 2, 60)


def test_drain_replaces_one_process_of_whichever_group(asked: tuple[Site, Callable[..., Any]]) -> None:
    site, command = asked
    before = {
        name: {each["pid"] for each in told["processes"]} for name, told in groups_told(command).items()
    }
    (pid,) = before["api"]
    assert command("drain", str(pid)).returncode == 0
    wait_until(lambda: pid not in processes(site) and len(processes(site)) == 3, 60)
    assert before["site"] <= processes(site)


def test_reload_is_asked_of_all_groups(asked: tuple[Site, Callable[..., Any]]) -> None:
    site, command = asked
    old = processes(site)
    done = command("reload", str(os.getpid()))
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(processes(site)) == 3 and not processes(site) & old, 60)
