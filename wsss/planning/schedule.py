"""How long a graph of jobs takes on a machine: as many at a time as its cores and GPUs let."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wsss.errors import UserError


class Load(NamedTuple):
    """A job: its seconds, the cores and GPUs it holds, and the jobs that must end before it."""

    seconds: float
    cores: int
    gpus: int
    after: tuple[str, ...]


def chains(jobs: Mapping[str, Load]) -> dict[str, float]:
    """Seconds from the start of each job to the end of all that waits for it.

    Raises ValueError if jobs wait for each other in a circle.
    """
    followers: dict[str, list[str]] = {name: [] for name in jobs}
    open_: dict[str, int] = dict.fromkeys(jobs, 0)
    for name, job in jobs.items():
        for earlier in job.after:
            followers[earlier].append(name)
            open_[earlier] += 1
    # From the ends backwards: a job's chain is known once those of all its followers are.
    ready = [name for name, count in open_.items() if not count]
    found: dict[str, float] = {}
    while ready:
        name = ready.pop()
        rest = max((found[f] for f in followers[name]), default=0.0)
        found[name] = jobs[name].seconds + rest
        for earlier in jobs[name].after:
            open_[earlier] -= 1
            if not open_[earlier]:
                ready.append(earlier)
    if len(found) < len(jobs):
        raise ValueError("jobs wait for each other in a circle")
    return found


def critical_path(jobs: Mapping[str, Load]) -> float:
    """Seconds of the longest chain: what no number of machines can beat."""
    return max(chains(jobs).values(), default=0.0)


def makespan(jobs: Mapping[str, Load], cores: int, gpus: int) -> float:
    """Seconds on one machine that always starts the ready job with the longest chain behind it.

    A job that asks for more than the machine has gets all of it, as from Snakemake.
    Raises UserError where there is no core.
    """
    if cores < 1:
        raise UserError(f"cores is {cores}: give at least 1")
    order = chains(jobs)
    waiting = {name: len(job.after) for name, job in jobs.items()}
    followers: dict[str, list[str]] = {name: [] for name in jobs}
    for name, job in jobs.items():
        for earlier in job.after:
            followers[earlier].append(name)
    ready = [(-order[name], name) for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    free, now = [cores, gpus], 0.0
    while ready or running:
        _start(jobs, ready, running, free, (cores, gpus), now)
        now, name = heapq.heappop(running)
        for index, need in enumerate(_need(jobs[name], (cores, gpus))):
            free[index] += need
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (-order[follower], follower))
    return now


def _need(job: Load, limits: Sequence[int]) -> tuple[int, int]:
    return min(job.cores, limits[0]), min(job.gpus, limits[1])


def _start(
    jobs: Mapping[str, Load],
    ready: list[tuple[float, str]],
    running: list[tuple[float, str]],
    free: list[int],
    limits: tuple[int, int],
    now: float,
) -> None:
    """Start what fits, in order; what does not fit waits and lets others pass."""
    kept = []
    while ready:
        entry = heapq.heappop(ready)
        need = _need(jobs[entry[1]], limits)
        if need[0] <= free[0] and need[1] <= free[1]:
            free[0], free[1] = free[0] - need[0], free[1] - need[1]
            heapq.heappush(running, (now + jobs[entry[1]].seconds, entry[1]))
        else:
            kept.append(entry)
    ready.extend(kept)
    heapq.heapify(ready)
