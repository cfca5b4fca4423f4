"""How long jobs take on a machine, against schedules drawn by hand."""

from __future__ import annotations

import pytest

from wsss.errors import UserError
from wsss.planning.schedule import Load, chains, critical_path, makespan

#  a(3) -> b(2) -> d(1)     c(4) stands alone
JOBS = {
    "a": Load(3, 1, 0, ()),
    "b": Load(2, 1, 0, ("a",)),
    "c": Load(4, 1, 0, ()),
    "d": Load(1, 1, 0, ("b",)),
}


def test_chains() -> None:
    assert chains(JOBS) == {"a": 6, "b": 3, "c": 4, "d": 1}
    assert critical_path(JOBS) == 6
    assert critical_path({}) == 0


def test_one_core_does_one_after_the_other() -> None:
    assert makespan(JOBS, 1, 0) == 10


def test_two_cores_share() -> None:
    assert makespan(JOBS, 2, 0) == 6


def test_a_job_holds_its_cores() -> None:
    wide = {"a": Load(3, 2, 0, ()), "b": Load(2, 1, 0, ()), "c": Load(2, 1, 0, ())}
    assert makespan(wide, 2, 0) == 5
    # More than there are: it gets all of them, as from Snakemake.
    assert makespan({"a": Load(3, 8, 0, ())}, 2, 0) == 3


def test_one_gpu_runs_one_job_at_a_time() -> None:
    jobs = {name: Load(2, 1, 1, ()) for name in "abc"} | {"cpu": Load(6, 1, 0, ())}
    assert makespan(jobs, 4, 1) == 6
    assert makespan(jobs, 4, 3) == 6
    assert makespan({k: v for k, v in jobs.items() if k != "cpu"}, 4, 3) == 2


def test_impossible_graphs_are_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        chains({"a": Load(1, 1, 0, ("b",)), "b": Load(1, 1, 0, ("a",))})
    with pytest.raises(UserError, match="at least 1"):
        makespan(JOBS, 0, 0)
