"""What the system tells of processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client import Client
from conftest import wait_until
from gatekeep._host_processes import count_oom_kills, describe_status
from served import serve


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_end_is_told_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words


def _cgroup(tmp_path: Path, own: str, events: str) -> tuple[Path, Path]:
    (tmp_path / "site.service").mkdir()
    (tmp_path / "site.service" / "memory.events").write_text(events)
    (tmp_path / "own").write_text(own)
    return tmp_path, tmp_path / "own"


def test_the_kernel_tells_how_often_memory_ran_out(tmp_path: Path) -> None:
    events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"
    assert count_oom_kills(*_cgroup(tmp_path, "0::/site.service\n", events)) == 2


def test_the_first_version_of_control_groups_tells_it_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "memory" / "site").mkdir(parents=True)
    (tmp_path / "memory" / "site" / "memory.oom_control").write_text("under_oom 0\noom_kill 4\n")
    (tmp_path / "own").write_text("8:pids:/\n4:memory:/site\n0::/\n")
    assert count_oom_kills(tmp_path, tmp_path / "own") == 4


@pytest.mark.parametrize(
    ("own", "events"),
    [
        ("", ""),
        ("4:memory:/x\n", ""),
        ("0::/other\n", ""),
        ("0::/site.service\n", "oom_kill\n"),
        ("0::/site.service\n", "oom 1\n"),
    ],
)
def test_where_it_does_not_none_is_known(tmp_path: Path, own: str, events: str) -> None:
    assert count_oom_kills(*_cgroup(tmp_path, own, events)) == 0


HOG = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/hog":
        kept = [b"x" * 10_000_000 for _ in range(100)]
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def small_group():
    """A control group with 300 MB of memory: the file that takes its processes."""
    places = (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    )
    for root, limit in places:
        group = root / f"gatekeep-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text("300000000")
        except OSError:
            continue
        yield group / "cgroup.procs"
        wait_until(lambda: not (group / "cgroup.procs").read_text())  # noqa: B023
        group.rmdir()
        return
    pytest.skip("no control group can be made here")


def test_a_process_that_the_kernel_killed_for_memory_is_named_as_that(
    small_group: Path, tmp_path: Path
) -> None:
    (tmp_path / "site.py").write_text(HOG)
    with serve("site.py", "--processes", "1", cwd=tmp_path) as server:
        for pid in (*server.daemon_pids(), server.pid):
            small_group.write_text(str(pid))
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/hog").status == 502
        assert "its memory has run out" in server.wait_for_event("process.exited")["end"]
        with Client(("127.0.0.1", server.port)) as client:
            assert client.get("/").status == 200
