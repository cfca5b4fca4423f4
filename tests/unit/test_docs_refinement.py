"""The script that trains RTC's refinement alone."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import load_script
from wsss.artifacts import save_json
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.methods.rtc import Rtc
from wsss.networks.method import build_method


@pytest.fixture
def refinement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, its folder moved to a temporary place."""
    module = load_script("docs/refinement.py")
    monkeypatch.setattr(module, "KEPT", tmp_path)
    return module


def test_each_copy_learns_from_its_losses_alone(
    refinement: ModuleType, tiny_raw: dict[str, object]
) -> None:
    top = {
        "method": {"name": "rtc", "params": {"view_size": 32}},
        "backbone": {"weights": "random"},
    }
    method = build_method(Params(overlay(tiny_raw, top)).base, 3, False)
    assert isinstance(method, Rtc)
    copies = {name: copy.deepcopy(method.crr) for name in refinement.COPIES}
    batch = {"image": torch.rand(2, 3, 64, 64), "label": torch.tensor([[1, 0, 1], [0, 1, 0]])}
    losses = refinement.step(method.eval(), copies, batch)
    both, ecr, low, _, wide = losses.values()
    assert ecr != wide
    assert ecr > 0
    assert low > 0
    torch.testing.assert_close(both, ecr + low)
    both.backward()
    assert all(p.grad is not None for p in copies["ecr and min, as RTC"].parameters())
    assert all(p.grad is None for p in [*method.parameters(), *copies["ecr"].parameters()])


def test_the_table_is_the_mean_over_seeds(refinement: ModuleType, tmp_path: Path) -> None:
    assert refinement.table() == ""
    for seed, miou in enumerate((0.40, 0.44)):
        points = {str(number): [miou, 0.2] for number in refinement.STEPS}
        facts = {"seed": seed, "images": 7, "machine": "m", "plain": [0.5, 0.3]}
        found = {
            "with the network": [miou, 0.1],
            "copies": dict.fromkeys(refinement.COPIES, points),
        }
        save_json(tmp_path / f"seed{seed}.json", {**facts, **found})
    table = refinement.table()
    assert "| learns from ecr | 42.0 (0.20) |" in table
    assert "Plain CAMs: 50.0 (0.30)" in table
    assert "7 images of `tune`, seeds 0, 1" in table
