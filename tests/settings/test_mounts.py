"""The table of mounts: what leads where, and tables that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from gatekeep import GroupSettings, Settings, SettingsError
from gatekeep.settings._mount import MountSettings
from gatekeep.transport._route import normalise


def group(name: str, app: str | None = "apps:hello") -> GroupSettings:
    return GroupSettings(name=name, app=app, processes=1)


def mount(path: str = "/", **options: Any) -> MountSettings:
    return MountSettings(path=path, **options)


def refusal(groups: list[GroupSettings], mounts: list[MountSettings]) -> str:
    """The one line that is said of a table that cannot be."""
    with pytest.raises(SettingsError) as refused:
        Settings(groups=groups, mounts=mounts)
    (line,) = str(refused.value).splitlines()
    return line


# --- paths


@pytest.mark.parametrize(
    ("path", "held"),
    [
        ("/", ""),
        ("/shop", "/shop"),
        ("/shop/", "/shop"),
        ("/shop/admin", "/shop/admin"),
        ("/.well-known", "/.well-known"),
        ("/...", "/..."),
        ("/a b", "/a b"),
        ("/größe", "/größe"),
        ("/~user", "/~user"),
        ("/a;b", "/a;b"),
    ],
)
def test_a_paths_beginning_is_held_without_a_slash_at_its_end(path: str, held: str) -> None:
    assert mount(path).path == held
    assert str(mount(path)) == (held or "/")


@pytest.mark.parametrize(
    "path",
    ["shop", "//", "/a//b", "/a//", "/.", "/..", "/a/../b", "/a/./b", "/a/..", "/a?b", "/a#b", "?", "/a\0b", " /a", "*",
     "http://a/b", "/\ud800"],
)  # fmt: skip
def test_what_is_no_paths_beginning_is_refused(path: str) -> None:
    with pytest.raises(SettingsError) as refused:
        mount(path)
    said = (
        f"path = {path!r}: allowed is a path's beginning, such as / or /shop, without //, /./, /../, ? and #"
    )
    assert str(refused.value) == said


@given(st.text(alphabet="/.ab?#", max_size=8))
def test_every_path_that_is_allowed_is_in_its_normal_form(path: str) -> None:
    try:
        held = mount(path).path
    except SettingsError:
        return
    assert held == "" or normalise(held) == held
    assert not held.endswith("/")


# --- hosts


@pytest.mark.parametrize(
    ("host", "held"),
    [
        ("", ""),
        ("example.com", "example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("example.com.", "example.com"),
        ("*.example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("my_service", "my_service"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("xn--grsse-kva.example", "xn--grsse-kva.example"),
    ],
)
def test_a_host_is_held_as_it_is_compared(host: str, held: str) -> None:
    assert mount(host=host).host == held


@pytest.mark.parametrize(
    "host",
    ["example.com:80", "*", "*.", "www.*.com", "*example.com", "http://a", "a/b", "a b", ".a", "a..b", "-a", "a-", "::1",
     "[::1", "[::1]:80", "größe.example", "a,b", "a\n"],
)  # fmt: skip
def test_what_is_no_hosts_name_is_refused(host: str) -> None:
    with pytest.raises(SettingsError) as refused:
        mount(host=host)
    said = (
        f"host = {host!r}: allowed is a host's name without a port, such as www.example.com or *.example.com"
    )
    assert str(refused.value) == said


@pytest.mark.parametrize("options", [{"path": 5}, {"path": None}, {"host": 5}, {"host": None}], ids=str)
def test_paths_and_hosts_are_text(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(SettingsError, match=rf"^{name} = {value}: text is needed$"):
        MountSettings(**options)


# --- the table


def test_without_mounts_everything_goes_to_the_only_group() -> None:
    (only,) = Settings(groups=[group("site")]).mount_table
    assert (only.host, only.path, only.group, only.app) == ("", "", "site", None)


def test_the_only_group_need_not_be_named_in_mounts() -> None:
    settings = Settings(groups=[group("site")], mounts=[mount("/a"), mount("/b", group="site")])
    assert [(each.path, each.group) for each in settings.mount_table] == [("/a", "site"), ("/b", "site")]


def test_a_group_without_an_application_of_its_own_has_one_for_each_mount() -> None:
    mounts = [mount("/a", app="apps:hello"), mount("/b", app="apps:echo")]
    assert len(Settings(groups=[group("site", None)], mounts=mounts).mount_table) == 2


def test_one_path_may_be_mounted_for_several_hosts() -> None:
    mounts = [mount("/a"), mount("/a", host="a.example"), mount("/a", host="*.a.example")]
    assert Settings(groups=[group("site")], mounts=mounts).mount_table


SITE, API, BARE = group("site"), group("api"), group("bare", None)


@pytest.mark.parametrize(
    ("groups", "mounts", "line"),
    [
        ([], [], "groups: at least one process group is needed"),
        ([SITE, SITE], [mount(group="site")], "groups: there are two of the name site"),
        ([SITE, API], [], "mounts: with 2 groups (site, api) they must say what goes where"),
        ([BARE], [], "groups.bare: app is needed: what shall be served?"),
        ([BARE], [mount("/a", app="apps:hello"), mount("/b")], "groups.bare: app is needed, or one for each of its mounts"),
        ([SITE, BARE], [mount(group="site"), mount("/b", group="bare")], "groups.bare: app is needed, or one for each of its"),
        ([SITE], [mount("/x", group="shop")], "mounts: /x: group = 'shop': allowed is one of site"),
        ([SITE, API], [mount("/x", group="Site")], "mounts: /x: group = 'Site': allowed is one of site, api"),
        ([SITE, API], [mount("/x", host="a")], "mounts: a/x: group is needed, one of site, api"),
        ([SITE, API], [mount(group="site")], "groups.api: no mount leads to it"),
        ([SITE], [mount(), mount("/a"), mount()], "mounts: there are two for /"),
        ([SITE], [mount("/a"), mount("/a/")], "mounts: there are two for /a"),
        ([SITE], [mount(host="A.example"), mount(host="a.example.")], "mounts: there are two for a.example/"),
        ([SITE, API], [mount("/a", group="site"), mount("/a", group="api")], "mounts: there are two for /a"),
    ],
)  # fmt: skip
def test_a_table_that_makes_no_sense_is_refused(
    groups: list[GroupSettings], mounts: list[MountSettings], line: str
) -> None:
    assert refusal(groups, mounts).startswith(line)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"groups": SITE}, "groups = GroupSettings("),
        ({"groups": None}, "groups = None: a list of gatekeep.GroupSettings is needed"),
        ({"groups": "site"}, "groups = 'site': a list of gatekeep.GroupSettings is needed"),
        ({"groups": [{"name": "site"}]}, "groups = [{'name': 'site'}]: a list of gatekeep.GroupSettings is needed"),
        ({"groups": [SITE], "mounts": mount("/a")}, "mounts = MountSettings("),
        ({"groups": [SITE], "mounts": [{"path": "/a"}]}, "mounts = [{'path': '/a'}]: a list of gatekeep.MountSettings"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_groups_or_mounts_is_refused(given: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings(**given)
    assert str(raised.value).startswith(line)


def test_a_mounts_application_is_judged_as_any() -> None:
    with pytest.raises(SettingsError, match=r"^app = '1:2': allowed is module:callable"):
        mount(app="1:2")
