"""Whatever is wrong in a configuration, one clear line says which setting, which value, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatekeep import SettingsError
from gatekeep.settings._file import read_file
from gatekeep.settings._layers import server_settings_from, settings_from

PROFILE = "one of tuned, express, directive"
SECONDS = "0 seconds or more"
ADDRESS = "host:port (port 0 to 65535), [ipv6]:port, unix:/path or fd://N"
HEALTH = "any other address than those of bind"
NETWORK = "an address, a network (10.0.0.0/8) or *"
CALLABLE = "module:callable"
PATH = "a path's beginning, such as / or /shop, without //, /./, /../, ? and #"
HOST = "a host's name without a port, such as www.example.com or *.example.com"
PROBE = "a path as clients send it: / first, printable ASCII without ? and #"

BAD = [
    # text of the file, setting, value as it is shown, what is allowed
    ("processes = 1025", "processes", "1025", "to 1024"),
    ("processes = -1", "processes", "-1", "to 1024"),
    ("threads = 0", "threads", "0", "1 to 1024"),
    ("threads = 100000", "threads", "100000", "1 to 1024"),
    ("listen-backlog = 0", "listen-backlog", "0", "1 to 65535"),
    ("listen_backlog = 65536", "listen-backlog", "65536", "1 to 65535"),
    ("backlog = 0", "backlog", "0", "1 to 65535"),
    ("max-waiting = -1", "max-waiting", "-1", "0 to 1048576"),
    ("connect-timeout = -1", "connect-timeout", "-1", SECONDS),
    ("queue-timeout = nan", "queue-timeout", "nan", SECONDS),
    ("queue-timeout = 'a minute'", "queue-timeout", "'a minute'", f"{SECONDS}, such as 90 or 1m30s"),
    ("queue-timeout = '1m 30s'", "queue-timeout", "'1m 30s'", f"{SECONDS}, such as 90 or 1m30s"),
    ("queue-timeout = '8MiB'", "queue-timeout", "'8MiB'", f"{SECONDS}, such as 90 or 1m30s"),
    ("queue-shed = 'never'", "queue-shed", "'never'", "one of deadline, pickup"),
    ("request-timeout = -0.5", "request-timeout", "-0.5", SECONDS),
    ("interrupt-timeout = '-5'", "interrupt-timeout", "-5.0", SECONDS),
    ("graceful-timeout = -inf", "graceful-timeout", "-inf", SECONDS),
    ("shutdown-delay = '1w'", "shutdown-delay", "'1w'", f"{SECONDS}, such as 90 or 1m30s"),
    ("maximum-requests = -1", "maximum-requests", "-1", "0 or more"),
    ("memory-limit = '512 megabytes'", "memory-limit", "'512 megabytes'", "0 bytes or more, such as 1024 or 8MiB"),
    ("memory-limit = '5ib'", "memory-limit", "'5ib'", "0 bytes or more, such as 1024 or 8MiB"),
    ("stack-size = 100", "stack-size", "100", "0 or 32768 bytes and more"),
    ("nice = 20", "nice", "20", "-20 to 19"),
    ("umask = '999'", "umask", "'999'", "an octal number of up to three digits, such as 0027"),
    ("user = 'a:b'", "user", "'a:b'", "a name or a number"),
    ("env = ['A']", "env", "'A'", "NAME=VALUE"),
    ("script-reloading = 'always'", "script-reloading", "'always'", "one of on, strict, off"),
    ("import-scripts = ['a b']", "import-scripts", "'a b'", "a module's name or a script's path"),
    (r"display-name = 'a\u0000'".replace("'", '"'), "display-name", r"'a\x00'", "up to 200 printable characters"),
    ("name = 'my site'", "name", "'my site'", "1 to 32 letters, digits, _ and -"),
    ("bind = '127.0.0.1:http'", "bind", "'127.0.0.1:http'", ADDRESS),
    ("bind = ['127.0.0.1:80', '::1']", "bind", "'::1'", ADDRESS),
    ("bind = '127.0.0.1:80,proxy-protocol=v3'", "bind", "'127.0.0.1:80,proxy-protocol=v3'", ADDRESS),
    ("bind = 'unix:'", "bind", "'unix:'", ADDRESS),
    ("bind = 'a:1'\nhealth-bind = 'a:1'", "health-bind", "'a:1'", HEALTH),
    ("health-bind = 'http://a'", "health-bind", "'http://a'", ADDRESS),
    ("http = 'h2'", "http", "'h2'", "one of auto, strict, h11"),
    ("limit-request-line = 10", "limit-request-line", "10", "64 to 1048576 bytes"),
    ("limit-request-fields = 0", "limit-request-fields", "0", "1 to 32768"),
    ("limit-request-body = '1 GB!'", "limit-request-body", "'1 GB!'", "0 bytes or more, such as 1024 or 8MiB"),
    ("max-connections = 0", "max-connections", "0", "1 to 1048576"),
    ("server-header = 'größe'", "server-header", "'größe'", "up to 256 printable ASCII characters"),
    ("livez-path = 'health'", "livez-path", "'health'", PROBE),
    ("livez-path = '/h'\nreadyz-path = '/h'", "readyz-path", "'/h'", "any other path than livez-path"),
    ("trusted-proxies = '10.0.0.0/8, proxy'", "trusted-proxies", "'proxy'", NETWORK),
    ("proxy-allow-from = '300.1.1.1'", "proxy-allow-from", "'300.1.1.1'", NETWORK),
    ("proxy-protocol = 'on'", "proxy-protocol", "'on'", "one of off, v1, v2, auto"),
    ("profile = 'fast'", "profile", "'fast'", PROFILE),
    ("profile = 5", "profile", "5", PROFILE),
    ("loop = 'curio'", "loop", "'curio'", "one of auto, asyncio, uvloop, trio"),
    ("log-level = 'loud'", "log-level", "'loud'", "one of debug, info, warning, error"),
    ("log-format = 'xml'", "log-format", "'xml'", "one of auto, console, json"),
    ("app = 'my-site:app'", "app", "'my-site:app'", CALLABLE),
    ("app = ':app'", "app", "':app'", CALLABLE),
    ("[groups.api]\napp = 'a'\nthreads = 0", "threads", "0", "1 to 1024"),
    ("[groups.'my api']\napp = 'a'", "name", "'my api'", "1 to 32 letters, digits, _ and -"),
    ("[[mounts]]\npath = 'shop'", "path", "'shop'", PATH),
    ("[[mounts]]\npath = '/a/../b'", "path", "'/a/../b'", PATH),
    ("[[mounts]]\nhost = 'a:80'", "host", "'a:80'", HOST),
    ("[[mounts]]\nhost = '*'", "host", "'*'", HOST),
    ("[[mounts]]\ngroup = 'shop'", "group", "'shop'", "one of default"),
    ("[[mounts]]\napp = 'my-site'", "app", "'my-site'", CALLABLE),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "value", "allowed"), BAD, ids=[text for text, *_ in BAD])
def test_what_is_wrong_is_told_in_one_line_with_setting_value_and_what_is_allowed(
    text: str, name: str, value: str, allowed: str, tmp_path: Path
) -> None:
    path = tmp_path / "gatekeep.toml"
    app = "" if text.startswith("app") or "[groups" in text else "app = 'apps:hello'\n"
    path.write_text(app + text)
    with pytest.raises(SettingsError) as refused:
        layers = [read_file(str(path))]
        settings_from(layers)
        server_settings_from(layers)
    (line,) = str(refused.value).splitlines()
    place, said, rest = line.partition(f": {name} = {value}: allowed is ")
    assert said, line
    assert place.startswith(str(path))
    assert allowed in rest


def test_they_are_many() -> None:
    assert len(BAD) >= 40
