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


def test_the_plugin_is_changed_where_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = SimpleNamespace(check_active_jobs=forgets_one)
    monkeypatch.setitem(sys.modules, cluster.PLUGIN, SimpleNamespace(Executor=executor))  # type: ignore[arg-type]
    monkeypatch.setattr(cluster, "controller_answers", lambda: False)
    cluster.watch_patiently()
    assert kept(executor.check_active_jobs) == ["a", "b"]
    monkeypatch.delitem(sys.modules, cluster.PLUGIN)
    cluster.watch_patiently()


def test_the_plugin_has_what_is_changed() -> None:
    plugin = pytest.importorskip(cluster.PLUGIN)
    assert hasattr(plugin.Executor, "check_active_jobs")


@pytest.mark.parametrize(("state", "up"), [("UP", True), ("DOWN", False)])
def test_the_controller_is_asked(
    state: str, up: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "scontrol"
    command.write_text(f"#!/bin/sh\necho Slurmctld at host is {state}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert cluster.controller_answers() == up
