"""The application is found, or the reason is one line that helps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatekeep.pool._loader import Application, LoadError, load
from gatekeep.settings._app import parse_app

APPLICATION = "def {name}(environ, start_response):\n    return [b'{name}']\n"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a file into a folder that modules are looked for in, and that is the present one."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def answer(application: Application) -> bytes:
    return b"".join(application({}, lambda *_: None))


def failure(text: str) -> LoadError:
    with pytest.raises(LoadError) as raised:
        load(parse_app(text))
    assert "\n" not in str(raised.value)
    return raised.value


MODULE = (
    APPLICATION.format(name="app") + APPLICATION.format(name="other") + "class Space:\n    inner = other\n"
)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("site_a", b"app"),
        ("site_a:app", b"app"),
        ("site_a:other", b"other"),
        ("site_a:Space.inner", b"other"),
        ("package_a.wsgi:app", b"app"),
        ("site_a.py", b"app"),
        ("./site_a.py:other", b"other"),
        ("package_a/wsgi.py", b"app"),
        ("./deploy.wsgi", b"app"),
        ("./no_ending", b"app"),
    ],
)
def test_a_module_a_path_and_an_attribute_are_found(write: Write, text: str, body: bytes) -> None:
    for name in ("site_a.py", "package_a/wsgi.py", "deploy.wsgi", "no_ending"):
        write(name, MODULE)
    assert answer(load(parse_app(text))) == body


def test_application_comes_before_app(write: Write) -> None:
    write("site_b.py", APPLICATION.format(name="app") + APPLICATION.format(name="application"))
    assert answer(load(parse_app("site_b"))) == b"application"


def test_a_factory_is_called_once_for_the_application(write: Write) -> None:
    write(
        "site_c.py",
        "calls = []\n"
        + APPLICATION.format(name="app")
        + "def make():\n    calls.append(1)\n    return app\n",
    )
    assert answer(load(parse_app("site_c:make()"))) == b"app"
    assert answer(load(parse_app("site_c:make", factory=True))) == b"app"
    assert len(sys.modules["site_c"].calls) == 2


def test_without_the_call_a_factory_is_taken_for_the_application(write: Write) -> None:
    write("site_d.py", "def make():\n    return None\n")
    assert load(parse_app("site_d:make")).__name__ == "make"


def test_a_path_is_a_module_that_the_application_can_find_itself_in(write: Write) -> None:
    write(
        "deploy.wsgi", "import sys\nhere = sys.modules[__name__]\n" + APPLICATION.format(name="application")
    )
    application = load(parse_app("./deploy.wsgi"))
    module = sys.modules[application.__module__]
    assert module.here is module
    assert module.__file__ == os.path.abspath("deploy.wsgi")


# --- what is not there


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nowhere_at_all", "no module named 'nowhere_at_all' (looked in "),
        ("nowhere_at_all.wsgi:app", "no module named 'nowhere_at_all' (looked in "),
        ("package_e.wsgi", "no module named 'package_e.wsgi' (looked in "),
        ("./no/such.py", "there is no file "),
        ("site_e", "site_e has no application or app; give it as site_e:NAME"),
        ("site_e:nothing", "site_e has no nothing; give it as site_e:NAME"),
        ("site_e:number.nothing", "site_e has no number.nothing; give it as site_e:NAME"),
        ("./site_e.py", "./site_e.py has no application or app; give it as ./site_e.py:NAME"),
        ("site_e:number", "site_e:number is not callable: it is of type int"),
        ("site_e:number()", "site_e:number() is no factory: it is of type int"),
        ("site_e:returns_none()", "site_e:returns_none() is not callable: it is of type NoneType"),
    ],
)
def test_what_is_not_there_is_said_in_a_line_without_a_traceback(
    write: Write, text: str, reason: str
) -> None:
    write("site_e.py", "number = 7\ndef returns_none():\n    return None\n")
    write("package_e/__init__.py", "")
    error = failure(text)
    assert str(error).startswith(reason)
    assert error.traceback == ""


# --- what raises


@pytest.mark.parametrize(
    ("code", "summary"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import sys\nsys.exit('no settings')", "SystemExit: no settings"),
        ("def broken(:", "SyntaxError: invalid syntax"),
    ],
)
@pytest.mark.parametrize("text", ["site_f", "./site_f.py"])
def test_what_the_code_raises_while_it_is_imported_is_shown_with_its_own_frames(
    write: Write, code: str, summary: str, text: str
) -> None:
    write("site_f.py", f"# the application\n{code}\n")
    error = failure(text)
    assert str(error).startswith(f"{text} failed to load: ")
    assert summary in str(error)
    frames = [line for line in error.traceback.splitlines() if line.startswith("  File ")]
    assert "site_f.py" in frames[0]
    assert "_loader.py" not in error.traceback
    assert "importlib" not in error.traceback


def test_what_a_factory_raises_is_shown_with_its_own_frames(write: Write) -> None:
    write("site_g.py", "def make():\n    raise SystemExit('no')\n")
    error = failure("site_g:make()")
    assert str(error) == "site_g:make() failed to load: SystemExit: no"
    assert "in make" in error.traceback
    assert "_loader.py" not in error.traceback


def test_a_failed_import_inside_the_application_is_the_applications_fault(write: Write) -> None:
    write("site_h.py", "import site_h.inner\n")
    assert "No module named 'site_h.inner'" in failure("site_h").traceback


def test_an_exception_of_many_lines_is_one_line_for_people(write: Write) -> None:
    write("site_j.py", "raise ValueError('first\\nsecond')\n")
    error = failure("site_j")
    assert "first" in str(error)
    assert "first\nsecond" in error.traceback


def test_a_script_that_fails_can_be_loaded_again(write: Write) -> None:
    write("site_i.py", "1 / 0\n")
    failure("./site_i.py")
    write("site_i.py", APPLICATION.format(name="app") + "# mended\n")
    assert answer(load(parse_app("./site_i.py"))) == b"app"


def test_what_a_modules_own_getattr_raises_is_the_applications_fault(write: Write) -> None:
    write("site_n.py", "def __getattr__(name):\n    raise RuntimeError(name)\n")
    error = failure("site_n:made")
    assert str(error) == "site_n:made failed to load: RuntimeError: made"
    assert "in __getattr__" in error.traceback


@pytest.mark.parametrize("name", ["function", "instance"])
def test_an_asgi_application_is_named_as_such(write: Write, name: str) -> None:
    write(
        "site_asgi.py",
        "async def function(scope, receive, send): pass\n"
        "class Site:\n    async def __call__(self, scope, receive, send): pass\n"
        "instance = Site()\n",
    )
    assert "is an ASGI application" in str(failure(f"site_asgi:{name}"))
