"""Whether the application's script has changed."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gatekeep.pool._script import PAUSE, Script, watch_script

HOUR = 3600 * 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wsgi.py"
    path.write_text("application = None\n")
    age(path, 10**10)
    return path


def age(path: Path, nanoseconds: int) -> None:
    """Make a file older, or with a negative number newer."""
    now = path.stat().st_mtime_ns - nanoseconds
    os.utime(path, ns=(now, now))


def watch(path: Path | str, began: float | None = None, hook: object = None, pause: float = 0.0) -> Script:
    return Script(str(path), time.time() if began is None else began, hook, pause)  # type: ignore[arg-type]


# --- its time


def test_a_file_that_stays_as_it_was_has_not_changed(file: Path) -> None:
    script = watch(file)
    assert not any(script.has_changed() for _ in range(20))


def test_a_newer_file_has_changed_and_says_so_every_time(file: Path) -> None:
    script = watch(file)
    file.write_text("application = 1\n")
    assert [script.has_changed() for _ in range(3)] == [True] * 3


def test_an_older_file_has_changed_too(file: Path) -> None:
    script = watch(file)
    age(file, HOUR)
    assert script.has_changed()


def test_the_smallest_difference_counts(file: Path) -> None:
    script = watch(file)
    age(file, -1)
    assert script.has_changed()


def test_a_file_that_was_set_back_is_the_one_that_was_loaded(file: Path) -> None:
    before = file.stat().st_mtime_ns
    script = watch(file)
    file.write_text("application = 1\n")
    assert script.has_changed()
    os.utime(file, ns=(before, before))
    assert not script.has_changed()


def test_another_file_in_its_place_has_changed(file: Path) -> None:
    script = watch(file)
    other = file.with_name("new")
    other.write_text("application = 1\n")
    other.replace(file)
    assert script.has_changed()


def test_a_link_that_points_elsewhere_now_has_changed(file: Path, tmp_path: Path) -> None:
    current, release = tmp_path / "current", tmp_path / "release2.py"
    current.symlink_to(file)
    release.write_text("application = 2\n")
    script = watch(current)
    current.unlink()
    current.symlink_to(release)
    assert script.has_changed()


# --- a deployment takes a moment


def test_a_file_that_is_missing_for_a_moment_has_not_changed(file: Path) -> None:
    script = watch(file)
    away = file.with_name("away")
    file.rename(away)
    assert not script.has_changed()
    away.rename(file)
    assert not script.has_changed(), "it came back as it was"


def test_a_file_that_comes_back_as_another_has_changed(file: Path) -> None:
    script = watch(file)
    file.unlink()
    assert not script.has_changed()
    file.write_text("application = 1\n")
    assert script.has_changed()


def test_a_folder_that_nobody_may_enter_any_more_is_no_change(file: Path) -> None:
    script = watch(file)
    file.unlink()
    file.parent.rmdir()
    assert not script.has_changed()
    file.parent.mkdir()  # for whoever tidies up


def test_what_was_written_while_it_was_loaded_counts_as_changed(file: Path) -> None:
    began = time.time() - 5
    file.write_text("application = 1\n")
    assert watch(file, began).has_changed()


def test_what_was_written_before_the_load_is_what_was_loaded(file: Path) -> None:
    assert not watch(file, time.time()).has_changed()


def test_a_file_from_the_future_is_taken_as_it_is(file: Path) -> None:
    age(file, -HOUR)
    script = watch(file)
    assert not script.has_changed()
    age(file, HOUR)
    assert script.has_changed()


@pytest.mark.parametrize("path", ["", "/nowhere/wsgi.py"])
def test_where_there_was_no_file_nothing_ever_changes(path: str) -> None:
    asked: list[str] = []
    script = watch(path, hook=lambda path: bool(asked.append(path)))
    assert not script.has_changed()


# --- the script's own word


def test_the_hook_is_asked_with_the_path_and_its_word_counts(file: Path) -> None:
    asked: list[str] = []

    def reload_required(path: str) -> bool:
        asked.append(path)
        return len(asked) > 2

    script = watch(file, hook=reload_required)
    assert [script.has_changed() for _ in range(3)] == [False, False, True]
    assert asked == [str(file)] * 3


@pytest.mark.parametrize(("word", "changed"), [(True, True), (1, True), (None, False), ("", False)])
def test_whatever_the_hook_returns_is_true_or_not(file: Path, word: object, changed: bool) -> None:
    assert watch(file, hook=lambda path: word).has_changed() is changed


def test_a_hook_that_raises_is_shown_and_changes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reload_required(path: str) -> bool:
        raise ValueError("raised on purpose")

    assert not watch(file, hook=reload_required).has_changed()
    assert "ValueError: raised on purpose" in capsys.readouterr().err


def test_a_file_that_has_changed_needs_no_word(file: Path) -> None:
    script = watch(file, hook=lambda path: pytest.fail("it was asked"))
    age(file, -1)
    assert script.has_changed()


# --- what a look costs


def test_one_look_counts_for_the_pause(file: Path) -> None:
    script = watch(file, pause=1e6)
    assert not script.has_changed()
    age(file, -1)
    assert not script.has_changed(), "it has looked only just now"


def test_after_the_pause_it_looks_again(file: Path) -> None:
    script = watch(file, pause=0.01)
    script.has_changed()
    age(file, -1)
    time.sleep(0.02)
    assert script.has_changed()


def test_while_one_thread_asks_the_hook_the_others_do_not_wait_for_it(file: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def reload_required(path: str) -> bool:
        asked.set()
        assert go_on.wait(20)
        return True

    script = watch(file, hook=reload_required, pause=0.001)
    found: list[bool] = []
    slow = threading.Thread(target=lambda: found.append(script.has_changed()))
    slow.start()
    assert asked.wait(20)
    try:
        assert not script.has_changed()
    finally:
        go_on.set()
        slow.join()
    assert found == [True]


# --- which file it is


def test_an_application_from_a_path_is_watched_with_its_own_hook(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("_gatekeep_wsgi")
    module.__file__ = str(file)
    module.reload_required = lambda path: path == str(file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "_gatekeep_wsgi", module)
    monkeypatch.chdir(file.parent)
    assert watch_script("wsgi.py", "", time.time(), strict=True).has_changed()


def test_an_application_from_a_module_is_watched_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("some.module")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "some.module", module)
    script = watch_script("", "some.module", time.time(), strict=True)
    assert not script.has_changed()
    age(file, -1)
    assert script.has_changed()


@pytest.mark.parametrize("hook", [None, 7, "text"])
def test_a_name_that_is_no_function_is_no_hook(
    file: Path, monkeypatch: pytest.MonkeyPatch, hook: object
) -> None:
    module = ModuleType("some.module")
    module.__file__ = str(file)
    module.reload_required = hook  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some.module", module)
    assert not watch_script("", "some.module", time.time(), strict=True).has_changed()


def test_a_module_without_a_file_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "some.module", ModuleType("some.module"))
    assert not watch_script("", "some.module", time.time(), strict=True).has_changed()


@pytest.mark.parametrize(("strict", "seen_at_once"), [(True, True), (False, False)])
def test_only_strict_looks_at_every_request(
    file: Path, monkeypatch: pytest.MonkeyPatch, strict: bool, seen_at_once: bool
) -> None:
    module = ModuleType("some.module")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "some.module", module)
    # A clock that stands still: no machine is so slow that the pause is over.
    clock = SimpleNamespace(monotonic=lambda: 1000.0, time=time.time)
    monkeypatch.setattr("gatekeep.pool._script.time", clock)
    script = watch_script("", "some.module", time.time(), strict=strict)
    assert not script.has_changed()
    age(file, -1)
    assert script.has_changed() is seen_at_once
    clock.monotonic = lambda: 1000.0 + PAUSE
    assert script.has_changed()
