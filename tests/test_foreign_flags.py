"""Flags, values and variables of other servers: each has its effect, a remark, or a refusal that helps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

from gatekeep import SettingsError
from gatekeep._configuration import Configuration, Sources
from gatekeep._options import _parser, options_of
from gatekeep.settings._declared import declared
from gatekeep.settings._foreign_flags import FOREIGN_FLAGS, Fate
from gatekeep.settings._foreign_variables import unread


def read(line: str, environment: Mapping[str, str] | None = None, folder: str = "/") -> Configuration:
    options = options_of(f"site:app {line}")
    return Sources(options, environment or {}, folder).read()


def value(configuration: Configuration, name: str) -> Any:
    settings = configuration.settings
    for section in (configuration.server, settings.groups[0], settings.http, settings.reload, settings):
        if name in attrs.fields_dict(type(section)):
            found = getattr(section, name)
            return [str(each) for each in found] if isinstance(found, tuple) else found
    raise AssertionError(name)


# --- what means the same


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("-b 0.0.0.0:80 -b unix:/run/s", "binds", ["0.0.0.0:80", "unix:/run/s"]),
        ("--host ::1 --port 80", "binds", ["[::1]:80"]),
        ("--uds /run/s", "binds", ["unix:/run/s"]),
        ("--fd 3", "binds", ["fd://3"]),
        ("-w 4", "processes", 4),
        ("--workers 4", "processes", 4),
        ("--threads 3", "threads", 3),
        ("--blocking-threads 3", "threads", 3),
        ("--backlog 99", "backlog", 99),
        ("--graceful-timeout 7", "graceful_timeout", 7),
        ("--timeout-graceful-shutdown 7", "graceful_timeout", 7),
        ("--workers-kill-timeout 1m30s", "shutdown_timeout", 90),
        ("--keep-alive 7", "keep_alive_timeout", 7),
        ("--timeout-keep-alive 7", "keep_alive_timeout", 7),
        ("--no-http1-keep-alive", "keep_alive_timeout", 0),
        ("--max-requests 9 --max-requests-jitter 2", "maximum_requests_jitter", 2),
        ("--limit-max-requests 9 --limit-max-requests-jitter 2", "maximum_requests", 9),
        ("--workers-lifetime 1h", "restart_interval", 3600),
        ("--workers-max-rss 256", "memory_limit", 256 << 20),
        ("--workers-max-rss 1GiB", "memory_limit", 1 << 30),
        ("--drain-delay 5000", "shutdown_delay", 5),
        ("--drain-delay 5s", "shutdown_delay", 5),
        ("--limit-request-line 1000", "limit_request_line", 1000),
        ("--limit-request-fields 50", "limit_request_fields", 50),
        ("--limit-request-field_size 1000", "limit_request_field_size", 1000),
        ("--limit-request-field-size 1000", "limit_request_field_size", 1000),
        ("--h11-max-incomplete-event-size 1000", "limit_request_head", 1000),
        ("--http1-buffer-size 9000", "limit_request_head", 9000),
        ("--reload", "reload", True),
        ("--reload-dir a --reload-paths b", "reload_dir", ["a", "b"]),
        ("--reload-include '*.html'", "reload_include", ["*.html"]),
        ("--reload-exclude 'x*'", "reload_exclude", ["x*"]),
        ("--reload-extra-file a/b.html", "reload_dir", ["a"]),
        ("--reload-extra-file a/b.html", "reload_include", ["*.py", "b.html"]),
        ("--access-logfile -", "access_log", True),
        ("--no-access-log", "access_log", False),
        ("--no-access-log --access-logfile -", "access_log", False),
        ("--access-logformat '%(h)s %(D)s'", "access_log_format", "%(h)s %(D)s"),
        ("--access-log-fmt '%(addr)s %(status)d'", "access_log_format", "%(addr)s %(status)d"),
        ("--log-level error", "log_level", "error"),
        ("--forwarded-allow-ips 10.0.0.0/8,::1", "trusted_proxies", ["10.0.0.0/8", "::1"]),
        ("--no-proxy-headers", "proxy_headers", False),
        ("--proxy-protocol", "proxy_protocol", "auto"),
        ("--proxy-allow-from 10.0.0.1", "proxy_allow_from", ["10.0.0.1"]),
        ("--chdir /srv", "chdir", "/srv"),
        ("--working-dir /srv", "chdir", "/srv"),
        ("--pythonpath a,b --pythonpath c", "python_path", ["a", "b", "c"]),
        ("--python-path x --pythonpath a,b", "python_path", ["x", "a", "b"]),
        ("--app-dir a", "python_path", ["a"]),
        ("-e A=1 --env B=2", "env", ["A=1", "B=2"]),
        ("-u www-data", "user", "www-data"),
        ("-g www-data", "group", "www-data"),
        ("-m 027", "umask", "027"),
        ("-n shop", "display_name", "shop"),
        ("--name shop", "display_name", "shop"),
        ("--process-name shop", "display_name", "shop"),
        ("-p /run/x", "pid_file", "/run/x"),
        ("--pid /run/x", "pid_file", "/run/x"),
        ("--pid-file /run/x", "pid_file", "/run/x"),
        ("--loop asyncio", "loop", "asyncio"),
        ("--http h11", "http", "h11"),
        ("--health-check-path /up", "livez_path", "/up"),
        ("--no-server-header", "server_header", ""),
    ],
)  # fmt: skip
def test_a_flag_that_means_the_same_is_the_setting_without_a_word(
    line: str, name: str, expected: Any
) -> None:
    configuration = read(line)
    assert value(configuration, name) == expected
    assert configuration.notes == ()


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("-t 30", "request_timeout", 30),
        ("--timeout 30", "request_timeout", 30),
        ("--limit-concurrency 50", "max_waiting", 50),
        ("--backpressure 50", "max_waiting", 50),
        ("--http1-header-read-timeout 5000", "header_timeout", 5),
    ],
)
def test_a_flag_that_means_something_else_is_taken_with_one_remark(
    line: str, name: str, expected: Any
) -> None:
    configuration = read(line)
    assert value(configuration, name) == expected
    ((event, fields),) = configuration.notes
    assert event == "setting.differs"
    assert (fields["setting"], fields["used"]) == (line.split()[0], name.replace("_", "-"))


@pytest.mark.parametrize("line", ["--root-path /shop", "--root-path /shop/", "--url-path-prefix /shop"])
def test_a_prefix_is_a_mount_at_that_path(line: str) -> None:
    configuration = read(line)
    assert [str(mount) for mount in configuration.settings.mount_table] == ["/shop"]
    assert [event for event, _ in configuration.notes] == ["setting.differs"] * ("root" in line)


def test_a_prefix_that_is_no_path_is_refused_and_an_empty_one_says_nothing() -> None:
    with pytest.raises(SettingsError, match=r"^--root-path = 'shop': allowed is a path's beginning"):
        read("--root-path shop")
    assert [str(mount) for mount in read("--root-path ''").settings.mount_table] == ["/"]


def test_a_prefix_beside_a_table_of_mounts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gatekeep.toml"
    file.write_text('[[mounts]]\npath = "/a"\n')
    with pytest.raises(
        SettingsError, match=r"^root-path = '/b': .*gatekeep\.toml has a table of mounts: say it there$"
    ):
        read(f"--root-path /b -c {file}")


@pytest.mark.parametrize(
    "line", ["-t 1 --request-timeout 2", "--timeout 1 -t 2", "--memory-limit 1 --workers-max-rss 2"]
)
def test_a_setting_that_is_given_by_two_names_is_refused(line: str) -> None:
    with pytest.raises(SettingsError, match=r"is given twice, by two names$"):
        read(line)


# --- what has no meaning


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("--preload", "--preload"),
        ("--worker-tmp-dir /dev/shm", "--worker-tmp-dir"),
        ("--sendfile", "--sendfile"),
        ("--no-sendfile", "--no-sendfile"),
        ("--worker-connections 1000", "--worker-connections"),
        ("--reuse-port", "--reuse-port"),
        ("-k sync", "-k sync"),
        ("--rss-samples 3", "--rss-samples"),
        ("--rss-sample-interval 30", "--rss-sample-interval"),
        ("--access-logfile /var/log/a", "--access-logfile /var/log/a"),
        ("--log-config x", "--log-config"),
        ("--log-config-json x", "--log-config-json"),
        ("--capture-output", "--capture-output"),
        ("--use-colors", "--use-colors"),
        ("--reload-engine poll", "--reload-engine"),
        ("--reload-delay 1", "--reload-delay"),
        ("--reload-ignore-dirs x", "--reload-ignore-dirs"),
        ("--initgroups", "--initgroups"),
        ("--statsd-host x:1", "--statsd-host"),
        ("--statsd-prefix x", "--statsd-prefix"),
        ("--dogstatsd-tags x", "--dogstatsd-tags"),
        ("--metrics", "--metrics"),
        ("--metrics-port 9", "--metrics-port"),
        ("--metrics-address x", "--metrics-address"),
        ("--metrics-scrape-interval 1", "--metrics-scrape-interval"),
        ("--control-socket x", "--control-socket"),
        ("--no-control-socket", "--no-control-socket"),
        ("--ws auto", "--ws auto"),
    ],
)
def test_a_flag_without_a_meaning_here_is_ignored_with_one_remark(line: str, setting: str) -> None:
    ((event, fields),) = read(line).notes
    assert event == "setting.ignored"
    assert fields["setting"] == setting
    assert len(fields["reason"]) > 10


@pytest.mark.parametrize("flag", ["--error-logfile", "--error-log", "--log-file"])
def test_the_log_may_go_to_a_file_by_any_of_its_names(flag: str) -> None:
    understood = read(f"{flag} /var/log/e")
    assert (value(understood, "log_file"), understood.notes) == ("/var/log/e", ())


def test_an_access_log_in_a_file_is_an_access_log_all_the_same() -> None:
    assert value(read("--access-logfile /var/log/a"), "access_log") is True


@pytest.mark.parametrize(
    "line",
    ["-k gthread", "--interface wsgi", "--interface auto", "--lifespan off", "--lifespan auto", "--ws none", "--no-ws",
     "--access-logfile -", "--date-header", "--http-protocols h1", "--protocol http", "--respawn-failed-workers"],
)  # fmt: skip
def test_what_is_so_here_anyway_needs_no_word(line: str) -> None:
    assert read(line).notes == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-k gevent", "-k gevent: the application runs in threads here: raise threads"),
        ("-k eventlet", "-k eventlet: the application runs in threads here"),
        ("-k tornado", "-k tornado: a Tornado application is no WSGI application"),
        ("-k uvicorn.workers.UvicornWorker", "-k uvicorn.workers.UvicornWorker: gatekeep serves WSGI applications"),
        ("--worker-class uvloop", "--worker-class uvloop: hypercorn's means its event loop: use --loop uvloop"),
        ("-k mine.Worker", "-k mine.Worker: that worker class is not known here"),
        ("--interface asgi", "--interface asgi: gatekeep serves WSGI applications"),
        ("--lifespan on", "--lifespan on: gatekeep serves WSGI applications"),
        ("--ws websockets", "--ws websockets: WebSockets are not served"),
        ("--keyfile x", "--keyfile: gatekeep speaks no TLS yet"),
        ("--certfile x", "--certfile: gatekeep speaks no TLS yet"),
        ("--ca-certs x", "--ca-certs: gatekeep speaks no TLS yet"),
        ("--cert-reqs 2", "--cert-reqs: gatekeep speaks no TLS yet"),
        ("--ciphers x", "--ciphers: gatekeep speaks no TLS yet"),
        ("--ssl-keyfile x", "--ssl-keyfile: gatekeep speaks no TLS yet"),
        ("--ssl-certfile x", "--ssl-certfile: gatekeep speaks no TLS yet"),
        ("--ssl-certificate x", "--ssl-certificate: gatekeep speaks no TLS yet"),
        ("--check-config", "--check-config: use the command: gatekeep check"),
        ("--print-config", "--print-config: use the command: gatekeep explain"),
        ("-D", "-D: gatekeep stays in the foreground"),
        ("--daemon", "--daemon: gatekeep stays in the foreground"),
        ("-c gunicorn.conf.py", "config = 'gunicorn.conf.py': allowed is a TOML file; another server's configuration is --from"),
        ("-c python:conf", "config = 'python:conf': allowed is a TOML file; another server's configuration is --from"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_use_instead(line: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(line)
    assert str(refused.value).startswith(said)


# --- all of them


SERVERS = """
gunicorn: -c --config -b --bind --backlog -w --workers -k --worker-class --threads --worker-connections --max-requests
  --max-requests-jitter -t --timeout --graceful-timeout --keep-alive --limit-request-line --limit-request-fields
  --limit-request-field_size --reload --reload-engine --reload-extra-file --spew --check-config --print-config
  --preload --no-sendfile --reuse-port --chdir -D --daemon -e --env -p --pid --worker-tmp-dir -u --user -g --group -m
  --umask --initgroups --forwarded-allow-ips --access-logfile --disable-redirect-access-to-syslog --access-logformat
  --error-logfile --log-file --log-level --capture-output --logger-class --log-config --log-config-json
  --log-syslog-to --log-syslog --log-syslog-prefix --log-syslog-facility -R --enable-stdio-inheritance --statsd-host
  --dogstatsd-tags --statsd-prefix --enable-backlog-metric -n --name --pythonpath --paste --paster --proxy-protocol
  --proxy-allow-from --protocol --uwsgi-allow-from --keyfile --certfile --ssl-version --cert-reqs --ca-certs
  --suppress-ragged-eofs --do-handshake-on-connect --ciphers --http-protocols --http2-cleartext
  --http2-max-concurrent-streams --http2-initial-window-size --http2-max-frame-size --http2-max-header-list-size
  --paste-global --permit-obsolete-folding --strip-header-spaces --permit-unconventional-http-method
  --permit-unconventional-http-version --casefold-http-method --forwarder-headers --header-map --asgi-loop
  --asgi-lifespan --asgi-disconnect-grace-period --websocket-max-message-size --http-parser --root-path --dirty-app
  --dirty-workers --dirty-timeout --dirty-threads --dirty-graceful-timeout --control-socket --control-socket-mode
  --no-control-socket
granian: --host --port --uds --uds-permissions --interface --http --ws --no-ws --workers --blocking-threads
  --blocking-threads-idle-timeout --runtime-threads --runtime-blocking-threads --runtime-mode --loop --task-impl
  --backlog --backpressure --http1-buffer-size --http1-header-read-timeout --http1-keep-alive --no-http1-keep-alive
  --http1-pipeline-flush --no-http1-pipeline-flush --http2-adaptive-window --no-http2-adaptive-window
  --http2-initial-connection-window-size --http2-initial-stream-window-size --http2-keep-alive-interval
  --http2-keep-alive-timeout --http2-max-concurrent-streams --http2-max-frame-size --http2-max-headers-size
  --http2-max-send-buffer-size --log --no-log --log-level --log-config --access-log --no-access-log --access-log-fmt
  --ssl-certificate --ssl-keyfile --ssl-keyfile-password --ssl-protocol-min --ssl-ca --ssl-crl --ssl-client-verify
  --no-ssl-client-verify --url-path-prefix --respawn-failed-workers --no-respawn-failed-workers --respawn-interval
  --rss-sample-interval --rss-samples --workers-lifetime --workers-max-rss --workers-kill-timeout --factory
  --no-factory --working-dir --env-files --static-path-route --static-path-mount --static-path-dir-to-file
  --static-path-expires --metrics --no-metrics --metrics-scrape-interval --metrics-address --metrics-port --reload
  --no-reload --reload-paths --reload-ignore-dirs --reload-ignore-patterns --reload-ignore-paths --reload-tick
  --reload-ignore-worker-failure --no-reload-ignore-worker-failure --process-name --pid-file
uvicorn: --host --port --uds --fd --reload --reload-dir --reload-include --reload-exclude --reload-delay --workers
  --loop --http --http2 --ws --ws-max-size --ws-max-queue --ws-ping-interval --ws-ping-timeout
  --ws-per-message-deflate --lifespan --interface --env-file --log-config --log-level --access-log --no-access-log
  --use-colors --no-use-colors --proxy-headers --no-proxy-headers --server-header --no-server-header --date-header
  --no-date-header --forwarded-allow-ips --root-path --limit-concurrency --backlog --limit-max-requests
  --limit-max-requests-jitter --timeout-keep-alive --timeout-graceful-shutdown --timeout-worker-healthcheck
  --ssl-keyfile --ssl-certfile --ssl-keyfile-password --ssl-version --ssl-cert-reqs --ssl-ca-certs --ssl-ciphers
  --header --app-dir --h11-max-incomplete-event-size --reset-contextvars --factory
hypercorn: --access-log --access-logfile --access-logformat --backlog -b --bind --ca-certs --certfile --cert-reqs
  --ciphers -c --config -D --daemon --debug --error-log --error-logfile --log-file --graceful-timeout --read-timeout
  --max-requests --max-requests-jitter -g --group -k --worker-class --keep-alive --keyfile --keyfile-password
  --insecure-bind --log-config --log-level -p --pid --quic-bind --reload --root-path --server-name --statsd-host
  --statsd-prefix -m --umask -u --user --verify-mode --websocket-ping-interval -w --workers
"""


def known_flags() -> set[str]:
    options = [each for each in _parser().params if isinstance(each, click.Option)]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


def test_every_flag_of_these_servers_is_known() -> None:
    theirs = {word for word in SERVERS.split() if word.startswith("-")}
    assert theirs - known_flags() == set()


@pytest.mark.parametrize("foreign", FOREIGN_FLAGS, ids=lambda foreign: foreign.flags[0])
def test_what_is_said_of_a_foreign_flag_is_a_sentence_without_its_end(foreign: Any) -> None:
    reasons = [foreign.reason, *(reason for _, _, reason in foreign.words)]
    assert all(len(reason) > 8 and not reason.endswith(".") for reason in reasons)
    assert foreign.fate is not Fate.SET


def test_the_help_shows_none_of_them_and_says_that_they_are_understood() -> None:
    help_text = " ".join(_parser().get_help(click.Context(_parser())).split())
    assert "The flags of gunicorn, uvicorn, granian and hypercorn are understood, too" in help_text
    for flag in ("--preload", "--certfile", "--timeout ", "--workers-max-rss"):
        assert flag not in help_text


# --- values


@pytest.mark.parametrize(
    ("line", "name", "used"),
    [
        ("--log-level critical", "log_level", "error"),
        ("--log-level WARNING", "log_level", "warning"),
        ("--log-level trace", "log_level", "debug"),
        ("--http httptools", "http", "strict"),
        ("--http 1", "http", "strict"),
    ],
)
def test_other_servers_words_are_taken_with_a_remark(line: str, name: str, used: str) -> None:
    configuration = read(line)
    assert value(configuration, name) == used
    ((event, fields),) = configuration.notes
    assert (event, fields["used"]) == ("setting.replaced", used)


# --- variables


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("GUNICORN_CMD_ARGS", {"use": "$GATEKEEP_CMD_ARGS, which takes gunicorn's flags, too"}),
        ("UVICORN_APP", {"use": "$GATEKEEP_APP"}),
        ("UVICORN_HOST", {"use": "$GATEKEEP_BIND"}),
        ("UVICORN_LOG_LEVEL", {"use": "$GATEKEEP_LOG_LEVEL"}),
        ("UVICORN_TIMEOUT_KEEP_ALIVE", {"use": "$GATEKEEP_KEEP_ALIVE_TIMEOUT"}),
        ("UVICORN_ROOT_PATH", {"use": "--root-path"}),
        ("UVICORN_WS_MAX_SIZE", {"reason": "WebSockets are not served: give them to an ASGI server beside gatekeep"}),
        ("GRANIAN_WORKERS", {"use": "$GATEKEEP_PROCESSES"}),
        ("GRANIAN_WORKERS_MAX_RSS", {"use": "$GATEKEEP_MEMORY_LIMIT, with the unit: MiB"}),
        ("UWSGI_RELOAD_ON_RSS", {"use": "$GATEKEEP_MEMORY_LIMIT, with the unit: MiB"}),
        ("UWSGI_HARAKIRI", {"use": "$GATEKEEP_REQUEST_TIMEOUT"}),
        ("UWSGI_MASTER", {"reason": "the gateway watches over its processes"}),
        ("UWSGI_XYZZY", {}),
        ("PUMA_PERSISTENT_TIMEOUT", {"use": "$GATEKEEP_KEEP_ALIVE_TIMEOUT"}),
        ("PUMA_MAX_THREADS", {"use": "$GATEKEEP_THREADS"}),
    ],
)  # fmt: skip
def test_a_variable_of_another_server_gets_one_warning_that_names_ours(
    variable: str, said: dict[str, str]
) -> None:
    assert read("", {variable: "secret"}).notes == (("environment.unread", {"variable": variable, **said}),)


def test_variables_that_are_read_or_empty_or_somebody_elses_get_none() -> None:
    environment = {
        "PORT": "80", "WEB_CONCURRENCY": "3", "FORWARDED_ALLOW_IPS": "10.0.0.1", "UWSGI_HARAKIRI": "", "PATH": "/bin",
        "GATEKEEP_THREADS": "3", "UWSGI_RELOADS": "1",
    }  # fmt: skip
    configuration = read("", environment)
    assert [event for event, _ in configuration.notes] == []
    assert value(configuration, "binds") == ["0.0.0.0:80"]
    assert (value(configuration, "processes"), value(configuration, "trusted_proxies")) == (3, ["10.0.0.1"])


def test_whatever_is_used_instead_of_a_variable_exists() -> None:
    names = {f"${'GATEKEEP_'}{name.upper()}" for name in declared()}
    flags = (*SERVERS.replace(":", "").split(),)
    for flag in flags:
        if flag.startswith("--"):
            variable = f"UVICORN_{flag[2:].replace('-', '_').upper()}"
            for _, fields in unread({variable: "x"}):
                use = fields.get("use", "").partition(",")[0]
                assert use in {"", "$GATEKEEP_BIND", "$GATEKEEP_APP", *names, *known_flags()}, variable


def test_flags_of_other_servers_stand_in_the_environment_too() -> None:
    arguments = "-w 3 --preload --max-requests 100"
    configuration = read("", {"GATEKEEP_CMD_ARGS": arguments})
    assert (value(configuration, "processes"), value(configuration, "maximum_requests")) == (3, 100)
    assert [fields["setting"] for _, fields in configuration.notes] == ["--preload"]
    assert shlex.split(arguments)[0] == "-w"


# --- files of variables


def test_a_file_of_variables_is_given_to_the_processes_beneath_env(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text(
        '# a comment\n\nexport A=1\nB=\'two # words\'\nC="x\\n\\"y\\"" # more\nD = plain # cut\nE=\nSET=no\nF=a#b\n'
    )
    (tmp_path / "b.env").write_text("A=2\n")
    line = "--env-file a.env --env-files b.env -e A=3"
    configuration = read(line, {"SET": "already"}, str(tmp_path))
    variables = dict(configuration.settings.groups[0].process_options.environment)
    assert variables == {"A": "3", "B": "two # words", "C": 'x\n"y"', "D": "plain", "E": "", "F": "a#b"}


@pytest.mark.parametrize("line", ["nonsense", "=x", "A='x", 'A="x', "1A=x", "A B=x"])
def test_a_line_that_is_no_variable_is_refused_by_its_number_alone(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.env").write_text(f"A=1\n{line}\n")
    with pytest.raises(SettingsError, match=r"a\.env:2: allowed is NAME=VALUE") as refused:
        read("--env-file a.env", folder=str(tmp_path))
    assert line not in str(refused.value)


def test_a_file_of_variables_that_is_not_there_or_for_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^env-file = '.*nowhere': No such file"):
        read("--env-file nowhere", folder=str(tmp_path))
    (tmp_path / "a.env").write_text("A=1\n")
    with pytest.raises(SettingsError, match="there are no processes to give it to"):
        read("--env-file a.env --processes 0", folder=str(tmp_path))
