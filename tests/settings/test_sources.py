"""All places of settings together: a profile, what other servers read, a file, the environment, `$GATEKEEP_CMD_ARGS`, flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gatekeep import SettingsError
from gatekeep._configuration import Configuration, Sources
from gatekeep._options import options_of

Read = Callable[..., Configuration]

FILE = "app = 'apps:hello'\n"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def read(flags: str = "", file: str | None = FILE, **environment: str) -> Configuration:
        if file is not None:
            Path("gatekeep.toml").write_text(file)
        return Sources(options_of(flags), environment, str(tmp_path)).read()

    return read


def processes(configuration: Configuration) -> int:
    return configuration.settings.groups[0].processes


def test_each_place_goes_before_those_below_it(read: Read) -> None:
    flags, arguments, own, others = "--processes 7", "--processes 6", "5", "3"
    file = f"{FILE}profile = 'directive'\nprocesses = 4"
    environment = {"GATEKEEP_CMD_ARGS": arguments, "GATEKEEP_PROCESSES": own, "WEB_CONCURRENCY": others}
    assert processes(read(flags, file, **environment)) == 7
    assert processes(read("", file, **environment)) == 6
    del environment["GATEKEEP_CMD_ARGS"]
    assert processes(read("", file, **environment)) == 5
    del environment["GATEKEEP_PROCESSES"]
    assert processes(read("", file, **environment)) == 4
    assert processes(read("", f"{FILE}profile = 'directive'", **environment)) == 3
    assert processes(read("", f"{FILE}profile = 'directive'")) == 1


@pytest.mark.parametrize("text", ["many", "-1", "1.5", " "])
def test_a_web_concurrency_that_is_no_number_is_refused(read: Read, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(WEB_CONCURRENCY=text)
    assert str(refused.value) == f"$WEB_CONCURRENCY = {text!r}: a number is needed"


def test_a_web_concurrency_out_of_range_is_refused_with_its_place(read: Read) -> None:
    with pytest.raises(SettingsError, match=r"^\$WEB_CONCURRENCY: processes = 5000: allowed is 0 to 1024"):
        read(WEB_CONCURRENCY="5000")


def test_an_empty_web_concurrency_says_nothing(read: Read) -> None:
    assert processes(read(WEB_CONCURRENCY="")) == 2


def test_without_any_application_it_is_asked_for(read: Read) -> None:
    with pytest.raises(SettingsError, match=r"^app is needed: name it"):
        read("", None)


def test_every_places_name_is_in_what_is_said_of_it(read: Read, tmp_path: Path) -> None:
    for flags, file, environment, place in (
        ("", f"{FILE}threads = 0", {}, "gatekeep.toml"),
        ("", FILE, {"GATEKEEP_THREADS": "0"}, "$GATEKEEP_THREADS"),
        ("", FILE, {"GATEKEEP_CMD_ARGS": "--threads 0"}, "$GATEKEEP_CMD_ARGS"),
    ):
        with pytest.raises(SettingsError) as refused:
            read(flags, file, **environment)
        assert str(refused.value).endswith(f"{place}: threads = 0: allowed is 1 to 1024")
