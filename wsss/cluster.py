"""What Snakemake's SLURM plugin (2.8) leaves out, so that no workflow waits for ever.

A check in which SLURM does not answer makes it forget the jobs; without accounting it even asks a
database that is not there, however often it is told to try. A job that was pre-empted and is not
put back into the queue stays PREEMPTED, which the plugin takes for running.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

PLUGIN = "snakemake_executor_plugin_slurm"
# Seconds; longer than SLURM's own commands try by themselves.
_PATIENCE = 30.0

Check = Callable[[Any, list[Any]], AsyncGenerator[Any, None]]
Answer = tuple[dict[str, str] | None, float | None]
Query = Callable[[str, Any], Awaitable[Answer]]


def mend_slurm_plugin(requeue: bool) -> None:
    """Change the SLURM plugin of this process, if it has one.

    Args:
        requeue: SLURM itself puts pre-empted jobs back into the queue.
    """
    plugin: Any = sys.modules.get(PLUGIN)
    if plugin is not None:
        executor = plugin.Executor
        executor.check_active_jobs = patient(executor.check_active_jobs, controller_answers)
        if not requeue:
            plugin.query_job_status = preempted_failed(plugin.query_job_status)


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


def preempted_failed(query: Query) -> Query:
    """Return a query of states, by job, to which a pre-empted job has failed."""

    async def query_job_status(command: str, logger: Any) -> Answer:
        states, seconds = await query(command, logger)
        if states is not None:
            states = {
                job: "FAILED" if state == "PREEMPTED" else state for job, state in states.items()
            }
        return states, seconds

    return query_job_status


def controller_answers() -> bool:
    """Return whether a controller of the cluster, or its stand-in, is up."""
    try:
        ping = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return "UP" in ping.stdout
