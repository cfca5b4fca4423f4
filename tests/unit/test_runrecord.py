"""What a job notes of itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wsss.runcurve import CostCurve
from wsss.runrecord import record


def noted(folder: Path) -> dict[str, Any]:
    with record(folder / "maps.zip", "cam", shard=1) as facts:
        facts["continued_at"] = 3
    found: dict[str, Any] = json.loads((folder / "maps.run.json").read_text())
    return found


def fake_torch(used: bool) -> SimpleNamespace:
    """What asks for a name takes the GPU into use, as the real one does."""
    state = SimpleNamespace(used=used)

    def name() -> str:
        state.used = True
        return "a GPU"

    cuda = SimpleNamespace(
        is_initialized=lambda: state.used,
        is_available=lambda: True,
        max_memory_allocated=lambda: 300 * 2**20,
        get_device_name=name,
    )
    return SimpleNamespace(cuda=cuda)


def test_a_job_without_a_gpu_says_nothing_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    facts = noted(tmp_path)
    assert (facts["stage"], facts["shard"], facts["continued_at"]) == ("cam", 1, 3)
    assert facts["peak_rss_mb"] > 1
    assert "cuda_peak_mb" not in facts
    # There is one, but the job did not use it.
    monkeypatch.setitem(sys.modules, "torch", fake_torch(used=False))
    facts = noted(tmp_path)
    assert "a GPU" in facts["machine"]
    assert "cuda_peak_mb" not in facts


def test_a_job_on_a_gpu_says_what_it_took_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(used=True))
    assert noted(tmp_path)["cuda_peak_mb"] == 300.0
    assert CostCurve().flush(1)["cuda_peak_mb"] == 300.0
