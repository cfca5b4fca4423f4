"""An ordered map over processes with bounded memory.

Processes and not threads, because the dense CRF holds the interpreter lock. This module imports
nothing heavy on purpose: a worker loads only what its function's own module needs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

from wsss.errors import UserError
from wsss.interrupt import pending as interruption

Job = TypeVar("Job")
Result = TypeVar("Result")

# Jobs handed out per process: one running, the rest waiting behind a slow neighbour.
IN_FLIGHT_PER_PROCESS = 4

# Read by the maths libraries when they load; a worker's only parallelism is to be one of several.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def ordered_map(
    function: Callable[[Job], Result],
    jobs: Iterable[tuple[str, Job]],
    processes: int,
) -> Generator[tuple[str, Result], None, None]:
    """Yield ``(id, function(job))`` in the order of ``jobs``, whatever the number of processes.

    At most ``IN_FLIGHT_PER_PROCESS * processes`` jobs and results exist at a time, so ``jobs``
    may be a generator that reads as it goes.

    Args:
        function: a module-level function (or a partial of one); it and its jobs are pickled.
        jobs: pairs of the name shown in errors and the argument.
        processes: worker processes; 1 runs inline, without any.

    Raises:
        Interrupted: a worker was killed by the signal that asked this job to end.
        UserError: a worker was killed, ``processes`` is not positive, or ``function`` raised
            one (the id is put before its message). Other exceptions keep their type and gain
            a note that names the id.
    """
    if processes < 1:
        raise UserError(f"processes is {processes}: give at least 1")
    if processes == 1:
        return _inline(function, jobs)
    return _pooled(function, jobs, processes)


def _inline(
    function: Callable[[Job], Result], jobs: Iterable[tuple[str, Job]]
) -> Generator[tuple[str, Result], None, None]:
    for identifier, job in jobs:
        try:
            result = function(job)
        except Exception as error:
            raise _named(error, identifier) from error.__cause__
        yield identifier, result


def _pooled(
    function: Callable[[Job], Result], jobs: Iterable[tuple[str, Job]], processes: int
) -> Generator[tuple[str, Result], None, None]:
    # spawn: a forked copy of a process with running threads (torch, BLAS) can deadlock.
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    pending: deque[tuple[str, Future[Result]]] = deque()
    source = iter(jobs)
    limit = IN_FLIGHT_PER_PROCESS * processes
    try:
        for identifier, job in source:
            pending.append((identifier, _submit(pool, function, identifier, job)))
            if len(pending) >= limit:
                yield _take(pending)
        while pending:
            yield _take(pending)
    finally:
        # Also on Ctrl-C: waiting jobs are dropped, and the running ones are short.
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Job], Result], identifier: str, job: Job
) -> Future[Result]:
    try:
        with _ctrl_c_held():
            return pool.submit(function, job)
    except BrokenProcessPool as error:
        raise _killed(identifier) from error


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Let Ctrl-C wait until the block ends; processes started in it never hear of it.

    It reaches the whole group, and the parent alone decides what happens then. A worker cannot
    ignore it by itself from the start: it would show a traceback while it still imports.
    """
    # Its start, in this process's first submission, would end the block's protection.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take(pending: deque[tuple[str, Future[Result]]]) -> tuple[str, Result]:
    identifier, future = pending.popleft()
    try:
        return identifier, future.result()
    except BrokenProcessPool as error:
        raise _killed(identifier) from error
    except Exception as error:
        # The cause carries the worker's own traceback.
        raise _named(error, identifier) from error.__cause__


def _named(error: Exception, identifier: str) -> Exception:
    """The same error, saying which job it came from."""
    if isinstance(error, UserError):
        return error if identifier in str(error) else UserError(f"{identifier}: {error}")
    error.add_note(f"while working on {identifier!r}")
    return error


def _killed(identifier: str) -> BaseException:
    # Batch systems send SIGTERM to every process of a job.
    return interruption() or UserError(
        f"a worker process died at or soon after {identifier!r}, most likely for lack of memory: "
        "use fewer processes or give the job more memory"
    )


def _start_worker() -> None:
    """Prepare a worker before it loads any maths library."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Exit when the parent is gone: a killed parent cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
