"""The route stage: the longest prefix wins, at the borders of segments, and no other spelling of a path leads around a mount."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, strategies as st

from gatekeep.settings._mount import MountSettings
from gatekeep.transport._route import Mount, Place, Routes, host_name, normalise

ADMIN, SHOP, ALL = "admin", "shop", "all"


def routes(*table: tuple[str, str, str]) -> Routes[str]:
    return Routes(Mount(host, prefix, target) for host, prefix, target in table)


GUARDED = routes(("", "", ALL), ("", "/admin", ADMIN), ("", "/shop", SHOP), ("", "/shop/admin", "shop admin"))


def target(table: Routes[str], path: str, host: str = "") -> str | None:
    place = table.find(host, path)
    return None if place is None else place.target


def split(table: Routes[str], path: str, host: str = "") -> tuple[str, str]:
    place = table.find(host, path)
    assert place is not None
    return place.script_name, place.path_info


# --- strategies

segments = st.sampled_from(["a", "b", "ab", "admin", "adm", "admin2", "shop", "x.y", "...", "%2e", " "])
normal_paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(parts)) | st.lists(
    segments, min_size=1, max_size=5
).map(lambda parts: "/" + "/".join(parts) + "/")
wild_paths = st.lists(segments | st.sampled_from(["", ".", ".."]), max_size=8).map(
    lambda parts: "/" + "/".join(parts)
)
prefixes = st.lists(segments, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts))
tables = st.lists(prefixes, unique=True, max_size=6)


def spelled(path: str, choose: list[int]) -> str:
    """The same path in other words: with empty segments, dots, and ways there and back."""
    noise = ["", "/", "/.", "//./", "/x/..", "/x/y/../.."]
    parts = path.split("/")[1:]
    words = [noise[number] for number in choose] + [""] * len(parts)
    return "".join(f"{word}/{part}" for word, part in zip(words, parts, strict=False))


# --- prefixes


@given(tables, wild_paths)
def test_the_longest_prefix_wins_at_the_border_of_a_segment(prefixes: list[str], path: str) -> None:
    normal = normalise(path)
    fitting = [each for each in prefixes if f"{normal}/".startswith(f"{each}/")]
    found = target(routes(*[("", each, each) for each in prefixes]), path)
    assert found == (max(fitting, key=len) if fitting else None)


@given(
    st.permutations(
        [("", "", ALL), ("", "/a", "a"), ("", "/a/b", "ab"), ("*.e.org", "", "w"), ("w.e.org", "/a", "n")]
    )
)
def test_the_order_of_the_table_says_nothing(table: list[tuple[str, str, str]]) -> None:
    table_ = routes(*table)
    assert [target(table_, path) for path in ("/", "/a", "/ab", "/a/b", "/a/b/c", "/a/bc")] == [
        ALL, "a", ALL, "ab", "ab", "a",
    ]  # fmt: skip
    assert [target(table_, path, "w.e.org") for path in ("/", "/a/b", "/b")] == ["w", "n", "w"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/shop", SHOP),
        ("/shop/", SHOP),
        ("/shop/x", SHOP),
        ("/shopping", ALL),
        ("/shop.html", ALL),
        ("/shop;x", ALL),
        ("/Shop", ALL),
        ("/x/shop", ALL),
        ("/shop/admin", "shop admin"),
        ("/shop/administration", SHOP),
        ("/", ALL),
    ],
)
def test_a_prefix_ends_where_a_segment_does(path: str, found: str) -> None:
    assert target(GUARDED, path) == found


def test_where_nothing_is_mounted_there_is_no_place() -> None:
    table = routes(("", "/shop", SHOP))
    assert table.find("", "/") is None
    assert table.find("", "/shopping") is None
    assert routes().find("", "/") is None
    assert routes(("www.example.com", "", ALL)).find("example.com", "/") is None


# --- how the path is split


@given(tables, normal_paths)
def test_script_name_and_path_info_are_together_the_path_where_that_is_normal(
    prefixes: list[str], path: str
) -> None:
    table = routes(*[("", each, each) for each in ["", *prefixes]])
    script_name, path_info = split(table, path)
    assert script_name + path_info == path
    assert script_name in ("", *prefixes)
    assert path_info == "" or path_info.startswith("/")


@given(tables, wild_paths)
def test_script_name_and_path_info_always_lead_to_the_same_mount_again(
    prefixes: list[str], path: str
) -> None:
    table = routes(*[("", each, each) for each in ["", *prefixes]])
    place = table.find("", path)
    assert place is not None
    script_name, path_info = place.script_name, place.path_info
    assert path_info == "" or path_info.startswith("/")
    assert not script_name.endswith("/")
    assert normalise(script_name + path_info) == normalise(path)
    assert target(table, script_name + path_info) == place.target


@pytest.mark.parametrize(
    ("path", "script_name", "path_info"),
    [
        ("/shop", "/shop", ""),
        ("/shop/", "/shop", "/"),
        ("/shop/x/", "/shop", "/x/"),
        ("/", "", "/"),
        ("/x//y", "", "/x//y"),
        ("/shop/x//y/./z", "/shop", "/x//y/./z"),
        ("//shop/x//y", "/shop", "/x/y"),
        ("/x/../shop/x/", "/shop", "/x/"),
        ("/x/../shop/.", "/shop", "/"),
    ],
)
def test_the_path_stays_as_it_came_unless_the_prefix_was_spelled_in_another_way(
    path: str, script_name: str, path_info: str
) -> None:
    assert split(GUARDED, path) == (script_name, path_info)


# --- other spellings


@pytest.mark.parametrize(
    "path",
    [
        "//admin",
        "///admin/x",
        "/x/../admin",
        "/./admin",
        "/x/./../admin",
        "/../admin",
        "/../../admin/x",
        "/shop/../admin",
        "/shop/admin/../../admin",
        "//x//..//admin//",
        "/admin/.",
        "/admin/x/..",
    ],
)
def test_no_spelling_of_admin_escapes_its_mount(path: str) -> None:
    assert target(GUARDED, path) == ADMIN


@given(normal_paths, st.lists(st.integers(0, 5), max_size=8))
@example("/admin", [1])
@example("/admin", [5])
def test_a_path_in_other_words_leads_where_the_path_does(path: str, choose: list[int]) -> None:
    other = spelled(path, choose)
    assert normalise(other) == path
    assert target(GUARDED, other) == target(GUARDED, path)


@pytest.mark.parametrize(
    "path", ["/admin/..", "/admin/../", "/admin/../x", "/admin/../shopping", "/admin/../../x"]
)
def test_what_leads_out_of_admin_is_not_its(path: str) -> None:
    assert target(GUARDED, path) == ALL


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/adm%69n", ALL),
        ("/%2e%2e/admin", ALL),
        ("/\xc3\xa4", "umlaut"),
        ("/\xc3\xa4/x", "umlaut"),
        ("/a b", "space"),
        ("/a%20b", ALL),
    ],
)
def test_paths_are_compared_decoded_and_are_not_decoded_again(path: str, found: str) -> None:
    table = routes(("", "", ALL), ("", "/admin", ADMIN), ("", "/\xe4", "umlaut"), ("", "/a b", "space"))
    assert target(table, path) == found


def test_a_prefix_is_text_and_script_name_is_its_utf_8_as_wsgi_has_it() -> None:
    table = routes(("", "/gr\xf6\xdfe/\u4e2d", SHOP))
    path = "/gr\xf6\xdfe/\u4e2d".encode().decode("latin-1")
    assert split(table, f"{path}/x") == (path, "/x")
    assert table.find("", "/gr\xf6\xdfe/x") is None


# --- normal forms


@given(wild_paths)
def test_a_normal_path_has_no_empty_segments_and_no_dots_and_is_normal_again(path: str) -> None:
    normal = normalise(path)
    assert normal.startswith("/")
    inner = normal.strip("/").split("/") if normal != "/" else []
    assert not {"", ".", ".."} & set(inner)
    assert normalise(normal) == normal


@given(normal_paths)
def test_a_normal_path_stays_what_it_is(path: str) -> None:
    assert normalise(path) == path


@given(wild_paths)
def test_a_slash_at_the_end_stays(path: str) -> None:
    assume(path.endswith(("/", "/.", "/..")))
    assert normalise(path).endswith("/")


# --- hosts


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("example.com", "example.com"),
        ("example.com:8000", "example.com"),
        ("EXAMPLE.Com:80", "example.com"),
        ("example.com.", "example.com"),
        ("example.com.:443", "example.com"),
        ("example.com:", "example.com"),
        ("[::1]", "[::1]"),
        ("[::1]:8000", "[::1]"),
        ("[2001:DB8::A]:8000", "[2001:db8::a]"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("", ""),
    ],
)
def test_a_host_is_compared_without_port_final_dot_and_case(field: str, name: str) -> None:
    assert host_name(field) == name


HOSTS = routes(
    ("", "", ALL),
    ("", "/shop", SHOP),
    ("example.com", "", "name"),
    ("*.example.com", "", "below"),
    ("*.www.example.com", "/shop", "below www"),
    ("[::1]", "", "loopback"),
)


@pytest.mark.parametrize(
    ("host", "path", "found"),
    [
        ("example.com", "/", "name"),
        ("Example.COM:8000", "/", "name"),
        ("example.com", "/shop", "name"),
        ("www.example.com", "/", "below"),
        ("a.b.example.com", "/", "below"),
        ("www.example.com:8000", "/shop", "below"),
        ("a.www.example.com", "/shop", "below www"),
        ("a.www.example.com", "/", "below"),
        (".example.com", "/", ALL),
        ("notexample.com", "/", ALL),
        ("example.com.evil.org", "/", ALL),
        ("[::1]:8000", "/", "loopback"),
        ("[::2]:8000", "/shop", SHOP),
        ("", "/shop", SHOP),
    ],
)
def test_a_name_goes_before_a_pattern_and_that_before_all_hosts(host: str, path: str, found: str) -> None:
    assert target(HOSTS, path, host) == found


def test_a_host_has_what_is_mounted_for_all_where_its_own_mounts_do_not_fit() -> None:
    table = routes(("", "", ALL), ("example.com", "/shop", SHOP))
    assert target(table, "/shop", "example.com") == SHOP
    assert target(table, "/", "example.com") == ALL
    assert target(table, "/shop", "example.org") == ALL


@given(
    st.sampled_from(["example.com", "*.example.com", "[2001:db8::1]", "localhost"]),
    st.sampled_from(["", ":80", ":65535", ":"]),
    st.booleans(),
)
def test_a_mount_is_found_whatever_port_and_case_the_client_writes(host: str, port: str, upper: bool) -> None:
    asked = host.replace("*", "www") + port
    table = routes((MountSettings(host=host.upper()).host, "", SHOP))
    assert target(table, "/", asked.upper() if upper else asked) == SHOP


# --- one for all


def test_one_mount_for_everything_is_known_beforehand() -> None:
    assert routes(("", "", ALL)).sole == ALL
    assert routes(("", "/shop", SHOP)).sole is None
    assert routes(("example.com", "", ALL)).sole is None
    assert routes(("", "", ALL), ("", "/shop", SHOP)).sole is None
    assert routes().sole is None


def test_a_place_says_all_of_it() -> None:
    assert GUARDED.find("", "/shop/x") == Place(SHOP, "/shop", "/x")
