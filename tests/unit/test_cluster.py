from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wsss import cluster


async def forgets_one(_executor: Any, active_jobs: list[Any]) -> AsyncGenerator[Any, None]:
    for job in active_jobs[1:]:
        yield job


def kept(check: cluster.Check) -> list[Any]:
    async def collect() -> list[Any]:
        return [job async for job in check(None, ["a", "b"])]

    return asyncio.run(collect())


def test_jobs_are_kept_while_nobody_answers() -> None:
    assert kept(cluster.patient(forgets_one, lambda: False)) == ["a", "b"]
    assert kept(cluster.patient(forgets_one, lambda: True)) == ["b"]


async def two_states(_command: str, _logger: Any) -> cluster.Answer:
    return {"1": "PREEMPTED", "2": "RUNNING"}, 0.1


async def no_answer(_command: str, _logger: Any) -> cluster.Answer:
    return None, None


@pytest.mark.parametrize("requeue", [False, True])
def test_the_plugin_is_changed_where_it_is_loaded(
    requeue: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = SimpleNamespace(check_active_jobs=forgets_one)
    plugin = SimpleNamespace(Executor=executor, query_job_status=two_states)
    monkeypatch.setitem(sys.modules, cluster.PLUGIN, plugin)  # type: ignore[arg-type]
    monkeypatch.setattr(cluster, "controller_answers", lambda: False)
    cluster.mend_slurm_plugin(requeue)
    assert kept(executor.check_active_jobs) == ["a", "b"]
    assert (plugin.query_job_status is two_states) == requeue
    monkeypatch.delitem(sys.modules, cluster.PLUGIN)
    cluster.mend_slurm_plugin(requeue)


def test_a_preempted_job_has_failed() -> None:
    states, seconds = asyncio.run(cluster.preempted_failed(two_states)("squeue", None))  # type: ignore[arg-type]
    assert states == {"1": "FAILED", "2": "RUNNING"}
    assert seconds == 0.1
    assert asyncio.run(cluster.preempted_failed(no_answer)("squeue", None)) == (None, None)  # type: ignore[arg-type]


def test_the_plugin_has_what_is_changed() -> None:
    plugin = pytest.importorskip(cluster.PLUGIN)
    assert hasattr(plugin.Executor, "check_active_jobs")
    assert callable(plugin.query_job_status)


@pytest.mark.parametrize(("state", "up"), [("UP", True), ("DOWN", False)])
def test_the_controller_is_asked(
    state: str, up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "scontrol"
    command.write_text(f"#!/bin/sh\necho Slurmctld at host is {state}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cluster.controller_answers() == up
