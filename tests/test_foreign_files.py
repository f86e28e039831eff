"""`--from gunicorn.conf.py` and `--from uwsgi.ini`: what each of their settings becomes."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

import gatekeep
from gatekeep import SettingsError
from gatekeep._configuration import Configuration, Sources
from gatekeep._options import _parser, options_of
from gatekeep.settings._foreign import Translation, render
from gatekeep.settings._foreign_flags import Fate
from gatekeep.settings._gunicorn import FLAGS, HOOKS, NAMES
from gatekeep.settings._uwsgi import UWSGI

GUNICORN = """
import os
from itertools import pairwise
import threading

helper = 3
print("noise")
os.environ["FROM_THE_FILE"] = "yes"
wsgi_app = "shop.wsgi:application"
bind = ["0.0.0.0:8000", "unix:/run/shop.sock"]
workers = helper + 1
worker_class = "gthread"
threads = "4"
timeout = 120
graceful_timeout = 25
keepalive = 5
max_requests = 1000
preload_app = True
accesslog = "-"
errorlog = "/var/log/gunicorn.log"
loglevel = "INFO"
umask = 0o027
user = 33
limit_request_line = 0
raw_env = ["SECRET=hidden"]
forwarded_allow_ips = "10.0.0.0/8,127.0.0.1"
proxy_protocol = True
daemon = False
certfile = None
pythonpath = "lib,vendor"
reload_extra_files = ["templates/a.html"]
root_path = "/shop"

def post_fork(server, worker):
    pass

def pre_request(worker, request):
    pass

class Lock:
    pass

logger_class = Lock
"""

GUNICORN_REPORT = """
{file}, in the words of gatekeep.toml
  wsgi_app = 'shop.wsgi:application'
                                  app = "shop.wsgi:application"
  bind = ['0.0.0.0:8000', 'unix:/run/shop.sock']
                                  bind = ["0.0.0.0:8000", "unix:/run/shop.sock"]
  workers = 4                     processes = 4
  worker_class = 'gthread'        as always here: processes of threads are what gatekeep has
  threads = '4'                   threads = 4
  timeout = 120                   request-timeout = 120; gunicorn's is the heartbeat of a worker;
                                    here it ends the request, after that time times 1 + ln threads
  graceful_timeout = 25           graceful-timeout = 25
  keepalive = 5                   keep-alive-timeout = 5
  max_requests = 1000             maximum-requests = 1000
  preload_app = True              ignored: each process loads the application itself, so that a new
                                    one has new code; nothing is shared by forking
  accesslog = '-'                 access-log = true
  errorlog = '/var/log/gunicorn.log'
                                  log-file = "/var/log/gunicorn.log"
  loglevel = 'INFO'               log-level = "info"
  umask = 23                      umask = "0027"
  user = 33                       user = "33"
  limit_request_line = 0          limit-request-line = 1048576; without any limit is not possible
  raw_env                         env = ["SECRET=..."]
  forwarded_allow_ips = '10.0.0.0/8,127.0.0.1'
                                  trusted-proxies = "10.0.0.0/8,127.0.0.1"
  proxy_protocol = True           proxy-protocol = "auto"
  daemon = False                  as always here: it is off
  certfile = None                 as always here: nothing is said by it
  pythonpath = 'lib,vendor'       python-path = ["lib", "vendor"]
  reload_extra_files = ['templates/a.html']
                                  reload-dir = ["templates"]
  reload_extra_files = ['templates/a.html']
                                  reload-include = ["*.py", "a.html"]
  root_path = '/shop'             [[mounts]] path = "/shop"; requests are expected with it in their
                                    path; where the proxy takes it away, leave this out and let the
                                    proxy say it (X-Forwarded-Prefix in trusted-proxy-headers)
  post_fork()                     ignored: it is not run; a module of import-scripts is imported by
                                    each process before the application, which is the place for that
  pre_request()                   ignored: it is not run; in the application:
                                    gatekeep.subscribe_events, RequestStarted
  logger_class = Lock             ignored: gatekeep's own log is set by log-level and log-format;
                                    the application sets its logging itself
  os.environ['FROM_THE_FILE']     env = ["FROM_THE_FILE=..."]
29 settings: 22 taken over, 3 as always here, 4 ignored
"""

UWSGI_INI = """
# another program's
[other]
threads = 99

[uwsgi]
; a comment
base = /srv/shop
project = shop
http-socket = 127.0.0.1:8080
http-socket = /run/shop.sock
chdir = %(base)
module = %(project).wsgi
callable = app
master = true
processes = %k
threads = 2
enable-threads
vacuum = 1
die-on-term = true
harakiri = 30
max-requests = 5000
reload-on-rss = 512
max_worker_lifetime = 3600
listen = 128
buffer-size = 32768
socket-timeout = 30
post-buffering = 8192
cheaper = 2
touch-reload = %(base)/reload
env = SECRET=%(project)
env = WHO=$(WHO)
disable-logging = true
py-autoreload = 0
pythonpath = lib-%n
stats = off
mystery = 1
threads = 3
static-map = /static=%(base)/static
"""

UWSGI_REPORT = """
{file}, in the words of gatekeep.toml
  base = /srv/shop                as always here: a variable of the file
  project = shop                  as always here: a variable of the file
  http-socket = 127.0.0.1:8080    bind = "127.0.0.1:8080"
  http-socket = /run/shop.sock    bind = "unix:/run/shop.sock"
  chdir = /srv/shop               chdir = "/srv/shop"
  module = shop.wsgi              app = "shop.wsgi:app"
  callable = app                  as always here: it is part of app
  master = true                   as always here: the gateway watches over its processes
  processes = {cores}                   processes = {cores}
  threads = 2                     ignored: another one that is said below counts
  enable-threads = true           as always here: applications may have threads of their own
  vacuum = 1                      as always here: the files of sockets are removed
  die-on-term = true              as always here: SIGTERM stops the gateway in order
  harakiri = 30                   request-timeout = 30; it is interrupted after that time times 1 +
                                    ln threads, and costs its process only if that does not end it
  max-requests = 5000             maximum-requests = 5000
  reload-on-rss = 512             memory-limit = 536870912
  max-worker-lifetime = 3600      restart-interval = 3600
  listen = 128                    backlog = 128
  buffer-size = 32768             limit-request-head = 32768
  socket-timeout = 30             ignored: clients are bounded by header-timeout, body-timeout,
                                    keep-alive-timeout and response-socket-timeout; socket-timeout
                                    means the way between gateway and worker here
  post-buffering = 8192           as always here: bodies are received before a worker is asked
                                    (request-buffering)
  cheaper = 2                     ignored: only SIGTTIN and SIGTTOU change the number of processes;
                                    inactivity-timeout ends those that have nothing to do
  touch-reload = /srv/shop/reload ignored: gatekeep reload, kill -HUP, and script-reloading replace
                                    the processes
  env                             env = ["SECRET=..."]
  env                             env = ["WHO=..."]
  disable-logging = true          access-log = false
  py-autoreload = 0               as always here: it is off
  pythonpath = lib-uwsgi          python-path = "lib-uwsgi"
  stats = off                     as always here: it is off
  mystery = 1                     ignored: gatekeep does not know it; is it a variable of the file?
  threads = 3                     threads = 3
  static-map = /static=/srv/shop/static
                                  ignored: gatekeep serves no files: let the proxy do that, or
                                    WhiteNoise in the application
32 settings: 16 taken over, 10 as always here, 6 ignored
"""


def sources(folder: Path, name: str, text: str, line: str = "") -> Sources:
    (folder / name).write_text(text)
    return Sources(options_of(f"--from {name} {line}"), {**os.environ, "WHO": "me"}, str(folder))


def translated(folder: Path, name: str, text: str) -> Translation:
    translation = sources(folder, name, text).translated()
    assert translation is not None
    return translation


def read(folder: Path, name: str, text: str, line: str = "") -> Configuration:
    return sources(folder, name, text, line).read()


# --- gunicorn


def test_each_setting_of_a_gunicorn_configuration_is_told(tmp_path: Path) -> None:
    report = render(translated(tmp_path, "gunicorn.conf.py", GUNICORN))
    assert report == GUNICORN_REPORT.lstrip().format(file=tmp_path / "gunicorn.conf.py")


def test_a_gunicorn_configuration_is_settings(tmp_path: Path) -> None:
    configuration = read(tmp_path, "gunicorn.conf.py", GUNICORN)
    (group,) = configuration.settings.groups
    assert (str(group.app), group.processes, group.threads) == ("shop.wsgi:application", 4, 4)
    assert (group.request_timeout, group.graceful_timeout, group.maximum_requests) == (120, 25, 1000)
    assert group.env == ("SECRET=hidden", "FROM_THE_FILE=yes")
    assert group.python_path == ("lib", "vendor")
    assert [str(bind) for bind in configuration.settings.binds] == ["0.0.0.0:8000", "unix:/run/shop.sock"]
    assert configuration.settings.http.trusted_proxies == ("10.0.0.0/8", "127.0.0.1")
    assert [str(mount) for mount in configuration.settings.mount_table] == ["/shop"]
    assert configuration.server.access_log
    told = [(event, fields["setting"]) for event, fields in configuration.notes]
    assert told == [
        ("setting.differs", "timeout"),
        ("setting.ignored", "preload_app"),
        ("setting.differs", "limit_request_line"),
        ("setting.differs", "root_path"),
        ("setting.ignored", "post_fork()"),
        ("setting.ignored", "pre_request()"),
        ("setting.ignored", "logger_class"),
    ]


def test_it_is_the_lowest_place(tmp_path: Path) -> None:
    (tmp_path / "gatekeep.toml").write_text("threads = 7\n")
    line = f"-c {tmp_path / 'gatekeep.toml'} -w 9"
    configuration = read(tmp_path, "gunicorn.conf.py", GUNICORN, line)
    (group,) = configuration.settings.groups
    assert (group.processes, group.threads, group.graceful_timeout) == (9, 7, 25)


def test_what_it_does_not_say_and_means_something_else_there_is_told(tmp_path: Path) -> None:
    report = render(translated(tmp_path, "gunicorn.conf.py", "wsgi_app = 'a'\n"))
    assert "! It does not say how many processes: gunicorn has one, gatekeep 2 unless told." in report
    assert "! It does not say how many threads: gunicorn has one, gatekeep 5 unless told." in report
    assert "it says nothing" in render(translated(tmp_path, "gunicorn.conf.py", "x = 1\n"))


def test_every_flag_that_stands_for_a_setting_of_gunicorn_is_known() -> None:
    known = {flag for option in _parser().params for flag in (*option.opts, *option.secondary_opts)}
    assert set(FLAGS.values()) - known == set()
    assert len(NAMES) == len(set(NAMES)) == 120
    assert all(not text.endswith(".") for text in HOOKS.values())


def test_each_event_that_stands_for_a_function_of_gunicorn_is_one_of_ours() -> None:
    source = "".join(file.read_text() for file in Path(gatekeep.__file__).parent.rglob("*.py"))
    named = [event for text in HOOKS.values() for event in re.findall(r"\b[a-z]+\.[a-z]+_?[a-z]+\b", text)]
    events = [event for event in named if not event.startswith("gatekeep.")]
    assert "process.exited" in events
    assert [event for event in events if f'"{event}"' not in source] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [\n", ":1: it is no Python: '[' was never closed"),
        ("import os\n\nworkers = nope\n", ":3: NameError: name 'nope' is not defined"),
        ("def f():\n    raise ValueError('a\\nb')\nf()\n", ":2: ValueError: a"),
        ("import sys\nsys.exit('no')\n", ":2: SystemExit: no"),
        ("import no_such_module\n", ":1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os\nos._exit(3)\n", ": it ended its process (exit status 3) before it was read"),
        ("timeout = 'soon'\n", ": timeout = 'soon': request-timeout = 'soon': allowed is 0 seconds or more, such as"),
        ("threads = 0\nwsgi_app = 'a'\n", ": threads = 0: allowed is 1 to 1024"),
        ("bind = 'nowhere:x'\nwsgi_app = 'a'\n", ": bind = 'nowhere:x': allowed is host:port"),
        ("certfile = 'a'\nkeyfile = 'b'\n", ": certfile = 'a', keyfile = 'b': gatekeep speaks no TLS yet"),
        ("ssl_context = lambda: 1\n", ": ssl_context(): it is not run; gatekeep speaks no TLS yet"),
        ("worker_class = 'gevent'\n", ": worker_class = 'gevent': the application runs in threads here"),
        ("class W: pass\nworker_class = W\n", ": worker_class = W: that worker class is not known here"),
        ("daemon = True\n", ": daemon = True: gatekeep stays in the foreground"),
        ("paste = 'x.ini'\n", ": paste = 'x.ini': name a factory of your own"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_gunicorn_configuration_is_one_line_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, "gunicorn.conf.py", text)
    line = str(refused.value)
    assert line.startswith(f"{tmp_path / 'gunicorn.conf.py'}{said}"), line
    assert "\n" not in line


def test_what_cannot_be_served_can_be_told(tmp_path: Path) -> None:
    report = render(translated(tmp_path, "gunicorn.conf.py", "certfile = 'a'\nworkers = 1\nthreads = 1\n"))
    assert "  certfile = 'a'                  not supported: gatekeep speaks no TLS yet" in report
    assert report.endswith("3 settings: 2 taken over, 1 not supported\n")


def test_what_the_file_does_to_its_process_does_not_happen_to_ours(tmp_path: Path) -> None:
    text = "import os, sys, threading, time\nos.chdir('/')\nsys.modules['os'] = None\n"
    text += "threading.Thread(target=time.sleep, args=[1000]).start()\nos.environ['X1'] = 'y'\n"
    before = os.getcwd()
    configuration = read(tmp_path, "gunicorn.conf.py", f"{text}wsgi_app = 'a'\n")
    assert os.getcwd() == before
    assert "X1" not in os.environ
    assert configuration.settings.groups[0].env == ("X1=y",)


def test_modules_beside_the_present_folder_can_be_imported_by_it(tmp_path: Path) -> None:
    (tmp_path / "numbers_of_mine.py").write_text("WORKERS = 3\n")
    text = "from numbers_of_mine import WORKERS as workers\nimport pathlib\nwsgi_app = pathlib.Path(__file__).stem\n"
    (group,) = read(tmp_path, "conf.py", text).settings.groups
    assert (group.processes, str(group.app)) == (3, "conf")


# --- uWSGI


def test_each_setting_of_a_uwsgi_configuration_is_told(tmp_path: Path) -> None:
    report = render(translated(tmp_path, "uwsgi.ini", UWSGI_INI))
    assert report == UWSGI_REPORT.lstrip().format(file=tmp_path / "uwsgi.ini", cores=os.cpu_count())


def test_a_uwsgi_configuration_is_settings(tmp_path: Path) -> None:
    configuration = read(tmp_path, "uwsgi.ini", UWSGI_INI)
    (group,) = configuration.settings.groups
    assert (str(group.app), group.threads, group.memory_limit) == ("shop.wsgi:app", 3, 512 << 20)
    assert group.env == ("SECRET=shop", "WHO=me")
    assert group.python_path == ("lib-uwsgi",)
    assert [str(bind) for bind in configuration.settings.binds] == ["127.0.0.1:8080", "unix:/run/shop.sock"]
    assert (configuration.server.chdir, configuration.server.access_log) == ("/srv/shop", False)
    assert configuration.settings.backlog == 128


@pytest.mark.parametrize(
    ("lines", "app"),
    [
        ("module = a.b:c", "a.b:c"),
        ("module = a.b\ncallable = c", "a.b:c"),
        ("wsgi-file = site/wsgi.py\ncallable = c", "site/wsgi.py:c"),
        ("wsgi-file = site.wsgi", "./site.wsgi"),
        ("wsgi = a", "a"),
        ("module = a:make()", "a:make()"),
    ],
)
def test_the_application_of_a_uwsgi_configuration(tmp_path: Path, lines: str, app: str) -> None:
    configuration = read(tmp_path, "u.ini", f"[uwsgi]\n{lines}\n")
    assert str(configuration.settings.groups[0].app) == app


def test_mounts_of_a_uwsgi_configuration(tmp_path: Path) -> None:
    text = "[uwsgi]\nmount = /api=api.py\nmount = x.org/=shop:app\nmanage-script-name = true\n"
    table = read(tmp_path, "u.ini", text).settings.mount_table
    assert [(str(mount), str(mount.app)) for mount in table] == [("/api", "api.py"), ("x.org/", "shop:app")]
    table = read(tmp_path, "u.ini", f"{text}module = main\n").settings.mount_table
    assert (str(table[0]), table[0].app) == ("/", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threads = 1\n", ": there is no section [uwsgi] in it"),
        ("[uwsgi]\nchdir = $(NO_SUCH_VARIABLE_HERE)\n", ":2: $(NO_SUCH_VARIABLE_HERE): there is no such variable"),
        ("[uwsgi]\n\nchdir = %(base)\n", ":3: %(base): there is nothing of that name in the file"),
        ("[uwsgi]\na = %(b)\nb = %(a)\n", ":2: variables refer to themselves"),
        ("[uwsgi]\nini = other.ini\n", ":2: ini: other files and conditions are not read"),
        ("[uwsgi]\nif-env = X\n", ":2: if-env: other files and conditions are not read"),
        ("[uwsgi]\nsome words = 1\n", ":2: a line KEY = VALUE is needed"),
        ("[uwsgi]\nharakiri = soon\n", ": harakiri = soon: request-timeout = 'soon': allowed is"),
        ("[uwsgi]\nthreads = 0\nmodule = a\n", ": threads = 0: allowed is 1 to 1024"),
        ("[uwsgi]\nmount = api\n", ":2: mount = 'api': allowed is /path=module:callable"),
        ("[uwsgi]\nsocket = :3031\n", ": socket = :3031: the front speaks HTTP, not uwsgi"),
        ("[uwsgi]\nhttps = :443,a,b\n", ": https = :443,a,b: gatekeep speaks no TLS yet"),
        ("[uwsgi]\ngevent = 100\n", ": gevent = 100: the application runs in threads here"),
        ("[uwsgi]\ndaemonize = /var/log/x\n", ": daemonize = /var/log/x: gatekeep stays in the foreground"),
        ("[uwsgi]\nemperor = /etc\n", ": emperor = /etc: one gateway serves several applications"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_uwsgi_configuration_is_one_line_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, "uwsgi.ini", text)
    assert str(refused.value).startswith(f"{tmp_path / 'uwsgi.ini'}{said}"), refused.value


def test_a_socket_that_is_to_speak_http_is_an_address(tmp_path: Path) -> None:
    configuration = read(tmp_path, "u.ini", "[uwsgi]\nprotocol = http\nsocket = :8000\nmodule = a\n")
    assert [str(bind) for bind in configuration.settings.binds] == ["0.0.0.0:8000"]


KEYS = """
harakiri processes threads max-requests reload-on-rss max-worker-lifetime listen master vacuum die-on-term socket-timeout
buffer-size post-buffering chdir touch-reload py-autoreload cheaper
"""


@pytest.mark.parametrize("key", KEYS.split())
def test_the_keys_that_people_use_most_are_known(key: str) -> None:
    assert key in UWSGI


def test_every_rule_has_a_setting_or_a_reason() -> None:
    for key, rule in UWSGI.items():
        assert bool(rule.setting) != bool(rule.reason), key
        assert (rule.fate is Fate.SET) == bool(rule.setting)


# --- other files


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.py", "there is no such file in "),
        ("uwsgi.yaml", "uWSGI's configuration is read as .ini alone; allowed is gunicorn's configuration"),
        ("uwsgi.xml", "uWSGI's configuration is read as .ini alone; "),
        ("gatekeep.toml", "gatekeep's own file is -c; "),
        ("Procfile", "allowed is gunicorn's configuration (gunicorn.conf.py) or uWSGI's (uwsgi.ini)"),
    ],
)
def test_another_file_is_refused_with_what_is_allowed(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Sources(options_of(f"--from {name}"), {}, str(tmp_path)).read()
    assert str(refused.value).startswith(f"from = '{name}': {said}")


def test_it_can_be_named_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "u.ini").write_text("[uwsgi]\nmodule = a\nthreads = 3\n")
    for environment in ({"GATEKEEP_FROM": "u.ini"}, {"GATEKEEP_CMD_ARGS": "--from u.ini"}):
        configuration = Sources(options_of(""), environment, str(tmp_path)).read()
        assert configuration.settings.groups[0].threads == 3
        assert configuration.translation is not None


def test_variables_that_grow_beyond_any_memory_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["[uwsgi]", "a = 0123456789", *(f"{b} = {f'%({a})' * 10}" for a, b in pairwise("abcdefghijkl"))]
    with pytest.raises(SettingsError, match=r"uwsgi.ini:\d+: it comes to more than 65536 characters$"):
        read(tmp_path, "uwsgi.ini", "\n".join(lines), "apps:hello")


def test_a_child_that_a_gunicorn_configuration_forks_does_not_answer_for_it(tmp_path: Path) -> None:
    forks = "import os, time\nif not os.fork():\n    time.sleep(0.2)\nworkers = 3\n"
    found = read(tmp_path, "gunicorn.conf.py", forks, "apps:hello")
    assert found.settings.groups[0].processes == 3


def test_a_value_that_is_no_plain_data_is_named_as_its_type(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gunicorn.conf.py: processes = object: "):
        read(tmp_path, "gunicorn.conf.py", "workers = object()", "apps:hello")
