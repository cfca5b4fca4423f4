"""What processes tell each other, and normalisation over all of them: three of them check it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.conftest import ROOT
from wsss.distributed import collectives
from wsss.distributed.group import LostPeerError
from wsss.models.sync_norm import synchronise


def test_three_processes_agree() -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.unit.ranks_program"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_one_process_keeps_its_tensors() -> None:
    x = torch.rand(3, 2, requires_grad=True)
    assert collectives.gathered(x) is x
    assert collectives.total(x) is x
    assert collectives.mine(x) is x
    assert collectives.host_table([1]) == [[1]]
    assert collectives.host_texts(["a"]) == ["a"]


def test_a_full_gpu_is_no_lost_peer() -> None:
    with pytest.raises(torch.OutOfMemoryError), collectives._together():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(LostPeerError) as lost, collectives._together():
        raise RuntimeError("Connection closed by peer")
    assert "closed by peer" in str(lost.value.__cause__)


def test_other_kinds_of_normalisation_are_named() -> None:
    with pytest.raises(TypeError, match="0 is a BatchNorm1d"):
        synchronise(nn.Sequential(nn.BatchNorm1d(3)))
