"""The `gatekeep` command: a thin program around `Gateway`. `_terminal` prints, and ends the process.

Exit status: 0 stopped, or answered; 1 a fault of ours, or a gateway that does not answer; 2 usage or settings, or no such
gateway; 3 cannot start.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
import traceback
from typing import Any, NoReturn

import anyio
import click
import msgspec

from gatekeep import __version__, _cli_control
from gatekeep._configuration import Sources
from gatekeep._errors import CannotStart, SettingsError
from gatekeep._handover import Handover, Origin, received
from gatekeep._log_file import LogFile
from gatekeep._logging import make_logger
from gatekeep._options import configured
from gatekeep._program import Program
from gatekeep._systemd import Notifier, take_listeners
from gatekeep._terminal import CANNOT_START, FAULT, USAGE, die, write
from gatekeep.settings._bind import Bind, BindKind, parse_bind

LOG_PATIENCE = 2.0
"""Seconds that the last log lines may take to be written."""


def main() -> NoReturn:
    """Run the command. Never returns."""
    try:
        _commands(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.Abort:
        sys.exit(FAULT)
    except click.ClickException as error:
        die(USAGE, error.format_message())
    except SettingsError as error:
        die(USAGE, str(error))
    except CannotStart as error:
        die(CANNOT_START, f"cannot start: {error}", error.details)
    except Exception as error:
        # Ours by definition: it is reported in one line, after the place for whoever mends it.
        die(FAULT, f"a fault of gatekeep: {_innermost(error)!r}", traceback.format_exc())
    sys.exit(0)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, no_args_is_help=False
)
@click.version_option(__version__, prog_name="gatekeep")
def _commands() -> None:
    """The gateway that Python web applications cannot hang."""


@_commands.command("serve", short_help="Serve an application.")
@configured
def serve(**options: Any) -> None:
    """Serve APP: module:callable, module (its application, then app), module:factory(), or a script's path.

    \b
    gatekeep serve mysite.wsgi:application
    gatekeep serve site/wsgi.py --bind 0.0.0.0:8080 --processes 4
    gatekeep serve -c gatekeep.toml

    Every flag may stand in a file of settings, and in the environment as $GATEKEEP_ and its name; $GATEKEEP_CMD_ARGS holds any of
    them. The command line overrides the environment, and that the file. Where nothing else is said, $PORT is the port to
    listen on (on every address), $WEB_CONCURRENCY the number of processes, and $FORWARDED_ALLOW_IPS the proxies that are trusted.
    """
    origin = Origin.here()
    handover, notifier = received(), Notifier.take(os.environ, os.getpid())
    sources = Sources(options, origin.environment, origin.folder, _inherited_binds(handover))
    configuration = sources.read(enter_folder)
    server = configuration.server
    loop = _choose_loop(server.loop)
    log_file = LogFile(server.log_file)
    logger, writer = make_logger(
        server.log_level,
        server.log_format,
        log_file.fd,
        access=server.access_log,
        access_format=server.access_log_format,
    )
    try:
        for event, fields in configuration.notes:
            logger.warning(event, **fields)
        _raise_descriptor_limit()
        program = Program(
            configuration,
            loop,
            logger,
            log_file,
            origin,
            handover,
            notifier,
            reread=sources.read,
            is_first=os.getpid() == 1,
        )
        status = _run(program, loop)
    finally:
        writer.close(LOG_PATIENCE)
    sys.exit(status)


@_commands.command("check", short_help="Whether the settings make sense and the application loads.")
@configured
def check(**options: Any) -> None:
    """Read all settings, load the applications in real daemon processes, and end. Nothing listens meanwhile.

    Takes what `gatekeep serve` takes. Exit status: 0 all is well, 2 a setting is wrong, 3 an application or script does not load;
    the reason is told, and its own traceback. It warns of settings that are in each other's way.
    """
    # Here, since no server has to wait for it at its start.
    from gatekeep._check import load_all, load_scripts
    from gatekeep._explain import explain as explained
    from gatekeep._explain_view import render_warnings
    from gatekeep._surroundings import read_surroundings
    from gatekeep.settings._understood import described_note

    configuration = _sources(options).read(enter_folder)
    _choose_loop(configuration.server.loop)
    load_times = {}
    for loaded in load_all(configuration.settings):
        load_times[loaded.group] = loaded.load_time
        apps = ", ".join(loaded.apps)
        write(f"group {loaded.group}: {apps} loads in {loaded.load_time:.2f} s\n")
    for event, fields in configuration.notes:
        write(f"! {described_note(event, fields)}\n")
    for script in load_scripts(configuration.settings):
        write(f"script {script} loads\n")
    surroundings = msgspec.structs.replace(read_surroundings(), load_times=load_times)
    write(render_warnings(explained(configuration.settings, surroundings)))
    write(f"{configuration.file or 'all settings'}: fine\n")


@_commands.command("explain", short_help="What fires when, and which settings are in each other's way.")
@configured
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(as_json: bool, **options: Any) -> None:
    """Print what the settings come to: what bounds each stage of a request, what happens when one does not end, and what warns.

    Takes what `gatekeep serve` takes; with --from it begins with what each setting of the other server's file has become.
    Nothing is started, and no application is loaded (`gatekeep check` does that).
    """
    from gatekeep._explain import explain as explained
    from gatekeep._explain_view import render, to_json
    from gatekeep._surroundings import read_surroundings
    from gatekeep.settings._foreign import render as render_translation

    sources = _sources(options)
    translation = sources.translated()
    if translation is not None and not as_json:
        write(render_translation(translation) + "\n")  # before anything of it is refused
    explanation = explained(sources.read(enter_folder).settings, read_surroundings())
    write(to_json(explanation) + "\n" if as_json else render(explanation))


def _sources(options: dict[str, Any]) -> Sources:
    return Sources(options, dict(os.environ), os.getcwd())


def enter_folder(folder: str) -> None:
    """Run there from now on."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise SettingsError(f"chdir = {folder!r}: {error.strerror}") from error


def _choose_loop(loop: str) -> str:
    if loop == "auto":
        return "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    if loop != "asyncio" and importlib.util.find_spec(loop) is None:
        raise SettingsError(f"loop = {loop!r}: {loop} is not installed in {sys.prefix}")
    return loop


def _inherited_binds(handover: Handover | None) -> list[Bind]:
    """Sockets that a service manager has opened are known by nothing but their descriptors."""
    fds = [Bind(BindKind.FD, fd=fd) for fd in take_listeners(os.environ, os.getpid())]
    if fds or handover is None:
        return fds
    return [parse_bind(name) for name in handover.listeners if name.startswith("fd://")]


def _raise_descriptor_limit() -> None:
    """Every client costs a descriptor and every request another: take what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            pass


# --- running --------------------------------------------------------------------------------------------------------


def _run(program: Program, loop: str) -> int:
    backend = "trio" if loop == "trio" else "asyncio"
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    return anyio.run(program.run, backend=backend, backend_options=options)


for _command in _cli_control.COMMANDS:
    _commands.add_command(_command)
