"""What proxies tell of a request: the walk from the right, and what becomes of everything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from gatekeep import SettingsError
from gatekeep._trust import HEADERS, Meaning, Trust, check_headers, parse_network
from gatekeep.settings._http import HttpSettings
from gatekeep.transport import _environ
from gatekeep.transport._codec import Head, Limits
from gatekeep.transport._codec_strict import StrictCodec
from gatekeep.transport._forwarding import REMEMBERED, SHOWN, Forwarding
from gatekeep.transport._proxies import (
    HIDDEN,
    LONGEST_CHAIN,
    VALUES,
    Doubt,
    Origin,
    believe,
    parse_node,
    parse_pairs,
    shown,
    strip,
)

TRUST = Trust(["10.0.0.0/8", "2001:db8:f::/48"])
PEER = ("10.0.0.7", 4711)
DIRECT = Origin(PEER, ("10.0.0.1", "8000"), "http")
USUAL = ("x-forwarded-for", "x-forwarded-proto")


def told(*lines: str, named: tuple[str, ...] = USUAL, direct: Origin = DIRECT) -> Origin:
    """What a trusted peer's fields amount to, where none of them leaves a doubt."""
    origin, doubts = believe(direct, fields_of(*lines), TRUST, named)
    assert not doubts
    return origin


def doubted(*lines: str, named: tuple[str, ...] = USUAL) -> tuple[Origin, list[Doubt]]:
    origin, doubts = believe(DIRECT, fields_of(*lines), TRUST, named)
    return origin, list(doubts)


def fields_of(*lines: str) -> list[tuple[str, str]]:
    return [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]


def client_of(value: str) -> object:
    """The client's address and port by X-Forwarded-For."""
    return told(f"X-Forwarded-For: {value}").client


# --- the walk


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("198.51.100.9, 192.0.2.1, 10.0.0.2, 10.9.9.9", "192.0.2.1"),
        ("10.0.0.3, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.3", "10.0.0.3"),
        ("192.0.2.1,10.0.0.2", "192.0.2.1"),
        ("192.0.2.1 ,\t10.0.0.2", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0::1, 2001:db8:f::2", "2001:db8::1"),
        ("192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted_or_the_last_of_all(
    value: str, client: str
) -> None:
    assert client_of(value) == (client, None)


@pytest.mark.parametrize(
    "value",
    [
        ", 192.0.2.1, 10.0.0.2",
        "192.0.2.1, , 10.0.0.2",
        "192.0.2.1,,10.0.0.2",
        "192.0.2.1, 10.0.0.2,",
        ",\t, 192.0.2.1, ,, 10.0.0.2 , ,",
    ],
)
def test_empty_elements_of_a_list_are_passed_over(value: str) -> None:
    assert client_of(value) == ("192.0.2.1", None)


def test_several_lines_are_one_list() -> None:
    origin = told("X-Forwarded-For: 198.51.100.9, 192.0.2.1", "A: b", "x-forwarded-for: 10.0.0.2")
    assert origin.client == ("192.0.2.1", None)
    assert origin.fields == [("A", "b"), ("x-forwarded-for", "192.0.2.1, 10.0.0.2")]


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("[::ffff:192.0.2.1]:443", ("192.0.2.1", 443)),
        ("192.0.2.1:80, 10.0.0.2:90", ("192.0.2.1", 80)),
        ("192.0.2.1:_hidden", ("192.0.2.1", None)),
    ],
)
def test_addresses_may_have_ports(value: str, client: object) -> None:
    assert client_of(value) == client


@pytest.mark.parametrize("value", ["unknown", "UNKNOWN", "_hidden", "_a.b-c_1", "unknown:80", "_a:_b"])
def test_who_is_not_to_be_known_is_not_and_the_last_good_address_stays(value: str) -> None:
    assert client_of(value) == PEER
    assert client_of(f"192.0.2.1, {value}") == PEER
    assert client_of(f"192.0.2.1, {value}, 10.0.0.2") == ("10.0.0.2", None)


MALFORMED = [
    *["localhost", "192.0.2", "192.0.2.256", "192.0.2.01", "1.2.3.4.5", "192.0.2.1:", "192.0.2.1:x", "192.0.2.1:65536"],
    *["192.0.2.1/32", "192.0.2.1 80", "192.0.2.1;", '"192.0.2.1"', "for=192.0.2.1", "-", "0", "3221225985", "_", "_a b"],
    *["[192.0.2.1]", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]443", "2001:db8::1::", "2001:db8::12345", ":", "::1%eth0"],
    *["fe80::1%<script>", "[fe80::1%1]", "\u0661.0.0.1", "\xb2.0.0.1", "1" * 5000, "unknown" * 20],
]  # fmt: skip


@pytest.mark.parametrize("value", MALFORMED)
def test_what_is_no_address_ends_the_walk_and_the_last_good_one_stays(value: str) -> None:
    origin, doubts = doubted(f"X-Forwarded-For: {value}")
    assert (origin.client, origin.fields) == (PEER, [])
    assert doubts == [Doubt("x-forwarded-for", value)]
    origin, doubts = doubted(f"X-Forwarded-For: 192.0.2.1, {value}, 10.0.0.2")
    assert origin.client == ("10.0.0.2", None)
    assert origin.fields == [("x-forwarded-for", "10.0.0.2")]
    assert doubts == [Doubt("x-forwarded-for", value)]


@pytest.mark.parametrize("value", MALFORMED)
def test_what_stands_left_of_the_client_is_not_even_looked_at(value: str) -> None:
    assert client_of(f"{value}, 192.0.2.1") == ("192.0.2.1", None)


def test_the_application_sees_of_the_list_what_was_believed() -> None:
    fields = told("X-Forwarded-For: 198.51.100.9, 192.0.2.1:8 ,10.0.0.2").fields
    assert fields == [("x-forwarded-for", "192.0.2.1:8, 10.0.0.2")]


def test_behind_a_unix_socket_the_peer_is_trusted_and_the_walk_is_the_same() -> None:
    direct = DIRECT._replace(client=None)
    assert TRUST.includes(None)
    assert told("X-Forwarded-For: 192.0.2.1, 10.0.0.2", direct=direct).client == ("192.0.2.1", None)
    assert told("X-Forwarded-For: unknown", direct=direct).client is None


# --- the other values


@pytest.mark.parametrize(
    ("line", "scheme"),
    [
        *[("X-Forwarded-Proto: https", "https"), ("X-Forwarded-Proto: HTTP", "http"), ("X-Scheme: https", "https")],
        *[(f"X-Forwarded-Ssl: {word}", "https") for word in ("on", "On", "true", "1")],
        *[(f"X-Forwarded-HTTPS: {word}", "http") for word in ("off", "False", "0")],
    ],
)  # fmt: skip
def test_the_scheme_is_what_the_proxy_says(line: str, scheme: str) -> None:
    name = line.partition(":")[0].lower()
    for ours in ("http", "https"):
        origin = told(line, named=(name,), direct=DIRECT._replace(scheme=ours))
        assert origin.scheme == scheme
        assert origin.server == ("10.0.0.1", {"http": "80", "https": "443"}[scheme])


def test_the_host_is_the_proxys_with_its_port() -> None:
    named = ("x-forwarded-host", "x-forwarded-proto")
    origin = told("X-Forwarded-Host: example.com:8443", "X-Forwarded-Proto: https", named=named)
    assert (origin.host, origin.server) == ("example.com:8443", ("example.com", "8443"))
    origin = told("X-Forwarded-Host: example.com", "X-Forwarded-Proto: https", named=named)
    assert (origin.host, origin.server) == ("example.com", ("example.com", "443"))
    origin = told("X-Forwarded-Host: [2001:db8::1]", named=named)
    assert (origin.host, origin.server) == ("[2001:db8::1]", ("2001:db8::1", "80"))


def test_the_port_is_what_the_proxy_says_whatever_the_host_says() -> None:
    named = ("x-forwarded-host", "x-forwarded-port", "x-forwarded-server")
    origin = told(
        "X-Forwarded-Port: 444", "X-Forwarded-Host: a:555", "X-Forwarded-Server: b:666", named=named
    )
    assert (origin.host, origin.server) == ("a:555", ("b", "444"))


def test_of_what_no_proxy_says_the_connections_own_stays() -> None:
    assert told("X-Forwarded-For: 192.0.2.1").server == DIRECT.server
    assert told("A: b") == DIRECT._replace(fields=[("A", "b")])
    assert told("X-Forwarded-Proto:") == DIRECT._replace(fields=[])


@pytest.mark.parametrize(
    ("value", "script_name"),
    [("/app", "/app"), ("/app/", "/app"), ("/a/b.c/~d", "/a/b.c/~d"), ("/", ""), ("/..a/...", "/..a/...")],
)  # fmt: skip
def test_the_prefix_is_a_clean_path(value: str, script_name: str) -> None:
    for name in ("X-Forwarded-Prefix", "X-Script-Name", "X-Forwarded-Script-Name"):
        assert told(f"{name}: {value}", named=(name.lower(),)).script_name == script_name


IMPOSSIBLE = [
    *[("x-forwarded-proto", value) for value in ("wss", "https:", "on", "https http", "\xe4")],
    *[("x-forwarded-ssl", value) for value in ("https", "yes", "2")],
    *[("x-forwarded-host", value) for value in ("a/b", "a b", "a:b", "a:65536", "u@a", "[::1", "a\\b", "\xe4", ":80")],
    *[("x-forwarded-port", value) for value in ("0", "65536", "080", "+80", "8_0", "80 ", "x", "\u0668", "\xb2")],
    *[("x-forwarded-prefix", v) for v in ("app", "//evil", "/a//b", "/a/../b", "/.", "/a/..", "/a%2e", "/a?b", "/a b", "/\xe4")],
    *[("x-real-ip", value) for value in ("192.0.2.1, 10.0.0.2", "x")],
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_what_cannot_be_is_not_believed_and_the_application_does_not_see_it(name: str, value: str) -> None:
    origin, doubts = doubted(f"{name}:{value}x" if value.endswith(" ") else f"{name}: {value}", named=(name,))
    assert origin == DIRECT._replace(fields=[])
    assert [doubt.header for doubt in doubts] == [name]


def test_a_single_address_is_the_clients() -> None:
    assert told("X-Real-IP: 192.0.2.1", named=("x-real-ip",)).client == ("192.0.2.1", None)
    assert told("X-Client-IP: unknown", named=("x-client-ip",)).client == PEER


@pytest.mark.parametrize(
    ("chain", "schemes", "scheme"),
    [
        ("192.0.2.1", "https", "https"),
        ("192.0.2.1", "http, https", "https"),
        ("198.51.100.9, 192.0.2.1", "https, http", "http"),
        ("192.0.2.1, 10.0.0.2", "https", "https"),
        ("192.0.2.1, 10.0.0.2", "https, http", "https"),
        ("198.51.100.9, 192.0.2.1, 10.0.0.2", "http, https, http", "https"),
        ("192.0.2.1, unknown", "https, http", "http"),
        ("10.0.0.3, 10.0.0.2", "https, http, http", "http"),
        ("", "https, http", "http"),
    ],
)
def test_other_lists_count_as_far_as_the_walk_has_gone(chain: str, schemes: str, scheme: str) -> None:
    for lines in (
        [f"X-Forwarded-For: {chain}", f"X-Forwarded-Proto: {schemes}"],
        [f"X-Forwarded-Proto: {schemes}", f"X-Forwarded-For: {chain}"],
    ):
        origin = told(*lines)
        assert origin.scheme == scheme
        assert origin.fields is not None
        assert dict(origin.fields)["x-forwarded-proto"] == scheme


# --- RFC 7239


def forwarded(*values: str) -> Origin:
    return told(*[f"Forwarded: {value}" for value in values], named=("forwarded",))


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.1", ("192.0.2.1", None)),
        ("For=192.0.2.1;by=10.0.0.1", ("192.0.2.1", None)),
        ('for="192.0.2.1:80"', ("192.0.2.1", 80)),
        ('for="[2001:db8::1]"', ("2001:db8::1", None)),
        ('for="[2001:db8::1]:4711"', ("2001:db8::1", 4711)),
        ('for=198.51.100.9, for="[2001:db8::1]", for=10.0.0.2', ("2001:db8::1", None)),
        ('for=192.0.2.1;by="a,b;c", for="10.0.0.2";proto=http', ("192.0.2.1", None)),
        (" ;for=192.0.2.1 ; proto=https; , ", ("192.0.2.1", None)),
        ("for=_hidden", PEER),
        ('for="unknown"', PEER),
        ("proto=https", PEER),
        ("for=192.0.2.1, for=_a, for=10.0.0.2", ("10.0.0.2", None)),
        ("for=192.0.2.1, proto=https, for=10.0.0.2", ("10.0.0.2", None)),
        ("", PEER),
    ],
)
def test_forwarded_is_walked_in_the_same_way(value: str, client: object) -> None:
    assert forwarded(value).client == client


def test_of_several_proxies_the_one_nearest_to_the_client_says_how_it_was_asked() -> None:
    origin = forwarded(
        "for=6.6.6.6;proto=http;host=evil, for=192.0.2.1;proto=https;host=example.com",
        "for=10.0.0.2;proto=http",
    )
    assert (origin.client, origin.scheme, origin.host) == (("192.0.2.1", None), "https", "example.com")
    assert origin.fields == [
        ("forwarded", "for=192.0.2.1;proto=https;host=example.com, for=10.0.0.2;proto=http")
    ]


@pytest.mark.parametrize(
    "element",
    [
        *[
            "for",
            "for=",
            "=a",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=a;FOR=a",
        ],
        *["for=a b", "for=2001:db8::1", "for=[2001:db8::1]", "for=nobody", "for=192.0.2.1/8"],
        *['for="a', 'for=a"', 'for="a"b', 'for="a\\b"'],
    ],
)
def test_a_malformed_element_ends_the_walk(element: str) -> None:
    origin, doubts = doubted(f"Forwarded: for=192.0.2.1, {element}, for=10.0.0.2", named=("forwarded",))
    assert origin.client == ("10.0.0.2", None)
    assert len(doubts) == 1


@pytest.mark.parametrize(
    "open_left",
    [
        'for=6.6.6.6;by="',
        'for="',
        '"',
        'for=6.6.6.6;by="\\',
        'for=6.6.6.6;by=", for=6.6.6.6;by="x',
        '"""',
        ',;="',
    ],
)
def test_no_quotation_mark_that_a_client_leaves_open_swallows_what_the_proxy_writes(open_left: str) -> None:
    for written in ("for=192.0.2.1", 'for="[2001:db8::1]";by="10.0.0.1"'):
        expected = forwarded(written)
        assert forwarded(f"{open_left}, {written}") == expected
        assert forwarded(open_left, written) == expected


def test_a_scheme_that_cannot_be_leaves_the_address_alone() -> None:
    origin, doubts = doubted("Forwarded: for=192.0.2.1;proto=gopher;host=a b", named=("forwarded",))
    assert (origin.client, doubts) == (PEER, [Doubt("forwarded", "for=192.0.2.1;proto=gopher;host=a b")])
    origin, doubts = doubted("Forwarded: for=192.0.2.1;proto=gopher", named=("forwarded",))
    assert (origin.client, origin.scheme) == (("192.0.2.1", None), "http")
    assert doubts == [Doubt("forwarded", "gopher")]


# --- which fields count


def test_what_means_the_same_as_a_field_that_is_believed_is_dropped_and_the_rest_is_passed_on() -> None:
    lines = [
        *["X-Real-IP: 6.6.6.6", "X-Client-IP: 6.6.6.6", "X-Scheme: https", "X-Forwarded-Ssl: on", "Forwarded: for=6.6.6.6"],
        *["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: a", "X-Script-Name: /b", "X-Forwarded-User: c", "D: e"],
    ]  # fmt: skip
    origin = told(*lines)
    assert origin.fields == [
        ("X-Forwarded-Host", "a"),
        ("X-Script-Name", "/b"),
        ("X-Forwarded-User", "c"),
        ("D", "e"),
        ("x-forwarded-for", "192.0.2.1"),
    ]
    assert (origin.client, origin.scheme, origin.host) == (("192.0.2.1", None), "http", "")


def test_a_client_does_not_get_past_a_proxy_that_sets_other_fields() -> None:
    origin = told(
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: https",
        "Forwarded: for=192.0.2.1",
        named=("forwarded",),
    )
    assert (origin.client, origin.scheme) == (("192.0.2.1", None), "http")
    assert origin.fields == [("forwarded", "for=192.0.2.1")]


def test_every_field_that_can_be_believed_has_a_way_to_be_read() -> None:
    walked = {name for name, meanings in HEADERS.items() if Meaning.CLIENT in meanings}
    assert set(VALUES) == (set(HEADERS) - walked) | {"proto", "host"}
    for name in HEADERS:
        told(f"{name}:", named=(name,))


NAMES = st.sampled_from(
    ["x-forwarded-for", "X-Forwarded-Proto", "X-FORWARDED-USER", "Forwarded", "x-real-ip", "Front-End-Https"]
)
VALUE = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30).map(
    lambda text: text.strip(" \t")
)
TOLD = st.lists(
    st.tuples(NAMES | st.sampled_from(list(HEADERS)), VALUE | st.sampled_from(["192.0.2.1", "https", "/a"])),
    max_size=8,
)
OTHERS = st.lists(
    st.tuples(st.sampled_from(["Accept", "X-Request-ID", "Forwarder", "CF-Connecting-IP"]), VALUE), max_size=4
)


@given(TOLD, OTHERS, st.randoms())
def test_whatever_an_untrusted_peer_says_of_others_changes_nothing_and_is_not_seen(
    said: list[tuple[str, str]], others: list[tuple[str, str]], random: Any
) -> None:
    both = [*said, *others]
    random.shuffle(both)
    origin, taken = strip(DIRECT, both)
    assert origin == DIRECT._replace(fields=[field for field in both if field in others])
    assert sorted(taken) == sorted(name for name, _ in said)


@given(
    TOLD,
    st.sampled_from(
        [(), USUAL, ("forwarded",), ("x-real-ip", "x-script-name", "x-forwarded-port", "x-host")]
    ),
)
def test_whatever_a_trusted_peer_says_there_is_an_origin(
    said: list[tuple[str, str]], named: tuple[str, ...]
) -> None:
    origin, doubts = believe(DIRECT, said, TRUST, named)
    assert origin.scheme in ("http", "https")
    assert origin.client is not None
    assert {doubt.header for doubt in doubts} <= set(named)


CHAIN = st.lists(
    st.sampled_from(["10.0.0.2", "10.255.255.255:80", "[2001:db8:f::1]", "::ffff:10.0.0.2"]), max_size=4
)
CLIENTS = st.sampled_from(["192.0.2.1", "2001:db8::1", "[2001:db8::2]:80", "127.0.0.1"])


@given(VALUE, CLIENTS, CHAIN, st.booleans())
@example("10.0.0.2", "192.0.2.1", ["10.0.0.2"], True)
def test_what_stands_left_of_an_untrusted_address_never_changes_anything(
    left: str, client: str, chain: list[str], in_one_line: bool
) -> None:
    right = ", ".join([client, *chain])
    lines = (
        [f"X-Forwarded-For: {left}, {right}"]
        if in_one_line
        else [f"X-Forwarded-For: {left}", f"X-Forwarded-For: {right}"]
    )
    origin = told(*lines)
    assert origin == told(f"X-Forwarded-For: {right}")
    assert origin.client == parse_node(client)


@given(VALUE, CLIENTS, CHAIN, st.booleans())
def test_nor_does_it_in_forwarded(left: str, client: str, chain: list[str], in_one_line: bool) -> None:
    right = ", ".join(f'for="{node}";proto=https' for node in [client, *chain])
    origin = forwarded(f"{left}, {right}") if in_one_line else forwarded(left, right)
    assert origin == forwarded(right)
    assert origin.client == parse_node(client)


@given(VALUE, CLIENTS, CHAIN)
def test_nor_does_it_in_a_list_that_is_as_long_as_the_chain(left: str, client: str, chain: list[str]) -> None:
    nodes = f"X-Forwarded-For: {', '.join([client, *chain])}"
    schemes = ", ".join(["https", *["http"] * len(chain)])
    assert told(nodes, f"X-Forwarded-Proto: {left}, {schemes}") == told(
        nodes, f"X-Forwarded-Proto: {schemes}"
    )


@given(st.text(max_size=70))
def test_any_text_is_an_address_or_is_not(text: str) -> None:
    node = parse_node(text)
    if node is not None and node is not HIDDEN:
        assert parse_node(node[0]) == (node[0], None), "it is shown in one way alone"


@given(st.text(st.sampled_from('abfor=;,"\\ \t[:1.'), max_size=40))
def test_any_text_is_an_element_or_is_not(text: str) -> None:
    pairs = parse_pairs(text)
    assert pairs is None or all(key == key.lower() for key in pairs)


def test_a_field_of_commas_is_read_in_no_time() -> None:
    # 60,000 elements: anything but linear would take minutes.
    named = ("forwarded", "x-forwarded-port")
    for value in (
        "," * 60000,
        "a," * 30000,
        '",' * 30000,
        '"' * 60000,
        "10.0.0.2," * 7000,
        "for=10.0.0.2;" * 4000,
    ):
        doubted(f"X-Forwarded-For: {value}", f"X-Forwarded-Proto: {value}")
        doubted(f"Forwarded: {value}", f"X-Forwarded-Port: {value}", named=named)


def test_a_chain_is_followed_as_far_as_any_is_long() -> None:
    proxies = [f"10.0.{number}.1" for number in range(1, LONGEST_CHAIN)]
    assert told(f"X-Forwarded-For: 6.6.6.6, 192.0.2.1, {', '.join(proxies)}").client == ("192.0.2.1", None)
    endless = told(f"X-Forwarded-For: 6.6.6.6, 10.0.0.9, {', '.join(proxies)}")
    assert endless.client == ("10.0.0.9", None)
    assert dict(endless.fields or ())["x-forwarded-for"].count(",") == LONGEST_CHAIN - 1


# --- who is trusted


@pytest.mark.parametrize(
    ("items", "inside", "outside"),
    [
        (["10.0.0.7"], ["10.0.0.7", "::ffff:10.0.0.7"], ["10.0.0.8", "::1", "10.0.0.70"]),
        (["10.0.0.0/30"], ["10.0.0.0", "10.0.0.3"], ["10.0.0.4"]),
        (["::1", "127.0.0.1"], ["::1", "127.0.0.1"], ["127.0.0.2", "::2"]),
        (["fe80::/10"], ["fe80::1%eth0", "fe80::1"], ["2001:db8::1"]),
        (["::ffff:10.0.0.0/104"], ["10.255.0.1", "::ffff:10.0.0.1"], ["11.0.0.1"]),
        (["0.0.0.0/0"], ["1.2.3.4", "::ffff:1.2.3.4"], ["::1"]),
        (["*"], ["1.2.3.4", "::1"], []),
        ([], [], ["127.0.0.1", "::1", "", "no address"]),
    ],
)
def test_a_peer_is_trusted_by_its_address(items: list[str], inside: list[str], outside: list[str]) -> None:
    trust = Trust(parse_network("trusted-proxies", item) for item in items)
    assert [trust.includes(address) for address in inside] == [True] * len(inside)
    assert [trust.includes(address) for address in outside] == [False] * len(outside)
    assert trust.includes(None), "a UNIX socket's peer is on this machine"


def test_two_fields_that_tell_the_same_cannot_both_be_believed() -> None:
    check_headers(
        "t", ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-script-name", "x-host"]
    )
    for pair in (
        ["x-forwarded-for", "x-real-ip"],
        ["forwarded", "x-forwarded-host"],
        ["x-scheme", "x-https"],
    ):
        with pytest.raises(SettingsError, match=f"^t = '{pair[0]},{pair[1]}': both tell the "):
            check_headers("t", pair)


# --- what is said of it


class Log:
    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.warnings.append({"event": event, **fields})

    def debug(self, event: str, **fields: Any) -> None: ...
    def info(self, event: str, **fields: Any) -> None: ...
    def error(self, event: str, **fields: Any) -> None: ...


def head_of(*lines: str) -> Head:
    codec = StrictCodec(Limits())
    codec.receive(
        "".join(line + "\r\n" for line in ["GET / HTTP/1.1", "Host: a", *lines, ""]).encode("latin-1")
    )
    head = codec.next_request()
    assert head is not None
    return head


def test_a_head_knows_whether_a_proxy_may_have_written_in_it() -> None:
    assert not head_of("Accept: b", "Via: c", "X-Request-ID: d", "X_Forwarded_For: e").is_forwarded
    for name in [*HEADERS, "X-Forwarded-User", "x-forwarded-anything"]:
        assert head_of(f"{name}: a").is_forwarded


def test_one_warning_for_each_peer_names_the_setting_that_would_trust_it() -> None:
    log = Log()
    forwarding = Forwarding(HttpSettings(), log)
    head = head_of("X-Real-IP: 6.6.6.6", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 7.7.7.7")
    for port in range(3):
        origin = forwarding.origin(DIRECT._replace(client=("10.0.0.7", port)), head, None)
        assert (origin.client, origin.fields) == (("10.0.0.7", port), [("Host", "a")])
    forwarding.origin(DIRECT._replace(client=("2001:db8::7", 1)), head_of("Forwarded: for=a"), None)
    assert log.warnings == [
        {
            "event": "proxies.untrusted",
            "peer": "10.0.0.7",
            "headers": ["X-Forwarded-For", "X-Real-IP"],
            "action": "stripped",
            "setting": "--trusted-proxies 10.0.0.7",
        },
        {
            "event": "proxies.untrusted",
            "peer": "2001:db8::7",
            "headers": ["Forwarded"],
            "action": "stripped",
            "setting": "--trusted-proxies 2001:db8::7",
        },
    ]


def test_too_many_peers_to_name_are_summed_up_once() -> None:
    log = Log()
    forwarding = Forwarding(HttpSettings(), log)
    head = head_of("X-Forwarded-For: 6.6.6.6")
    for number in range(REMEMBERED * 3):
        forwarding.origin(DIRECT._replace(client=(f"192.0.{number // 200}.{number % 200}", 1)), head, None)
    assert len(log.warnings) == REMEMBERED + 1
    assert (log.warnings[-1]["event"], log.warnings[-1]["last"]) == (
        "proxies.not_all_named",
        "proxies.untrusted",
    )


def test_a_doubt_is_told_once_for_each_peer_and_field_and_not_at_length() -> None:
    log = Log()
    forwarding = Forwarding(HttpSettings(), log)
    for _ in range(3):
        forwarding.origin(
            DIRECT._replace(client=None),
            head_of(f"X-Forwarded-For: {'x' * 999}", "X-Forwarded-Proto: wss"),
            None,
        )
    assert [(each["event"], each["peer"], each["header"]) for each in log.warnings] == [
        ("proxies.malformed", "unix", "x-forwarded-for"),
        ("proxies.malformed", "unix", "x-forwarded-proto"),
    ]
    assert log.warnings[0]["value"] == "x" * SHOWN


def test_where_no_proxy_is_to_be_believed_none_is_and_nothing_is_said() -> None:
    log = Log()
    forwarding = Forwarding(HttpSettings(proxy_headers=False, trusted_proxies="*"), log)
    for client in (None, PEER):
        direct = DIRECT._replace(client=client)
        origin = forwarding.origin(direct, head_of("X-Forwarded-For: 6.6.6.6"), None)
        assert origin == direct._replace(fields=[("Host", "a")])
    assert not log.warnings


def test_a_client_that_the_proxy_protocol_does_not_know_is_believed_nothing() -> None:
    log = Log()
    forwarding = Forwarding(HttpSettings(trusted_proxies="*"), log)
    for direct in (DIRECT, DIRECT._replace(client=None)):
        origin = forwarding.origin(direct, head_of("X-Forwarded-For: 6.6.6.6"), shown(direct.client))
        assert origin == direct._replace(fields=[("Host", "a")])
    assert not log.warnings


@pytest.mark.parametrize("proxies", [["10.0.0.7", "10.0.0.8"], ["[2001:db8::7]", "[2001:db8::8]"]])
def test_the_clients_of_a_proxy_that_introduces_them_are_warned_of_as_one(proxies: list[str]) -> None:
    log = Log()
    forwarding = Forwarding(HttpSettings(), log)
    for proxy in proxies:
        for number in range(5):
            forwarding.origin(
                DIRECT._replace(client=(f"192.0.2.{number}", 1)),
                head_of("X-Forwarded-For: 6.6.6.6"),
                f"{proxy}:{40000 + number}",
            )
    first, second = (f"{proxy}:40000" for proxy in proxies)
    assert [(each["peer"], each["via"]) for each in log.warnings] == [
        ("192.0.2.0", first),
        ("192.0.2.0", second),
    ]


def test_strangers_do_not_silence_what_is_wrong_with_a_proxy() -> None:
    log = Log()
    forwarding = Forwarding(HttpSettings(), log)
    for number in range(REMEMBERED * 2):
        stranger = DIRECT._replace(client=(f"192.0.{number // 200}.{number % 200}", 1))
        forwarding.origin(stranger, head_of("X-Forwarded-For: 6.6.6.6"), None)
    forwarding.origin(DIRECT._replace(client=None), head_of("X-Forwarded-For: nonsense"), None)
    assert (log.warnings[-1]["event"], log.warnings[-1]["peer"]) == ("proxies.malformed", "unix")


# --- the variables of CGI


def environ_of(origin: Origin, head: Head) -> dict[str, str]:
    return _environ.build(
        head,
        scheme=origin.scheme,
        client=origin.client,
        server=origin.server,
        prefix=origin.script_name,
        host=origin.host,
        fields=origin.fields,
    )


def test_the_application_sees_the_address_that_its_client_has_asked() -> None:
    settings = HttpSettings(
        trusted_proxies="10.0.0.0/8",
        trusted_proxy_headers="X-Forwarded-For,X-Forwarded-Proto,X-Forwarded-Host,X-Forwarded-Prefix",
    )
    head = head_of(
        "X-Forwarded-For: 6.6.6.6, 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: example.com",
        "X-Forwarded-Prefix: /shop",
        "X-Real-IP: 6.6.6.6",
    )
    environ = environ_of(Forwarding(settings, Log()).origin(DIRECT, head, None), head)
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "REQUEST_URI": "/",
        "RAW_URI": "/",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "443",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "example.com",
        "HTTP_X_FORWARDED_FOR": "192.0.2.1",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_HOST": "example.com",
        "HTTP_X_FORWARDED_PREFIX": "/shop",
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
    }


@given(TOLD)
def test_an_untrusted_peers_environ_is_that_of_the_request_without_those_fields(
    said: list[tuple[str, str]],
) -> None:
    lines = [f"{name}: {value}" for name, value in said if value.isprintable() and value.isascii()]
    head, plain = head_of("A: b", *lines), head_of("A: b")
    origin = Forwarding(HttpSettings(), Log()).origin(DIRECT, head, None)
    assert environ_of(origin, head) == environ_of(DIRECT, plain)


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (None, "unix"),
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("192.0.2.1", None), "192.0.2.1"),
        (("2001:db8::1", 80), "[2001:db8::1]:80"),
        (("2001:db8::1", None), "2001:db8::1"),
    ],
)
def test_a_client_is_shown_as_people_write_it(client: tuple[str, int | None] | None, text: str) -> None:
    assert shown(client) == text
