"""What `processes = 0` means for the other settings of a group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from gatekeep import GroupSettings, Settings, SettingsError
from gatekeep.settings import _embedded
from gatekeep.settings._app import AppTarget, target_of
from gatekeep.settings._bind import parse_bind
from gatekeep.settings._mount import MountSettings

NAMES = set(attrs.fields_dict(GroupSettings))


def make() -> Callable[..., Any]:
    return lambda environ, start_response: []


def test_every_setting_of_a_group_is_in_one_class_only_and_exists() -> None:
    off = [name for names in _embedded.OFF.values() for name in names]
    said = [*off, *_embedded.WITHOUT_MEANING, *_embedded.REFUSED]
    assert len(said) == len(set(said))
    assert set(said) <= NAMES
    assert NAMES - set(said) == {
        *("name", "app", "processes", "threads", "listen_backlog", "max_waiting", "client_gone_delay"),
        *("graceful_timeout", "request_buffering", "import_scripts"),
    }


def test_in_effect_all_of_its_timers_are_off() -> None:
    group = GroupSettings(app="apps:hello", processes=0, request_timeout=5, queue_shed="pickup").in_effect
    assert group.socket_timeout_or_default == math.inf
    assert (group.request_timeout, group.queue_timeout, group.queue_shed) == (0, 0, "deadline")
    assert group.connect_timeout == math.inf
    assert group.script_reloading == "off"


def test_a_group_with_processes_is_in_effect_what_it_says() -> None:
    group = GroupSettings(app="apps:hello", processes=1, request_timeout=5)
    assert group.in_effect is group


def test_what_is_of_which_kind_can_be_asked() -> None:
    assert _embedded.switched_off("queue_timeout") == "transport timeouts"
    assert _embedded.switched_off("threads") == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", "www-data"),
        ("group", "www-data"),
        ("supplementary_groups", ("a", "b")),
        ("umask", "0027"),
        ("home", "/"),
        ("env", ("A=1",)),
        ("nice", 5),
        ("stack_size", 65536),
        ("virtual_memory_limit", 1 << 30),
    ],
)
def test_what_only_a_process_of_its_own_can_be_given_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"^{name.replace('_', '-')} = .*processes = 0"):
        GroupSettings(app="apps:hello", processes=0, **{name: value})


@pytest.mark.parametrize("profile", ["tuned", "express", "directive"])
def test_every_profile_goes_with_it(profile: str) -> None:
    (group,) = Settings.for_app("apps:hello", processes=0, profile=profile).groups
    assert group.is_embedded


def test_the_fronts_own_patience_with_clients_is_apaches_where_there_is_no_hop() -> None:
    assert Settings.for_app("apps:hello", processes=0).response_socket_timeout == 60
    assert Settings.for_app("apps:hello", processes=0, response_socket_timeout=7).response_socket_timeout == 7
    mounts = [MountSettings(path="/", group="a"), MountSettings(path="/b", group="b")]
    groups = [
        GroupSettings(name="a", app="apps:hello", processes=0, socket_timeout=9),
        GroupSettings(name="b", app="apps:hello", socket_timeout=8),
    ]
    assert (
        Settings(binds=[parse_bind("127.0.0.1:0")], groups=groups, mounts=mounts).response_socket_timeout == 8
    )


# --- callables


def test_any_callable_is_an_application_there() -> None:
    app = make()
    (group,) = Settings.for_app(app, processes=0).groups
    assert group.app is not None
    assert group.app.callable is app


def test_a_callable_that_others_could_import_is_named_as_they_would_name_it() -> None:
    assert target_of(GroupSettings.__init__.__globals__["attrs"].evolve).callable is attrs.evolve
    assert target_of(make) == AppTarget(__name__, attribute="make")


def test_two_callables_of_one_name_have_two_texts() -> None:
    first, second = target_of(make()), target_of(make())
    assert first != second
    assert str(first) != str(second)


def test_one_callable_is_always_the_same_target() -> None:
    app = make()
    assert target_of(app) == target_of(app)
    assert len({target_of(app), target_of(app)}) == 1


def test_an_object_without_a_hash_is_an_application_too() -> None:
    @attrs.define(eq=True)
    class App:
        name: str = ""

        def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
            return []

    app = App()
    assert target_of(app).callable is app
    assert hash(target_of(app))
    assert Settings.for_app(app, processes=0).groups[0].app == target_of(app)


def test_the_refusal_of_an_unreachable_callable_names_this_way_out() -> None:
    with pytest.raises(SettingsError, match="or run it in this process with processes = 0"):
        Settings.for_app(make())


def test_a_mount_must_not_have_an_unreachable_callable_where_its_group_has_processes() -> None:
    mounts = [MountSettings(path="/"), MountSettings(path="/there", app=make())]
    with pytest.raises(SettingsError, match=r"^mounts: /there: app = .*cannot reach a local function"):
        Settings(groups=[GroupSettings(app="apps:hello")], mounts=mounts)
    assert Settings(groups=[GroupSettings(app="apps:hello", processes=0)], mounts=mounts).mounts
