"""The system call in which a thread of this process sleeps, and the descriptors that it waits for. Linux only.

`/proc/self/task/TID/syscall` has the number and the arguments of the call of a thread that sleeps, `running` for any other.
The arguments of `poll` and `select` point into memory, which is read through `/proc/self/mem`: an address that is not mapped
(any more) is an error there and no segmentation fault.

What is read is a moment old. `Call.stamp` has the thread's count of context switches beside the call: where two looks have
the same stamp the thread slept from the end of the first to the beginning of the second, in one and the same call, and what
was read in between belongs together.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from select import POLLIN, POLLOUT

import attrs

MOST = 256
"""Descriptors of one call that are looked at: evidence has bounds, and each costs a system call or two."""

EPOLL_FLAGS = 0xF0000000
"""EPOLLET, EPOLLONESHOT, EPOLLWAKEUP, EPOLLEXCLUSIVE: how it waits, not what for."""

X86_64 = {
    0: "read",
    1: "write",
    7: "poll",
    19: "readv",
    20: "writev",
    23: "select",
    35: "nanosleep",
    40: "sendfile",
    42: "connect",
    43: "accept",
    44: "sendto",
    45: "recvfrom",
    46: "sendmsg",
    47: "recvmsg",
    61: "wait4",
    73: "flock",
    219: "restart_syscall",
    230: "clock_nanosleep",
    232: "epoll_wait",
    247: "waitid",
    270: "pselect6",
    271: "ppoll",
    281: "epoll_pwait",
    288: "accept4",
    299: "recvmmsg",
    307: "sendmmsg",
    441: "epoll_pwait2",
}

GENERIC = {
    22: "epoll_pwait",
    32: "flock",
    63: "read",
    64: "write",
    65: "readv",
    66: "writev",
    71: "sendfile",
    72: "pselect6",
    73: "ppoll",
    95: "waitid",
    101: "nanosleep",
    115: "clock_nanosleep",
    128: "restart_syscall",
    202: "accept",
    203: "connect",
    206: "sendto",
    207: "recvfrom",
    211: "sendmsg",
    212: "recvmsg",
    242: "accept4",
    243: "recvmmsg",
    260: "wait4",
    269: "sendmmsg",
    441: "epoll_pwait2",
}
"""include/uapi/asm-generic/unistd.h: what every architecture since 2012 uses."""

NUMBERS = {"x86_64": X86_64, "aarch64": GENERIC, "riscv64": GENERIC}
"""By `platform.machine()`. `futex` is not there: a thread that wants the GIL sleeps in it too, and it would say nothing."""

RECEIVING = frozenset({"read", "readv", "recvfrom", "recvmsg", "recvmmsg", "accept", "accept4"})
SENDING = frozenset({"write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile", "connect"})


@attrs.frozen
class Call:
    """A system call in which a thread sleeps.

    Attributes:
        name: the kernel's name for it.
        arguments: its six registers, whatever they mean.
        stamp: the same for two looks only when the thread did not run between them.
    """

    name: str
    arguments: tuple[int, ...]
    stamp: tuple[bytes, ...]

    @property
    def is_direct(self) -> bool:
        """Whether the call is about the one descriptor that is its first argument."""
        return self.name in RECEIVING or self.name in SENDING


@attrs.frozen
class Wait:
    """One descriptor that a call waits for.

    Attributes:
        number: the descriptor.
        events: what it waits for there, as in `poll()`. 0 where that does not tell whether it has come: epoll may have told of
            it already.
        inode: of the file that the number meant when the call was told of it, where the kernel says so; else 0.
    """

    number: int
    events: int
    inode: int = 0


def why_not() -> str:
    """Why the calls of this process's threads cannot be read here, in words; empty when they can."""
    if sys.platform != "linux":
        return "only Linux tells what a thread is blocked in"
    if _names() is None:
        return f"the system calls of {platform.machine()} are not known"
    path = "/proc/self/task/TID/syscall"
    try:
        words = _read(_task(os.getpid(), "syscall")).split()  # our own call that reads it
        if _names_of(words[0]) != "read":
            return f"{path} does not have the system calls of a 64-bit process"
        path = "/proc/self/mem"
        read_memory(int(words[-2], 16), 8)  # the top of our stack
    except (OSError, ValueError, IndexError) as error:
        return f"{path} cannot be read: {error}"
    return ""


def current_call(tid: int) -> Call | None:
    """The call in which the thread sleeps; None when it runs, has ended, or sleeps in one that is not known here.

    Args:
        tid: the thread's native id.

    Raises:
        OSError: there is no such thread, or the kernel does not tell.
    """
    line = _read(_task(tid, "syscall"))
    switches = tuple(row for row in _read(_task(tid, "status")).splitlines() if b"ctxt_switches" in row)
    words = line.split()
    if len(words) != 9:
        return None  # `running`, or asleep outside of any call
    name = _names_of(words[0])
    if name == "restart_syscall":
        name = _restarted(tid)
    if name is None:
        return None
    return Call(name, tuple(int(word, 16) for word in words[1:7]), (line, *switches))


def waits_of(call: Call) -> list[Wait]:
    """The descriptors that the call waits for. None where it waits for something else (time, a child, a lock on a file).

    True only while the thread sleeps in the call: look again afterwards and compare the stamps.

    Raises:
        OSError: the call has ended and its memory is gone.
    """
    if call.is_direct:
        return [Wait(_as_int(call.arguments[0]), POLLIN if call.name in RECEIVING else POLLOUT)]
    decode = DECODERS.get(call.name)
    return [] if decode is None else list(islice(decode(*call.arguments), MOST))


def _polled(address: int, count: int, *_: int) -> Iterator[Wait]:
    """`struct pollfd[count]`: the descriptor, what is asked, what came."""
    count = min(count, 16 * MOST)
    for number, events, _came in struct.iter_unpack("=iHH", read_memory(address, 8 * count)):
        if number >= 0:
            yield Wait(number, events)


def _selected(count: int, readable: int, writable: int, exceptional: int, *_: int) -> Iterator[Wait]:
    """Three sets of bits; a null pointer is an empty one."""
    count = min(_as_int(count), 16 * MOST)
    events: dict[int, int] = {}
    for address, event in ((readable, POLLIN), (writable, POLLOUT), (exceptional, 0)):
        if address:
            bits = int.from_bytes(read_memory(address, (count + 7) // 8), sys.byteorder)
            for number in range(count):
                if bits >> number & 1:
                    events[number] = events.get(number, 0) | event
    for number in sorted(events):
        yield Wait(number, events[number])


def _epolled(epoll: int, *_: int) -> Iterator[Wait]:
    """Lines such as `tfd:  9 events:  19 data:  9  pos:0 ino:2f31 sdev:8`."""
    for line in _read(f"/proc/self/fdinfo/{_as_int(epoll)}").splitlines():
        if line.startswith(b"tfd:"):
            words = line.replace(b":", b" ").split()
            fields = dict(zip(words[::2], words[1::2], strict=False))
            if (
                int(fields[b"events"], 16) & ~EPOLL_FLAGS
            ):  # nothing is left of it once a EPOLLONESHOT has come
                yield Wait(int(fields[b"tfd"]), 0, int(fields.get(b"ino", b"0"), 16))


DECODERS: dict[str, Callable[..., Iterator[Wait]]] = {
    "poll": _polled,
    "ppoll": _polled,
    "select": _selected,
    "pselect6": _selected,
    "epoll_wait": _epolled,
    "epoll_pwait": _epolled,
    "epoll_pwait2": _epolled,
}


def read_memory(address: int, size: int) -> bytes:
    """Bytes of this process's memory.

    Raises:
        OSError: they are not, or not all of them, mapped.
    """
    if not 0 < address < 2**63 - size:
        raise OSError(errno.EFAULT, "an address outside of user space")
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(memory, size, address)
    finally:
        os.close(memory)
    if len(data) < size:
        raise OSError(errno.EFAULT, "memory that is not mapped")
    return data


def _restarted(tid: int) -> str | None:
    """What a thread does that sleeps in `restart_syscall`.

    A process that was stopped and continued (Ctrl-Z, a frozen container) goes on with its calls under that name. Only `poll`
    matters: the others that can be restarted are sleeps. Its arguments are still in their registers.
    """
    return "poll" if b"poll" in _read(_task(tid, "wchan")) else None


def _names() -> dict[int, str] | None:
    return NUMBERS.get(platform.machine()) if sys.maxsize > 2**32 else None


def _names_of(word: bytes) -> str | None:
    names = _names()
    return None if names is None else names.get(int(word))


def _as_int(register: int) -> int:
    """A C int: the upper half of its register is nobody's."""
    return (register & 0xFFFFFFFF) - ((register & 0x80000000) << 1)


def _task(tid: int, name: str) -> str:
    return f"/proc/self/task/{tid}/{name}"


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
