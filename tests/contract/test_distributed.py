"""One process with a batch and two that share it: the same losses, gradients and state.

In double precision, so that the tolerances are those of rounding: nothing else may differ.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import ROOT
from wsss.artifacts import load_weights
from wsss.methods import method_names

TASKS = ["task-segment", "task-segment-balanced", "task-affinity", "task-irnet"]
# Relative; of gradients, of all of them together.
LOSS, GRADIENT, STATE = 1e-9, 1e-7, 1e-6


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces of all methods and tasks, as `ranks.py` writes them."""
    out = tmp_path_factory.mktemp("ranks")
    program = ["-m", "tests.contract.ranks", str(out)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command in (program, [*torchrun, *program]):
        done = subprocess.run(
            [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.parametrize("name", [*method_names(), *TASKS])
def test_two_processes_train_as_one(runs: Path, name: str) -> None:
    one, first, second = (
        load_weights(runs / name / f"rank{rank}of{count}.safetensors")[0]
        for rank, count in ((0, 1), (0, 2), (1, 2))
    )
    assert one.keys() == first.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    for key, value in part(one, "/loss/").items():
        assert float((first[key] - value).abs()) <= LOSS * max(1.0, float(value.abs())), key
    for phase in {key.split("/")[0] for key in part(one, "/grad/")}:
        expected, got = (part(run, f"{phase}/grad/") for run in (one, first))
        norm = sum(float(value.square().sum()) for value in expected.values()) ** 0.5
        apart = sum(float((got[k] - v).square().sum()) for k, v in expected.items()) ** 0.5
        assert norm > 0
        assert apart <= GRADIENT * norm, phase
    for key, value in part(one, "/state/").items():
        torch.testing.assert_close(first[key], value, rtol=STATE, atol=STATE, msg=key)


@pytest.mark.parametrize("name", [*method_names(), *TASKS])
def test_every_term_takes_part(runs: Path, name: str) -> None:
    """What is 0 everywhere would be equal whatever the processes did."""
    found: dict[str, float] = {}
    for key, value in part(load_weights(runs / name / "rank0of2.safetensors")[0], "/loss/").items():
        term = key.rsplit("/", 1)[1]
        found[term] = max(found.get(term, 0.0), float(value.abs()))
    assert {term for term, value in found.items() if value == 0} == set()


def part(run: dict[str, Tensor], text: str) -> dict[str, Tensor]:
    return {key: value for key, value in run.items() if text in key}
