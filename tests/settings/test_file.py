"""Settings from `gatekeep.toml`, or from `[tool.gatekeep]` in `pyproject.toml`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gatekeep import Settings, SettingsError
from gatekeep.settings._file import find_file, read_file
from gatekeep.settings._layers import Layer, settings_from


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str | bytes, name: str = "gatekeep.toml") -> Layer:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_file(name)


def settings(text: str, name: str = "gatekeep.toml") -> Settings:
    return settings_from([written(text, name)])


def refusal(text: str | bytes, name: str = "gatekeep.toml") -> str:
    """The one line that is said of a file that cannot be."""
    with pytest.raises(SettingsError) as refused:
        settings_from([written(text, name)])
    (line,) = str(refused.value).splitlines()
    return line


# --- what a file says

WHOLE = """
profile = "express"
bind = ["127.0.0.1:8000", "unix:/run/site.sock"]
request-timeout = "1m30s"
limit_request_body = "8MiB"
allow-trace = true
processes = 3

[env]
DEBUG = "no"
PORT = 5
RATE = 0.5

[groups.site]
app = "mysite.wsgi"

[groups.api]
app = "api:make()"
threads = 2
import-scripts = ["warm_up.py"]
[groups.api.env]
ROLE = "api, only"

[[mounts]]
group = "site"

[[mounts]]
path = "/api/"
host = "*.Example.com"
group = "api"
"""


def test_a_file_says_everything_that_flags_can_and_groups_and_mounts() -> None:
    found = settings(WHOLE)
    assert [str(bind) for bind in found.binds] == ["127.0.0.1:8000", "unix:/run/site.sock"]
    assert found.http.limit_request_body == 8 << 20
    assert found.http.allow_trace
    site, api = found.groups
    assert (site.name, str(site.app), site.threads, site.processes) == ("site", "mysite.wsgi", 5, 3)
    assert (api.name, str(api.app), api.threads, api.processes) == ("api", "api:make()", 2, 3)
    assert site.env == ("DEBUG=no", "PORT=5", "RATE=0.5")
    assert api.env == ("ROLE=api, only",)
    assert api.import_scripts == ("warm_up.py",)
    assert site.request_timeout == api.request_timeout == 90
    assert site.startup_timeout == 15, "the profile's"
    assert [(str(mount), mount.group) for mount in found.mounts] == [
        ("/", "site"),
        ("*.example.com/api", "api"),
    ]


def test_one_application_needs_neither_groups_nor_mounts() -> None:
    found = settings('app = "apps:hello"\nthreads = 3')
    assert found == Settings.for_app("apps:hello", threads=3)


def test_variables_may_be_a_list_or_a_table() -> None:
    as_list = settings('app = "a"\nenv = ["A=1", "B=x=y"]')
    as_table = settings('app = "a"\n[env]\nA = 1\nB = "x=y"')
    assert as_list == as_table


def test_an_empty_file_says_nothing() -> None:
    assert written("") == Layer("gatekeep.toml")


# --- pyproject.toml


def test_a_projects_file_is_read_at_its_table_alone() -> None:
    text = '[project]\nname = "x"\n[tool.ruff]\nthreads = 9\n[tool.gatekeep]\napp = "a"\nthreads = 3\n'
    text += '[tool.gatekeep.groups.site]\nprocesses = 1\n[[tool.gatekeep.mounts]]\npath = "/x"\n'
    (group,) = settings(text, "pyproject.toml").groups
    assert (group.name, group.threads, group.processes) == ("site", 3, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tool = 5",
        'tool = "gatekeep"',
        "[tool]",
        "[tool.other]",
        "[tool]\ngatekeep = 5",
        "[[tool.gatekeep]]",
    ],
)
def test_a_projects_file_without_our_table_is_refused(text: str) -> None:
    assert refusal(text, "pyproject.toml") == "pyproject.toml: there is no table [tool.gatekeep] in it"


# --- which file


def test_our_own_file_is_found_before_the_projects() -> None:
    assert find_file() == ""
    written("[tool.gatekeep]", "pyproject.toml")
    assert find_file() == "pyproject.toml"
    written("")
    assert find_file() == "gatekeep.toml"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tool = 5",
        'tool = "gatekeep"',
        "[tool.ruff]",
        "this is no TOML",
        b"\xff",
        "[project]\ngatekeep = 1",
    ],
)
def test_a_projects_file_that_has_nothing_for_us_is_no_affair_of_ours(text: str | bytes) -> None:
    Path("pyproject.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    assert find_file() == ""


def test_what_has_our_name_and_is_no_file_is_not_passed_over() -> None:
    Path("gatekeep.toml").mkdir()  # as Docker does where the file to be mounted is missing
    assert find_file() == "gatekeep.toml"
    Path("gatekeep.toml").rmdir()
    Path("gatekeep.toml").symlink_to("nowhere")
    assert find_file() == "gatekeep.toml"
    with pytest.raises(SettingsError, match=r"^config = 'gatekeep.toml': No such file or directory$"):
        read_file(find_file())


@pytest.mark.parametrize(
    "text",
    ["[tool.gatekeep]\nthreads =", b"[tool.gatekeep.groups.a]\nx = '\xff'", "[[ tool . gatekeep.mounts]]\n="],
)
def test_a_projects_file_that_cannot_be_read_but_is_meant_for_us_is_not_passed_over(
    text: str | bytes,
) -> None:
    Path("pyproject.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    assert find_file() == "pyproject.toml"
    assert refusal(text, "pyproject.toml").startswith("pyproject.toml: it is no TOML: ")


def test_a_file_is_looked_for_in_the_folder_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "gatekeep.toml").touch()
    assert (find_file(), find_file(str(folder))) == ("", "gatekeep.toml")


def test_the_mark_with_which_windows_begins_a_text_is_nothing() -> None:
    assert written(b"\xef\xbb\xbfthreads = 3\r\n") == written("threads = 3")


def test_a_variables_name_has_no_equals_sign() -> None:
    assert refusal('[env]\n"A=B" = "c"') == "gatekeep.toml: env.A=B: allowed is a name without ="


# --- what cannot be


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^config = 'none.toml': No such file or directory$"):
        read_file("none.toml")


def test_a_folder_is_no_file() -> None:
    Path("folder").mkdir()
    with pytest.raises(SettingsError, match=r"^config = 'folder': Is a directory$"):
        read_file("folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named() -> None:
    written("")
    Path("gatekeep.toml").chmod(0)
    with pytest.raises(SettingsError, match=r"^config = 'gatekeep.toml': Permission denied$"):
        read_file("gatekeep.toml")


@pytest.mark.parametrize(
    "text", ["threads", "threads = ", "threads = 1\nthreads = 2", "[groups.a]\n[groups.a]", b"a = '\xff'"]
)
def test_what_is_no_toml_is_refused_with_the_place_in_it(text: str | bytes) -> None:
    assert refusal(text).startswith("gatekeep.toml: it is no TOML: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("groups = 5", "groups: tables are needed: [groups.NAME]"),
        ("[[groups]]", "groups: tables are needed: [groups.NAME]"),
        ("[groups]\na = 5", "groups: tables are needed: [groups.NAME]"),
        ("mounts = 5", "mounts: a list of tables is needed: [[mounts]]"),
        ("[mounts]", "mounts: a list of tables is needed: [[mounts]]"),
        ("mounts = [5]", "mounts: a list of tables is needed: [[mounts]]"),
        ("[threads]\na = 5", "threads: a value is needed, not a table"),
        ("[http]\nhttp = 'h11'", "http: a value is needed, not a table"),
        ("[reload]", "reload: a value is needed, not a table"),
        ("[profile]", "profile: a value is needed, not a table"),
        ("[groups.a.threads]", "groups.a: threads: a value is needed, not a table"),
        ("[groups.a.more]\napp = 'x'", "groups.a: more: a value is needed, not a table"),
    ],
)
def test_a_table_where_a_value_belongs_and_a_value_where_a_table_does_are_refused(
    text: str, line: str
) -> None:
    assert refusal(text) == f"gatekeep.toml: {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[env]\nA = true", "gatekeep.toml: env.A = True: a text or a number is needed"),
        ("[env]\nA = [1]", "gatekeep.toml: env.A = [1]: a text or a number is needed"),
        ("[env]\nA.B = 1", "gatekeep.toml: env.A = {'B': 1}: a text or a number is needed"),
        (
            "[groups.a.env]\nA = 1970-01-01",
            "gatekeep.toml: groups.a: env.A = datetime.date(1970, 1, 1): a text or a ",
        ),
        ('[env]\n"" = "x"', "gatekeep.toml: env = '=x': allowed is "),
        ("env = ['A']", "gatekeep.toml: env = 'A': allowed is "),
        ("env = 5", "gatekeep.toml: env = 5: text is needed"),
    ],
)
def test_a_variable_that_no_environment_can_have_is_refused(text: str, line: str) -> None:
    assert refusal(text).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("threads = '5'", "threads = '5': a whole number is needed: 1 to 1024"),
        ("threads = 5.0", "threads = 5.0: a whole number is needed: 1 to 1024"),
        ("threads = true", "threads = True: a whole number is needed: 1 to 1024"),
        ("threads = [5]", "threads = [5]: a whole number is needed: 1 to 1024"),
        (
            "request-timeout = 1970-01-01",
            "request-timeout = datetime.date(1970, 1, 1): a number is needed: 0 seconds or more, such as 90 or 1m30s",
        ),
        ("request-timeout = nan", "request-timeout = nan: allowed is 0 seconds or more"),
        ("allow-trace = 1", "allow-trace = 1: true or false is needed"),
        ("allow-trace = 'on'", "allow-trace = 'on': true or false is needed"),
        ("user = 1000", "user = 1000: text (in quotes) is needed: a name or a number"),
        ("app = 5", "app = 5: "),
        ("config = 'x'", "unknown setting config"),
        ("path = '/x'", "unknown setting path"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_files_name(text: str, line: str) -> None:
    app = "" if text.startswith("app") else "app = 'a'\n"
    assert refusal(app + text).startswith(f"gatekeep.toml: {line}")
