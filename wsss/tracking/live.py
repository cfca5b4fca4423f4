"""Curves in MLflow while a network trains, if ``tracking.live`` asks for them.

A process of its own talks to the store; training hands it rows through a pipe and never waits. A
row that does not fit, or a process that has died, costs nothing but the sight of it: publishing
writes the whole curve when the workflow ends, in a run that takes the place of the live one.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from wsss.context import Context
from wsss.tracking.store import uri_of, wanted

log = logging.getLogger(__name__)
Watch = Callable[[dict[str, Any], dict[str, Any]], None]
# Between the last row and the end of the process: long enough for a store that answers.
_PATIENCE = 15.0
# The row behind the last one; without it the training was stopped.
FINISHED = {"finished": True}


@contextmanager
def live_curve(context: Context) -> Iterator[Watch]:
    """Yield what takes a row of the training curve and its costs; it neither waits nor raises."""
    tracking = context.config.tracking
    if not (tracking.live and wanted(tracking)):
        yield _nobody
        return
    with tempfile.TemporaryFile() as errors:
        process = _start(context, errors)
        if process is None:
            yield _nobody
            return
        pipe = _Pipe(process)
        try:
            yield pipe.write
            pipe.write(FINISHED, {})
        finally:
            _end(process, errors, uri_of(tracking))


def _nobody(_row: dict[str, Any], _costs: dict[str, Any]) -> None:
    pass


def _start(context: Context, errors: IO[bytes]) -> subprocess.Popen[bytes] | None:
    paths, tracking = context.paths, context.config.tracking
    job = {
        "tracking": tracking.model_dump(),
        "dataset": paths.dataset,
        "variant": context.variant,
        "seed": context.seed,
        "stage": context.stage,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "wsss.tracking.live_writer", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            # A signal to the training's group is not for it: it ends with the pipe.
            start_new_session=True,
        )
    except OSError as error:
        log.warning("no live curve: %s", error)
        return None
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


class _Pipe:
    """Rows on their way to the process; one that cannot leave at once is dropped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self.number = process.stdin.fileno()

    def write(self, row: dict[str, Any], costs: dict[str, Any]) -> None:
        """Hand on one row. A pipe takes it whole or not at all, as it is shorter than a page."""
        with suppress(OSError):
            os.write(self.number, f"{json.dumps({**row, **costs})}\n".encode())


def _end(process: subprocess.Popen[bytes], errors: IO[bytes], uri: str) -> None:
    """Let the process finish what it was given, but not for long; say so if it failed."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        failed = process.wait(_PATIENCE) != 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        failed = True
    if failed:
        errors.seek(0)
        lines = errors.read().decode(errors="replace").splitlines()
        reason = lines[-1] if lines else "the store did not answer in time"
        log.warning("no live curve at %s (%s); `wsss publish` writes it later", uri, reason)
