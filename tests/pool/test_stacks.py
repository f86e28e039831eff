"""What Python knows of a thread: its stack, the exceptions that it handles; and sending it one."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import wait_until
from gatekeep.pool._blocked import is_supported, look
from gatekeep.pool._stacks import LONGEST_NAME, MOST_FRAMES, all_stacks, inject, is_in_chain, stack_of

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="whether a thread sleeps is asked of Linux"),
    pytest.mark.usefixtures("no_garbage_collection"),
]

WAIT = 20.0
NOBODY = 1
"""An ident that no thread has."""


class Interrupted(BaseException):
    """What the tests send."""


class Subject:
    """A thread that runs a function, which may stop at gates. What it raises is kept."""

    def __init__(self, work: Callable[[Subject], Any], name: str | None = None) -> None:
        self.error: BaseException | None = None
        self.stops = self.passed = 0
        self._work = work
        self._gate, self._key = os.pipe()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._work(self)
        except BaseException as error:
            self.error = error

    def stop_here(self) -> None:
        """Called by the thread: wait for the test."""
        self.stops += 1
        os.read(self._gate, 1)

    def wait_stopped(self) -> Subject:
        """Wait until it sleeps at its next gate: until then it runs Python."""
        wait_until(self.is_stopped)
        return self

    def is_stopped(self) -> bool:
        blocked = look(self.thread.native_id or 0)
        return self.stops > self.passed and blocked is not None and blocked.descriptors == (self._gate,)

    def go_on(self) -> None:
        self.passed += 1
        os.write(self._key, b"g")

    def join(self) -> None:
        self.thread.join(WAIT)
        assert not self.thread.is_alive()

    def end(self) -> None:
        os.write(self._key, b"go on")
        self.join()
        os.close(self._gate)
        os.close(self._key)

    @property
    def ident(self) -> int:
        assert self.thread.ident is not None
        return self.thread.ident

    def is_cleaning_up(self) -> bool:
        return is_in_chain(self.ident, Interrupted)


@pytest.fixture
def at_gate() -> Iterator[Callable[..., Subject]]:
    """Start a thread and wait until it stands at its first gate."""
    subjects: list[Subject] = []

    def start(work: Callable[[Subject], Any], **options: Any) -> Subject:
        subjects.append(Subject(work, **options))
        return subjects[-1].wait_stopped()

    yield start
    for subject in subjects:
        subject.end()


Start = Callable[..., Subject]


# --- stacks


def outer(subject: Subject) -> None:
    inner(subject)


def inner(subject: Subject) -> None:
    subject.stop_here()


def test_a_stack_has_the_innermost_frame_last(at_gate: Start) -> None:
    lines = stack_of(at_gate(outer).ident).splitlines()
    functions = [line.rpartition(", in ")[2] for line in lines]
    assert functions[-4:] == ["Subject._run", "outer", "inner", "Subject.stop_here"]
    assert lines[-2] == f'File "{__file__}", line {inner.__code__.co_firstlineno + 1}, in inner'


def test_a_thread_that_is_not_has_no_stack() -> None:
    assert stack_of(NOBODY) == ""


def recurse(subject: Subject, times: int) -> None:
    if times:
        recurse(subject, times - 1)
    else:
        subject.stop_here()


def test_a_deep_stack_is_cut_at_its_outer_end(at_gate: Start) -> None:
    lines = stack_of(at_gate(lambda subject: recurse(subject, 500)).ident).splitlines()
    assert len(lines) == MOST_FRAMES + 1
    assert lines[0] == "… further out there are more"
    assert lines[-1].endswith("in Subject.stop_here")


def test_code_from_a_string_with_an_endless_name_is_cut_too(at_gate: Start) -> None:
    code = compile("subject.stop_here()", "x" * 100_000, "exec")
    subject = at_gate(lambda subject: exec(code, {"subject": subject}))
    assert 'File "' + "x" * LONGEST_NAME + '"' in stack_of(subject.ident)


def test_a_busy_thread_has_a_stack_as_well(at_gate: Start) -> None:
    stop = threading.Event()

    def spin(subject: Subject) -> None:
        subject.stop_here()
        while not stop.is_set():
            pass

    subject = at_gate(spin)
    subject.go_on()
    assert all("spin" in stack_of(subject.ident) for _ in range(200))
    stop.set()


def test_all_threads_are_there_with_their_names(at_gate: Start) -> None:
    subject = at_gate(outer, name="the-stuck-one")
    by_ident = {stack.ident: stack for stack in all_stacks()}
    stuck = by_ident[subject.ident]
    assert (stuck.name, stuck.tid, stuck.stack) == (
        "the-stuck-one",
        subject.thread.native_id,
        stack_of(subject.ident),
    )
    assert "test_all_threads_are_there_with_their_names" in by_ident[threading.get_ident()].stack


def test_a_thread_whose_class_breaks_its_number_is_there_too() -> None:
    class Odd(threading.Thread):
        @property
        def native_id(self) -> int:
            raise RuntimeError("not today")

    gate, reached = threading.Event(), threading.Event()
    thread = Odd(target=lambda: (reached.set(), gate.wait()), name="odd")
    thread.start()
    assert reached.wait(WAIT)
    assert "odd" in [stack.name for stack in all_stacks()]
    gate.set()
    thread.join(WAIT)


def test_all_stacks_take_no_lock() -> None:
    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        assert all_stacks()


# --- the exceptions that it handles


def in_finally(subject: Subject) -> None:
    try:
        raise Interrupted
    finally:
        subject.stop_here()


def in_except(subject: Subject) -> None:
    try:
        raise Interrupted
    except BaseException:
        subject.stop_here()


def in_exit(subject: Subject) -> None:
    class Manager:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            subject.stop_here()

    with Manager():
        raise Interrupted


def below_another(subject: Subject) -> None:
    try:
        raise Interrupted
    finally:
        try:
            raise ValueError
        except ValueError:
            subject.stop_here()


def as_the_cause(subject: Subject) -> None:
    try:
        raise ValueError from Interrupted()
    except ValueError:
        subject.stop_here()


def hidden_by_from_none(subject: Subject) -> None:
    try:
        try:
            raise Interrupted
        except Interrupted:
            raise ValueError from None
    except ValueError:
        subject.stop_here()


def in_a_group(subject: Subject) -> None:
    try:
        raise BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [Interrupted()])])
    except BaseExceptionGroup:
        subject.stop_here()


def in_a_generator(subject: Subject) -> None:
    def generator() -> Iterator[int]:
        try:
            yield 1
        finally:
            subject.stop_here()

    numbers = generator()
    next(numbers)
    numbers.throw(Interrupted())  # type: ignore[attr-defined]


def in_a_generator_that_its_cleaning_up_uses(subject: Subject) -> None:
    def generator() -> Iterator[int]:
        try:
            raise ValueError
        except ValueError:
            subject.stop_here()
        yield 1

    try:
        raise Interrupted
    finally:
        next(generator())


CLEANING_UP = [
    in_finally,
    in_except,
    in_exit,
    below_another,
    as_the_cause,
    hidden_by_from_none,
    in_a_group,
    in_a_generator,
    in_a_generator_that_its_cleaning_up_uses,
]


@pytest.mark.parametrize("work", CLEANING_UP)
def test_a_thread_that_cleans_up_has_the_exception_in_its_chain(
    at_gate: Start, work: Callable[[Subject], Any]
) -> None:
    assert at_gate(work).is_cleaning_up()


def swallowed(subject: Subject) -> None:
    try:
        raise Interrupted
    except BaseException:
        pass
    subject.stop_here()


def swallowed_further_out(subject: Subject) -> None:
    try:
        in_nothing(subject, raises=True)
    except Interrupted:
        pass
    in_nothing(subject)


def in_nothing(subject: Subject, raises: bool = False) -> None:
    if raises:
        raise Interrupted
    subject.stop_here()


def with_another(subject: Subject) -> None:
    try:
        raise ValueError
    except ValueError:
        subject.stop_here()


@pytest.mark.parametrize("work", [swallowed, swallowed_further_out, in_nothing, with_another])
def test_a_thread_that_swallowed_it_or_never_had_it_has_not(
    at_gate: Start, work: Callable[[Subject], Any]
) -> None:
    assert not at_gate(work).is_cleaning_up()


def test_a_chain_that_is_a_ring_has_an_end(at_gate: Start) -> None:
    def ring(subject: Subject) -> None:
        first, second = ValueError(), KeyError()
        first.__cause__, second.__cause__ = second, first
        first.__context__ = second
        try:
            raise first
        except ValueError:
            subject.stop_here()

    assert not at_gate(ring).is_cleaning_up()


def test_a_thread_that_is_not_handles_nothing() -> None:
    assert not is_in_chain(NOBODY, BaseException)


# --- sending one


def test_an_exception_that_is_sent_comes_when_the_thread_runs_python(at_gate: Start) -> None:
    subject = at_gate(in_nothing)
    assert inject(subject.ident, Interrupted)
    subject.go_on()
    subject.join()
    assert isinstance(subject.error, Interrupted)


def test_an_exception_that_was_taken_back_does_not_come(at_gate: Start) -> None:
    subject = at_gate(in_nothing)
    assert inject(subject.ident, Interrupted)
    assert inject(subject.ident, None)
    subject.go_on()
    subject.join()
    assert subject.error is None


def test_nothing_can_be_taken_back_where_nothing_was_sent(at_gate: Start) -> None:
    assert inject(at_gate(in_nothing).ident, None)


def test_nothing_is_sent_to_a_thread_that_is_not() -> None:
    assert not inject(NOBODY, Interrupted)
    assert not inject(NOBODY, None)


def test_what_is_sent_is_pending_first_then_cleaned_up_then_gone(at_gate: Start) -> None:
    def work(subject: Subject) -> None:
        try:
            try:
                subject.stop_here()
            finally:
                subject.stop_here()
        except Interrupted:
            pass
        subject.stop_here()

    subject = at_gate(work)
    inject(subject.ident, Interrupted)
    seen = [subject.is_cleaning_up()]
    for _ in range(2):
        subject.go_on()
        subject.wait_stopped()
        seen.append(subject.is_cleaning_up())
    assert seen == [False, True, False]


def test_sending_does_not_hold_on_to_the_exceptions_type(at_gate: Start) -> None:
    before = sys.getrefcount(Interrupted)
    subject = at_gate(in_nothing)
    for _ in range(1000):
        inject(subject.ident, Interrupted)
        inject(subject.ident, None)
    wait_until(lambda: sys.getrefcount(Interrupted) < before + 100)


def test_names_that_cannot_be_encoded_are_escaped() -> None:
    subject = Subject(lambda subject: subject.stop_here(), name="half \udce9").wait_stopped()
    try:
        (found,) = [thread for thread in all_stacks() if thread.ident == subject.thread.ident]
        assert found.name == r"half \udce9"
    finally:
        subject.go_on()
