"""SLURM's controller may be away for a while: Snakemake goes on watching its jobs.

Its plugin (2.8) forgets the jobs of a check in which SLURM does not answer; without accounting it
even asks a database that is not there, however long it is told to try. The jobs end well, and the
workflow waits for ever. Here a check does not begin before the controller answers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any

PLUGIN = "snakemake_executor_plugin_slurm"
# Seconds; longer than SLURM's own commands try by themselves.
_PATIENCE = 30.0

Check = Callable[[Any, list[Any]], AsyncGenerator[Any, None]]


def watch_patiently() -> None:
    """Let the SLURM plugin of this process, if it has one, wait for the controller."""
    if plugin := sys.modules.get(PLUGIN):
        executor = plugin.Executor
        executor.check_active_jobs = patient(executor.check_active_jobs, controller_answers)


def patient(check: Check, answers: Callable[[], bool]) -> Check:
    """Return a check of jobs that keeps all of them as they are while nobody ``answers``."""

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncGenerator[Any, None]:
        if active_jobs and not answers():
            sys.stderr.write(
                f"SLURM's controller does not answer: {len(active_jobs)} jobs are watched again "
                "when it does\n"
            )
            for job in active_jobs:
                yield job
            return
        async for job in check(self, active_jobs):
            yield job

    return check_active_jobs


def controller_answers() -> bool:
    """Return whether a controller of the cluster, or its stand-in, is up."""
    try:
        ping = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return "UP" in ping.stdout
