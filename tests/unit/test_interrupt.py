"""Signals end a job at once, or where a deferring block lets them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from wsss.interrupt import SIGNALS, Interrupted, deferred, handled, ignore, pending


@pytest.fixture(autouse=True)
def _plain_handlers() -> Iterator[None]:
    """Tests in the background of a script inherit an ignored SIGINT."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_block(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, handled():  # noqa: PT012
        signal.raise_signal(number)
        pytest.fail("it goes on")
    assert caught.value.code == code
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before


def test_what_is_ending_ignores_signals_until_the_block_ends() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with handled():
        ignore()
        for number in SIGNALS:
            signal.raise_signal(number)
        assert pending() is None
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_deferred_signal_waits_for_the_end_of_its_block() -> None:
    steps = []
    with pytest.raises(Interrupted) as caught, handled():  # noqa: PT012
        with deferred():
            assert pending() is None
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # to say it twice changes nothing
            steps.append("saved")
            assert pending() is not None
        steps.append("never")
    assert caught.value.code == 143
    assert steps == ["saved"]


def test_a_second_interrupt_from_the_keyboard_does_not_wait() -> None:
    with pytest.raises(Interrupted), handled(), deferred():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert pending() is not None
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it goes on")


def test_an_error_of_a_deferring_block_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), handled(), deferred():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with handled():
        signal.raise_signal(signal.SIGHUP)
        assert pending() is None


def test_a_forked_helper_leaves_signals_to_its_parent() -> None:
    with handled():
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert pending() is None


def test_the_next_job_of_a_process_starts_anew() -> None:
    with pytest.raises(Interrupted), handled():
        signal.raise_signal(signal.SIGTERM)
    with handled():
        assert pending() is None
