"""What is looked up, once, before daemon processes are started: users and groups by name, and what the system would refuse.

Both may change while the gateway runs. What was found at its start counts until it ends.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from gatekeep._errors import SettingsError
from gatekeep._process_options import ProcessOptions

MOST_ID = (1 << 32) - 2
"""The highest number that a user or a group may have; the one above it means nobody in particular to the system."""


@attrs.frozen
class Launch:
    """How a group's processes are started.

    Attributes:
        popen: arguments of `subprocess.Popen`.
        variables: what is set in their environment beside the gateway's own.
        nice: the priority that they get, None for the gateway's.
        who: the user that was asked for, for people; empty where none was.
        as_root: whether the application runs as root though nobody asked for that.
    """

    popen: Mapping[str, Any]
    variables: Mapping[str, str]
    nice: int | None
    who: str
    as_root: bool


def prepare(options: ProcessOptions) -> Launch:
    """Look up what the options name. May block: users can be anywhere.

    Raises:
        SettingsError: there is no such user, group or folder, or this process may not give what is asked for.
    """
    _check_home(options.home)
    _check_nice(options.nice)
    _check_memory(options.virtual_memory_limit)
    popen: dict[str, Any] = {} if options.umask is None else {"umask": options.umask}
    user = _find_user(options.user) if options.user else None
    popen |= _credentials(options, user)
    variables = dict([*_variables_of(user), *options.environment])
    as_root = os.geteuid() == 0 and user is None
    return Launch(popen, variables, options.nice, options.user, as_root)


# --- who ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class _User:
    """A user; a number without an entry in the system's list has neither a name nor a group."""

    uid: int
    entry: pwd.struct_passwd | None


def _find_user(text: str) -> _User:
    """By name first, since a name may consist of digits."""
    try:
        entry = pwd.getpwnam(text)
    except (KeyError, ValueError):  # ValueError: text that the system takes for no name
        uid = _number("user", text)
        try:
            return _User(uid, pwd.getpwuid(uid))
        except KeyError:
            return _User(uid, None)
    return _User(entry.pw_uid, entry)


def _find_group(setting: str, text: str) -> int:
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        return _number(setting, text)


def _number(setting: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(
            f"{setting} = {text!r}: there is no such {'user' if setting == 'user' else 'group'}"
        )
    if len(text) > 10 or int(text) > MOST_ID:
        raise SettingsError(f"{setting} = {text!r}: allowed is a name, or a number from 0 to {MOST_ID}")
    return int(text)


def _credentials(options: ProcessOptions, user: _User | None) -> dict[str, Any]:
    """`subprocess.Popen`'s arguments; nothing where the processes are to be who we are."""
    gid = _find_group("group", options.group) if options.group else None
    groups = [_find_group("supplementary-groups", text) for text in options.supplementary_groups]
    if os.geteuid() != 0:
        _refuse_others(options, user, gid)
        return {}
    if user is not None and gid is None:
        gid = _own_group(user, options.user)
    found: dict[str, Any] = {} if user is None else {"user": user.uid}
    if gid is not None:
        found["group"] = gid
    if groups:
        found["extra_groups"] = groups
    elif user is not None:
        assert gid is not None
        # What `initgroups` does. Without it they would keep root's.
        found["extra_groups"] = os.getgrouplist(user.entry.pw_name, gid) if user.entry else [gid]
    return found


def _own_group(user: _User, text: str) -> int:
    if user.entry is None:
        raise SettingsError(f"user = {text!r}: the system does not know this number, so it needs --group too")
    return user.entry.pw_gid


def _refuse_others(options: ProcessOptions, user: _User | None, gid: int | None) -> None:
    """Without privileges processes can only be what we are; to ask for just that is no fault."""
    asked = [
        ("user", options.user, user is not None and user.uid != os.geteuid()),
        ("group", options.group, bool(options.group) and gid != os.getegid()),
        ("supplementary-groups", ", ".join(options.supplementary_groups), bool(options.supplementary_groups)),
    ]
    for name, text, differs in asked:
        if differs:
            raise SettingsError(
                f"{name} = {text!r}: only a gateway that runs as root can give it to its processes"
            )


def _variables_of(user: _User | None) -> list[tuple[str, str]]:
    """As mod_wsgi has it: the gateway's own would send the application to root's folders."""
    if user is None or user.entry is None:
        return []
    name = user.entry.pw_name
    return [("HOME", user.entry.pw_dir), ("USER", name), ("LOGNAME", name)]


# --- what the system would refuse -----------------------------------------------------------------------------------


def _check_home(home: str) -> None:
    try:
        if home:
            os.close(os.open(home, os.O_PATH | os.O_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SettingsError(f"home = {home!r}: {error.strerror}") from error
    except OSError:
        pass  # the user may be allowed to go where we are not (root on NFS); the process will tell


def _check_nice(nice: int | None) -> None:
    """A process may always step back, but come forward only as far as its limit (RLIMIT_NICE) says."""
    present = os.getpriority(os.PRIO_PROCESS, 0)
    if nice is None or nice >= present or os.geteuid() == 0:
        return
    limit = resource.getrlimit(resource.RLIMIT_NICE)[0]
    least = -20 if limit == resource.RLIM_INFINITY else min(present, 20 - limit)
    if nice < least:
        raise SettingsError(f"nice = {nice}: only root may raise a priority; allowed is {least} to 19")


def _check_memory(limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY and limit > hard:
        raise SettingsError(
            f"virtual-memory-limit = {limit}: allowed is 0 to {hard} bytes, the gateway's own limit (ulimit -v)"
        )


# --- starting -------------------------------------------------------------------------------------------------------


def start(launch: Launch, command: list[str], **popen: Any) -> subprocess.Popen[bytes]:
    """Start a process.

    Raises:
        OSError: the system refused.
    """
    environment = {**os.environ, **launch.variables} if launch.variables else None
    try:
        process = subprocess.Popen(command, env=environment, **popen, **launch.popen)
    except PermissionError as error:
        raise _explained(error, launch.who) from error
    if launch.nice is not None:
        try:
            # By us, who may be allowed what the process's user is not. It has one thread yet; the others inherit it.
            os.setpriority(os.PRIO_PROCESS, process.pid, launch.nice)
        except OSError as error:
            process.kill()
            process.wait()
            raise OSError(error.errno, f"nice = {launch.nice}: {error.strerror}") from error
    return process


def _explained(error: PermissionError, who: str) -> PermissionError:
    if not who:
        return error
    if error.errno == errno.EACCES:
        return PermissionError(
            errno.EACCES,
            f"user {who} may not execute {sys.executable}: it, or a folder on the way, is closed",
        )
    return PermissionError(error.errno, f"the system does not let the gateway start processes as user {who}")
