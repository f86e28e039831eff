"""Queue and pickup: a request that no worker has claimed is never lost, and none runs twice."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client import Answer, Client
from conftest import Site, start_site, wait_until
from crowd import Crowd, crowds, stranger
from gatekeep._frames import frame
from gatekeep.transport._wire import Kind


@pytest.fixture
def crowded(start: Callable[..., Site], tmp_path: Path) -> Iterator[Callable[..., Crowd]]:
    """Make a site of two workers in each of two processes."""
    with crowds(start, tmp_path, processes=2, threads=2, connect_timeout=600, queue_timeout=600) as make:
        yield make


def ask_in_threads(site: Site, target: str, count: int) -> tuple[list[threading.Thread], list[Answer]]:
    """Ask for the target over `count` connections at once."""
    answers: list[Answer] = []

    def ask() -> None:
        with Client(site.address) as client:
            answers.append(client.get(target))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client was never answered"


def test_a_process_killed_after_the_claim_and_before_the_head_is_a_502_and_is_not_tried_again(
    start, tmp_path
) -> None:
    site = start()
    with Client(site.address) as client:
        assert client.get("/kill").status == 502
    record = site.record("/kill")
    assert (record["outcome"], record["stage"], record["attempts"]) == ("lost", "run", 1)
    assert site.log.wait_for("run.lost", request_id=record["request_id"])["pid"] == record["pid"]


def test_a_lost_request_is_named_with_its_process_and_age(start) -> None:
    site = start()
    with Client(site.address) as client:
        client.get("/kill")
    record = site.record("/kill")
    lost = site.log.wait_for("process.lost_request", request_id=record["request_id"])
    assert (lost["pid"], lost["age"] >= 0) == (record["pid"], True)
    exited = site.log.wait_for("process.exited", pid=record["pid"])
    assert exited["end"] == "killed by SIGKILL"


def test_the_news_of_a_death_arrives_while_a_forked_child_holds_the_connection(start) -> None:
    site = start()
    with Client(site.address) as client:
        answer = client.get("/fork-and-kill")
    assert answer.status == 502
    assert site.record("/fork-and-kill")["duration"] < 7, "it waited for the child, which lives for 8 s"


def test_a_process_that_dies_is_replaced(start) -> None:
    site = start(processes=1)
    first = site.served.statistics().processes
    os.kill(first[0], signal.SIGKILL)
    site.log.wait_for("process.ready", count=2)
    assert site.served.statistics().processes != first
    with Client(site.address) as client:
        assert client.get("/plain").status == 200


@pytest.mark.usefixtures("never_late")
def test_requests_that_wait_in_the_backlog_survive_the_death_of_the_only_process(start) -> None:
    site = start(processes=1, threads=1)
    (pid,) = site.served.statistics().processes
    running, lost = ask_in_threads(site, "/sleep?30", 1)
    site.log.wait_for("pickup.claimed")
    waiting, answers = ask_in_threads(site, "/plain", 20)
    wait_until(lambda: site.served.statistics().standing == 20)
    os.kill(pid, signal.SIGKILL)
    join(running + waiting)
    assert [answer.status for answer in lost] == [502]
    assert [answer.status for answer in answers] == [200] * 20
    site.log.wait_for("request.finished", path="/plain", attempts=1, count=20)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Enough for 500 clients, their hops and their other ends, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_of_500_requests_only_those_fail_that_had_started_when_one_of_two_processes_is_killed(
    many_descriptors: None, crowded: Callable[..., Crowd]
) -> None:
    crowd = crowded()
    site = crowd.site
    hold = crowd.hold(4, script="hold-with-child")
    queued = {f"{number}": crowd.note(f"{number}") for number in range(500)}
    wait_until(lambda: site.served.statistics().in_flight == 504)
    assert crowd.noted() == []
    killed = site.served.statistics().processes[0]
    os.kill(killed, signal.SIGKILL)
    site.log.wait_for("process.exited", pid=killed)
    assert sorted(answer.status for answer in hold.read()) == [200, 200, 502, 502]
    assert {client.read().status for client in queued.values()} == {200}
    assert sorted(crowd.noted(), key=int) == list(queued), "each has run once"
    lost = site.log.find(event="request.finished", outcome="lost")
    assert [(record["pid"], record["stage"], record["path"]) for record in lost] == [
        (killed, "run", "/hold-with-child")
    ] * 2
    assert {record["action"] for record in lost} == {"answered"}


def test_none_of_500_requests_runs_twice_when_a_process_is_killed_while_they_are_served(
    many_descriptors: None, crowded: Callable[..., Crowd]
) -> None:
    crowd = crowded()
    hold = crowd.hold(4, script="hold-with-child")
    queued = {f"{number}": crowd.note(f"{number}") for number in range(500)}
    wait_until(lambda: crowd.site.served.statistics().in_flight == 504)
    hold.release()
    wait_until(lambda: len(crowd.noted()) >= 20)
    os.kill(crowd.site.served.statistics().processes[0], signal.SIGKILL)
    statuses = {name: client.read().status for name, client in queued.items()}
    lost = [name for name, status in statuses.items() if status != 200]
    assert {statuses[name] for name in lost} <= {502}
    assert len(lost) <= 2, "no more than the process had threads"
    noted = crowd.noted()
    assert len(noted) == len(set(noted)), "one has run twice"
    assert set(noted) >= set(statuses) - set(lost), "each that was answered has run"


def test_only_requests_that_had_started_fail_when_processes_are_killed_under_load(start, tmp_path) -> None:
    site = start(processes=2, threads=2)
    mark = tmp_path / "mark"
    mark.touch()
    threads, answers = ask_in_threads(site, f"/mark?{mark}", 0)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            with Client(site.address) as client:
                answers.append(client.get(f"/mark?{mark}"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for kills in range(1, 7):
        # The first two are ready at the start, and each that is killed is followed by another.
        site.log.wait_for("process.ready", count=kills + 1)
        wait_until(lambda: bool(site.served.statistics().processes))
        os.kill(site.served.statistics().processes[0], signal.SIGKILL)
        site.log.wait_for("process.exited", count=kills)
    stop.set()
    join(threads)
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 502}
    assert statuses.count(502) <= 6 * 2, "no more than the threads that ran when their process was killed"
    lost = [record for record in site.log.find(event="request.finished") if record["status"] == 502]
    assert all(record["pid"] for record in lost), "each of them had been claimed"
    assert len(mark.read_text().splitlines()) >= statuses.count(200), "every 200 has run"
    assert len(mark.read_text().splitlines()) <= len(statuses), "nothing has run twice"


def test_hop_retries_end_at_two_times_processes_plus_one(start) -> None:
    """A listener whose connections are accepted and closed unclaimed."""
    site = start(processes=1, threads=1)
    with stranger(site) as listener:
        waiting, answers = ask_in_threads(site, "/plain", 1)
        for _ in range(3):
            listener.accept()[0].close()
        join(waiting)
    assert answers[0].status == 503
    record = site.record("/plain")
    assert (record["attempts"], record["outcome"], record["stage"]) == (3, "shed", "queue")
    assert len(site.log.find(event="queue.retried")) == 2


@pytest.mark.parametrize(
    "nonsense",
    [frame(77) * 20_000, frame(Kind.GO, b"\xc1"), b"no frame at all"],
    ids=["no claim, and more than one read takes", "a claim that is none", "no frame"],
)
def test_nonsense_in_a_claims_place_is_never_offered_again_and_leaves_nothing_behind(
    start: Callable[..., Site], nonsense: bytes
) -> None:
    """An application that closes a descriptor twice writes to whatever has its number by then; the claim may follow that."""
    site = start(processes=1, threads=1)
    with stranger(site) as listener:
        waiting, answers = ask_in_threads(site, "/plain", 1)
        with listener.accept()[0] as hop:
            hop.sendall(nonsense)
            join(waiting)
    assert answers[0].status == 500
    assert site.record("/plain")["attempts"] == 1
    assert "ClaimError" in site.log.wait_for("front.failed")["traceback"]
    assert site.served.statistics().standing == 0


def test_a_group_folder_is_private_and_nothing_of_it_is_left() -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        site = start_site(stack, processes=1)
        folder = os.path.dirname(os.readlink(site.gateway._groups[0].group.address))  # type: ignore[union-attr]
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert not os.path.exists(folder)


@pytest.mark.usefixtures("long_last_words")
def test_a_process_that_is_told_to_end_by_a_stranger_is_replaced_within_shutdown_timeout(start) -> None:
    site = start(processes=1, shutdown_timeout=1.0)
    (pid,) = site.served.statistics().processes
    running, lost = ask_in_threads(site, "/sleep?30", 1)
    site.log.wait_for("pickup.claimed")
    os.kill(pid, signal.SIGTERM)
    with Client(site.address) as client:
        assert client.get("/plain").status == 200
    drained = site.log.wait_for("drain.started", pid=pid)
    assert drained["reason"] == "SIGTERM at the process"
    with Client(site.address) as client:
        assert client.get("/plain").status == 200
    join(running)
    assert [answer.status for answer in lost] == [502]
    assert site.log.wait_for("process.shutdown_timeout", pid=pid)


def test_a_process_whose_listener_the_application_closed_is_replaced(start) -> None:
    site = start(processes=1)
    with Client(site.address) as client:
        assert client.get("/close-all").status == 200
    site.log.wait_for("process.ready", count=2)
    with Client(site.address) as client:
        assert client.get("/plain").status == 200
