"""What several places say, put together: the higher goes first, and what is wrong is named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gatekeep import GroupSettings, Settings, SettingsError
from gatekeep.settings._layers import Layer, server_settings_from, settings_from
from gatekeep.settings._profiles import PROFILES

APP = Layer("", {"app": "apps:hello"})
TWO = Layer(
    "two",
    {},
    {"site": {"app": "apps:hello"}, "api": {"app": "apps:echo"}},
    [{"group": "site"}, {"path": "/api", "group": "api"}],
)


def group(*layers: Layer, name: str = "default") -> GroupSettings:
    (found,) = [each for each in settings_from(layers).groups if each.name == name]
    return found


def refusal(*layers: Layer) -> str:
    """The one line that is said of settings that cannot be."""
    with pytest.raises(SettingsError) as refused:
        settings_from(layers)
    (line,) = str(refused.value).splitlines()
    return line


# --- who goes first


def test_without_anything_said_all_is_at_its_default() -> None:
    assert settings_from([APP]) == Settings.for_app("apps:hello")


def test_a_higher_place_goes_before_a_lower_one_and_all_before_the_profile() -> None:
    file = Layer(
        "file", {"app": "apps:hello", "profile": "directive", "threads": 2, "processes": 3, "backlog": 4}
    )
    environment = Layer("environment", {"threads": 5, "processes": 6})
    flags = Layer("", {"threads": 7})
    settings = settings_from([file, environment, flags])
    assert settings.groups[0].threads == 7
    assert settings.groups[0].processes == 6
    assert settings.backlog == 4
    assert settings.groups[0].deadlock_timeout == 300, "the profile's"
    assert settings.groups[0].max_waiting == 2048, "the setting's own default"


@given(st.lists(st.none() | st.integers(1, 1024), min_size=1, max_size=5), st.sampled_from(sorted(PROFILES)))
def test_the_highest_place_that_says_something_counts(said: list[int | None], profile: str) -> None:
    layers = [
        Layer(f"place {n}", {} if value is None else {"threads": value}) for n, value in enumerate(said)
    ]
    spoken = [value for value in said if value is not None]
    default = {"tuned": 5, "express": 5, "directive": 15}[profile]
    found = group(Layer("", {"app": "apps:hello", "profile": profile}), *layers).threads
    assert found == (spoken[-1] if spoken else default)


def test_the_highest_profile_counts_and_lies_below_all_places() -> None:
    low = Layer("low", {"app": "apps:hello", "profile": "directive", "request_timeout": 7})
    high = Layer("high", {"profile": "express"})
    assert (group(low, high).request_timeout, group(low, high).startup_timeout) == (7, 15)


def test_a_list_that_is_said_again_replaces_the_one_before() -> None:
    low, high = Layer("low", {"env": ["A=1", "B=2"]}), Layer("high", {"env": ["C=3"]})
    assert group(APP, low, high).env == ("C=3",)


def test_the_application_of_a_higher_place_counts() -> None:
    low, high = Layer("low", {"app": "apps:hello"}), Layer("high", {"app": "apps:echo"})
    assert str(group(low, high).app) == "apps:echo"


@pytest.mark.parametrize("name", ["keep_alive_timeout", "keep-alive-timeout"])
def test_names_have_dashes_or_underscores(name: str) -> None:
    assert settings_from([APP, Layer("", {name: 7})]).http.keep_alive_timeout == 7


def test_the_programs_own_settings_are_put_together_likewise() -> None:
    low, high = Layer("low", {"log-level": "debug", "loop": "trio"}), Layer("high", {"log_level": "error"})
    server = server_settings_from([low, high])
    assert (server.log_level, server.loop, server.access_log) == ("error", "trio", True)
    assert settings_from([APP, low]) == settings_from([APP]), "they are no business of the gateway"
    with pytest.raises(SettingsError, match=r"^low: log-level = 'loud': allowed is one of debug, "):
        server_settings_from([Layer("low", {"log-level": "loud"})])


# --- for all groups and for one


def test_what_is_said_in_general_is_said_for_all_groups() -> None:
    settings = settings_from([TWO, Layer("", {"threads": 9})])
    assert {each.name: each.threads for each in settings.groups} == {"site": 9, "api": 9}


def test_within_one_place_the_single_group_goes_first() -> None:
    place = Layer("place", {"threads": 9}, {"api": {"threads": 3}})
    assert (group(TWO, place, name="site").threads, group(TWO, place, name="api").threads) == (9, 3)


def test_what_a_higher_place_says_for_all_goes_before_what_a_lower_one_says_for_one() -> None:
    low, high = Layer("low", {}, {"api": {"threads": 3}}), Layer("high", {"threads": 9})
    assert group(TWO, low, high, name="api").threads == 9
    assert group(TWO, high, low, name="api").threads == 3


def test_a_group_keeps_what_another_place_says_of_it() -> None:
    low = Layer("low", {}, {"api": {"threads": 3, "processes": 4}})
    high = Layer("high", {}, {"api": {"threads": 5}})
    api = group(TWO, low, high, name="api")
    assert (api.threads, api.processes, str(api.app)) == (5, 4, "apps:echo")


def test_groups_are_in_the_order_in_which_they_are_first_named() -> None:
    low = Layer("low", {}, {"b": {"app": "a"}, "a": {"app": "a"}})
    high = Layer(
        "high", {}, {"c": {"app": "a"}, "b": {}}, [{"path": f"/{name}", "group": name} for name in "abc"]
    )
    assert [each.name for each in settings_from([low, high]).groups] == ["b", "a", "c"]


def test_the_profile_is_below_all_groups() -> None:
    settings = settings_from([TWO, Layer("", {"profile": "directive"}, {"api": {"threads": 3}})])
    assert {each.name: each.threads for each in settings.groups} == {"site": 15, "api": 3}


def test_the_only_group_may_have_its_application_from_outside_its_table() -> None:
    assert str(group(Layer("file", {}, {"site": {"threads": 2}}), APP, name="site").app) == "apps:hello"


def test_the_only_group_may_be_named_without_a_table() -> None:
    assert settings_from([APP, Layer("", {"name": "site"})]).groups[0].name == "site"


# --- mounts


def test_the_table_of_mounts_of_the_highest_place_that_has_one_counts_alone() -> None:
    high = Layer("high", {}, {}, [{"path": "/", "group": "api"}, {"path": "/s", "group": "site"}])
    assert [str(mount) for mount in settings_from([TWO, high]).mounts] == ["/", "/s"]
    assert [str(mount) for mount in settings_from([TWO, Layer("flags")]).mounts] == ["/", "/api"]


# --- what is wrong is named with its place

PLACES = [
    ({"threads": 0}, "file: threads = 0: allowed is 1 to 1024"),
    ({"bind": "x:y"}, "file: bind = 'x:y': allowed is host:port"),
    ({"health-bind": "x:y"}, "file: health-bind = 'x:y': allowed is host:port"),
    ({"trusted-proxies": "x"}, "file: trusted-proxies = 'x': allowed is "),
    ({"reload_dir": 5}, "file: reload-dir = 5: text is needed"),
    ({"app": "1:2"}, "file: app = '1:2': allowed is module:callable"),
    ({"http": "h3"}, "file: http = 'h3': allowed is one of auto, strict, h11"),
    ({"name": "a b"}, "file: name = 'a b': allowed is 1 to 32 letters"),
    ({"profile": "fast"}, "file: profile = 'fast': allowed is one of tuned, express, directive"),
    ({"profile": ["tuned"]}, "file: profile = ['tuned']: allowed is one of tuned, express, directive"),
    ({"thread": 5}, "file: unknown setting thread; did you mean threads?"),
    ({"threads": 5, "thread-s": 5}, "file: unknown setting thread-s; did you mean threads?"),
    ({"workers": 1, "processes": 2}, "file: processes is given twice, by two names"),
    ({"keep-alive-timeout": 1, "keep_alive_timeout": 2}, "file: keep-alive-timeout is given twice, by two names"),
    ({"livez-path": "/h", "readyz-path": "/h"}, "file: readyz-path = '/h': allowed is any other path than livez-path"),
    ({"health_binds": "127.0.0.1:8000"}, "file: health-bind = '127.0.0.1:8000': allowed is any other address"),
    ({"health_binds": "a:1", "livez-path": "/readyz"}, "file: health-bind: livez-path and readyz-path are both"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "line"), PLACES, ids=[line for _, line in PLACES])
def test_what_is_wrong_in_a_place_is_named_with_it(values: Mapping[str, Any], line: str) -> None:
    assert refusal(APP, Layer("file", values), Layer("environment", {"backlog": 5})).startswith(line)
    assert refusal(APP, Layer("", values)).startswith(line.removeprefix("file: ")), "a flag needs no place"


def test_the_place_is_that_of_the_value_that_counts() -> None:
    low, high = Layer("low", {"threads": 0}), Layer("high", {"threads": -1})
    assert refusal(APP, low, high) == "high: threads = -1: allowed is 1 to 1024"
    assert group(APP, low, Layer("high", {"threads": 3})).threads == 3, "what is not used is not judged"


GROUPS = [
    ({"api": {"threads": 0}}, "file: groups.api: threads = 0: allowed is 1 to 1024"),
    ({"api": {"thread": 5}}, "file: groups.api: unknown setting thread; did you mean threads?"),
    ({"api": {"ap": "x"}}, "file: groups.api: unknown setting ap; did you mean app?"),
    ({"api": {"app": "1"}}, "file: groups.api: app = '1': allowed is module:callable"),
    ({"api": {"bind": "a:1"}}, "file: groups.api: bind is no setting of a group: it is said for the whole gateway"),
    ({"api": {"log-level": "info"}}, "file: groups.api: log-level is no setting of a group"),
    ({"api": {"http": "h11"}}, "file: groups.api: http is no setting of a group"),
    ({"api": {"name": "b"}}, "file: groups.api: name = 'b': its name is that of the table"),
    ({"api": {"workers": 1, "processes": 2}}, "file: groups.api: processes is given twice, by two names"),
    ({"a b": {"app": "x"}}, "file: name = 'a b': allowed is 1 to 32 letters"),
    ({"more": {"app": "x"}}, "file: groups.more: no mount leads to it"),
]  # fmt: skip


@pytest.mark.parametrize(("groups", "line"), GROUPS, ids=[line for _, line in GROUPS])
def test_what_is_wrong_with_a_group_is_named_with_the_place_and_the_group(
    groups: Mapping[str, Mapping[str, Any]], line: str
) -> None:
    mounts = (
        None
        if "no mount" in line
        else [*(TWO.mounts or ()), *({"path": "/g", "group": name} for name in groups)]
    )
    assert refusal(TWO, Layer("file", {}, groups, mounts)).startswith(line)


MOUNTS = [
    ([{"paht": "/"}], "file: mounts, number 1: unknown setting paht; did you mean path?"),
    ([{"group": "site"}, {"path": "x"}], "file: mounts, number 2: path = 'x': allowed is a path's beginning"),
    ([{"host": "a:80"}], "file: mounts, number 1: host = 'a:80': allowed is a host's name without a port"),
    ([{"app": "1"}], "file: mounts, number 1: app = '1': allowed is module:callable"),
    ([{"path": "/x", "group": "x"}], "file: mounts: /x: group = 'x': allowed is one of site, api"),
    ([{"path": "/x"}], "file: mounts: /x: group is needed, one of site, api"),
    ([{"group": "site"}, {"group": "api"}], "file: mounts: there are two for /"),
    ([{"group": "site"}], "two: groups.api: no mount leads to it"),
    ([], "file: mounts: with 2 groups (site, api) they must say what goes where"),
]  # fmt: skip


@pytest.mark.parametrize(("mounts", "line"), MOUNTS, ids=[line for _, line in MOUNTS])
def test_what_is_wrong_with_a_mount_is_named_with_the_place_and_the_mount(
    mounts: list[dict[str, Any]], line: str
) -> None:
    assert refusal(TWO, Layer("file", {}, {}, mounts)).startswith(line)


def test_one_application_for_several_groups_is_refused() -> None:
    said = refusal(TWO, Layer("$GATEKEEP_APP", {"app": "apps:hello"}))
    assert said == "$GATEKEEP_APP: app = 'apps:hello': with several groups each needs its own: say it there"


def test_a_name_beside_tables_of_groups_is_refused() -> None:
    line = "flags: name = 'x': groups have the names of their tables: site, api"
    assert refusal(TWO, Layer("flags", {"name": "x"})) == line


def test_nothing_to_serve_is_refused() -> None:
    assert refusal(Layer("")) == "groups.default: app is needed: what shall be served?"
    assert (
        refusal(Layer("file", {}, {"site": {}})) == "file: groups.site: app is needed: what shall be served?"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("timeout", "request-timeout"),
        ("max_requests", "maximum-requests"),
        ("keep-alive", "keep-alive-timeout"),
        ("workers_max_rss", "memory-limit"),
        ("pid", "pid-file"),
        ("port", "bind"),
        ("THREADS", "threads"),
    ],
)
def test_another_servers_name_of_a_setting_leads_to_ours(name: str, meant: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"^file: unknown setting {name.replace('_', '-')}; did you mean {meant}\?$"
    ):
        settings_from([Layer("file", {"app": "a", name: 5})])


def test_a_table_of_mounts_without_any_application_is_named() -> None:
    with pytest.raises(
        SettingsError, match=r"^file: groups.default: app is needed, or one for each of its mounts$"
    ):
        settings_from([Layer("file", mounts=[{"path": "/x"}])])
