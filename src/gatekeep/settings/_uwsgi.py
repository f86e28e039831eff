"""The settings of `uwsgi.ini` in our words. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

import attrs

from gatekeep._errors import SettingsError
from gatekeep.settings._declared import declared
from gatekeep.settings._foreign import Translation, Translator
from gatekeep.settings._foreign_flags import (
    ALWAYS_FRESH,
    FOREGROUND,
    LOG_IS_DATA,
    LOG_IS_STDOUT,
    NO_HTTP2,
    NO_METRICS,
    NO_STATIC,
    NO_TLS,
    NO_WEBSOCKETS,
    THREADS_ONLY,
    Fate,
)
from gatekeep.settings._spec import Alias
from gatekeep.settings._uwsgi_ini import Said, last_of


@attrs.frozen
class Rule:
    """What becomes of a key.

    Attributes:
        setting: ours, where it is one; then the unit of its plain numbers, and how the meaning differs.
        value: what it is where the key is switched on, for a key that is a switch.
        reason: why it is none.
    """

    setting: str = ""
    unit: str = ""
    note: str = ""
    value: object = None
    fate: Fate = Fate.SET
    reason: str = ""


def _each(keys: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(keys.split(), rule)


def _same(keys: str, reason: str) -> dict[str, Rule]:
    return _each(keys, Rule(fate=Fate.SAME, reason=reason))


def _ignored(keys: str, reason: str) -> dict[str, Rule]:
    return _each(keys, Rule(fate=Fate.IGNORED, reason=reason))


def _refused(keys: str, reason: str) -> dict[str, Rule]:
    return _each(keys, Rule(fate=Fate.REFUSED, reason=reason))


_NO_UWSGI_API = "the module uwsgi and what it offers are not here"
_HARAKIRI = "it is interrupted after that time times 1 + ln threads, and costs its process only if that does not end it"
_FIXED = "only SIGTTIN and SIGTTOU change the number of processes; inactivity-timeout ends those that have nothing to do"

UWSGI: Mapping[str, Rule] = {
    # --- processes
    **_each("processes workers p", Rule("processes")),
    **_each("threads", Rule("threads")),
    **_each("listen l", Rule("backlog")),
    **_each("harakiri t", Rule("request_timeout", note=_HARAKIRI)),
    **_each("http-harakiri", Rule("request_timeout", note=_HARAKIRI)),
    **_each("harakiri-graceful-timeout", Rule("interrupt_timeout")),
    **_each("max-requests r", Rule("maximum_requests")),
    **_each("max-requests-delta", Rule("maximum_requests_jitter")),
    **_each("max-worker-lifetime", Rule("restart_interval")),
    **_each("max-worker-lifetime-delta", Rule("restart_interval_jitter")),
    **_each("reload-on-rss evil-reload-on-rss", Rule("memory_limit", "MiB")),
    **_each("limit-as", Rule("virtual_memory_limit", "MiB")),
    **_each("worker-reload-mercy", Rule("graceful_timeout")),
    **_each("reload-mercy", Rule("shutdown_timeout", note="it is the time after graceful-timeout")),
    **_each("thread-stacksize threads-stacksize thread-stack-size threads-stack-size", Rule("stack_size", "KiB")),
    **_each("prio", Rule("nice")),
    **_each("procname procname-prefix procname-prefix-spaced", Rule("display_name")),
    **_same("master m", "the gateway watches over its processes"),
    **_same("vacuum", "the files of sockets are removed"),
    **_same("die-on-term", "SIGTERM stops the gateway in order"),
    **_same("no-orphans", "processes leave when their gateway is gone"),
    **_same("enable-threads T", "applications may have threads of their own"),
    **_same("single-interpreter i", "a process has one interpreter"),
    **_same("lazy lazy-apps", ALWAYS_FRESH),
    **_same("need-app", "a gateway whose application does not load ends"),
    **_same("strict", "a setting that does not exist is refused"),
    **_same("thunder-lock", "a connection wakes one idle process"),
    **_same("close-on-exec close-on-exec2", "processes inherit what they need and nothing else"),
    **_same("auto-procname", "ps shows the group's name (display-name)"),
    **_same("reaper", "the first process of a container reaps orphans"),
    **_same("harakiri-verbose", "the log has the stack of what was interrupted"),
    **_same("memory-report", "a request that added more than 1 MiB has memory_growth in its record"),
    **_same("offload-threads", "the front passes responses on, so that slow clients hold no worker"),
    **_same("py-call-osafterfork py-call-uwsgi-fork-hooks", "processes are not forked"),
    **_ignored("cheap cheaper cheaper-algo cheaper-initial cheaper-step cheaper-overload cheaper-rss-limit-soft "
               "cheaper-busyness-* idle", _FIXED),
    **_ignored("reload-on-as", "virtual-memory-limit bounds address space, and memory-limit what is resident"),
    **_ignored("min-worker-lifetime worker-reload-pause", "processes are replaced one at a time"),
    **_ignored("cpu-affinity threads-affinity", "use taskset, or the service manager"),
    **_ignored("cgroup*", "use the service manager"),
    **_refused("gevent gevent-monkey-patch async ugreen greenlet asyncio tornado", THREADS_ONLY),
    # --- the application
    **_ignored("home H virtualenv venv pyhome", "start gatekeep with that environment's Python: its bin/gatekeep"),
    **_each("pythonpath python-path pp", Rule("python_path")),
    **_each("chdir", Rule("chdir")),
    **_each("chdir2", Rule("home")),
    **_each("env", Rule("env")),
    **_each("import shared-import pyimport python-import shared-python-import", Rule("import_scripts")),
    **_same("manage-script-name", "a mount's path is SCRIPT_NAME"),
    **_ignored("plugin plugins plugin-dir plugins-dir", "there are no plugins: Python is all there is"),
    **_ignored("wsgi-env-behaviour wsgi-env-behavior wsgi-accept-buffer* wsgi-disable-file-wrapper wsgi-strict",
               "WSGI is what PEP 3333 says"),
    **_ignored("pyargv unenv catch-exceptions", "there is nothing like it"),
    **_ignored("spooler* mule mules farm cron* unique-cron cache cache2 queue* sharedarea lock locks rpc* timer signal* "
               "subscribe* sns carbon* alarm* legion*", _NO_UWSGI_API),
    **_ignored("attach-daemon* smart-attach-daemon* legion-attach-daemon*", "start it as a service of its own"),
    **_ignored("exec-* hook-* on-demand*", "it is not run: do it before gatekeep is started, or in import-scripts"),
    **_refused("paste ini-paste* web3 pump psgi rack php* lua* ruby* cgi", "name a WSGI application: module = module:callable"),
    **_refused("emperor vassal* vhost* zerg*", "one gateway serves several applications: [groups] and [[mounts]]"),
    # --- HTTP
    **_each("buffer-size b", Rule("limit_request_head")),
    **_each("limit-post", Rule("limit_request_body")),
    **_each("body-read-warning", Rule(fate=Fate.IGNORED, reason="body-timeout bounds a request's body")),
    **_each("http-enable-proxy-protocol", Rule("proxy_protocol", value="v1")),
    **_same("post-buffering post-buffering-bufsize", "bodies are received before a worker is asked (request-buffering)"),
    **_same("http-keepalive http11-socket add-http11", "keep-alive-timeout says for how long"),
    **_same("http-auto-chunked http-chunked-input http-raw-body wsgi-manage-chunked-input", "HTTP/1.1 is spoken in full"),
    **_ignored("socket-timeout http-socket-timeout socket-send-timeout http-timeout http-connect-timeout http-headers-timeout",
               "clients are bounded by header-timeout, body-timeout, keep-alive-timeout and response-socket-timeout; "
               "socket-timeout means the way between gateway and worker here"),
    **_ignored("so-keepalive so-send-timeout so-sndbuf so-rcvbuf tcp-nodelay no-defer-accept reuse-port freebind tcp-fast-open",
               "the front sets its sockets itself"),
    **_ignored("chmod-socket C chown-socket", "a socket's file has the permissions of the umask that gatekeep is started with; "
               "or let systemd open it"),
    **_ignored("ignore-sigpipe ignore-write-errors write-errors-tolerance disable-write-exception write-errors-exception-only",
               "a client that leaves is no error of the application"),
    **_ignored("http-processes http-workers http-buffer-size http-modifier1 http-to http-backend-* gzip* http-auto-gzip",
               "the front is one event loop, and passes responses on as they are"),
    **_ignored("add-header route* error-page-* response-header* collect-header* pull-header* del-header",
               "no setting changes what applications answer: the application or the proxy must"),
    **_ignored("static-* check-static check-static-docroot mimefile", NO_STATIC),
    **_ignored("log-x-forwarded-for", "trusted-proxies says who is believed about the client"),
    **_ignored("websockets-*", NO_WEBSOCKETS),
    **_refused("https https2 https-socket https-socket-with-password ssl-* suwsgi-socket http-to-https https-to-*", NO_TLS),
    **_refused("spdy* http2*", NO_HTTP2),
    **_refused("fastcgi-socket fastcgi-nph-socket scgi-socket scgi-nph-socket raw-socket puwsgi-socket udp",
               "the front speaks HTTP: use http-socket, and proxy_pass in the proxy"),
    # --- users, files, the log
    **_each("uid", Rule("user")),
    **_each("gid", Rule("group")),
    **_each("add-gid additional-gid", Rule("supplementary_groups")),
    **_each("umask", Rule("umask")),
    **_each("pidfile pidfile2 safe-pidfile safe-pidfile2", Rule("pid_file")),
    **_each("disable-logging L", Rule("access_log", value=False)),
    **_each("py-autoreload py-auto-reload python-autoreload", Rule("reload", value=True)),
    **_refused("chroot", "use the service manager (RootDirectory), or a container"),
    **_refused("daemonize d daemonize2", FOREGROUND),
    **_each("logto logto2 log-to", Rule("log_file")),
    **_ignored("logger* req-logger* log-maxsize log-backupname log-reopen touch-logreopen touch-logrotate "
               "syslog* rsyslog* log-master* threaded-logger log-syslog", LOG_IS_STDOUT),
    **_ignored("log-format logformat log-format-strftime logformat-strftime log-date logdate log-prefix log-encoder "
               "log-req-encoder "
               "log-micros log-4xx log-5xx log-slow log-big log-zero log-sendfile log-ioerror log-drain log-filter log-route "
               "ignore-loglevel", LOG_IS_DATA),
    **_ignored("stats* memory-report-* metric* enable-metrics", NO_METRICS),
    **_ignored("touch-reload touch-chain-reload touch-workers-reload touch-mules-reload py-autoreload-on-edit fs-reload "
               "py-auto-reload-ignore py-autoreload-ignore",
               "gatekeep reload, kill -HUP, and script-reloading replace the processes"),
    **_ignored("master-fifo", "gatekeep status, reload, drain, stop and stacks talk to it"),
    **_ignored("show-config print", "use the command: gatekeep explain"),
}  # fmt: skip
"""By key; some are patterns."""

_HTTP = frozenset({"http", "http-socket", "http11-socket"})
_MODULE = frozenset({"module", "wsgi", "w", "wsgi-file", "file"})
_SET_PLACEHOLDER = frozenset({"set", "set-ph", "set-placeholder"})
_MOUNT = re.compile(r"([^=/]*)(/[^=]*)=(.+)")
_ON, _OFF = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


def rule_of(key: str) -> Rule | None:
    """What becomes of a key; None where it is unknown."""
    if key in UWSGI:
        return UWSGI[key]
    for pattern, rule in UWSGI.items():
        if "*" in pattern and fnmatch.fnmatchcase(key, pattern):
            return rule
    return None


def translate(said: Sequence[Said], used: frozenset[str], file: str) -> Translation:
    """What a file's settings come to.

    Args:
        said: them; `used` are those that others refer to.

    Raises:
        SettingsError: a value is none of its setting's.
    """
    into = Translator(file, "uWSGI")
    for each in said:
        if each.key in _MODULE:
            into.set(each.key, each.value, "app", _app(said, each))
        elif each.key == "callable":
            into.other(each.key, each.value, Fate.SAME, "it is part of app")
        elif each.key == "mount":
            _mount(into, said, each)
        elif each.key in _HTTP or each.key in ("socket", "s", "uwsgi-socket", "protocol"):
            _socket(into, said, each)
        else:
            _other(into, each, used)
    return into.translation(*_unsaid(into))


def _app(said: Sequence[Said], each: Said) -> str:
    is_file = each.key in ("wsgi-file", "file")
    place = (
        f"./{each.value}"
        if is_file and "/" not in each.value and not each.value.endswith(".py")
        else each.value
    )
    attribute = last_of(said, "callable")
    return f"{place}:{attribute}" if attribute and ":" not in place else place


def _mount(into: Translator, said: Sequence[Said], each: Said) -> None:
    parts = _MOUNT.fullmatch(each.value)
    if not parts:
        raise SettingsError(
            f"{into.file}:{each.line}: mount = {each.value!r}: allowed is /path=module:callable"
        )
    host, path, app = parts.groups()
    attribute = last_of(said, "callable")
    if attribute and ":" not in app:
        app = f"{app}:{attribute}"
    into.mount(each.key, each.value, **({"host": host} if host else {}), path=path, app=app)


def _socket(into: Translator, said: Sequence[Said], each: Said) -> None:
    speaks_http = last_of(said, "protocol") in ("http", "http11")
    if each.key == "protocol":
        fate = Fate.SAME if speaks_http else Fate.REFUSED
        into.other(each.key, each.value, fate, "the front speaks HTTP")
    elif each.key in _HTTP or (speaks_http and each.key != "uwsgi-socket"):
        bind = each.value if ":" in each.value and "/" not in each.value else f"unix:{each.value}"
        into.set(each.key, each.value, "binds", bind)
    else:
        reason = "the front speaks HTTP, not uwsgi: use http-socket, and proxy_pass instead of uwsgi_pass in the proxy"
        into.other(each.key, each.value, Fate.REFUSED, reason)


def _other(into: Translator, each: Said, used: frozenset[str]) -> None:
    rule = rule_of(each.key)
    if rule is None:
        is_variable = each.key in used or each.key in _SET_PLACEHOLDER
        reason = (
            "a variable of the file"
            if is_variable
            else "gatekeep does not know it; is it a variable of the file?"
        )
        into.other(each.key, each.value, Fate.SAME if is_variable else Fate.IGNORED, reason)
    elif not rule.setting:
        is_off = rule.fate is not Fate.SAME and each.value.lower() in _OFF
        into.other(
            each.key, each.value, Fate.SAME if is_off else rule.fate, "it is off" if is_off else rule.reason
        )
    elif rule.value is not None:
        if each.value.lower() in _OFF:
            into.other(each.key, each.value, Fate.SAME, "it is off")
        else:
            into.set(each.key, each.value, rule.setting, rule.value, rule.note)
    else:
        value = Alias((), rule.unit).read(each.value)
        into.set(each.key, each.value, rule.setting, value, rule.note)


def _unsaid(into: Translator) -> list[str]:
    """What counts where the file says nothing, and counted for something else there."""
    remarks = []
    for setting, what in (("processes", "processes"), ("threads", "threads")):
        if not into.says(setting):
            default = declared()[setting][1].default
            remark = f"It does not say how many {what}: uWSGI has one, gatekeep {default} unless told."
            single = " threads = 1 is for an application that may not run in several."
            remarks.append(remark + (single if setting == "threads" else ""))
    return remarks
