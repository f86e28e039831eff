"""Settings: declared once, refused with their name, value and what is allowed, never silently corrected."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

import apps
from gatekeep import GroupSettings, HttpSettings, Settings, SettingsError
from gatekeep.settings._app import AppTarget, parse_app
from gatekeep.settings._bind import Bind, BindKind, parse_bind
from gatekeep.settings._declared import declared, plain_name
from gatekeep.settings._reload import ReloadSettings
from gatekeep.settings._script import ScriptSettings
from gatekeep.settings._server import ServerSettings
from gatekeep.settings._spec import WORDS, Spec, dashed, never_if_zero, plain_type
from gatekeep.settings._understood import all_flags


def refusal(**options: Any) -> str:
    """What is said of settings that cannot be."""
    with pytest.raises(SettingsError) as refused:
        Settings.for_app("apps:hello", **options)
    (line,) = str(refused.value).splitlines()
    return line


def setting(settings: Settings, name: str) -> Any:
    """A setting's value, wherever it is held."""
    owner = declared()[plain_name(name)][0]
    holder = {
        Settings: settings,
        HttpSettings: settings.http,
        ReloadSettings: settings.reload,
        ScriptSettings: settings.mount_table[0],
        GroupSettings: settings.groups[0],
    }[owner]
    return getattr(holder, name)


# --- where to listen

TCP, UNIX, FD = BindKind.TCP, BindKind.UNIX, BindKind.FD


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:8080", Bind(TCP, "127.0.0.1", 8080)),
        ("example.com:80", Bind(TCP, "example.com", 80)),
        ("localhost", Bind(TCP, "localhost", 8000)),
        (":8080", Bind(TCP, "0.0.0.0", 8080)),
        (":0", Bind(TCP, "0.0.0.0", 0)),
        ("a:65535", Bind(TCP, "a", 65535)),
        ("a:00080", Bind(TCP, "a", 80)),
        ("[::1]:8080", Bind(TCP, "::1", 8080)),
        ("[::]", Bind(TCP, "::", 8000)),
        ("[::ffff:1.2.3.4]:1", Bind(TCP, "::ffff:1.2.3.4", 1)),
        ("[fe80::1%eth0]:1", Bind(TCP, "fe80::1%eth0", 1)),
        ("unix:/run/a.sock", Bind(UNIX, path="/run/a.sock")),
        ("unix:a.sock", Bind(UNIX, path="a.sock")),
        ("unix:///run/a.sock", Bind(UNIX, path="/run/a.sock")),
        ("unix:/a:b c", Bind(UNIX, path="/a:b c")),
        ("fd://3", Bind(FD, fd=3)),
        ("fd://0", Bind(FD, fd=0)),
    ],
)
def test_an_address_is_understood(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            ":",
            "a:",
            "a:b",
            "a:-1",
            "a:+1",
            "a:1_0",
            "a:65536",
            "a:99999",
            "a:000080",
            "a:8 0",
            "a:80:80",
        ],
        *["::1", "::1:80", "[::1", "::1]:80", "[]:80", "[]", "[::1]80", "[::1]:x", "a:\u0661"],
        *[
            "http://a:80",
            "a/b",
            "/run/a.sock",
            "unix:",
            "unix://",
            "fd://",
            "fd://x",
            "fd://-1",
            "fd://\u0661",
        ],
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_bind(text)
    assert str(refused.value) == (
        f"bind = {text!r}: allowed is host:port (port 0 to 65535), [ipv6]:port, unix:/path or fd://N"
    )


@pytest.mark.parametrize("text", ["[example.com]:80", "8080"])
def test_what_would_listen_elsewhere_than_people_think_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_bind(text)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8080", "[::1]:0", "unix:/run/a.sock", "fd://3", "0.0.0.0:8000", "[fe80::1%eth0]:1"]
)
def test_an_address_is_shown_as_it_is_typed(text: str) -> None:
    assert str(parse_bind(text)) == text


@given(st.text(max_size=12))
def test_any_text_is_an_address_that_is_shown_as_one_or_is_refused(text: str) -> None:
    try:
        bind = parse_bind(text)
    except SettingsError:
        return
    assert parse_bind(str(bind)) == bind


@pytest.mark.parametrize(
    ("given_", "binds"),
    [
        ("a:1", ["a:1"]),
        (["a:1", "unix:/b"], ["a:1", "unix:/b"]),
        (Bind(TCP, "a", 1), ["a:1"]),
        ([Bind(TCP, "a", 1), "fd://3"], ["a:1", "fd://3"]),
        (iter(["a:1"]), ["a:1"]),
    ],
)
@pytest.mark.parametrize("name", ["bind", "binds"])
def test_one_address_or_several_may_be_given(given_: Any, binds: list[str], name: str) -> None:
    if not isinstance(given_, (str, list, Bind)):
        given_ = iter(binds)
    assert [str(bind) for bind in Settings.for_app("apps", **{name: given_}).binds] == binds


def test_a_gateway_may_listen_nowhere() -> None:
    assert Settings.for_app("apps", binds=[]).binds == ()


def test_the_default_address_is_reached_from_this_machine_only() -> None:
    assert [str(bind) for bind in Settings.for_app("apps").binds] == ["127.0.0.1:8000"]


@pytest.mark.parametrize("version", ["off", "v1", "v2", "auto"])
@pytest.mark.parametrize("address", ["127.0.0.1:8080", "[::1]:0", "unix:/run/a,b.sock", "fd://3"])
def test_an_address_may_say_that_its_connections_are_introduced(address: str, version: str) -> None:
    bind = parse_bind(f"{address},proxy-protocol={version}")
    assert (bind.address, bind.proxy_protocol) == (address, version)
    assert str(bind) == f"{address},proxy-protocol={version}"
    assert attrs.evolve(bind, proxy_protocol="") == parse_bind(address)


@pytest.mark.parametrize(
    "text", ["a:1,proxy-protocol=v3", "a:1,proxy-protocol", "a:1,proxy-protocol=", ",proxy-protocol=v1"]
)
def test_a_protocol_that_there_is_not_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_bind(text)
    assert str(refused.value) == (
        f"bind = {text!r}: allowed is host:port (port 0 to 65535), [ipv6]:port, unix:/path or fd://N, "
        "then ,proxy-protocol=off|v1|v2|auto"
    )


# --- proxies


def test_at_first_only_this_machine_is_trusted_and_only_about_what_proxies_always_write() -> None:
    http = HttpSettings()
    assert http.proxy_headers
    assert http.trusted_proxies == http.proxy_allow_from == ("127.0.0.1", "::1")
    assert http.trusted_proxy_headers == ("x-forwarded-for", "x-forwarded-proto")
    assert http.proxy_protocol == "off"


@pytest.mark.parametrize("name", ["trusted_proxies", "proxy_allow_from"])
@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("10.0.0.7", ["10.0.0.7"]),
        ("10.0.0.7,10.1.0.0/16", ["10.0.0.7", "10.1.0.0/16"]),
        (["10.0.0.7", " ::1 , *,"], ["10.0.0.7", "::1", "*"]),
        (["10.0.0.7/32", "10.0.0.7"], ["10.0.0.7"]),
        ("2001:DB8::/32", ["2001:db8::/32"]),
        ("10.0.0.0/255.0.0.0", ["10.0.0.0/8"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.0/8"]),
        ("::ffff:10.0.0.7", ["10.0.0.7"]),
        ("", []),
        ([], []),
    ],
)
def test_networks_are_given_with_commas_or_as_several(name: str, given_: Any, kept: list[str]) -> None:
    assert setting(Settings.for_app("apps", **{name: given_}), name) == tuple(kept)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.7/8", "; the network is 10.0.0.0/8, the address 10.0.0.7"),
        ("2001:db8::1/32", "; the network is 2001:db8::/32, the address 2001:db8::1"),
        *[(text, "") for text in ("localhost", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.*", "[::1]", "**", "::1%eth0")],
        *[(text, "") for text in ("1", "10.0.0.1:80", "10.0.0.01", "\u0661.0.0.1", "10.0.0.0/\u0668", "10.0.0.1-10.0.0.9")],
        ("unix", "; UNIX sockets are always trusted"),
        ("unix:/run/a", "; UNIX sockets are always trusted"),
    ],
)  # fmt: skip
def test_a_network_that_is_none_is_refused_with_what_is_allowed(text: str, hint: str) -> None:
    allowed = "allowed is an address, a network (10.0.0.0/8) or *"
    assert refusal(trusted_proxies=["::1", text]) == f"trusted-proxies = {text!r}: {allowed}{hint}"
    assert refusal(proxy_allow_from=text) == f"proxy-allow-from = {text!r}: {allowed}{hint}"
    assert refusal(trusted_proxies=5) == "trusted-proxies = 5: text is needed"


def test_fields_are_named_in_any_case_and_none_that_we_cannot_read() -> None:
    http = HttpSettings(trusted_proxy_headers="Forwarded, X-FORWARDED-PORT")
    assert http.trusted_proxy_headers == ("forwarded", "x-forwarded-port")
    assert HttpSettings(trusted_proxy_headers="").trusted_proxy_headers == ()
    for name in ("x-forwarded-user", "HTTP_X_FORWARDED_FOR", "host"):
        said = refusal(trusted_proxy_headers=name)
        assert said.startswith(
            f"trusted-proxy-headers = {name!r}: allowed is any of forwarded, x-forwarded-for, "
        )


def test_two_fields_that_tell_the_same_are_refused() -> None:
    assert refusal(trusted_proxy_headers="x-forwarded-for,forwarded") == (
        "trusted-proxy-headers = 'x-forwarded-for,forwarded': both tell the client's address; allowed is the one that your "
        "proxy sets"
    )


def test_the_proxy_protocol_has_two_versions() -> None:
    assert refusal(proxy_protocol="v3") == "proxy-protocol = 'v3': allowed is one of off, v1, v2, auto"


@pytest.mark.parametrize(
    ("options", "open_"),
    [
        ({}, {}),
        ({"trusted_proxies": "::1,*"}, {"trusted-proxies": "*"}),
        ({"trusted_proxies": "0.0.0.0/0"}, {"trusted-proxies": "0.0.0.0/0"}),
        ({"trusted_proxies": "*", "proxy_headers": False}, {}),
        ({"proxy_allow_from": "*"}, {}),
        ({"proxy_allow_from": "*", "proxy_protocol": "v1"}, {"proxy-allow-from": "*"}),
        (
            {"proxy_allow_from": "::/0", "bind": ["a:1", "b:2,proxy-protocol=v2"]},
            {"proxy-allow-from": "::/0"},
        ),
        ({"proxy_allow_from": "*", "proxy_protocol": "v1", "bind": "a:1,proxy-protocol=off"}, {}),
    ],
)
def test_it_is_known_where_anybody_is_trusted(options: dict[str, Any], open_: dict[str, str]) -> None:
    assert Settings.for_app("apps", **options).trusts_anybody() == open_


# --- probes


def test_health_is_answered_nowhere_unless_it_is_asked_for() -> None:
    settings = Settings.for_app("apps")
    assert (settings.health_binds, settings.http.livez_path, settings.http.readyz_path) == ((), "", "")


@pytest.mark.parametrize("name", ["health_bind", "health_binds"])
@pytest.mark.parametrize("given_", [":9000", ["0.0.0.0:9000"], [Bind(TCP, "0.0.0.0", 9000)]])
def test_addresses_for_health_are_given_as_others_are(given_: Any, name: str) -> None:
    settings = Settings.for_app("apps", **{name: given_})
    assert [str(bind) for bind in settings.health_binds] == ["0.0.0.0:9000"]


def test_an_address_for_health_that_is_none_is_refused_by_its_own_name() -> None:
    assert refusal(health_bind="a:b").startswith("health-bind = 'a:b': allowed is host:port")
    assert refusal(health_bind=5) == "health-bind = 5: text is needed"


@pytest.mark.parametrize("bind", ["a:1", "unix:/a", "fd://3"])
def test_an_address_is_for_users_or_for_health(bind: str) -> None:
    said = f"health-bind = '{bind}': allowed is any other address than those of bind"
    assert refusal(bind=["b:2", bind], health_bind=[bind]) == said
    assert refusal(bind=["b:2", f"{bind},proxy-protocol=v1"], health_bind=[bind]) == said


def test_two_ports_that_the_system_chooses_are_two() -> None:
    settings = Settings.for_app("apps", bind="a:0", health_bind="a:0")
    assert settings.binds == settings.health_binds


@pytest.mark.parametrize("path", ["", "/", "/livez", "/a/b.c/%7e;x=1", "/~!$&'()*+,;=:@"])
@pytest.mark.parametrize("name", ["livez_path", "readyz_path"])
def test_a_probe_may_have_any_path(name: str, path: str) -> None:
    assert setting(Settings.for_app("apps", **{name: path}), name) == path


@pytest.mark.parametrize("path", ["livez", " /a", "/a b", "/a?b", "/a#b", "/\xe4", "/a\n", "http://a/livez"])
@pytest.mark.parametrize("name", ["livez_path", "readyz_path"])
def test_a_path_that_no_request_can_have_is_refused(name: str, path: str) -> None:
    said = "a path as clients send it: / first, printable ASCII without ? and #"
    assert refusal(**{name: path}) == f"{name.replace('_', '-')} = {path!r}: allowed is {said}"


def test_the_two_probes_have_two_paths() -> None:
    said = "readyz-path = '/health': allowed is any other path than livez-path"
    assert refusal(livez_path="/health", readyz_path="/health") == said


def test_on_addresses_for_health_an_unset_path_is_its_own_name() -> None:
    assert Settings.for_app("apps").http.health_paths == ("/livez", "/readyz")
    assert Settings.for_app("apps", readyz_path="/up").http.health_paths == ("/livez", "/up")
    said = refusal(livez_path="/readyz", health_bind=":9000")
    assert said.startswith("health-bind: livez-path and readyz-path are both '/readyz' there")
    assert Settings.for_app("apps", livez_path="/readyz").http.livez_path == "/readyz", "nobody is confused"


# --- what to serve


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("site", AppTarget("site")),
        ("site:app", AppTarget("site", attribute="app")),
        ("my.site.wsgi:application", AppTarget("my.site.wsgi", attribute="application")),
        ("site:factory.inner", AppTarget("site", attribute="factory.inner")),
        ("site:make()", AppTarget("site", attribute="make", factory=True)),
        ("_a1.b_2:c_3", AppTarget("_a1.b_2", attribute="c_3")),
        ("\xe4.\xf6:\xfc", AppTarget("\xe4.\xf6", attribute="\xfc")),
        ("wsgi.py", AppTarget(path="wsgi.py")),
        ("site/wsgi.py:app", AppTarget(path="site/wsgi.py", attribute="app")),
        ("./mysite.wsgi", AppTarget(path="./mysite.wsgi")),
        ("mysite.wsgi", AppTarget("mysite.wsgi")),
        ("/srv/my site/a-b.wsgi", AppTarget(path="/srv/my site/a-b.wsgi")),
        ("/srv/a.py:make()", AppTarget(path="/srv/a.py", attribute="make", factory=True)),
        (" site:app ", AppTarget("site", attribute="app")),
    ],
)
def test_an_application_is_understood(text: str, target: AppTarget) -> None:
    assert parse_app(text) == target


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            " ",
            ":",
            ":app",
            "site:",
            "a b",
            "a-b",
            "1a",
            ".a",
            "a.",
            "a..b",
            "a:1",
            "a:b-c",
            "a:b c",
            "a:.b",
            "a:b.",
        ],
        *["a:b:c", "a:b()()", "a()", "a:b(1)", "a:()", "a\nb"],
    ],
)
def test_any_other_application_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_app(text)
    assert str(refused.value).startswith(f"app = {text!r}: allowed is module:callable, module, ")


@pytest.mark.parametrize(
    "text", ["site", "site:app", "a.b:c.d", "site:make()", "site/wsgi.py", "./a.wsgi:app", "wsgi.py:make()"]
)
def test_an_application_is_shown_as_it_is_typed(text: str) -> None:
    assert str(parse_app(text)) == text


def test_a_factory_may_be_said_beside_it() -> None:
    assert parse_app("site:make", factory=True) == parse_app("site:make()")


@given(st.text(max_size=12))
def test_any_text_is_an_application_that_is_shown_as_one_or_is_refused(text: str) -> None:
    try:
        target = parse_app(text)
    except SettingsError:
        return
    assert parse_app(str(target)) == target


def test_a_callable_that_others_can_import_is_found_by_its_name() -> None:
    (group,) = Settings.for_app(apps.hello).groups
    assert group.app == AppTarget("apps", attribute="hello")


def main_program() -> None: ...


main_program.__module__ = "__main__"


class Instance:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("app", "why"),
    [
        (lambda environ, start_response: [], "a local function"),
        (main_program, "the main program"),
        (Instance(), "must find it by name"),
    ],
    ids=["lambda", "main", "instance"],
)
def test_a_callable_that_others_cannot_import_is_refused_with_the_cure(app: Any, why: str) -> None:
    def local() -> None: ...

    for unreachable in (app, local):
        with pytest.raises(SettingsError) as refused:
            Settings.for_app(unreachable)
        assert "\n" not in str(refused.value)
        assert "give it as 'module:callable'" in str(refused.value)
    with pytest.raises(SettingsError, match=why):
        Settings.for_app(app)


@pytest.mark.parametrize("app", [None, 7, b"apps:hello", ["apps:hello"]])
def test_what_is_no_application_at_all_is_refused(app: Any) -> None:
    with pytest.raises(SettingsError, match=r"^app = "):
        Settings.for_app(app)


# --- numbers

NUMBERS = {
    name: attribute.metadata["spec"]
    for name, (_, attribute) in declared().items()
    if plain_type(attribute) in (int, float)
}


def kind_of(name: str) -> type:
    return plain_type(declared()[name][1]) or str


def edges(which: str) -> list[tuple[str, Any]]:
    """Every number's values just allowed, or just not."""
    found: list[tuple[str, Any]] = []
    for name, spec in NUMBERS.items():
        kind = kind_of(name)
        step = 1 if kind is int else 0.001
        good = [kind(limit) for limit in (spec.least, spec.most) if limit is not None]
        bad = [kind(spec.least) - step] + ([kind(spec.most) + step] if spec.most is not None else [])
        found += [(name, value) for value in (good if which == "good" else bad)]
    return found


def test_every_number_has_a_lower_limit_and_only_durations_rates_and_what_lies_on_disk_have_no_upper() -> (
    None
):
    assert all(spec.least is not None for spec in NUMBERS.values())
    unlimited = {name for name, spec in NUMBERS.items() if spec.most is None}
    durations = {name for name, spec in NUMBERS.items() if spec.unit == "seconds"}
    sizes = {"limit_request_body", "response_spool_size", "header_min_rate", "body_min_rate"}
    sizes |= {"maximum_requests", "maximum_requests_jitter", "memory_limit"}
    assert unlimited == durations | sizes


def test_durations_are_floats_and_everything_else_is_a_whole_number() -> None:
    assert all((kind_of(name) is float) == (spec.unit == "seconds") for name, spec in NUMBERS.items())


@pytest.mark.parametrize(("name", "value"), edges("good"))
def test_a_number_at_its_limit_is_allowed(name: str, value: Any) -> None:
    assert setting(Settings.for_app("apps", **{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), edges("bad"))
def test_a_number_beyond_its_limit_is_refused_with_name_value_and_what_is_allowed(
    name: str, value: Any
) -> None:
    spec = NUMBERS[name]
    line = refusal(**{name: value})
    assert line == f"{dashed(name)} = {value}: allowed is {spec.allowed()}"
    assert f"{spec.least:g}" in line
    assert spec.most is None or str(spec.most) in line
    assert spec.unit in line


@pytest.mark.parametrize("name", [name for name in NUMBERS if kind_of(name) is float])
def test_a_duration_may_be_a_whole_number_or_for_ever_and_is_never_nan(name: str) -> None:
    assert setting(Settings.for_app("apps", **{name: 7}), name) == 7
    assert setting(Settings.for_app("apps", **{name: math.inf}), name) == math.inf
    assert refusal(**{name: math.nan}).startswith(f"{dashed(name)} = nan: allowed is ")
    assert refusal(**{name: -math.inf}).startswith(f"{dashed(name)} = -inf: allowed is ")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, False, "5", b"5", [5], 5j], ids=repr)
def test_a_number_is_a_number_and_no_bool(name: str, value: Any) -> None:
    if value == "5" and NUMBERS[name].unit:
        assert setting(Settings.for_app("apps", **{name: value + "0000"}), name) == 50000
        return
    needed = f"{WORDS[kind_of(name)]} is needed: {NUMBERS[name].allowed()}"
    assert refusal(**{name: value}).startswith(f"{dashed(name)} = {value!r}: {needed}")


@pytest.mark.parametrize("name", [name for name in NUMBERS if kind_of(name) is int])
def test_a_count_is_no_fraction(name: str) -> None:
    assert "= 5.0: a whole number is needed: " in refusal(**{name: 5.0})


DERIVED = {name for name, spec in NUMBERS.items() if spec.derived}


@pytest.mark.parametrize("name", NUMBERS)
def test_nothing_is_a_number_only_where_it_is_derived(name: str) -> None:
    if name in DERIVED:
        assert setting(Settings.for_app("apps", **{name: None}), name) is None
    else:
        needed = f"{WORDS[kind_of(name)]} is needed: {NUMBERS[name].allowed()}"
        assert refusal(**{name: None}).startswith(f"{dashed(name)} = None: {needed}")


# --- timers that may be off, and those that are made from others


@pytest.mark.parametrize(("given_", "seconds"), [(0, math.inf), (0.0, math.inf), (0.5, 0.5), (7, 7)])
def test_a_timer_of_0_is_off(given_: float, seconds: float) -> None:
    assert never_if_zero(given_) == seconds
    settings = Settings.for_app("apps", socket_timeout=given_, response_socket_timeout=given_)
    assert settings.groups[0].socket_timeout_or_default == seconds
    assert settings.response_socket_timeout == seconds


def socket_timeout(**options: Any) -> float:
    settings = Settings.for_app("apps", **options)
    return settings.groups[0].socket_timeout_or_default


def test_the_socket_timeout_is_derived_where_it_is_not_given() -> None:
    assert {"response_socket_timeout", "socket_timeout"} <= set(DERIVED)
    assert socket_timeout(threads=1) == 60 + 10 + 15 + 5 + 5
    assert socket_timeout() == pytest.approx(191.6, abs=0.05), "as its help says"
    assert f"{socket_timeout():.1f} with 5 threads" in NUMBERS["socket_timeout"].derived


@given(st.integers(1, 1024), st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_derived_socket_timeout_outlasts_every_request_and_the_drain_of_its_process(
    threads: int, graceful: float, shutdown: float
) -> None:
    longest = 60.0 * (1 + math.log(threads)) + 10.0
    derived = socket_timeout(threads=threads, graceful_timeout=graceful, shutdown_timeout=shutdown)
    assert derived > longest + graceful + shutdown
    evicting = socket_timeout(threads=threads, eviction_timeout=graceful, shutdown_timeout=shutdown)
    assert evicting > longest + graceful + shutdown


def test_requests_that_may_run_for_ever_leave_no_socket_timeout() -> None:
    assert socket_timeout(request_timeout=0) == math.inf


def test_a_stop_that_may_take_for_ever_leaves_no_socket_timeout() -> None:
    assert socket_timeout(graceful_timeout=math.inf) == math.inf


def test_the_response_socket_timeout_is_the_socket_timeout_unless_it_is_given() -> None:
    assert Settings.for_app("apps").response_socket_timeout == socket_timeout()
    assert Settings.for_app("apps", socket_timeout=7).response_socket_timeout == 7
    assert Settings.for_app("apps", socket_timeout=0).response_socket_timeout == math.inf
    both = Settings.for_app("apps", socket_timeout=7, response_socket_timeout=3)
    assert (both.response_socket_timeout, both.groups[0].socket_timeout_or_default) == (3, 7)


def test_a_derived_timer_stays_what_it_was_made_from_in_a_changed_copy() -> None:
    settings = Settings.for_app("apps")
    (group,) = settings.groups
    changed = attrs.evolve(settings, groups=[attrs.evolve(group, graceful_timeout=115.0)])
    assert changed.response_socket_timeout == settings.response_socket_timeout + 100


# --- words and switches


@pytest.mark.parametrize("value", ["auto", "strict", "h11"])
def test_a_codec_is_one_of_three(value: str) -> None:
    assert Settings.for_app("apps", http=value).http.http == value


@pytest.mark.parametrize("value", ["", "h2", "Strict", "httptools"])
def test_any_other_codec_is_refused_with_the_three(value: str) -> None:
    assert refusal(http=value) == f"http = {value!r}: allowed is one of auto, strict, h11"


@pytest.mark.parametrize("value", ["deadline", "pickup"])
def test_a_request_is_shed_at_its_deadline_or_at_its_pickup(value: str) -> None:
    assert Settings.for_app("apps", queue_shed=value).groups[0].queue_shed == value


@pytest.mark.parametrize("value", ["", "Deadline", "never"])
def test_any_other_time_to_shed_is_refused_with_the_two(value: str) -> None:
    assert refusal(queue_shed=value) == f"queue-shed = {value!r}: allowed is one of deadline, pickup"


@pytest.mark.parametrize("value", [1, 0, "yes", None])
@pytest.mark.parametrize("name", ["allow_trace", "request_buffering"])
def test_a_switch_is_a_bool(value: Any, name: str) -> None:
    assert refusal(**{name: value}) == f"{dashed(name)} = {value!r}: true or false is needed"


@pytest.mark.parametrize("name", ["server_header", "name", "http", "queue_shed", "spool_dir"])
def test_a_text_is_a_str(name: str) -> None:
    assert refusal(**{name: 7}).startswith(f"{dashed(name)} = 7: text (in quotes) is needed")


@pytest.mark.parametrize("value", ["", "/var/spool/a b", "\xe4", "a\nb"])
def test_temporary_files_may_be_in_any_folder(value: str) -> None:
    assert Settings.for_app("apps", spool_dir=value).http.spool_dir == value


def test_a_folder_that_no_system_can_have_is_refused() -> None:
    assert refusal(spool_dir="a\0b") == "spool-dir = 'a\\x00b': allowed is a folder's path"


def test_folders_may_be_one_or_several() -> None:
    for folders, held in (("a", ("a",)), (["a", "b"], ("a", "b")), ((), ())):
        assert Settings.for_app("apps", python_path=folders).groups[0].python_path == held


@pytest.mark.parametrize(
    "options", [{"binds": [5]}, {"binds": 5}, {"python_path": 5}, {"python_path": [5]}], ids=str
)
def test_a_list_of_something_else_is_refused(options: dict[str, Any]) -> None:
    name = "bind" if "binds" in options else "python-path"
    assert refusal(**options) == f"{name} = 5: text is needed"


@pytest.mark.parametrize(
    "options", [{"bind": "a:1", "binds": "b:2"}, {"workers": 1, "processes": 2}], ids=["bind", "workers"]
)
def test_a_setting_that_is_given_under_both_of_its_names_is_refused(options: dict[str, Any]) -> None:
    assert refusal(**options) == f"{list(options)[1]} is given twice, by two names"


@pytest.mark.parametrize("value", ["a\r\nb", "a\n", "a\0", "\u20ac", "x" * 257])
def test_a_server_field_that_no_response_can_carry_is_refused(value: str) -> None:
    said = f"server-header = {value!r}: allowed is up to 256 printable ASCII characters"
    assert refusal(server_header=value) == said


@pytest.mark.parametrize("value", ["", "a/b", "..", "a\0b", "x" * 33, "\xe4", "a b"])
def test_a_group_name_that_no_file_should_have_is_refused(value: str) -> None:
    assert refusal(name=value) == f"name = {value!r}: allowed is 1 to 32 letters, digits, _ and -"


# --- names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("thread", "unknown setting thread; did you mean threads?"),
        ("conect_timeout", "unknown setting conect-timeout; did you mean connect-timeout?"),
        ("worker", "unknown setting worker; did you mean workers?"),
        ("limit_request_bodies", "unknown setting limit-request-bodies; did you mean limit-request-body?"),
        ("xyzzy", "unknown setting xyzzy"),
        ("groups", "unknown setting groups"),
    ],
)
def test_an_unknown_setting_is_refused_and_the_nearest_suggested(name: str, said: str) -> None:
    assert refusal(**{name: 1}).startswith(said)


def test_other_servers_words_are_understood() -> None:
    settings = Settings.for_app("apps", workers=3, bind="a:1")
    assert (settings.groups[0].processes, str(settings.binds[0])) == (3, "a:1")


def test_each_option_reaches_the_section_that_holds_it() -> None:
    settings = Settings.for_app("apps", backlog=7, http="h11", limit_request_line=100, threads=9, name="site")
    assert settings.backlog == 7
    assert (settings.http.http, settings.http.limit_request_line) == ("h11", 100)
    assert (settings.groups[0].threads, settings.groups[0].name) == (9, "site")


def test_sections_may_be_made_by_hand() -> None:
    by_hand = Settings(
        binds="a:1", http=HttpSettings(http="h11"), groups=[GroupSettings(app="apps:hello", processes=3)]
    )
    assert by_hand == Settings.for_app("apps:hello", bind="a:1", http="h11", processes=3)
    with pytest.raises(SettingsError, match=r"^threads = 0: allowed is 1 to 1024$"):
        GroupSettings(app="apps", threads=0)
    with pytest.raises(SettingsError, match=r"^limit-request-line = 1: allowed is 64 to "):
        HttpSettings(limit_request_line=1)


def test_there_is_a_group_and_no_two_have_one_name() -> None:
    with pytest.raises(SettingsError, match=r"^groups: at least one process group is needed$"):
        Settings(groups=[])
    with pytest.raises(SettingsError, match=r"^groups: there are two of the name default$"):
        Settings(groups=[GroupSettings(app="apps")] * 2)


# --- what is declared


def test_every_setting_of_every_section_is_declared() -> None:
    held = {
        attribute.name
        for section in (Settings, GroupSettings, HttpSettings, ReloadSettings, ServerSettings, ScriptSettings)
        for attribute in attrs.fields(section)
    }
    assert set(declared()) == held - {"app", "groups", "mounts"}
    assert declared()["reload"][0] is ReloadSettings, "the flag, not its section"
    assert declared()["http"][0] is HttpSettings, "the codec, not its section"


@pytest.mark.parametrize(
    ("name", "spec"), [(name, attribute.metadata["spec"]) for name, (_, attribute) in declared().items()]
)
def test_every_setting_explains_itself(name: str, spec: Spec) -> None:
    assert spec.help.endswith((".", "?"))
    assert spec.help[0].isupper() or spec.help[0].isdigit() or spec.help.startswith(spec.choices or " ")
    assert all(alias.startswith("-") for alias in spec.aliases)
    assert spec.unit in ("", "seconds", "bytes")


def test_no_two_settings_have_a_flag_in_common() -> None:
    flags = [f"--{dashed(name)}" for name in declared() if name != "name"]
    for _, attribute in declared().values():
        flags += attribute.metadata["spec"].aliases
    flags += all_flags()
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--keep-alive", "keep_alive_timeout"),
        ("--timeout-keep-alive", "keep_alive_timeout"),
        ("--timeout-graceful-shutdown", "graceful_timeout"),
        ("--workers-kill-timeout", "shutdown_timeout"),
        ("--blocking-threads", "threads"),
        ("--forwarded-allow-ips", "trusted_proxies"),
    ],
)
def test_other_servers_flags_are_known(flag: str, name: str) -> None:
    assert flag in declared()[name][1].metadata["spec"].aliases


def test_every_default_is_allowed() -> None:
    settings, server = Settings.for_app("apps"), ServerSettings()
    for name, (owner, attribute) in declared().items():
        value = getattr(server, name) if owner is ServerSettings else setting(settings, name)
        assert value == attribute.default


def test_settings_are_frozen() -> None:
    settings = Settings.for_app("apps")
    for section in (settings, settings.http, settings.groups[0]):
        for attribute in attrs.fields(type(section)):
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(section, attribute.name, 1)
    assert isinstance(settings.binds, tuple)
    assert isinstance(settings.groups, tuple)


def test_equal_settings_are_equal_and_can_be_a_key() -> None:
    one, two = Settings.for_app("apps", threads=3), Settings.for_app("apps", threads=3)
    assert one == two
    assert {one: "x"}[two] == "x"


def test_a_changed_copy_is_judged_too() -> None:
    settings = Settings.for_app("apps")
    assert attrs.evolve(settings, backlog=5).backlog == 5
    with pytest.raises(SettingsError, match=r"^backlog = 0: "):
        attrs.evolve(settings, backlog=0)
