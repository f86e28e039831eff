"""What is looked up before processes are started, and what is refused because the system would refuse it later."""

from __future__ import annotations

import os
import pwd
import resource
import sys
from pathlib import Path

import pytest

from gatekeep import GroupSettings, SettingsError, _launch
from gatekeep._launch import Launch, prepare, start
from gatekeep._process_options import ProcessOptions, display_name

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may start processes of other users")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is an ordinary user."""
    monkeypatch.setattr(_launch.os, "geteuid", lambda: 4711)
    monkeypatch.setattr(_launch.os, "getegid", lambda: 4712)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_launch.os, "geteuid", lambda: 0)


def refusal(**options: object) -> str:
    with pytest.raises(SettingsError) as refused:
        prepare(ProcessOptions(**options))  # type: ignore[arg-type]
    return str(refused.value)


def test_without_options_nothing_is_asked_of_the_system() -> None:
    launch = prepare(GroupSettings(app="apps").process_options)
    assert (dict(launch.popen), dict(launch.variables), launch.nice) == ({}, {}, None)


@pytest.mark.usefixtures("root")
def test_a_user_comes_with_all_that_belongs_to_it() -> None:
    entry = pwd.getpwnam("nobody")
    for text in ("nobody", str(entry.pw_uid)):
        launch = prepare(ProcessOptions(user=text))
        assert launch.popen == {
            "user": entry.pw_uid,
            "group": entry.pw_gid,
            "extra_groups": os.getgrouplist("nobody", entry.pw_gid),
        }
        assert launch.variables == {"HOME": entry.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
        assert not launch.as_root


@pytest.mark.usefixtures("root")
def test_a_group_alone_changes_nothing_else() -> None:
    launch = prepare(ProcessOptions(group="4712"))
    assert launch.popen == {"group": 4712}
    assert launch.as_root


@pytest.mark.usefixtures("root")
def test_a_number_that_the_system_does_not_know_needs_a_group() -> None:
    assert prepare(ProcessOptions(user="54321", group="7")).popen == {
        "user": 54321, "group": 7, "extra_groups": [7]
    }  # fmt: skip
    assert refusal(user="54321") == (
        "user = '54321': the system does not know this number, so it needs --group too"
    )


@pytest.mark.parametrize("name", ["user", "group"])
@pytest.mark.parametrize("text", ["4294967295", "99999999999", "9" * 5000])
def test_a_number_that_nobody_can_have_is_refused(name: str, text: str) -> None:
    assert (
        refusal(**{name: text}) == f"{name} = {text!r}: allowed is a name, or a number from 0 to 4294967294"
    )


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"user": "nobody"}, "user = 'nobody'"),
        ({"user": "4713"}, "user = '4713'"),
        ({"group": "4711"}, "group = '4711'"),
        ({"user": "4711", "group": "7"}, "group = '7'"),
        ({"supplementary_groups": ("7", "8")}, "supplementary-groups = '7, 8'"),
    ],
)
def test_only_root_can_give_processes_to_others(options: dict[str, object], said: str) -> None:
    assert refusal(**options) == f"{said}: only a gateway that runs as root can give it to its processes"


@pytest.mark.usefixtures("plain")
def test_to_ask_for_what_one_is_anyway_is_no_fault() -> None:
    launch = prepare(ProcessOptions(user="4711", group="4712"))
    assert (dict(launch.popen), launch.as_root) == ({}, False)


@pytest.mark.usefixtures("plain")
def test_only_root_may_raise_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_launch.os, "getpriority", lambda *_: 3)
    monkeypatch.setattr(_launch.resource, "getrlimit", lambda which: (0, resource.RLIM_INFINITY))
    assert [prepare(ProcessOptions(nice=nice)).nice for nice in (3, 19)] == [3, 19]
    assert refusal(nice=2) == "nice = 2: only root may raise a priority; allowed is 3 to 19"
    monkeypatch.setattr(_launch.resource, "getrlimit", lambda which: (22, resource.RLIM_INFINITY))
    assert prepare(ProcessOptions(nice=-2)).nice == -2
    assert refusal(nice=-3) == "nice = -3: only root may raise a priority; allowed is -2 to 19"


def test_a_limit_above_the_gateway_s_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_launch.resource, "getrlimit", lambda which: (1000, 1000))
    prepare(ProcessOptions(virtual_memory_limit=1000))
    assert refusal(virtual_memory_limit=1001) == (
        "virtual-memory-limit = 1001: allowed is 0 to 1000 bytes, the gateway's own limit (ulimit -v)"
    )


@ROOT_ONLY
def test_a_program_that_the_user_cannot_come_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("")
    program.chmod(0o700)
    monkeypatch.setattr(_launch.sys, "executable", str(program))
    with pytest.raises(PermissionError) as refused:
        start(prepare(ProcessOptions(user="nobody")), [str(program)])
    assert (
        refused.value.strerror
        == f"user nobody may not execute {program}: it, or a folder on the way, is closed"
    )


def test_a_process_that_does_not_get_its_priority_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(which: int, pid: int, nice: int) -> None:
        asked.append(pid)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_launch.os, "setpriority", refuse)
    command = [sys.executable, "-c", "import time; time.sleep(1000)"]
    with pytest.raises(OSError, match="nice = -5: Permission denied"):
        start(Launch({}, {}, -5, "", False), command)
    with pytest.raises(ProcessLookupError):
        os.kill(asked[0], 0)


@pytest.mark.parametrize(
    ("pattern", "name"), [("(gatekeep:%{GROUP})", "(gatekeep:shop)"), ("%{GROUP}%", "shop%"), ("", "")]
)
def test_a_shown_name_can_hold_the_group_s(pattern: str, name: str) -> None:
    assert display_name(pattern, "shop") == name
