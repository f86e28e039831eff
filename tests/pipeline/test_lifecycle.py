"""Processes come and go while clients ask all the time: nobody notices."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from client import Client
from conftest import LOOPS, Site, start_site, wait_until
from gatekeep import CannotStart, Gateway, Settings, SettingsError, _groups
from gatekeep._channel import Channel
from gatekeep.lifecycle import _sleep
from gatekeep.lifecycle._control import Wish
from gatekeep.lifecycle._supervisor import Supervisor
from running import children
from traffic import Traffic, write_script

pytestmark = pytest.mark.slow

Start = Callable[..., Site]


class SlowImports:
    """Imports that last until the test lets a process go on. They do not begin before `begin`.

    Args:
        folder: where the files are that they wait for.
    """

    def __init__(self, folder: Path) -> None:
        self._all, self._some = folder / "all go on", folder / "goes on "
        self._begun = folder / "waits "
        self._all.touch()
        self.text = (
            f"open({str(self._begun)!r} + str(os.getpid()), 'w').close()\n"
            f"while not any(map(os.path.exists, [{str(self._all)!r}, {str(self._some)!r} + str(os.getpid())])):\n"
            "    time.sleep(0.01)\n"
        )

    def begin(self) -> None:
        """From now on they last."""
        self._all.unlink()

    def wait_for(self, pid: int) -> None:
        """Until that process is in the middle of its import."""
        wait_until(self._begun.with_name(f"{self._begun.name}{pid}").exists)

    def end(self, pid: int) -> None:
        """That process goes on."""
        self._some.with_name(f"{self._some.name}{pid}").touch()

    def end_all(self) -> None:
        """All go on, also those that come."""
        self._all.touch()


@pytest.fixture
def slow_imports(tmp_path: Path) -> Iterator[SlowImports]:
    folder = tmp_path / "imports"
    folder.mkdir()
    imports = SlowImports(folder)
    yield imports
    imports.end_all()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return write_script(tmp_path / "site.py", "v1")


@pytest.fixture(autouse=True)
def supervisors(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Supervisor]:
    """The supervisors that were made, by their groups."""
    made: dict[Any, Supervisor] = {}

    class Known(Supervisor):
        def __init__(self, host: Any, settings: Any, group: Any, *arguments: Any, **options: Any) -> None:
            super().__init__(host, settings, group, *arguments, **options)
            made[group] = self

    monkeypatch.setattr(_groups, "Supervisor", Known)
    return made


@pytest.fixture
def ask_supervisor(supervisors: dict[Any, Supervisor]) -> Callable[..., Any]:
    """Call a method of a site's supervisor in its event loop."""

    def ask(site: Site, method: str, *arguments: Any) -> Any:
        supervisor = supervisors[site.gateway._groups[0].group]
        assert site.gateway._portal is not None
        return site.gateway._portal.call(getattr(supervisor, method), *arguments)

    return ask


@pytest.fixture
def begin(script: Path) -> Iterator[Start]:
    """Start a site of the script's, on asyncio unless another loop is named."""
    with ExitStack() as stack:
        yield lambda **options: start_site(stack, str(script), **({"startup_timeout": 40} | options))


def pids(site: Site) -> set[int]:
    """The processes that take requests."""
    return set(site.served.statistics().processes)


def all_pids(site: Site) -> list[int]:
    """All that ever were ready, in order."""
    return [event["pid"] for event in site.log.find(event="process.ready")]


def wait_gone(site: Site, gone: set[int], seconds: float = 40) -> None:
    """Until these processes have ended and the group has as many as it should."""
    for pid in gone:
        site.log.wait_for("process.exited", pid=pid, timeout=seconds)
    wait_until(lambda: len(pids(site) - gone) == site.gateway.settings.groups[0].processes, seconds)


def expect_untroubled(site: Site, traffic: Traffic) -> None:
    """Nobody noticed anything, and nothing went wrong that nobody noticed."""
    assert traffic.failures == []
    assert traffic.replies
    assert site.log.find(event="process.lost_request") == []
    assert site.log.find(level="error") == []


def ask(site: Site, query: str = "") -> tuple[int, str, float]:
    """Status, body and seconds of one request of a new client."""
    began = time.monotonic()
    with Client(site.address, 60) as client:
        answer = client.get(f"/?{query}")
    return answer.status, answer.body.decode("latin-1"), time.monotonic() - began


# --- a planned change


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reload_replaces_all_processes_one_after_the_other(
    begin: Start, ask_supervisor: Callable[..., Any], loop: str
) -> None:
    site = begin(loop=loop, processes=2)
    with Traffic(site) as traffic:
        traffic.wait_for_more()
        before = pids(site)
        assert ask_supervisor(site, "reload") == 2
        wait_gone(site, before)
        traffic.wait_for_more()
    expect_untroubled(site, traffic)
    ends = site.log.find(event="process.exited")
    assert {(end["pid"], end["trigger"], end["planned"]) for end in ends} == {
        (pid, "reload", True) for pid in before
    }
    _expect_at_most(site, 3)


def _expect_at_most(site: Site, most: int) -> None:
    """There never were more processes than that at once."""
    now, peak = 0, 0
    for event in site.log.find():
        now += {"process.started": 1, "process.exited": -1}.get(event["event"], 0)
        peak = max(peak, now)
    assert peak <= most


def test_the_planned_end_of_a_process_disturbs_no_request_that_another_one_is_about_to_claim(
    begin: Start, ask_supervisor: Callable[..., Any], script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To take back what nobody has claimed is a look and then a shut, and a claim may come between them."""
    look = Channel.has_data

    def slow_look(channel: Channel) -> bool:
        found = look(channel)
        time.sleep(0.003)
        return found

    monkeypatch.setattr(Channel, "has_data", slow_look)
    write_script(script, "v1", "def reload_required(path): time.sleep(0.002)")
    # A process that gives no sign of life for a while is a reason to take something back, too.
    site = begin(processes=2, threads=2, script_reloading="strict", deadlock_timeout=0)
    with Traffic(site) as traffic:
        for _ in range(4):
            before = pids(site)
            ask_supervisor(site, "reload")
            wait_gone(site, before)
    expect_untroubled(site, traffic)
    assert site.log.find(event="queue.retried", taken_back=True) == []


@pytest.mark.timeout(300)
def test_twenty_reloads_leave_nothing_behind_in_the_gateway(
    begin: Start,
    ask_supervisor: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    site = begin(processes=1, threads=2)

    def reload() -> None:
        before = pids(site)
        ask_supervisor(site, "reload")
        wait_gone(site, before)

    def left() -> dict[str, int]:
        files = [path for path in tmp_path.rglob("*") if "__pycache__" not in str(path)]
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            # Threads of the pool end when it is used next, so how many idle there is chance.
            "threads": sum("AnyIO" not in thread.name for thread in threading.enumerate()),
            "children": len(children()),
            "files": len(files),
        }

    with Traffic(site, kept=2, new=1, pause=0.02) as traffic:
        traffic.wait_for_more()
        reload()
        traffic.wait_for_more()
        traffic.end()
        quiet = left()
    with Traffic(site, kept=2, new=1, pause=0.02) as traffic:
        for _ in range(20):
            reload()
        traffic.wait_for_more()
    expect_untroubled(site, traffic)

    def more() -> dict[str, int]:
        return {what: count for what, count in left().items() if count > quiet[what]}

    with suppress(AssertionError):
        wait_until(lambda: not more())
    assert more() == {}, quiet
    assert len(site.log.find(event="process.exited")) == 21


@pytest.mark.parametrize("processes", [1, 2])
def test_with_slow_imports_nobody_waits_while_processes_are_replaced(
    begin: Start,
    ask_supervisor: Callable[..., Any],
    script: Path,
    slow_imports: SlowImports,
    processes: int,
) -> None:
    write_script(script, "v1", slow_imports.text)
    site = begin(processes=processes)
    wait_until(lambda: len(pids(site)) == processes)
    slow_imports.begin()
    with Traffic(site, pause=0.01) as traffic:
        traffic.wait_for_more()
        before = pids(site)
        ask_supervisor(site, "reload")
        for number in range(1, processes + 1):
            successor = site.log.wait_for("process.started", count=processes + number)["pid"]
            slow_imports.wait_for(successor)
            traffic.wait_for_everybody()
            slow_imports.end(successor)
        wait_gone(site, before)
        traffic.wait_for_more()
    expect_untroubled(site, traffic)


def test_maximum_requests_at_full_speed(begin: Start) -> None:
    limit = 50
    site = begin(processes=2, maximum_requests=limit)
    with Traffic(site, query="sleep=0.001&{}", kept=6) as traffic:
        site.log.wait_for("process.exited", count=6, timeout=60)
    expect_untroubled(site, traffic)
    ended = {event["pid"] for event in site.log.find(event="process.exited")}
    assert {event["trigger"] for event in site.log.find(event="drain.started")} == {"maximum-requests"}
    counts = traffic.by_pid()
    assert all(counts[pid] >= limit for pid in ended)
    # Two starts of an interpreter come between its wish and its end, whose time a busy machine stretches.
    assert max(counts.values()) < 100 * limit
    _expect_at_most(site, 3)


def test_restart_interval(begin: Start) -> None:
    site = begin(processes=2, restart_interval=3, restart_interval_jitter=0.5)
    with Traffic(site) as traffic:
        site.log.wait_for("process.exited", count=3, timeout=60)
    expect_untroubled(site, traffic)
    assert {event["trigger"] for event in site.log.find(event="process.exited")} == {"restart-interval"}
    _expect_at_most(site, 3)


def test_cpu_time_limit(begin: Start) -> None:
    site = begin(processes=1, cpu_time_limit=1)
    with Traffic(site, kept=2, new=1, query="compute={}") as traffic:
        site.log.wait_for("process.exited", count=2, timeout=60)
    expect_untroubled(site, traffic)
    assert {event["trigger"] for event in site.log.find(event="process.exited")} == {"cpu-time-limit"}


def test_a_process_that_eats_memory_is_replaced(begin: Start) -> None:
    site = begin(processes=1, memory_limit=100 << 20)
    with Traffic(site, kept=2, new=1, query="eat=1&{}", pause=0.02) as traffic:
        end = site.log.wait_for("process.exited", timeout=60)
    expect_untroubled(site, traffic)
    assert (end["trigger"], end["planned"]) == ("memory-limit", True)
    assert re.search(r"it has \d{9,} bytes in memory", site.log.wait_for("drain.started")["reason"])


# --- the script


def test_a_script_that_changes_twice_is_served_as_it_is_and_nobody_notices(
    begin: Start, script: Path
) -> None:
    site = begin(processes=2, script_reloading="on")
    with Traffic(site) as traffic:
        for version in ("v2", "v3"):
            traffic.wait_for_more()
            old = pids(site)
            write_script(script, version)
            traffic.wait_for_version(version)
            wait_gone(site, old)
            moment = time.monotonic()
            time.sleep(0.5)
            traffic.wait_for_more()
            assert {reply.version for reply in traffic.since(moment)} == {version}
    expect_untroubled(site, traffic)
    assert {event["trigger"] for event in site.log.find(event="process.exited")} <= {
        "script-reloading",
        "reload",
    }
    _expect_at_most(site, 3)


def test_a_script_that_changes_again_while_its_processes_are_replaced(begin: Start, script: Path) -> None:
    write_script(script, "v1", "time.sleep(0.5)")
    site = begin(processes=2, script_reloading="on")
    with Traffic(site) as traffic:
        traffic.wait_for_more()
        for number in range(2, 7):
            write_script(script, f"v{number}", f"time.sleep(0.5)  # {'x' * number}")
            time.sleep(0.3)
        traffic.wait_for_version("v6")
        wait_until(lambda: all_serve(site, traffic, "v6"), 60)
        moment = time.monotonic()
        traffic.wait_for_more(100)
        assert {reply.version for reply in traffic.since(moment)} == {"v6"}
    expect_untroubled(site, traffic)
    _expect_at_most(site, 3)


def all_serve(site: Site, traffic: Traffic, version: str) -> bool:
    """Whether the group has all of its processes, no other lives, and each has answered with that code."""
    started, ended = (
        {event["pid"] for event in site.log.find(event=name)}
        for name in ("process.started", "process.exited")
    )
    return (
        pids(site)
        == started - ended
        == {r.pid for r in tuple(traffic.replies) if r.version == version} - ended
    )


def test_strict_runs_nothing_with_code_that_is_outdated(begin: Start, script: Path) -> None:
    site = begin(processes=2, script_reloading="strict")
    with Traffic(site) as traffic:
        for number in range(2, 6):
            traffic.wait_for_more()
            write_script(script, f"v{number}", f"# {'x' * number}")
            moment = time.monotonic()
            traffic.wait_for_more(40)
            assert {reply.version for reply in traffic.since(moment)} == {f"v{number}"}
    expect_untroubled(site, traffic)


def test_new_code_that_does_not_load_leaves_the_old_one_serving_until_it_is_mended(
    begin: Start, script: Path
) -> None:
    site = begin(processes=2, script_reloading="on")
    with Traffic(site) as traffic:
        traffic.wait_for_more()
        before = pids(site)
        write_script(script, "v2", "raise ValueError('broken on purpose')")
        failed = site.log.wait_for("process.load_failed")
        assert "ValueError: broken on purpose" in failed["traceback"]
        site.log.wait_for("process.started", count=5)  # two, and three tries
        assert pids(site) == before
        write_script(script, "v3", "# mended")
        traffic.wait_for_version("v3")
        wait_gone(site, before)
        assert len(site.log.find(event="process.load_failed")) == 1, "one fault is told once"
        moment = time.monotonic()
        traffic.wait_for_more(100)
        assert {reply.version for reply in traffic.since(moment)} == {"v3"}
        write_script(script, "v4", "raise ValueError('broken on purpose')")
        site.log.wait_for("process.load_failed", count=2)
        write_script(script, "v5", "# mended again")
        traffic.wait_for_version("v5")
    assert traffic.failures == []
    assert traffic.versions == {"v1", "v3", "v5"}
    assert site.log.find(event="group.failing") == []


# --- signals


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_at_each_daemon_in_turn(begin: Start, number: signal.Signals) -> None:
    site = begin(processes=2)
    wait_until(lambda: len(pids(site)) == 2)
    trigger = "eviction" if number == signal.SIGUSR1 else "a signal to this process"
    with Traffic(site) as traffic:
        traffic.wait_for_more()
        for pid in sorted(pids(site)):
            os.kill(pid, number)
            end = site.log.wait_for("process.exited", pid=pid)
            assert (end["trigger"], end["end"], end["planned"]) == (trigger, "exit status 0", True)
        wait_until(lambda: len(pids(site)) == 2)
        traffic.wait_for_more()
    expect_untroubled(site, traffic)


def test_an_eviction_of_all_at_once_leaves_some_that_serve(
    begin: Start, script: Path, slow_imports: SlowImports
) -> None:
    write_script(script, "v1", slow_imports.text)
    site = begin(processes=2, eviction_timeout=60)
    wait_until(lambda: len(pids(site)) == 2)
    slow_imports.begin()
    with Traffic(site, pause=0.05) as traffic:
        traffic.wait_for_more()
        before = pids(site)
        for pid in before:
            os.kill(pid, signal.SIGUSR1)
        site.log.wait_for("process.started", count=4)
        traffic.wait_for_everybody()
        slow_imports.end_all()
        wait_gone(site, before)
    expect_untroubled(site, traffic)


def test_a_successor_that_is_evicted_while_it_starts_does_not_take_its_predecessor_along(
    begin: Start, ask_supervisor: Callable[..., Any], script: Path, slow_imports: SlowImports
) -> None:
    """An application may ignore SIGTERM, so that the process loads to the end before it obeys."""
    site = begin(processes=1)
    (before,) = pids(site)
    slow_imports.begin()
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    write_script(script, "v1", f"{ignores}\n{slow_imports.text}")
    with Traffic(site, pause=0.05) as traffic:
        successor = site.log.wait_for("process.started", count=2)["pid"]
        slow_imports.wait_for(successor)
        ask_supervisor(site, "evict", successor)
        traffic.wait_for_everybody()
        slow_imports.end(successor)
        site.log.wait_for("process.exited", pid=successor)
        traffic.wait_for_everybody()
        assert pids(site) == {before}
        slow_imports.end_all()
        wait_gone(site, {before})
    expect_untroubled(site, traffic)


# --- ends


def test_a_request_that_outlasts_the_window_is_cut_after_shutdown_timeout_and_told(
    begin: Start, ask_supervisor: Callable[..., Any]
) -> None:
    site = begin(processes=1, threads=2, graceful_timeout=3, shutdown_timeout=3)
    with Client(site.address) as client, Traffic(site, kept=2, new=0) as traffic:
        client.send("GET /long?sleep=60 HTTP/1.1\r\nHost: t\r\n\r\n")
        request = site.log.wait_for("parse.finished", path="/long")["request_id"]
        site.log.wait_for("pickup.claimed", request_id=request)
        traffic.wait_for_more()
        before = pids(site)
        began = time.monotonic()
        ask_supervisor(site, "reload")
        assert client.read().status == 502
        assert time.monotonic() - began >= 5.9
        wait_gone(site, before)
    assert traffic.failures == []
    lost = site.log.wait_for("process.lost_request")
    assert (lost["pid"], lost["method"], lost["path"]) == (*before, "GET", "/long")
    assert len(site.log.find(event="process.lost_request")) == 1
    assert site.log.wait_for("process.exited")["trigger"] == "reload"


LINGERS = """
import atexit
threading.Thread(target=time.sleep, args=(600,)).start()
atexit.register(lambda: open({path!r}, "a").write(f"{{os.getpid()}}\\n"))
"""


def test_each_planned_end_runs_atexit_functions_and_waits_for_no_thread_of_the_application(
    script: Path, tmp_path: Path, ask_supervisor: Callable[..., Any]
) -> None:
    ends = tmp_path / "ends"
    write_script(script, "v1", LINGERS.format(path=str(ends)))
    with ExitStack() as stack:
        site = start_site(stack, str(script), processes=1, script_reloading="on", maximum_requests=1000)

        def end_by(how: Callable[[int], object]) -> None:
            (pid,) = pids(site)
            how(pid)
            site.log.wait_for("process.exited", pid=pid, end="exit status 0", timeout=100)
            wait_until(lambda: len(pids(site)) == 1)

        with Traffic(site, kept=2, new=1, pause=0.05) as traffic:
            end_by(lambda pid: ask_supervisor(site, "reload"))
            end_by(lambda pid: os.kill(pid, signal.SIGUSR1))
            end_by(lambda pid: os.kill(pid, signal.SIGTERM))
            end_by(lambda pid: write_script(script, "v22", LINGERS.format(path=str(ends))))
        expect_untroubled(site, traffic)
        with Traffic(site, kept=6, new=0, query="sleep=0&{}") as traffic:
            end_by(lambda pid: None)  # maximum-requests
        expect_untroubled(site, traffic)
    assert {event["trigger"] for event in site.log.find(event="process.exited")} == {
        "reload",
        "eviction",
        "a signal to this process",
        "script-reloading",
        "maximum-requests",
        "",  # the gateway's own end
    }
    ran = sorted(map(int, ends.read_text().split()))
    assert ran == sorted(all_pids(site)), "each ran them once"


def test_who_kills_the_only_process_again_and_again_loses_what_it_runs_and_nothing_else(
    begin: Start,
) -> None:
    site = begin(processes=1, threads=3)
    with Traffic(site) as traffic:
        for number in range(8):
            traffic.wait_for_more()
            (pid,) = pids(site)
            os.kill(pid, signal.SIGKILL)
            site.log.wait_for("process.ready", count=number + 2)
    killed = {event["pid"] for event in site.log.find(event="process.exited", end="killed by SIGKILL")}
    assert len(killed) == 8
    records = site.log.find(event="request.finished")
    lost = [record for record in records if record["status"] != 200]
    assert len(lost) == len(traffic.failures) <= 8 * 3
    for record in lost:
        assert record["outcome"] in ("lost", "truncated")
        assert record["pid"] in killed, "a worker had started it"
    assert len(site.log.find(event="process.lost_request")) >= len(lost)
    retried = site.log.find(event="queue.retried")
    assert site.served.statistics().retries == len(retried)


# --- idle processes


@pytest.mark.parametrize("processes", [1, 2])
def test_idle_processes_end_and_the_next_request_starts_one(
    begin: Start, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else another one is woken where the first is slow to claim the request.
    monkeypatch.setattr(_sleep, "CROWDED", 3.0)
    site = begin(processes=processes, inactivity_timeout=0.7)
    for turn in range(1, 3):
        site.log.wait_for("group.sleeping", asleep=processes, count=turn)
        started = len(site.log.find(event="process.started"))
        site.log.wait_for("process.exited", count=started)  # until then it takes what comes
        assert pids(site) == set()
        status, _, took = ask(site)
        assert (status, took < 20) == (200, True)
        assert len(site.log.find(event="process.started")) == started + 1, "one request wakes one process"
    ends = site.log.find(event="process.exited")
    assert {(end["trigger"], end["planned"]) for end in ends} == {("inactivity-timeout", True)}
    assert site.log.find(level="error") == []


def test_more_requests_than_one_process_can_take_wake_the_others(begin: Start) -> None:
    site = begin(processes=3, threads=1, inactivity_timeout=1)
    site.log.wait_for("group.sleeping", asleep=3)
    with Traffic(site, kept=6, new=0, query="sleep=0.4&{}") as traffic:
        wait_until(lambda: len(pids(site)) == 3)
        traffic.wait_for_more()
    expect_untroubled(site, traffic)


def test_requests_that_come_just_when_processes_end_because_they_are_idle(begin: Start) -> None:
    site = begin(processes=2, inactivity_timeout=0.2)
    with Traffic(site, kept=1, new=1, query="sleep=0&{}", pause=0.25) as traffic:
        site.log.wait_for("group.sleeping", count=6, timeout=60)
        traffic.wait_for_more(4)
    expect_untroubled(site, traffic)
    assert traffic.longest < 20


def test_a_request_that_came_before_the_last_process_was_sent_to_sleep_wakes_one(
    begin: Start, ask_supervisor: Callable[..., Any], supervisors: dict[Any, Supervisor]
) -> None:
    """Between the process's wish and the gateway's order both can have news for the other."""
    site = begin(processes=1, threads=1, queue_timeout=40)
    answers: list[int] = []
    askers = [
        threading.Thread(target=lambda: answers.append(ask(site, "sleep=4")[0])),
        threading.Thread(target=lambda: answers.append(ask(site)[0])),
    ]
    askers[0].start()
    site.log.wait_for("pickup.claimed")
    askers[1].start()
    wait_until(lambda: site.served.statistics().standing == 1)
    (child,) = supervisors[site.gateway._groups[0].group]._children.values()
    ask_supervisor(site, "said_wish", child, Wish("inactivity-timeout", "nothing to do"))
    for asker in askers:
        asker.join(60)
    assert answers == [200, 200]


# --- starts that fail

FAILS_ONCE = """
if not os.path.exists({flag!r}):
    open({flag!r}, "w").close()
    {fails}
"""


def test_an_import_that_fails_once_is_tried_again(begin: Start, script: Path, tmp_path: Path) -> None:
    write_script(
        script, "v1", FAILS_ONCE.format(flag=str(tmp_path / "flag"), fails="raise ValueError('once')")
    )
    site = begin(processes=1)
    assert ask(site)[0] == 200
    assert "ValueError: once" in site.log.wait_for("process.load_failed")["traceback"]
    assert len(site.log.find(event="process.started")) == 2


def test_an_import_that_always_fails_ends_the_gateway_soon(
    begin: Start, script: Path, supervisors: dict[Any, Supervisor]
) -> None:
    write_script(script, "v1", "raise ValueError('always')")
    began = time.monotonic()
    with pytest.raises(CannotStart, match="ValueError: always"):
        begin(processes=1)
    assert time.monotonic() - began < 40


def test_several_processes_that_fail_together_are_one_try(begin: Start, script: Path, tmp_path: Path) -> None:
    flag = tmp_path / "the-database-is-up"
    # Whoever starts within the first 0.2 s fails; four processes together would otherwise be four failures.
    waits = f"""
if not os.path.exists({str(flag)!r}):
    time.sleep(0.2)
    open({str(flag)!r}, "w").close()
    raise ValueError("no database")
"""
    write_script(script, "v1", waits)
    site = begin(processes=4)
    assert ask(site)[0] == 200
    site.log.wait_for("process.load_failed")


def test_an_import_that_hangs_is_ended_and_tried_again_and_the_log_names_the_line(
    begin: Start, script: Path, tmp_path: Path
) -> None:
    hangs = FAILS_ONCE.format(flag=str(tmp_path / "flag"), fails="time.sleep(600)  # HERE")
    write_script(script, "v1", hangs)
    line = next(n for n, text in enumerate(script.read_text().splitlines(), 1) if "# HERE" in text)
    site = begin(processes=1, startup_timeout=8)
    assert ask(site)[0] == 200
    (expired,) = site.log.find(event="process.start_expired")
    assert (expired["timer"], expired["age"] >= 7.9) == ("startup-timeout", True)
    assert f'"{script}", line {line} in <module>' in expired["stacks"]
    first, second = site.log.find(event="process.started")
    assert first["pid"] == expired["pid"] != second["pid"]


def test_new_code_that_hangs_when_it_is_loaded_leaves_the_old_one_serving(
    begin: Start, script: Path, tmp_path: Path
) -> None:
    site = begin(processes=1, startup_timeout=10)
    with Traffic(site) as traffic:
        traffic.wait_for_more()
        hangs = FAILS_ONCE.format(flag=str(tmp_path / "flag"), fails="time.sleep(600)")
        write_script(script, "v2", hangs)
        traffic.wait_for_version("v2")
    assert traffic.failures == []
    assert traffic.longest < 10
    assert len(site.log.find(event="process.start_expired")) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_group_that_cannot_start_again_says_so_at_once_and_recovers_by_itself(
    begin: Start, script: Path, loop: str
) -> None:
    site = begin(loop=loop, processes=1, threads=1, script_reloading="off")
    write_script(script, "v2", "time.sleep(0.5); raise ValueError('the database is gone')")
    waits: list[tuple[int, str, float]] = []
    (pid,) = pids(site)
    os.kill(pid, signal.SIGKILL)
    site.log.wait_for("process.exited", pid=pid)
    waiting = threading.Thread(target=lambda: waits.append(ask(site)))
    waiting.start()  # the process was well: a new one is waited for
    site.log.wait_for("group.failing")
    waiting.join(20)
    assert [status for status, _, _ in waits] == [503]
    with Client(site.address) as client:
        began = time.monotonic()
        answer = client.get("/")
        assert time.monotonic() - began < 10
        host, port = client.socket.getsockname()
    assert answer.status == 503
    assert 1 <= int(answer.fields["retry-after"]) <= 32
    record = site.record("/", client=f"{host}:{port}")
    assert (record["outcome"], record["stage"]) == ("shed", "admit")
    site.log.wait_for("process.started", count=3)
    write_script(script, "v3", "# the database is back")
    wait_until(lambda: ask(site)[0] == 200, 60)
    assert ask(site)[1].startswith("v3 ")


# --- how many


def test_one_process_more_that_is_asked_for_before_the_first_is_started_is_there_with_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Supervisor.run

    async def run_resized(self: Supervisor, **options: Any) -> None:
        assert self.resize(2) == 2
        await run(self, **options)

    monkeypatch.setattr(Supervisor, "run", run_resized)
    site = start(processes=1)
    wait_until(lambda: len(site.served.statistics().processes) == 2)


def test_a_gateway_that_serves_nothing_yet_has_no_processes_to_add() -> None:
    gateway = Gateway(Settings.for_app("apps:scripted"))
    assert gateway.resize(+1) == 0
    with pytest.raises(SettingsError, match="group = 'api': there is no such group that is served"):
        gateway.resize(+1, "api")
