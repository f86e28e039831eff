"""Scripts' files: one version decides at a time, none that is half there, and one that hangs while it loads hangs one thread."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_until
from gatekeep import _script_files
from gatekeep._script_files import CannotLoad, Script
from gatekeep.settings._script_target import ScriptTarget

LONG = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decide.py"


@pytest.fixture(autouse=True)
def every_look_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_script_files, "LOOK", 0.0)


def loaded(script: Script) -> Any:
    return script.load(LONG)


def refusal(script: Script, patience: float = LONG) -> CannotLoad:
    with pytest.raises(CannotLoad) as failed:
        script.load(patience)
    return failed.value


def test_a_script_is_loaded_once_and_again_when_its_file_changes(path: Path) -> None:
    path.write_text("here = __name__, __file__\nversion = 1\n")
    script = Script(ScriptTarget(path=str(path)))
    first = loaded(script)
    assert loaded(script) is first
    assert first.here[1] == str(path)
    assert sys.modules[first.here[0]] is first
    path.write_text("version = 2\n")
    assert loaded(script).version == 2
    assert first.version == 1, "whoever has a version keeps it to the end"
    assert not hasattr(loaded(script), "here")


def test_a_file_of_the_same_size_and_time_is_another_one_all_the_same(path: Path) -> None:
    path.write_text("version = 1\n")
    script = Script(ScriptTarget(path=str(path)))
    assert loaded(script).version == 1
    stat = path.stat()
    other = path.with_suffix(".new")
    other.write_text("version = 2\n")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(other, path)
    assert loaded(script).version == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')", "ValueError: two"),
        ("e = ValueError('x'); e.add_note('noted'); raise e", "ValueError: x"),
        ("class E(Exception):\n def __str__(self): raise SystemExit\nraise E", "<exception str() failed>"),
        ("import no_such_module_anywhere", "No module named"),
        ("open('/no/such/file')", "No such file or directory"),
        ("\0", "failed to load"),
    ],
)
def test_what_does_not_load_is_not_there_and_the_version_before_does_not_decide_for_it(
    path: Path, text: str, reason: str
) -> None:
    path.write_text("version = 1\n")
    script = Script(ScriptTarget(path=str(path)))
    loaded(script)
    path.write_text(text)
    failed = refusal(script)
    assert str(failed).startswith(f"{path} failed to load: ")
    assert reason in str(failed)
    assert "\n" not in str(failed)
    assert failed.details
    path.write_text("version = 3\n")
    assert loaded(script).version == 3


def test_a_file_that_goes_is_missed_until_it_comes_back(path: Path) -> None:
    script = Script(ScriptTarget(path=str(path)))
    assert str(refusal(script)) == f"there is no {path}"
    path.write_text("version = 1\n")
    assert loaded(script).version == 1
    path.unlink()
    assert str(refusal(script)) == f"there is no {path}"
    path.mkdir()
    assert "IsADirectoryError" in str(refusal(script))
    path.rmdir()
    path.write_text("version = 2\n")
    assert loaded(script).version == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_we_may_not_read_is_read_when_we_may(path: Path) -> None:
    path.write_text("version = 1\n")
    path.chmod(0)
    script = Script(ScriptTarget(path=str(path)))
    assert "PermissionError" in str(refusal(script))
    path.chmod(0o600)
    assert loaded(script).version == 1


def test_a_version_that_failed_for_what_it_lacked_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_script_files, "RETRY", 0.05)
    path.write_text("with open(__file__ + '.needed'): pass\n")
    script = Script(ScriptTarget(path=str(path)))
    refusal(script)
    Path(f"{path}.needed").touch()
    wait_until(lambda: can_load(script))


def can_load(script: Script) -> bool:
    try:
        loaded(script)
    except CannotLoad:
        return False
    return True


def test_between_two_tries_it_is_not_loaded_and_an_error_does_not_grow(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_script_files, "RETRY", math.inf)
    path.write_text("with open(__file__ + '.log', 'a') as file: file.write('x')\n1/0\n")
    script = Script(ScriptTarget(path=str(path)))
    lengths = {len(list(traceback.walk_tb(refusal(script).__traceback__))) for _ in range(10)}
    assert len(lengths) == 1
    assert Path(f"{path}.log").read_text() == "x"


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_load_that_hangs_keeps_nobody_else_and_a_mended_file_is_loaded_beside_it(path: Path) -> None:
    path.write_text(
        "import os, time\nopen(__file__ + '.began', 'w').close()\n"
        "while not os.path.exists(__file__ + '.end'): time.sleep(0.01)\nversion = 1\n"
    )
    script = Script(ScriptTarget(path=str(path)))
    results: list[int] = []
    hanging = in_thread(lambda: results.append(loaded(script).version))
    wait_until(Path(f"{path}.began").exists)
    assert "takes longer than script-timeout to load" in str(refusal(script, 0.1))
    began = time.monotonic()
    for _ in range(500):
        refusal(script, 0.1)
    assert time.monotonic() - began < LONG, "who comes later does not wait for it again"
    path.write_text("version = 2\n")
    assert loaded(script).version == 2
    Path(f"{path}.end").touch()
    hanging.join(LONG)
    assert results == [1], "its own request, which nobody waits for any more"
    assert loaded(script).version == 2


def test_who_comes_while_it_loads_waits_for_it(path: Path) -> None:
    path.write_text(
        "import time\nwith open(__file__ + '.log', 'a') as file: file.write('x')\ntime.sleep(0.2)\nversion = 1\n"
    )
    script = Script(ScriptTarget(path=str(path)))
    results: list[int] = []
    threads = [in_thread(lambda: results.append(script.load(math.inf).version)) for _ in range(8)]
    for thread in threads:
        thread.join(LONG)
    assert results == [1] * 8
    assert Path(f"{path}.log").read_text() == "x"


def test_nobody_sees_half_of_a_script(path: Path) -> None:
    """While it is replaced again and again, everybody gets a whole version."""
    path.write_text("a = b = 0\n")
    script = Script(ScriptTarget(path=str(path)))
    stop = threading.Event()
    seen: list[bool] = []

    def look() -> None:
        while not stop.is_set():
            module = script.load(LONG)
            seen.append(getattr(module, "a", "none") == getattr(module, "b", "nothing"))

    threads = [in_thread(look) for _ in range(4)]
    wait_until(lambda: bool(seen))
    for number in range(100):
        other = path.with_suffix(".new")
        other.write_text(f"a = {number}\nb = {number}\n")
        os.replace(other, path)
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join(LONG)
    assert seen
    assert all(seen)


def test_a_module_is_found_without_importing_what_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shop_of_scripts"
    package.mkdir()
    (package / "__init__.py").write_text("1/0\n")
    (package / "access.py").write_text("version = 1\n")
    script = Script(ScriptTarget(module="shop_of_scripts.access"))
    assert str(refusal(script)) == "there is no shop_of_scripts.access"
    monkeypatch.chdir(tmp_path)  # a console script has not the present folder on its path
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    assert loaded(script).version == 1
    assert "shop_of_scripts" not in sys.modules
    package_itself = Script(ScriptTarget(module="shop_of_scripts"))
    assert "ZeroDivisionError" in str(refusal(package_itself))


@pytest.mark.parametrize("module", ["sys", "no_such_module_anywhere.x", "xml", "os.path"])
def test_a_module_that_is_no_script_of_yours_is_not_a_way_around(module: str) -> None:
    script = Script(ScriptTarget(module=module))
    try:
        found = loaded(script)
    except CannotLoad:
        return
    assert not hasattr(found, "allow_access")


def test_a_relative_path_is_where_it_was_when_the_program_began(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("version = 1\n")
    monkeypatch.chdir(tmp_path)
    script = Script(ScriptTarget(path="./decide.py"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "decide.py").write_text("version = 'a strangers'\n")
    monkeypatch.chdir(elsewhere)
    assert loaded(script).version == 1


def test_an_object_of_the_program_is_taken_as_it_is() -> None:
    value = object()
    assert Script(ScriptTarget(value=value)).load(LONG) is value
