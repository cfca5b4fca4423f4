"""Signals that ask a job to end: it stops where the same command can continue.

A stage ends at once and keeps what is finished; training finishes its step and saves its state
first, see :func:`deferred`. Nothing here is active outside :func:`handled`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, the polite request of batch systems, and a terminal that is gone.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the job to end; ``code`` is what a shell reports for it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class _State:
    """The first signal that came, and whether it has to wait."""

    asked: int | None = None
    deferred = False


_state = _State()


def pending() -> Interrupted | None:
    """The interruption that was asked for, if any."""
    return None if _state.asked is None else Interrupted(_state.asked)


def ask(number: int) -> None:
    """Act as if the signal ``number`` had come to this process, too, and has to wait."""
    _state.asked = _state.asked or number


@contextmanager
def handled() -> Iterator[None]:
    """Turn signals into :class:`Interrupted` inside the block.

    A second Ctrl-C ends even what would rather wait. Signals that this process was started to
    ignore (``nohup``, background jobs of a script) stay ignored.
    """
    _state.asked, _state.deferred = None, False
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return
    owner = os.getpid()

    def handle(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a copy of this process: its parent decides
            return
        first = _state.asked is None
        _state.asked = _state.asked or number
        # Whatever comes after the first is a repetition, but for the user's impatience.
        stop = not _state.deferred if first else number == signal.SIGINT
        if stop:
            raise Interrupted(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = [number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, handle)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
        _state.asked = None


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait until the block ends; the block looks at :func:`pending` to end early."""
    _state.deferred = True
    try:
        yield
    finally:
        _state.deferred = False
    if stop := pending():
        raise stop


def ignore() -> None:
    """Let no further signal interrupt this process, until :func:`handled` ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_to_parent(_worker: int) -> None:
    """Ignore signals in a data-loading process: they reach the whole group, and the parent, which
    may still need a batch, tells its workers when to end."""
    ignore()
