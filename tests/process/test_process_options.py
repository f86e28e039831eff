"""What daemon processes are given by the system: user, groups, umask, folder, environment, priority, limits, shown name."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from test_command import run
from test_stacks_command import stacks, stacks_with, wedged

import others
from client import Client
from conftest import TESTS, Site, start_site, wait_until
from gatekeep import SettingsError
from others import OTHER
from served import Served, serve

Start = Callable[..., Site]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start sites with one process; which event loop serves them makes no difference here."""
    with ExitStack() as stack:
        yield lambda app="apps:scripted", **options: start_site(stack, app, **{"processes": 1} | options)


def seen_by(address: tuple[str, int]) -> dict[str, Any]:
    """What the application says of its process."""
    with Client(address) as client:
        answer = client.get("/process")
    assert answer.status == 200
    seen: dict[str, Any] = json.loads(answer.body)
    # Some libraries (readline) set these in this process behind Python's back.
    for name in {"LINES", "COLUMNS"} - set(os.environ):
        seen["environ"].pop(name, None)
    return seen


# --- as the same user


def test_without_options_processes_are_given_what_the_gateway_has(start: Start) -> None:
    seen = seen_by(start().address)
    assert seen["users"] == [*os.getresuid()]
    assert seen["groups"] == [*os.getresgid()]
    assert seen["further"] == sorted(os.getgroups())
    assert seen["folder"] == os.getcwd()
    assert seen["environ"] == dict(os.environ)
    assert seen["nice"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert seen["prefix"] == sys.prefix


@pytest.mark.parametrize(
    ("given", "umask"), [("0027", "0027"), ("7", "0007"), ("0o077", "0077"), ("0", "0000")]
)
def test_an_umask_is_an_octal_number(start: Start, given: str, umask: str) -> None:
    assert seen_by(start(umask=given).address)["umask"] == umask


def test_the_environment_is_the_gateway_s_with_what_is_given(start: Start) -> None:
    given = ["SHOP=a=b", "EMPTY=", "TWICE=1", "TWICE=2", "LC_ALL=C.UTF-8"]
    seen = seen_by(start(lang="de_AT.UTF-8", locale="C", env=given).address)["environ"]
    expected = {"LANG": "de_AT.UTF-8", "LC_ALL": "C.UTF-8", "SHOP": "a=b", "EMPTY": "", "TWICE": "2"}
    assert seen == {**os.environ, **expected}


def test_home_is_where_they_run_and_paths_are_still_meant_from_where_they_were_said(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, home = tmp_path / "site", tmp_path / "home"
    site.mkdir()
    home.mkdir()
    (site / "wsgi.py").write_text("from apps import scripted as application\n")
    (site / "warm_up.py").write_text("import os\nassert os.getcwd().endswith('home')\n")
    monkeypatch.chdir(site)
    seen = seen_by(start("./wsgi.py", home="../home", import_scripts="./warm_up.py").address)
    assert seen["folder"] == str(home)
    assert seen["imported"] == ["_gatekeep_warm_up"]


def test_a_priority_is_the_whole_process_s(start: Start) -> None:
    site = start(nice=7)
    assert seen_by(site.address)["nice"] == 7
    (pid,) = site.served.statistics().processes
    nices = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):  # a thread may end meanwhile
            nices.append(os.getpriority(os.PRIO_PROCESS, int(task)))
    assert set(nices) == {7}


def test_the_stacks_of_worker_threads_and_of_no_others_have_the_size(start: Start) -> None:
    site, usual = start(stack_size=1 << 20), start()
    size = seen_by(site.address)["stack"]
    # The C library may round it up, or count the page that guards it.
    assert 1 << 20 <= size <= (1 << 20) + (1 << 17)
    # The first request may come while the last of the threads is being started.
    expected = seen_by(usual.address)["stack_of_others"]
    assert expected != size
    wait_until(lambda: seen_by(site.address)["stack_of_others"] == expected)


def test_address_space_has_a_limit_that_the_application_cannot_lift(start: Start) -> None:
    assert seen_by(start(virtual_memory_limit=1 << 33).address)["memory"] == [1 << 33, 1 << 33]


def test_an_application_that_needs_more_address_space_than_there_is_fails_to_load(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text("DATA = bytearray(1 << 33)\n")
    done = run(
        "serve", "greedy", "--bind", "127.0.0.1:0", "--virtual-memory-limit", str(1 << 32), cwd=tmp_path
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "gatekeep: cannot start: greedy failed to load: MemoryError"


def test_a_limit_that_leaves_no_room_for_our_own_threads_is_named_without_a_traceback(
    tmp_path: Path,
) -> None:
    (tmp_path / "small.py").write_text("def application(environ, start_response): ...\n")
    limit = ("--virtual-memory-limit", str(50_000_000))
    done = run("serve", "small", "--bind", "127.0.0.1:0", *limit, cwd=tmp_path)
    assert done.returncode == 3
    assert "virtual-memory-limit = 50000000: the system has no room" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def test_the_environment_can_be_read_from_outside(start: Start) -> None:
    (pid,) = start(env=["SHOP=1"]).served.statistics().processes
    assert b"\0SHOP=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()


# --- what is shown of them


def shown(pid: int) -> str:
    """What `ps` shows."""
    return subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "(gatekeep:default)"),
        ({"name": "shop"}, "(gatekeep:shop)"),
        ({"display_name": "%{GROUP} of us, 100%", "name": "shop"}, "shop of us, 100%"),
        ({"display_name": "x" * 200}, "x" * 200),
    ],
)
def test_ps_shows_the_name(start: Start, options: dict[str, Any], name: str) -> None:
    site = start(**options)
    (pid,) = site.served.statistics().processes
    assert shown(pid) == name
    assert seen_by(site.address)["environ"] == dict(os.environ)


def test_without_a_name_ps_shows_the_command_line(start: Start) -> None:
    (pid,) = start(display_name="").served.statistics().processes
    assert "pool/__main__.py" in shown(pid)


def test_the_name_is_there_before_the_application_is(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(1000)\n")
    server = Served("endless", "--processes", "1", "--shutdown-timeout", "1", cwd=tmp_path)
    try:
        pid = server.wait_for_event("process.started")["pid"]
        command = Path(f"/proc/{pid}/cmdline")
        wait_until(lambda: command.read_bytes().rstrip(b"\0") == b"(gatekeep:default)")
    finally:
        server.stop()


# --- scripts that are imported first


def test_scripts_are_imported_in_order_before_the_application(start: Start, tmp_path: Path) -> None:
    (tmp_path / "first_warm_up.py").write_text("import sys\nSEEN = 'site_warm_up' in sys.modules\n")
    (tmp_path / "second.py").write_text("import first_warm_up\nfirst_warm_up.SECOND = True\n")
    (tmp_path / "site_warm_up.py").write_text(
        "import first_warm_up\nassert (first_warm_up.SEEN, first_warm_up.SECOND) == (False, True)\n"
        "from apps import scripted as application\n"
    )
    scripts = ["first_warm_up", str(tmp_path / "second.py")]
    site = start("site_warm_up", import_scripts=scripts, python_path=[str(tmp_path), str(TESTS)])
    assert seen_by(site.address)["imported"] == ["first_warm_up", "site_warm_up"]


def test_a_script_that_is_the_application_s_too_is_imported_once(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "warm_up.py"
    script.write_text(
        "import sys\nassert not hasattr(sys, 'mark')\nsys.mark = 1\nfrom apps import scripted as application\n"
    )
    assert seen_by(start(str(script), import_scripts=[str(script)]).address)["imported"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1 / 0\n", "broken failed to load: ZeroDivisionError: division by zero"),
        ("import not_installed_here\n", "ModuleNotFoundError: No module named 'not_installed_here'"),
        ("raise SystemExit(1)\n", "SystemExit: 1"),
        (None, "no module named 'broken'"),
    ],
)
def test_a_script_that_fails_is_told_as_an_application_is(
    tmp_path: Path, code: str | None, said: str
) -> None:
    (tmp_path / "site.py").write_text("")
    if code is not None:
        (tmp_path / "broken.py").write_text(code)
    flags = ["--import-scripts", "broken", "--python-path", str(tmp_path), "--log-level", "error"]
    done = run("serve", "apps:hello", "--bind", "127.0.0.1:0", *flags)
    assert done.returncode == 3
    *traceback, line = done.stderr.splitlines()
    assert line.startswith("gatekeep: cannot start: import-scripts: ")
    assert said in line
    assert any("broken.py" in part for part in traceback) == (code is not None)
    assert not any("_loader.py" in part for part in traceback)


# --- as another user


@pytest.fixture
def through(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command by which a gateway is started whose processes are another user's."""
    command = others.open_way(tmp_path_factory.mktemp("stash"))
    if why := others.why_not(command):
        pytest.skip(why)
    return command


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment in which nobody else's gateways run."""
    return {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}


def serving(through: list[str], place: dict[str, str], *flags: str) -> Any:
    ours = ("--processes", "1", "--threads", "2", "--shutdown-timeout", "1", "--graceful-timeout", "1")
    return serve("apps:scripted", *ours, *flags, cwd=TESTS, env=place, through=through)


def process_seen(server: Served) -> dict[str, Any]:
    return seen_by(("127.0.0.1", server.port))


def test_as_another_user_they_are_that_user_in_every_respect(
    through: list[str], place: dict[str, str]
) -> None:
    entry = pwd.getpwnam(OTHER)
    with serving(through, place, "--user", OTHER) as server:
        seen = process_seen(server)
        assert not server.events_named("process.runs_as_root")
        (pid,) = server.daemon_pids()
        assert shown(pid) == "(gatekeep:default)"
        assert {os.stat(f"/proc/{pid}/{file}").st_uid for file in ("status", "fd", "environ")} == {
            entry.pw_uid
        }
    assert seen["users"] == [entry.pw_uid] * 3
    assert seen["groups"] == [entry.pw_gid] * 3
    assert seen["further"] == sorted(os.getgrouplist(OTHER, entry.pw_gid))
    named = {name: seen["environ"][name] for name in ("HOME", "USER", "LOGNAME")}
    assert named == {"HOME": entry.pw_dir, "USER": OTHER, "LOGNAME": OTHER}
    assert seen["prefix"] == sys.prefix


def test_groups_and_everything_else_can_be_had_with_it(through: list[str], place: dict[str, str]) -> None:
    own = pwd.getpwnam(OTHER).pw_gid
    others_ = [group for group in grp.getgrall() if group.gr_gid not in (0, own)][:3]
    first, second, third = others_
    flags = ["-u", OTHER, "-g", first.gr_name, "-m", "027", "-e", "HOME=/x", "--nice", "-3", "--home", "/"]
    flags += ["--supplementary-groups", second.gr_name, "--supplementary-groups", str(third.gr_gid)]
    with serving(through, place, *flags) as server:
        seen = process_seen(server)
    assert seen["users"] == [pwd.getpwnam(OTHER).pw_uid] * 3
    assert seen["groups"] == [first.gr_gid] * 3
    assert seen["further"] == sorted({second.gr_gid, third.gr_gid})
    assert (seen["umask"], seen["environ"]["HOME"], seen["nice"], seen["folder"]) == ("0027", "/x", -3, "/")


def test_a_user_may_be_a_number_that_the_system_does_not_know(
    through: list[str], place: dict[str, str]
) -> None:
    with serving(through, place, "--user", "54321", "--group", "54322") as server:
        seen = process_seen(server)
    assert (seen["users"], seen["groups"], seen["further"]) == ([54321] * 3, [54322] * 3, [54322])


@pytest.mark.parametrize("wedge", ["busy", "recv", "epoll"])
def test_another_user_s_request_is_interrupted_even_where_it_waits_for_a_connection(
    through: list[str], place: dict[str, str], wedge: str
) -> None:
    flags = ["--user", OTHER, "--request-timeout", "0.5", "--threads", "1", "--interrupt-timeout", "30"]
    with serving(through, place, *flags) as server, Client(("127.0.0.1", server.port)) as client:
        pids = server.daemon_pids()
        assert client.get(f"/wedge?{wedge}").status == 504
        server.wait_for_event("run.recovered")
        with Client(("127.0.0.1", server.port)) as next_client:
            assert next_client.get("/plain").status == 200
        assert server.daemon_pids() == pids


@pytest.mark.parametrize(
    ("wedge", "how"), [("sleep", "in wedge"), ("gil-60", "this is what it wrote at a signal")]
)
def test_another_user_s_processes_can_be_looked_into(
    through: list[str], place: dict[str, str], wedge: str, how: str
) -> None:
    flags = ["--user", OTHER, "--deadlock-timeout", "0"]
    with serving(through, place, *flags) as server, wedged(server, f"/wedge?{wedge}"):
        text = stacks_with(place, how)
        assert ", GET /wedge, for " in text
        assert stacks(place, server.pid).returncode == 0


def test_a_process_of_another_user_is_killed_when_it_gives_no_sign_of_life(
    through: list[str], place: dict[str, str]
) -> None:
    flags = ["--user", OTHER, "--deadlock-timeout", "2.5"]
    with serving(through, place, *flags) as server:
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/wedge?gil-60").status == 502
        assert "in hold_gil" in server.wait_for_event("process.deadlocked")["stacks"]
        wait_until(lambda: len(server.events_named("process.ready")) == 2)
        assert process_seen(server)["users"] == [pwd.getpwnam(OTHER).pw_uid] * 3


def test_a_folder_that_the_user_may_not_enter_is_named(
    through: list[str], place: dict[str, str], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = Served(
        "apps:scripted", "--user", OTHER, "--home", str(closed), cwd=TESTS, env=place, through=through
    )
    assert server.wait() == 3
    assert (
        server.stderr.splitlines()[-1] == f"gatekeep: cannot start: home = {str(closed)!r}: Permission denied"
    )


@pytest.mark.parametrize("app", ["site_x", "./site_x.py"])
def test_code_that_the_user_may_not_reach_is_not_said_to_be_missing(
    through: list[str], place: dict[str, str], tmp_path: Path, app: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "site_x.py").write_text("from apps import hello as application\n")
    server = Served(app, "--user", OTHER, cwd=closed, env=place, through=through)
    assert server.wait() == 3
    last = server.stderr.splitlines()[-1]
    assert "closed to this process's user" in last
    assert str(closed) in last


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be warned of being root")
def test_a_gateway_that_is_root_says_once_that_its_application_is_too(start: Start) -> None:
    site = start(processes=2)
    (said,) = site.log.find(event="process.runs_as_root")
    assert (said["level"], said["group"]) == ("warning", "default")
    assert not start(user="root").log.find(event="process.runs_as_root")


# --- what is refused


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--user", "no-such-user"], "user = 'no-such-user': there is no such user"),
        (["--group", "no-such-group"], "group = 'no-such-group': there is no such group"),
        (["--supplementary-groups", "no-such"], "supplementary-groups = 'no-such': there is no such group"),
        (
            ["--umask", "0888"],
            "umask = '0888': allowed is an octal number of up to three digits, such as 0027",
        ),
        (["--umask", "-1"], "umask = '-1': allowed is an octal number"),
        (["--umask", "1000"], "umask = '1000': allowed is an octal number"),
        (["--home", "/no/such/folder"], "home = '/no/such/folder': No such file or directory"),
        (["--home", "/dev/null"], "home = '/dev/null': Not a directory"),
        (["--env", "NAME"], "env = 'NAME': allowed is NAME=VALUE"),
        (["-e", "=VALUE"], "env = '=VALUE': allowed is NAME=VALUE"),
        (["--nice", "20"], "nice = 20: allowed is -20 to 19"),
        (["--nice", "-21"], "nice = -21: allowed is -20 to 19"),
        (["--stack-size", "32767"], "stack-size = 32767: allowed is 0 or 32768 bytes and more"),
        (["--stack-size", "-1"], "stack-size = -1: allowed is 0 to "),
        (["--virtual-memory-limit", "-1"], "virtual-memory-limit = -1: allowed is 0 to "),
        (["--display-name", "a\nb"], "display-name = 'a\\nb': allowed is up to 200 printable characters"),
        (
            ["--import-scripts", "a b"],
            "import-scripts = 'a b': allowed is a module's name or a script's path",
        ),
        (
            ["--import-scripts", "a:b"],
            "import-scripts = 'a:b': allowed is a module's name or a script's path",
        ),
    ],
)
def test_what_cannot_be_is_one_line_with_the_setting_its_value_and_what_is_allowed(
    flags: list[str], said: str
) -> None:
    done = run("serve", "apps:hello", "--bind", "127.0.0.1:0", "--log-level", "error", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gatekeep: {said}")


def test_an_embedded_gateway_raises_it(start: Start) -> None:
    with pytest.raises(SettingsError, match="there is no such user"):
        start(user="no-such-user")
