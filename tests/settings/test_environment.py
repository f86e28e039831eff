"""Settings from environment variables: `GATEKEEP_` and the setting's name."""

from __future__ import annotations

from typing import Any

import pytest

from gatekeep import Settings, SettingsError
from gatekeep.settings._declared import declared
from gatekeep.settings._environment import environment_layers
from gatekeep.settings._layers import Layer, server_settings_from, settings_from
from gatekeep.settings._spec import plain_type

APP = Layer("", {"app": "apps:hello"})


def settings(**environment: str) -> Settings:
    return settings_from([APP, *environment_layers(environment)])


def refusal(**environment: str) -> str:
    """The one line that is said of an environment that cannot be."""
    with pytest.raises(SettingsError) as refused:
        settings(**environment)
    (line,) = str(refused.value).splitlines()
    return line


# --- what they say


@pytest.mark.parametrize(
    ("variable", "text", "options"),
    [
        ("GATEKEEP_THREADS", "3", {"threads": 3}),
        ("GATEKEEP_REQUEST_TIMEOUT", "1m30s", {"request_timeout": 90.0}),
        ("GATEKEEP_REQUEST_TIMEOUT", "7", {"request_timeout": 7.0}),
        ("GATEKEEP_MEMORY_LIMIT", "1.5G", {"memory_limit": 3 << 29}),
        ("GATEKEEP_SOCKET_TIMEOUT", "60", {"socket_timeout": 60.0}),
        ("GATEKEEP_NICE", "-5", {"nice": -5}),
        ("GATEKEEP_ALLOW_TRACE", "on", {"allow_trace": True}),
        ("GATEKEEP_SERVER_HEADER", "", {"server_header": ""}),
        ("GATEKEEP_BIND", "unix:/run/a.sock", {"bind": "unix:/run/a.sock"}),
        ("GATEKEEP_BINDS", "unix:/run/a.sock", {"bind": "unix:/run/a.sock"}),
        ("GATEKEEP_BIND", "a:1,proxy-protocol=v2", {"bind": "a:1,proxy-protocol=v2"}),
        ("GATEKEEP_BIND", "a:1,proxy-protocol=v2, b:2", {"bind": ["a:1,proxy-protocol=v2", "b:2"]}),
        ("GATEKEEP_WORKERS", "3", {"processes": 3}),
        ("GATEKEEP_NAME", "site", {"name": "site"}),
        ("GATEKEEP_PROFILE", "directive", {"profile": "directive"}),
        ("GATEKEEP_ENV", "A=1,B=x=y", {"env": ["A=1", "B=x=y"]}),
        ("GATEKEEP_ENV", " A=1 , ,B=2,", {"env": ["A=1", "B=2"]}),
        ("GATEKEEP_PYTHON_PATH", "a,/b c", {"python_path": ["a", "/b c"]}),
        ("GATEKEEP_RELOAD_INCLUDE", "*.py,*.html", {"reload_include": ["*.py", "*.html"]}),
        ("GATEKEEP_TRUSTED_PROXIES", "10.0.0.0/8, ::1", {"trusted_proxies": "10.0.0.0/8,::1"}),
        ("GATEKEEP_HTTP", "h11", {"http": "h11"}),
    ],
)
def test_a_variable_says_what_the_flag_does(variable: str, text: str, options: dict[str, Any]) -> None:
    assert settings(**{variable: text}) == Settings.for_app("apps:hello", **options)


@pytest.mark.parametrize("text", ["on", "true", "yes", "1", "ON", "True"])
def test_a_switch_is_on(text: str) -> None:
    assert settings(GATEKEEP_ALLOW_TRACE=text).http.allow_trace


@pytest.mark.parametrize("text", ["off", "false", "no", "0", "OFF", "False"])
def test_a_switch_is_off(text: str) -> None:
    assert not settings(GATEKEEP_REQUEST_BUFFERING=text).groups[0].request_buffering


def test_the_application_and_the_programs_own_settings_may_be_said_there() -> None:
    layers = list(environment_layers({"GATEKEEP_APP": "apps:echo", "GATEKEEP_LOG_LEVEL": "debug"}))
    assert str(settings_from(layers).groups[0].app) == "apps:echo"
    assert server_settings_from(layers).log_level == "debug"


def test_all_of_them_count() -> None:
    found = settings(GATEKEEP_THREADS="3", GATEKEEP_PROCESSES="4", GATEKEEP_BACKLOG="5")
    assert (found.groups[0].threads, found.groups[0].processes, found.backlog) == (3, 4, 5)


def test_they_go_before_a_file_and_behind_flags() -> None:
    environment = list(environment_layers({"GATEKEEP_THREADS": "3", "GATEKEEP_PROCESSES": "3"}))
    file, flags = Layer("file", {"threads": 2, "processes": 2, "backlog": 2}), Layer("", {"processes": 4})
    found = settings_from([APP, file, *environment, flags])
    assert (found.groups[0].threads, found.groups[0].processes, found.backlog) == (3, 4, 2)


def test_nobody_elses_variables_are_read() -> None:
    assert settings(THREADS="3", gatekeep_threads="3", XGATEKEEP_THREADS="3", PATH="x") == settings()
    assert list(environment_layers({"GATEKEEP_CMD_ARGS": "--what", "GATEKEEP_CONFIG": "x"})) == []
    assert list(environment_layers({"GATEKEEP_INNER": "x"}, frozenset({"GATEKEEP_INNER"}))) == []


@pytest.mark.parametrize("name", sorted(declared()))
def test_every_setting_has_a_variable(name: str) -> None:
    variable = f"GATEKEEP_{name.upper()}"
    text = "on" if plain_type(declared()[name][1]) is bool else "5"
    (layer,) = environment_layers({variable: text})
    assert (layer.place, list(layer.values)) == (f"${variable}", [name])


# --- what cannot be


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("GATEKEEP_THREADS", "many", "threads = 'many': allowed is 1 to 1024"),
        ("GATEKEEP_THREADS", "5.0", "threads = '5.0': allowed is 1 to 1024"),
        ("GATEKEEP_THREADS", "0", "threads = 0: allowed is 1 to 1024"),
        ("GATEKEEP_NICE", "20", "nice = 20: allowed is -20 to 19"),
        ("GATEKEEP_REQUEST_TIMEOUT", "soon", "request-timeout = 'soon': allowed is 0 seconds or more, such as 90 or 1m30s"),
        ("GATEKEEP_MEMORY_LIMIT", "much", "memory-limit = 'much': allowed is 0 bytes or more, such as 1024 or 8MiB"),
        ("GATEKEEP_ALLOW_TRACE", "maybe", "allow-trace = 'maybe': allowed is on or off"),
        ("GATEKEEP_HTTP", "h3", "http = 'h3': allowed is one of auto, strict, h11"),
        ("GATEKEEP_HTTP", "", "http = '': allowed is one of auto, strict, h11"),
        ("GATEKEEP_PROFILE", "fast", "profile = 'fast': allowed is one of tuned, express, directive"),
        ("GATEKEEP_APP", "1:2", "app = '1:2': allowed is module:callable"),
        ("GATEKEEP_ENV", "A=1,B", "env = 'B': allowed is "),
        ("GATEKEEP_TRUSTED_PROXIES", "10.0.0.0/8,x", "trusted-proxies = 'x': allowed is "),
        ("GATEKEEP_UMASK", "9", "umask = '9': allowed is an octal number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_variable(variable: str, text: str, line: str) -> None:
    assert refusal(**{variable: text}).startswith(f"${variable}: {line}")


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("GATEKEEP_THREAD", "; did you mean $GATEKEEP_THREADS?"),
        ("GATEKEEP_WORKER", "; did you mean $GATEKEEP_WORKERS?"),
        ("GATEKEEP_CONFG", "; did you mean $GATEKEEP_CONFIG?"),
        ("GATEKEEP_APPS", "; did you mean $GATEKEEP_APP?"),
        ("GATEKEEP_XYZZY", ""),
        ("GATEKEEP_", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_refused_and_the_nearest_suggested(variable: str, hint: str) -> None:
    assert refusal(**{variable: "5"}) == f"${variable}: there is no such setting{hint}"


def test_two_variables_for_one_setting_are_refused_since_their_order_means_nothing() -> None:
    line = "$GATEKEEP_PROCESSES: $GATEKEEP_WORKERS says it already, by its other name"
    assert refusal(GATEKEEP_WORKERS="1", GATEKEEP_PROCESSES="2") == line
    line = "$GATEKEEP_BIND: $GATEKEEP_BINDS says it already, by its other name"
    assert refusal(GATEKEEP_BINDS="a:1", GATEKEEP_BIND="a:2") == line


@pytest.mark.parametrize("text", ["1_0", "\u0661\u0662", "+5"])
def test_a_number_is_written_with_digits_alone(text: str) -> None:
    assert refusal(GATEKEEP_THREADS=text) == f"$GATEKEEP_THREADS: threads = {text!r}: allowed is 1 to 1024"


def test_what_kubernetes_and_docker_set_for_a_service_of_our_name_is_not_meant_for_us() -> None:
    links = {
        "GATEKEEP_SERVICE_HOST": "10.0.0.1",
        "GATEKEEP_SERVICE_PORT": "80",
        "GATEKEEP_SERVICE_PORT_HTTP": "80",
        "GATEKEEP_PORT": "tcp://10.0.0.1:80",
        "GATEKEEP_PORT_80_TCP": "tcp://10.0.0.1:80",
        "GATEKEEP_PORT_80_TCP_PROTO": "tcp",
        "GATEKEEP_PORT_80_TCP_PORT": "80",
        "GATEKEEP_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert [*environment_layers(links)] == []
    assert refusal(GATEKEEP_PORT="80").startswith("$GATEKEEP_PORT: there is no such setting")


def test_an_empty_app_or_profile_is_as_good_as_not_set() -> None:
    assert [*environment_layers({"GATEKEEP_APP": "", "GATEKEEP_PROFILE": ""})] == []
