"""ordered_map keeps the order and its bounds, and no failure is silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.parallel import IN_FLIGHT_PER_PROCESS, THREAD_VARIABLES, ordered_map


@pytest.fixture(autouse=True)
def importable_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers import this module by its name from the repository root.
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def square(value: int) -> int:
    # Early jobs finish last, so completion order differs from input order.
    time.sleep(0.02 if value < 2 else 0)
    return value * value


def fail_at_three(value: int) -> int:
    if value == 3:
        raise ValueError("three is broken")
    return value


def user_error(value: int) -> int:
    raise UserError("the image is empty: replace it" if value < 9 else "")


def die(value: int) -> int:
    if value == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def environment(name: str) -> str | None:
    return os.environ.get(name)


def numbers(count: int) -> Iterator[tuple[str, int]]:
    return ((f"image{i}", i) for i in range(count))


@pytest.mark.parametrize("processes", [1, 2])
def test_order(processes: int) -> None:
    expected = [(f"image{i}", i * i) for i in range(12)]
    assert list(ordered_map(square, numbers(12), processes)) == expected


@pytest.mark.parametrize("processes", [1, 2])
def test_no_jobs(processes: int) -> None:
    assert list(ordered_map(square, [], processes)) == []


def test_jobs_are_read_as_needed() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[tuple[str, int]]:
        for i in range(100):
            taken.append(i)
            yield f"image{i}", i

    results = ordered_map(square, jobs(), 2)
    next(results)
    assert len(taken) <= 2 * IN_FLIGHT_PER_PROCESS
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 2 * IN_FLIGHT_PER_PROCESS


@pytest.mark.parametrize("processes", [1, 2])
def test_exception_keeps_its_type_and_names_the_job(processes: int) -> None:
    with pytest.raises(ValueError, match="three is broken") as caught:
        list(ordered_map(fail_at_three, numbers(8), processes))
    assert caught.value.__notes__ == ["while working on 'image3'"]


@pytest.mark.parametrize("processes", [1, 2])
def test_user_error_names_the_job(processes: int) -> None:
    with pytest.raises(UserError, match=r"^image0: the image is empty: replace it$"):
        list(ordered_map(user_error, numbers(3), processes))


def test_killed_worker_is_an_error() -> None:
    with pytest.raises(UserError, match="a worker process died at or soon after 'image"):
        list(ordered_map(die, numbers(30), 2))


@pytest.mark.parametrize("function", [square, die])
def test_processes_must_be_positive(function: Callable[[int], int]) -> None:
    with pytest.raises(UserError, match="give at least 1"):
        ordered_map(function, numbers(1), 0)


def test_workers_run_one_maths_thread() -> None:
    jobs = [(name, name) for name in THREAD_VARIABLES]
    assert [value for _, value in ordered_map(environment, jobs, 2)] == ["1"] * len(jobs)


SCRIPT = """
    import os, signal, sys, time
    from wsss.parallel import ordered_map

    def nap(seconds):
        time.sleep(seconds)
        return os.getpid()

    if __name__ == "__main__":
        # A job started in the background of a script inherits an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for _, pid in ordered_map(nap, ((str(i), 0.05) for i in range(400)), 2):
            print(pid, flush=True)
"""


def started(script: str, folder: Path) -> subprocess.Popen[str]:
    """Run a script in a process group of its own."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_worker_outlives_an_interrupted_parent(
    tmp_path_factory: pytest.TempPathFactory, sent: signal.Signals, code: int
) -> None:
    parent = started(SCRIPT, tmp_path_factory.mktemp("parallel"))
    assert parent.stdout is not None
    assert parent.stderr is not None
    workers = {int(parent.stdout.readline()) for _ in range(6)}
    parent.send_signal(sent)
    assert parent.wait(10) == code
    assert parent.stderr.read().count("Traceback") <= 1  # the parent's own, none from a worker
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody reaps stays a zombie, which is dead enough.
    status = Path(f"/proc/{pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] != "Z"


SLOW_START = """
    import os, signal, sys, time
    from wsss.parallel import ordered_map

    if __name__ != "__main__":
        print(flush=True)
        time.sleep(1)

    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            list(ordered_map(abs, ((str(i), i) for i in range(9)), 2))
        except KeyboardInterrupt:
            sys.exit("interrupted")
"""


def test_workers_that_are_starting_do_not_hear_of_ctrl_c(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    parent = started(SLOW_START, tmp_path_factory.mktemp("parallel"))
    assert parent.stdout is not None
    parent.stdout.readline()  # a worker is importing the main module
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=60)[1] == "interrupted\n"
    assert parent.returncode == 1
