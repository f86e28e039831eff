"""The body stage: a request's body is received before a worker is asked, within body-timeout, as far as there is room."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from conftest import BOTH_BACKENDS, PATIENCE, Site, start_site, wait_until
from crowd import Crowd, Guest
from gatekeep import Outcome, Stage
from gatekeep.transport import _spool

LONGEST_IN_MEMORY = 131072

pytestmark = BOTH_BACKENDS


@pytest.fixture(scope="module")
def echo_site(loop: str) -> Iterator[Site]:
    with ExitStack() as stack:
        yield start_site(stack, "apps:echo", loop, processes=1)


@pytest.fixture
def echo(echo_site: Site, tmp_path: Path) -> Iterator[Crowd]:
    """Clients of a site that tells what it was sent."""
    with Crowd(echo_site, tmp_path) as crowd:
        yield crowd


def upload(crowd: Crowd, target: str, size: int, *fields: str) -> Guest:
    """A client that has announced a body and sent nothing of it."""
    return crowd.ask(target, f"Content-Length: {size}", *fields, method="POST")


# --- whole


@pytest.mark.parametrize("size", [1, 16384, 16385, LONGEST_IN_MEMORY, LONGEST_IN_MEMORY + 1, 6_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_every_size_arrive_whole(echo: Crowd, size: int, chunked: bool) -> None:
    body = os.urandom(size)
    client = echo.connect()
    if chunked:
        client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, size, 100_000):
            piece = body[start : start + 100_000]
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.send("0\r\n\r\n")
        answer = client.read()
    else:
        answer = client.post("/", body)
    seen = json.loads(answer.body)
    assert (seen["size"], seen["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert seen["environ"]["CONTENT_LENGTH"] == str(size), "Django would take the body for none"
    assert "HTTP_TRANSFER_ENCODING" not in seen["environ"]
    record = echo.record_of(client)
    assert record["bytes_in"] == size
    assert client.post("/", b"again").status == 200, "the connection goes on"


def test_the_length_of_a_chunked_body_that_is_not_buffered_is_not_known(loop: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        crowd = stack.enter_context(
            Crowd(start_site(stack, "apps:echo", loop, request_buffering=False), tmp_path)
        )
        client = crowd.ask("/", "Transfer-Encoding: chunked", method="POST")
        client.send("3\r\nabc\r\n0\r\n\r\n")
        seen = json.loads(client.read().body)
    assert seen["size"] == 3
    assert "CONTENT_LENGTH" not in seen["environ"]
    assert seen["environ"]["HTTP_TRANSFER_ENCODING"] == "chunked"
    assert seen["environ"]["wsgi.input_terminated"] is True


def test_an_upload_holds_no_worker_until_it_is_complete(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded()
    client = upload(crowd, "/count", 40_000)
    client.send(b"x" * 39_999)
    for _ in range(5):
        assert crowd.ask("/plain").read().status == 200
    wait_until(lambda: crowd.site.served.statistics().in_flight == 1)
    statistics = crowd.site.served.statistics()
    assert (statistics.standing, statistics.waiting) == (0, 0)
    client.send("x")
    assert client.read().body == b"40000"
    assert list(crowd.record_of(client)["stages"]) == ["parse", "body", "connect", "queue", "run", "respond"]


def test_100_continue_is_sent_before_a_worker_is_asked(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded()
    hold = crowd.hold()
    client = upload(crowd, "/count", 3, "Expect: 100-continue")
    assert client.read().status == 100
    client.send("abc")
    crowd.wait_standing(1)
    hold.release()
    assert client.read().body == b"3"


# --- in time


@pytest.mark.parametrize("buffering", [True, False])
def test_a_body_that_goes_no_further_is_a_408_when_body_timeout_is_over(
    crowded: Callable[..., Crowd], buffering: bool
) -> None:
    crowd = crowded(threads=3, body_timeout=4.0, body_min_rate=1 << 20, request_buffering=buffering)
    clients = {}
    for sent in (0, 10, 200_000):
        clients[sent] = upload(crowd, "/count", 300_000)
        clients[sent].send(b"x" * sent)
    for sent, client in clients.items():
        answer = client.read()
        assert (answer.status, answer.complete, answer.fields["connection"]) == (408, True, "close")
        assert client.is_closed()
        record = crowd.record_of(client)
        assert (record["outcome"], record["stage"], record["timer"]) == ("refused", "body", "body-timeout")
        assert (record["action"], record["status"], record["bytes_in"]) == ("answered", 408, sent)
        assert record["age"] >= 4.0
        assert record["attempts"] == (0 if buffering else 1)
        assert crowd.site.log.wait_for("body.expired", request_id=record["request_id"])
    statistics = crowd.site.served.statistics()
    assert statistics.requests[Stage.BODY, Outcome.REFUSED] == 3
    assert statistics.timers == {"body-timeout": 3}
    hold = crowd.hold(3)
    assert {answer.status for answer in hold.read()} == {200}, "the workers are free"


def test_chunks_that_go_no_further_are_a_408_wherever_that_is(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(body_timeout=1.0)
    clients = []
    for sent in ("", "3", "3\r\nab", "3\r\nabc\r\n0\r\n", "3\r\nabc\r\n0\r\nTrailer: x\r\n"):
        clients.append(crowd.ask("/count", "Transfer-Encoding: chunked", method="POST"))
        clients[-1].send(sent)
    for client in clients:
        assert client.read().status == 408
        assert crowd.record_of(client)["timer"] == "body-timeout"


def test_a_body_that_dribbles_below_body_min_rate_is_a_408(crowded: Callable[..., Crowd]) -> None:
    crowd = crowded(body_timeout=1.0, body_min_rate=500)
    client = upload(crowd, "/count", 1000)
    while not client.has_answer():
        client.send("x")
        time.sleep(0.05)
    assert client.read().status == 408


def test_an_upload_above_body_min_rate_is_served_though_it_takes_longer_than_body_timeout(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(body_timeout=5.0, body_min_rate=100)
    client = upload(crowd, "/count", 100_000)
    began, left = time.monotonic(), 100_000
    while time.monotonic() - began < 6:
        client.send(b"x" * 400)
        left -= 400
        time.sleep(0.1)
    client.send(b"x" * left)
    assert client.read().body == b"100000"
    assert crowd.record_of(client)["stages"]["body"] > 5.0


def test_a_body_that_comes_steadily_is_a_408_when_body_max_timeout_is_over(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(body_timeout=30.0, body_min_rate=1, body_max_timeout=1.0)
    client = upload(crowd, "/count", 10_000)
    while not client.has_answer():
        client.send("x" * 10)
        time.sleep(0.05)
    assert client.read().status == 408


def test_the_time_for_which_an_application_reads_nothing_is_none_in_which_its_client_is_slow(
    crowded: Callable[..., Crowd],
) -> None:
    crowd = crowded(body_timeout=0.5, request_buffering=False)
    gate = crowd.gate()
    client = upload(crowd, f"/read-at-gate?{gate}", 5)
    crowd.site.log.wait_for("pickup.claimed")
    client.send("12345")
    time.sleep(1)
    gate.touch()
    assert client.read().body == b"5"


@pytest.mark.parametrize("way", ["half_close", "break_off"])
def test_a_client_that_goes_inside_its_body_costs_no_worker(crowded: Callable[..., Crowd], way: str) -> None:
    crowd = crowded()
    client = upload(crowd, f"/note?{crowd.notes},ran", 100)
    name = client.name
    client.send("x" * 50)
    wait_until(lambda: crowd.site.served.statistics().in_flight == 1)
    getattr(client, way)()
    record = crowd.site.log.wait_for("request.finished", client=name)
    assert (record["outcome"], record["stage"], record["attempts"]) == ("client_gone", "body", 0)
    if way == "half_close":
        assert (client.read().status, record["action"]) == (400, "answered")
    else:
        assert record["action"] == "dropped"
    assert crowd.noted() == []


# --- without room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for one megabyte; where we may not mount one, a folder that does not exist."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "gatekeep-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except OSError:
        mounted = False
    yield folder if mounted else folder / "missing"
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


@pytest.fixture(params=["full", "missing"])
def no_room(request: pytest.FixtureRequest, small_disk: Path) -> str:
    """A folder that takes no large files."""
    return str(small_disk if request.param == "full" else small_disk / "missing")


@pytest.mark.usefixtures("patient_discards")
def test_a_body_for_which_there_is_no_room_is_a_507_and_never_runs(
    crowded: Callable[..., Crowd], no_room: str
) -> None:
    crowd = crowded(spool_dir=no_room)
    client = upload(crowd, f"/note?{crowd.notes},ran", 4_000_000)
    client.send(b"x" * 4_000_000)
    answer = client.read()
    assert (answer.status, answer.complete, answer.fields["connection"]) == (507, True, "close")
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"], record["action"]) == ("shed", "body", "answered")
    assert (record["attempts"], record["timer"], record["age"] > 0) == (0, "", True)
    assert crowd.site.log.wait_for("body.no_space", level="warning", request_id=record["request_id"])[
        "reason"
    ]
    assert crowd.site.served.statistics().requests == {(Stage.BODY, Outcome.SHED): 1}
    assert crowd.noted() == []
    small = upload(crowd, "/count", 100_000)
    small.send(b"x" * 100_000)
    assert small.read().body == b"100000", "what stays in memory needs no disk"


@pytest.fixture
def mounted_disk(small_disk: Path) -> Path:
    """A disk that has room for a megabyte."""
    if not small_disk.exists():
        pytest.skip("a file system cannot be mounted here")
    return small_disk


def test_the_room_of_a_body_is_free_again_after_its_request(
    crowded: Callable[..., Crowd], mounted_disk: Path
) -> None:
    crowd = crowded(spool_dir=str(mounted_disk))
    client = crowd.connect()
    for _ in range(5):
        assert client.post("/count", b"x" * 700_000).body == b"700000"
    assert list(mounted_disk.iterdir()) == [], "its file has no name"


@pytest.mark.usefixtures("patient_discards")
def test_the_room_of_a_body_that_did_not_fit_is_free_again_when_its_client_is_told(
    crowded: Callable[..., Crowd], mounted_disk: Path
) -> None:
    crowd = crowded(spool_dir=str(mounted_disk))
    for _ in range(3):
        assert crowd.connect().post("/count", b"x" * 1_500_000).status == 507
        assert crowd.connect().post("/count", b"x" * 700_000).body == b"700000"


def test_a_response_for_which_there_is_no_room_arrives_whole_and_its_worker_waits(
    crowded: Callable[..., Crowd], no_room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, write = threading.Event(), _spool._write

    def write_and_tell(*how: Any) -> None:
        try:
            write(*how)
        except OSError:
            failed.set()
            raise

    monkeypatch.setattr(_spool, "_write", write_and_tell)
    crowd = crowded(spool_dir=no_room)
    client = crowd.ask("/big?20000000")
    assert failed.wait(PATIENCE)
    answer = client.read()
    assert (len(answer.body), answer.complete) == (20_000_000, True)
    record = crowd.record_of(client)
    assert (record["outcome"], record["stage"]) == ("served", "respond")
    said = crowd.site.log.wait_for("respond.no_space", request_id=record["request_id"])
    assert (said["level"], said["stage"], bool(said["reason"])) == ("warning", "respond", True)
