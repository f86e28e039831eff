"""The settings of `gunicorn.conf.py` in our words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gatekeep.settings._declared import declared
from gatekeep.settings._foreign import Translation, Translator
from gatekeep.settings._foreign_flags import PREFIXES, Fate, foreign_flags
from gatekeep.settings._spec import Alias, dashed
from gatekeep.settings._understood import foreign_aliases, prefix_of, watched


@attrs.frozen(repr=False)
class Opaque:
    """A value that is no plain data: a function, a class.

    Attributes:
        text: its name.
    """

    text: str
    is_callable: bool = False

    def __repr__(self) -> str:
        return self.text


FLAGS: Mapping[str, str] = {
    "bind": "--bind",
    "backlog": "--backlog",
    "workers": "--workers",
    "worker_class": "--worker-class",
    "threads": "--threads",
    "worker_connections": "--worker-connections",
    "max_requests": "--max-requests",
    "max_requests_jitter": "--max-requests-jitter",
    "timeout": "--timeout",
    "graceful_timeout": "--graceful-timeout",
    "keepalive": "--keep-alive",
    "limit_request_line": "--limit-request-line",
    "limit_request_fields": "--limit-request-fields",
    "limit_request_field_size": "--limit-request-field-size",
    "reload": "--reload",
    "reload_engine": "--reload-engine",
    "reload_extra_files": "--reload-extra-file",
    "spew": "--spew",
    "preload_app": "--preload",
    "sendfile": "--sendfile",
    "reuse_port": "--reuse-port",
    "chdir": "--chdir",
    "daemon": "--daemon",
    "raw_env": "--env",
    "pidfile": "--pid",
    "worker_tmp_dir": "--worker-tmp-dir",
    "user": "--user",
    "group": "--group",
    "umask": "--umask",
    "initgroups": "--initgroups",
    "tmp_upload_dir": "--spool-dir",
    "forwarded_allow_ips": "--forwarded-allow-ips",
    "accesslog": "--access-logfile",
    "disable_redirect_access_to_syslog": "--disable-redirect-access-to-syslog",
    "access_log_format": "--access-logformat",
    "errorlog": "--error-logfile",
    "loglevel": "--log-level",
    "capture_output": "--capture-output",
    "logger_class": "--logger-class",
    "logconfig": "--log-config",
    "logconfig_dict": "--log-config",
    "logconfig_json": "--log-config-json",
    "syslog_addr": "--log-syslog-to",
    "syslog": "--log-syslog",
    "syslog_prefix": "--log-syslog-prefix",
    "syslog_facility": "--log-syslog-facility",
    "enable_stdio_inheritance": "--enable-stdio-inheritance",
    "statsd_host": "--statsd-host",
    "statsd_prefix": "--statsd-prefix",
    "dogstatsd_tags": "--dogstatsd-tags",
    "enable_backlog_metric": "--enable-backlog-metric",
    "proc_name": "--name",
    "pythonpath": "--pythonpath",
    "paste": "--paste",
    "raw_paste_global_conf": "--paste-global",
    "proxy_protocol": "--proxy-protocol",
    "proxy_allow_ips": "--proxy-allow-from",
    "protocol": "--protocol",
    "uwsgi_allow_ips": "--uwsgi-allow-from",
    "keyfile": "--keyfile",
    "certfile": "--certfile",
    "ssl_version": "--ssl-version",
    "cert_reqs": "--cert-reqs",
    "ca_certs": "--ca-certs",
    "suppress_ragged_eofs": "--suppress-ragged-eofs",
    "do_handshake_on_connect": "--do-handshake-on-connect",
    "ciphers": "--ciphers",
    "http_protocols": "--http-protocols",
    "http2_cleartext": "--http2-cleartext",
    "http2_max_concurrent_streams": "--http2-max-concurrent-streams",
    "http2_initial_window_size": "--http2-initial-window-size",
    "http2_max_frame_size": "--http2-max-frame-size",
    "http2_max_header_list_size": "--http2-max-header-list-size",
    "permit_obsolete_folding": "--permit-obsolete-folding",
    "strip_header_spaces": "--strip-header-spaces",
    "permit_unconventional_http_method": "--permit-unconventional-http-method",
    "permit_unconventional_http_version": "--permit-unconventional-http-version",
    "casefold_http_method": "--casefold-http-method",
    "forwarder_headers": "--forwarder-headers",
    "header_map": "--header-map",
    "asgi_loop": "--asgi-loop",
    "asgi_lifespan": "--asgi-lifespan",
    "asgi_disconnect_grace_period": "--asgi-disconnect-grace-period",
    "websocket_max_message_size": "--websocket-max-message-size",
    "http_parser": "--http-parser",
    "root_path": "--root-path",
    "dirty_apps": "--dirty-app",
    "dirty_workers": "--dirty-workers",
    "dirty_timeout": "--dirty-timeout",
    "dirty_threads": "--dirty-threads",
    "dirty_graceful_timeout": "--dirty-graceful-timeout",
    "control_socket": "--control-socket",
    "control_socket_mode": "--control-socket-mode",
    "control_socket_disable": "--no-control-socket",
}
"""The flag that means the same as a setting, where there is one."""

OTHERS: Mapping[str, tuple[Fate, str]] = {
    "check_config": (Fate.IGNORED, "use the command: gatekeep check"),
    "print_config": (Fate.IGNORED, "use the command: gatekeep explain"),
    "config": (Fate.IGNORED, "a file of settings is named where gatekeep is started (--from)"),
    "default_proc_name": (Fate.IGNORED, "display-name is what ps shows"),
    "secure_scheme_headers": (
        Fate.IGNORED, "trusted-proxy-headers names what proxies are believed about, x-forwarded-proto by default",
    ),
}  # fmt: skip

_SUBSCRIBE = "in the application: gatekeep.subscribe_events"
_LOG = "the log has it as an event"
_IMPORT = "a module of import-scripts is imported by each process before the application, which is the place for that"

HOOKS: Mapping[str, str] = {
    "on_starting": "do it before gatekeep is started (ExecStartPre, the container's command)",
    "on_reload": f"{_LOG}: signal.received",
    "when_ready": f"{_LOG}: gateway.ready; systemd knows by Type=notify",
    "pre_fork": f"{_LOG}: process.started; nothing is forked",
    "post_fork": _IMPORT,
    "post_worker_init": _IMPORT,
    "worker_int": f"{_SUBSCRIBE}, ProcessStopping",
    "worker_abort": f"{_LOG}: run.interrupted, run.given_up or process.deadlocked, with stacks",
    "pre_exec": f"{_LOG}: gateway.replaced",
    "pre_request": f"{_SUBSCRIBE}, RequestStarted",
    "post_request": f"{_SUBSCRIBE}, RequestFinished",
    "child_exit": f"{_LOG}: process.exited",
    "worker_exit": f"{_SUBSCRIBE}, ProcessStopping",
    "nworkers_changed": f"{_LOG}: group.resized",
    "on_exit": f"{_LOG}: gateway.stopped",
    "ssl_context": foreign_flags()["--certfile"].reason,
    "on_dirty_starting": "there are no such processes",
    "dirty_post_fork": "there are no such processes",
    "dirty_worker_init": "there are no such processes",
    "dirty_worker_exit": "there are no such processes",
}
"""Functions that gunicorn calls, and what does their work here."""

NAMES = ("wsgi_app", *FLAGS, *OTHERS, *HOOKS)
"""All of gunicorn's settings."""

_UNLIMITED = frozenset({"limit_request_line", "limit_request_field_size"})


def translate(said: Mapping[str, Any], file: str, environment: Sequence[str] = ()) -> Translation:
    """What a file's settings come to.

    Args:
        said: them, by gunicorn's names; what is no setting of gunicorn's is passed over, as there.
        environment: variables that the file has set, as NAME=VALUE.

    Raises:
        SettingsError: a value is none of its setting's.
    """
    into = Translator(file, "gunicorn")
    for name, value in said.items():
        shown = value.text if isinstance(value, Opaque) else repr(value)
        if name in HOOKS:
            _hook(into, name, value)
        elif name == "wsgi_app":
            if value:
                into.set(name, shown, "app", value)
        elif name in OTHERS:
            into.other(name, shown, *OTHERS[name])
        elif name in FLAGS:
            _setting(into, name, shown, value)
    for variable in environment:
        into.set(f"os.environ[{variable.partition('=')[0]!r}]", "", "env", [variable])
    return into.translation(*_unsaid(into))


def _hook(into: Translator, name: str, value: object) -> None:
    if isinstance(value, Opaque):
        fate = Fate.REFUSED if name == "ssl_context" else Fate.IGNORED
        into.other(f"{name}()", "", fate, f"it is not run; {HOOKS[name]}")


def _setting(into: Translator, name: str, shown: str, value: Any) -> None:
    flag = FLAGS[name]
    if value is None or (value in ("", [], {}) and flag not in _own()):
        into.other(name, shown, Fate.SAME, "nothing is said by it")
    elif flag in _own():
        setting, alias = _own()[flag]
        if name in _UNLIMITED and value == 0:
            most = declared()[setting][1].metadata["spec"].most
            into.set(name, shown, setting, int(most), "without any limit is not possible")
        else:
            read = alias.read(value) if alias and isinstance(value, str) else value
            into.set(name, shown, setting, read, alias.note if alias else "")
    elif flag in PREFIXES:
        _prefix(into, name, shown, flag, str(value))
    elif flag in foreign_flags():
        _other(into, name, shown, flag, value)
    else:
        for setting, values in watched([value] if isinstance(value, str) else list(value)).items():
            into.set(name, shown, setting, values)


def _prefix(into: Translator, name: str, shown: str, flag: str, value: str) -> None:
    if path := prefix_of(name, value):
        into.mount(name, shown, PREFIXES[flag], path=path)
    else:
        into.other(name, shown, Fate.SAME, "nothing is said by it")


def _other(into: Translator, name: str, shown: str, flag: str, value: object) -> None:
    foreign = foreign_flags()[flag]
    if value is False and flag != "--sendfile":
        into.other(name, shown, Fate.SAME, "it is off")
        return
    fate, reason = foreign.judge(value.text if isinstance(value, Opaque) else str(value))
    if foreign.sets:
        for setting, each in foreign.sets:
            into.set(name, shown, setting, each, reason if fate is Fate.IGNORED else "")
    else:
        into.other(name, shown, fate, reason)


def _own() -> Mapping[str, tuple[str, Alias | None]]:
    """Our settings by the flags that they are understood by."""
    found: dict[str, tuple[str, Alias | None]] = {**foreign_aliases()}
    for name, (_, attribute) in declared().items():
        for flag in (f"--{dashed(name)}", *attribute.metadata["spec"].aliases):
            found[flag] = name, None
    found["--no-server-header"] = found["--no-http1-keep-alive"] = "", None
    return found


def _unsaid(into: Translator) -> list[str]:
    """What counts where the file says nothing, and counted for something else there."""
    remarks = []
    if not into.says("processes"):
        default = declared()["processes"][1].default
        remarks.append(
            f"It does not say how many processes: gunicorn has one, gatekeep {default} unless told."
        )
    if not into.says("threads"):
        default = declared()["threads"][1].default
        remarks.append(
            f"It does not say how many threads: gunicorn has one, gatekeep {default} unless told. threads = 1 is for an "
            "application that may not run in several."
        )
    return remarks
