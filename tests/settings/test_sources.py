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


def refusal(read: Read, *arguments: str, **environment: str) -> str:
    with pytest.raises(SettingsError) as refused:
        read(*arguments, **environment)
    return str(refused.value)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--threads x", "threads = 'x': allowed is 1 to 1024"),
        ("-t x", "request-timeout = 'x': allowed is 0 seconds or more, such as 90 or 1m30s"),
        ("--port 99999", "port = '99999': allowed is 0 to 65535"),
        ("-b x:y:z", "bind = 'x:y:z': allowed is "),
    ],
)
def test_a_wrong_flag_names_the_variable_that_it_stands_in(read: Read, flags: str, line: str) -> None:
    assert refusal(read, flags).startswith(line)
    assert refusal(read, GATEKEEP_CMD_ARGS=flags).startswith(f"$GATEKEEP_CMD_ARGS: {line}")


def test_a_port_that_there_is_not_is_named_by_its_variable(read: Read) -> None:
    assert refusal(read, PORT="70000") == "$PORT = '70000': allowed is 0 to 65535"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--port 8_0", "port = '8_0': allowed is 0 to 65535"),
        ("--port \u0668\u0660", "port = '\u0668\u0660': allowed is 0 to 65535"),
        ("--fd -1", "fd = '-1': allowed is 0 to 2147483647"),
        ("--uds ''", "uds = '': allowed is a socket's path"),
        ("--host ''", "host = '': allowed is a name or an address, without a port"),
        ("--host 1.2.3.4:80", "host = '1.2.3.4:80': allowed is a name or an address, without a port"),
        ("-b unix:/tmp/\udcff", "bind = 'unix:/tmp/\\udcff': allowed is "),
        ("-b :80 -b 0.0.0.0:80", "bind = '0.0.0.0:80': it is given twice; allowed is each address once"),
    ],
)
def test_an_address_that_cannot_be_is_refused_before_anything_starts(
    read: Read, flags: str, line: str
) -> None:
    assert refusal(read, flags).startswith(line)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_host_may_be_an_ipv6_address(read: Read, host: str) -> None:
    assert [str(bind) for bind in read(f"--host {host} --port 80").settings.binds] == ["[::1]:80"]


def test_a_gateway_that_listens_nowhere_is_refused(read: Read) -> None:
    assert refusal(read, "", f"{FILE}bind = []") == "gatekeep.toml: bind = []: at least one address is needed"
    assert refusal(read, GATEKEEP_BIND=",") == "$GATEKEEP_BIND: bind = (): at least one address is needed"
    assert read("-b :80", f"{FILE}bind = []").settings.binds


def test_a_file_that_sends_the_gateway_elsewhere_is_found_again(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "gatekeep.toml").write_text(f"{FILE}threads = 9")
    (tmp_path / "gatekeep.toml").write_text(f"{FILE}threads = 2\nchdir = 'sub'")
    sources = Sources(options_of(""), {}, str(tmp_path))
    first = sources.read(monkeypatch.chdir)
    assert first.settings.groups[0].threads == 2
    assert sources.read() == first, "a SIGHUP reads it again"
