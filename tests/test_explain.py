"""The effective schedule: what fires when, and which settings hide or defeat each other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings as examples, strategies as st

from gatekeep import GroupSettings, HttpSettings, Settings, Stage
from gatekeep._explain import Explanation, Surroundings, explain
from gatekeep._explain._embedded import EMBEDDED_OFF
from gatekeep._explain._model import Finding, Moment, Timeline
from gatekeep._explain_view import WIDTH, render, to_json
from gatekeep._surroundings import read_surroundings
from gatekeep.settings._embedded import REFUSED
from gatekeep.settings._file import read_file
from gatekeep.settings._layers import settings_from
from gatekeep.settings._profiles import PROFILES
from gatekeep.settings._spec import LARGEST, LONGEST, Spec, plain_type

STARTER = """
app = "mysite.wsgi:application"
processes = 2
threads = 5
display-name = "%{GROUP}"
lang = "en_US.UTF-8"
locale = "en_US.UTF-8"
queue-timeout = 45
socket-timeout = 60
connect-timeout = 15
request-timeout = 60
interrupt-timeout = 0
startup-timeout = 15
deadlock-timeout = 60
graceful-timeout = 15
inactivity-timeout = 0
restart-interval = 0
shutdown-timeout = 5
maximum-requests = 0
"""
"""The starter configuration of mod_wsgi's guide."""


def explained(surroundings: Surroundings | None = None, **options: Any) -> Explanation:
    return explain(Settings.for_app("mysite.wsgi:application", **options), surroundings)


def codes(surroundings: Surroundings | None = None, **options: Any) -> list[str]:
    return [warning.code for warning in explained(surroundings, **options).warnings]


def timeline(explanation: Explanation, name: str) -> Timeline:
    return next(each for each in explanation.groups[0].timelines if each.name == name)


def moments(line: Timeline) -> list[tuple[float, str, int]]:
    return [(round(moment.at, 1), moment.setting, moment.status) for moment in line.moments]


def embedded(**options: Any) -> Settings:
    """Settings of a group without processes."""
    return Settings.for_app("mysite.wsgi:application", processes=0, **options)


# --- the real schedule


@pytest.fixture
def starter(tmp_path: Path) -> Explanation:
    file = tmp_path / "gatekeep.toml"
    file.write_text(STARTER)
    return explain(settings_from([read_file(str(file))]))


def test_the_starter_configuration_shows_its_real_schedule(starter: Explanation) -> None:
    assert round(starter.groups[0].t_fire or 0, 1) == 156.6
    assert moments(timeline(starter, "request")) == [
        (0.0, "", 0),
        (60.0, "socket-timeout", 504),
        (156.6, "request-timeout", 0),
        (171.6, "graceful-timeout", 0),
        (176.6, "shutdown-timeout", 502),
        (177.6, "", 0),
    ]


def test_the_starter_configuration_is_told_what_stands_in_its_way(starter: Explanation) -> None:
    assert [warning.code for warning in starter.warnings] == ["socket-below-fire", "interrupt-off"]
    named = {value.setting: value.value for value in starter.warnings[0].settings}
    assert named == {"socket-timeout": 60.0, "T_fire": pytest.approx(156.566, abs=0.001)}


def test_the_starter_configuration_as_text(starter: Explanation) -> None:
    lines = render(starter).splitlines()
    for expected in (
        "group default: 2 processes of 5 threads, T_fire 156.6 s, serves mysite.wsgi:application",
        "  run      socket-timeout 60 s",
        "           request-timeout 156.6 s",
        "                                                 = 60 s * (1 + ln 5 threads)",
        "       60 s o  504  socket-timeout: ",
        "    156.6 s o       request-timeout: T_fire = 60 s * (1 + ln 5 threads): ",
        "    171.6 s o       graceful-timeout: ",
        "    176.6 s o  502  shutdown-timeout: ",
        "! socket-timeout 60 s, T_fire 156.6 s: the client gets 504 before the request is interrupted",
    ):
        assert any(line.startswith(expected) for line in lines), expected


def test_the_defaults_interrupt_first_and_then_replace_the_process() -> None:
    assert moments(timeline(explained(), "request")) == [
        (0.0, "", 0),
        (156.6, "request-timeout", 504),
        (166.6, "interrupt-timeout", 504),
        (181.6, "graceful-timeout", 0),
        (186.6, "shutdown-timeout", 502),
        (187.6, "", 0),
    ]


def test_a_derived_value_says_what_it_was_made_from() -> None:
    text = render(explained())
    assert "socket-timeout 191.6 s" in text
    assert "= T_fire 156.6 s + interrupt 10 s + graceful 15 s +" in text
    assert "socket-timeout 70 s" in (given := render(explained(socket_timeout=70)))
    assert "= T_fire" not in given.replace("T_fire = 60 s", "")


def test_the_stages_are_those_that_a_request_passes() -> None:
    explanation = explained()
    assert [plan.stage for plan in (*explanation.stages, *explanation.groups[0].stages)] == list(Stage)
    assert all(plan.limits for plan in (*explanation.stages, *explanation.groups[0].stages))


def test_a_held_gil_is_noticed_by_silence() -> None:
    assert moments(timeline(explained(), "deadlock")) == [
        (0.0, "", 0),
        (2.5, "", 0),
        (60.0, "deadlock-timeout", 0),
        (61.0, "", 502),
    ]
    assert "never noticed" in timeline(explained(deadlock_timeout=0), "deadlock").note


def test_a_request_that_nothing_ends_has_no_end_in_the_timeline() -> None:
    line = timeline(explained(request_timeout=0), "request")
    assert moments(line) == [(0.0, "", 0)]
    assert "nothing ends" in line.note


def test_what_varies_is_shown_as_a_range_and_what_is_off_in_one_line() -> None:
    text = render(explained(maximum_requests=1000, restart_interval=600))
    assert "maximum-requests 1000 to 1100" in text
    assert "restart-interval 600 s to 660 s" in text
    assert "off: cpu-time-limit, memory-limit, inactivity-timeout" in text


def test_the_stop_is_as_long_as_its_longest_group() -> None:
    stop = explained(shutdown_delay=3, readyz_path="/ready").stop
    assert moments(stop) == [
        (0.0, "", 0),
        (3.0, "shutdown-delay", 0),
        (18.0, "graceful-timeout", 503),
        (23.0, "shutdown-timeout", 0),
    ]


def test_what_is_decided_elsewhere_is_shown_at_its_stage() -> None:
    explanation = explained(queue_shed="pickup", script_reloading="strict", cancel_on_disconnect=True)
    text = " ".join(render(explanation).split())
    assert "not before a worker is free" in text
    assert "script-reloading strict" in text
    assert "ClientDisconnected is raised inside it" in text


def test_mounts_and_health_paths_are_shown() -> None:
    settings = Settings(
        health_binds="127.0.0.1:9000",
        http=HttpSettings(livez_path="/alive"),
        groups=[GroupSettings(name="shop", app="shop:app"), GroupSettings(name="blog", app="blog:app")],
        mounts=[
            attrs.evolve(mount, group=group)
            for mount, group in zip(_mounts("/shop", "/blog"), ("shop", "blog"), strict=True)
        ],
    )
    text = render(explain(settings))
    assert "mounted at /shop" in text
    assert "health is told at 127.0.0.1:9000" in text
    assert "livez-path /alive" in text
    assert "404  for what none of them fits" in text


def _mounts(*paths: str) -> list[Any]:
    from gatekeep.settings._mount import MountSettings

    return [MountSettings(path=path) for path in paths]


# --- warnings


def test_the_defaults_are_not_warned_of() -> None:
    assert explained().warnings == ()
    roomy = Surroundings(memory_limit=1 << 30, cpus=0.5, descriptors=1024, load_times={"default": 19.0})
    assert explained(roomy).warnings == ()
    assert "No warnings" in render(explained())


GIB = 1 << 30

WARNED: list[tuple[str, dict[str, Any], Surroundings | None]] = [
    ("socket-below-fire", {"socket_timeout": 60}, None),
    ("socket-inside-grace", {"socket_timeout": 160}, None),
    ("queue-above-socket", {"queue_timeout": 200}, None),
    ("deadlock-above-socket", {"deadlock_timeout": 300}, None),
    ("socket-off", {"socket_timeout": 0}, None),
    ("request-timeout-off", {"request_timeout": 0}, None),
    ("request-timeout-short", {"request_timeout": 2}, None),
    ("interrupt-off", {"interrupt_timeout": 0}, None),
    ("interrupt-short", {"interrupt_timeout": 3}, None),
    ("interrupt-unused", {"interrupt_timeout": 20, "request_timeout": 0}, None),
    ("deadlock-off", {"deadlock_timeout": 0}, None),
    ("deadlock-short", {"deadlock_timeout": 2}, None),
    ("cancels-on-disconnect", {"cancel_on_disconnect": True}, None),
    ("queue-off", {"queue_timeout": 0}, None),
    ("queue-shed-late", {"queue_shed": "pickup"}, None),
    ("connect-above-queue", {"connect_timeout": 50}, None),
    ("max-waiting-off", {"max_waiting": 0}, None),
    ("shutdown-short", {"shutdown_timeout": 0}, None),
    ("shutdown-short", {"shutdown_timeout": 0.5}, None),
    ("graceful-off", {"graceful_timeout": 0}, None),
    ("eviction-above-graceful", {"eviction_timeout": 20}, None),
    ("startup-off", {"startup_timeout": 0}, None),
    ("startup-short", {"startup_timeout": 10}, None),
    ("startup-slow", {}, Surroundings(load_times={"default": 21.0})),
    ("cpu-below-load", {"cpu_time_limit": 3}, Surroundings(load_times={"default": 4.0})),
    ("maximum-requests-low", {"maximum_requests": 10}, None),
    ("restart-interval-short", {"restart_interval": 30}, None),
    ("inactivity-of-several", {"inactivity_timeout": 600}, None),
    ("script-reloading-strict", {"script_reloading": "strict"}, None),
    ("memory-limit-hidden", {"memory_limit": GIB, "virtual_memory_limit": GIB}, None),
    ("stacks-too-large", {"virtual_memory_limit": 100 << 20}, None),
    ("many-threads", {"threads": 200}, None),
    ("header-off", {"header_timeout": 0}, None),
    ("body-off", {"body_timeout": 0}, None),
    ("header-hidden", {"header_max_timeout": 5}, None),
    ("body-hidden", {"body_max_timeout": 5}, None),
    ("keep-alive-short", {"keep_alive_timeout": 5}, None),
    ("response-socket-off", {"response_socket_timeout": 0}, None),
    ("response-socket-off", {"request_timeout": 0}, None),
    ("response-socket-hidden", {"response_socket_timeout": 600}, None),
    ("trusts-anybody", {"trusted_proxies": "*"}, None),
    ("few-descriptors", {}, Surroundings(descriptors=256)),
    ("few-descriptors", {"max_connections": 5000}, Surroundings(descriptors=4096)),
    ("stop-long", {"graceful_timeout": 26}, None),
    ("delay-unseen", {"shutdown_delay": 5}, None),
    ("memory-above-container", {"memory_limit": GIB}, Surroundings(memory_limit=2 * GIB)),
    ("many-processes", {"processes": 20}, Surroundings(cpus=2)),
]


@pytest.mark.parametrize(("code", "options", "surroundings"), WARNED)
def test_a_setting_that_hides_or_defeats_another_is_warned_of(
    code: str, options: dict[str, Any], surroundings: Surroundings | None
) -> None:
    explanation = explained(surroundings, **options)
    (warning,) = [each for each in explanation.warnings if each.code == code]
    assert warning.settings
    assert warning.why
    assert warning.advice


@pytest.mark.parametrize(
    ("code", "options", "surroundings"),
    [
        ("socket-below-fire", {"socket_timeout": 160}, None),
        ("socket-inside-grace", {"socket_timeout": 170}, None),
        ("interrupt-short", {"interrupt_timeout": 10}, None),
        ("interrupt-off", {"interrupt_timeout": 0, "request_timeout": 0}, None),
        ("connect-above-queue", {"queue_timeout": 0}, None),
        ("shutdown-short", {"shutdown_timeout": 1}, None),
        ("startup-short", {"startup_timeout": 15}, None),
        ("maximum-requests-low", {"maximum_requests": 1000}, None),
        ("restart-interval-short", {"restart_interval": 3600}, None),
        ("inactivity-of-several", {"inactivity_timeout": 600, "processes": 1}, None),
        ("memory-above-container", {"memory_limit": GIB}, Surroundings(memory_limit=3 * GIB)),
        ("memory-above-container", {"memory_limit": GIB}, None),
        ("stacks-too-large", {"virtual_memory_limit": 100 << 20, "stack_size": 1 << 20}, None),
        ("keep-alive-short", {"keep_alive_timeout": 0}, None),
        ("stop-long", {"graceful_timeout": 25}, None),
        ("delay-unseen", {"shutdown_delay": 5, "health_bind": ":9000"}, None),
        ("many-processes", {"processes": 8}, Surroundings(cpus=2)),
    ],
)
def test_what_is_meant_that_way_is_not_warned_of(
    code: str, options: dict[str, Any], surroundings: Surroundings | None
) -> None:
    assert code not in codes(surroundings, **options)


def test_a_warning_takes_two_lines_at_most() -> None:
    for code, options, surroundings in WARNED:
        lines = render(explained(surroundings, **options)).splitlines()
        begin = next(number for number, line in enumerate(lines) if line.startswith("! "))
        starts = [number for number in range(begin, len(lines)) if lines[number].startswith("! ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            assert end - start <= 2, "\n".join([code, *lines[start:end]])


def test_the_profiles_are_warned_of_what_they_are_known_for() -> None:
    assert codes(profile="tuned") == []
    assert codes(profile="express") == ["socket-below-fire", "interrupt-off"]
    assert codes(profile="directive") == [
        *("deadlock-above-socket", "request-timeout-off", "queue-off", "startup-off"),
    ]


def test_a_warning_names_its_group_where_there_are_several() -> None:
    first, second = _mounts("/a", "/b")
    settings = Settings(
        groups=[
            GroupSettings(name="one", app="one:app"),
            GroupSettings(name="two", app="two:app", deadlock_timeout=0),
        ],
        mounts=[attrs.evolve(first, group="one"), attrs.evolve(second, group="two")],
    )
    assert "! two: deadlock-timeout 0: " in render(explain(settings))


def test_memory_is_counted_over_all_groups() -> None:
    first, second = _mounts("/a", "/b")
    settings = Settings(
        groups=[
            GroupSettings(name="one", app="one:app", memory_limit=GIB, processes=1),
            GroupSettings(name="two", app="two:app", memory_limit=GIB, processes=1),
        ],
        mounts=[attrs.evolve(first, group="one"), attrs.evolve(second, group="two")],
    )

    def warned(limit: int) -> list[str]:
        return [each.code for each in explain(settings, Surroundings(memory_limit=limit)).warnings]

    assert warned(4 * GIB) == []
    assert warned(4 * GIB - 1) == ["memory-above-container"]


# --- what is not separate


def test_applications_of_one_group_are_said_not_to_be_isolated() -> None:
    from gatekeep.settings._mount import MountSettings

    settings = Settings(
        groups=[GroupSettings(app="site:app")],
        mounts=[MountSettings(group="default"), MountSettings(path="/wiki", app="wiki.wsgi:app")],
    )
    explanation = explain(settings)
    assert explanation.groups[0].applications == ("site:app", "wiki.wsgi:app")
    (warning,) = explanation.warnings
    assert warning.code == "applications-share"
    assert "nothing is isolated" in warning.why
    assert "mounted at /, /wiki (wiki.wsgi:app)" in render(explanation)


def test_an_embedded_group_is_said_to_do_without_most_of_it() -> None:
    explanation = explain(embedded(socket_timeout=1, interrupt_timeout=1))
    (group,) = explanation.groups
    assert (group.timelines, group.lifetime, group.t_fire) == ((), (), None)
    assert [warning.code for warning in explanation.warnings] == ["embedded"]
    text = " ".join(render(explanation).split())
    assert "embedded, 5 threads" in text
    for names in EMBEDDED_OFF.values():
        assert all(name in text for name in names)


def test_where_no_group_has_processes_the_stop_kills_none() -> None:
    explanation = explain(embedded())
    assert moments(explanation.stop) == [(0.0, "", 0), (15.0, "graceful-timeout", 503)]
    assert "a thread that is stuck is left behind" in " ".join(render(explanation).split())


def test_what_is_off_in_an_embedded_group_are_settings_of_groups() -> None:
    known = {field.name.replace("_", "-") for field in attrs.fields(GroupSettings)}
    named = [name for names in EMBEDDED_OFF.values() for name in names]
    assert set(named) <= known
    assert len(named) == len(set(named))


# --- for machines


def test_json_has_all_of_it() -> None:
    explanation = explained(socket_timeout=60, request_timeout=0)
    text = to_json(explanation)
    assert msgspec.json.decode(text, type=Explanation) == explanation
    plain = json.loads(text)
    assert plain["groups"][0]["t_fire"] is None
    assert {warning["code"] for warning in plain["warnings"]} == {
        warning.code for warning in explanation.warnings
    }


# --- any settings


def _values(field: attrs.Attribute[Any]) -> st.SearchStrategy[Any]:
    """Values that a setting may have, the extreme ones included."""
    spec: Spec = field.metadata["spec"]
    kind = plain_type(field)
    none = st.none() if field.default is None else st.nothing()
    if kind is bool:
        return st.booleans()
    if spec.choices:
        return st.sampled_from(spec.choices)
    if kind is int:
        least, most = int(spec.least or 0), int(spec.most) if spec.most is not None else LARGEST
        if field.name == "stack_size":
            return st.one_of(st.just(0), st.integers(32768, most))
        return st.one_of(none, st.integers(least, min(most, least + 100)), st.integers(least, most))
    if kind is float:
        ordinary = st.floats(0, 1000, allow_nan=False)
        return st.one_of(none, st.just(0.0), ordinary, st.floats(0, LONGEST), st.just(math.inf))
    return st.nothing()


_FIELDS = {
    field.name: _values(field)
    for owner in (GroupSettings, HttpSettings)
    for field in attrs.fields(owner)
    if "spec" in field.metadata and not _values(field).is_empty
}

_SURROUNDINGS = st.builds(
    Surroundings,
    memory_limit=st.none() | st.integers(1, 1 << 80),
    cpus=st.none() | st.floats(0.01, 1024),
    descriptors=st.none() | st.integers(0, 1 << 62),
    load_times=st.dictionaries(st.just("default"), st.floats(0, 1e6)),
)


@examples(max_examples=100, deadline=None)
@given(
    profile=st.sampled_from(sorted(PROFILES)),
    options=st.fixed_dictionaries({}, optional=_FIELDS),
    delay=st.floats(0, LONGEST) | st.just(math.inf),
    surroundings=_SURROUNDINGS,
)
def test_whatever_the_settings_are_they_are_explained(
    profile: str, options: dict[str, Any], delay: float, surroundings: Surroundings
) -> None:
    if options.get("processes") == 0:  # what only a process of its own can be given is refused there
        options = {name: value for name, value in options.items() if name not in REFUSED}
    settings = Settings.for_app("mysite.wsgi:application", profile=profile, shutdown_delay=delay, **options)
    explanation = explain(settings, surroundings)
    text = render(explanation)
    assert text.isascii()
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert msgspec.json.decode(to_json(explanation), type=Explanation) == explanation
    codes = [warning.code for warning in explanation.warnings]
    assert len(codes) == len(set(codes))
    for line in (*explanation.groups[0].timelines, explanation.stop):
        _check_order(line.moments)


def _check_order(moments: tuple[Moment, ...]) -> None:
    times = [moment.at for moment in moments]
    assert times == sorted(times)
    assert all(time < math.inf for time in times)


@given(text=st.text(min_size=1, max_size=60))
def test_a_warning_shows_nothing_that_a_terminal_obeys(text: str) -> None:
    explanation = explained()
    warning = Finding(code="x", settings=(), why=text, advice=text)
    shown = render(msgspec.structs.replace(explanation, warnings=(warning,)))
    assert all(line.isprintable() for line in shown.split("\n"))


# --- the machine


def _cgroups(folder: Path, lines: str, **files: str) -> tuple[Path, Path]:
    own = folder / "cgroup"
    own.write_text(lines)
    for name, text in files.items():
        file = folder / "fs" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "fs", own


def test_the_least_limit_of_a_control_group_and_its_parents_counts(tmp_path: Path) -> None:
    root, own = _cgroups(
        tmp_path,
        "0::/pod/box\n",
        pod__memory_DOT_max="2000000\n",
        pod__box__memory_DOT_max="max\n",
        pod__cpu_DOT_max="50000 100000\n",
    )
    found = read_surroundings(root, own)
    assert (found.memory_limit, found.cpus) == (2000000, 0.5)


def test_version_1_of_control_groups_is_understood(tmp_path: Path) -> None:
    root, own = _cgroups(
        tmp_path,
        "4:cpu,cpuacct:/box\n3:memory:/box\n",
        memory__memory_DOT_limit_in_bytes="9223372036854771712\n",
        memory__box__memory_DOT_limit_in_bytes="3000000\n",
        cpu__box__cpu_DOT_cfs_quota_us="25000",
        cpu__box__cpu_DOT_cfs_period_us="100000",
    )
    found = read_surroundings(root, own)
    assert (found.memory_limit, found.cpus) == (3000000, 0.25)


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    found = read_surroundings(tmp_path, tmp_path / "missing")
    assert found.memory_limit is None
    assert found.cpus is None or found.cpus >= 1
    assert found.load_times == {}
