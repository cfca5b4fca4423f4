"""A training step does not make the host wait for the GPU."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.contract.ranks import cases, how
from tests.contract.test_methods import config_of
from wsss.engine.device import place
from wsss.engine.loop import train_step
from wsss.engine.optim import build_optimizer
from wsss.engine.task import Progress

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

# Those of the methods whose published losses need no number on the host, and the tasks.
SILENT = ("baseline", "task-affinity", "task-irnet", "task-segment", "task-segment-balanced")


@pytest.mark.parametrize("name", SILENT)
def test_no_step_waits(name: str) -> None:
    make, batch = cases()[name]
    training = config_of("baseline").classify.model_copy(update={"clip": None, "micro_batch": None})
    fit = how(training)
    device, task = torch.device("cuda"), make()
    place(task, fit.compute, device, training=True)
    task.train()
    optimizer = build_optimizer(task, training)

    def step(number: int) -> None:
        progress = Progress(number, 100, 0)
        train_step(task, copy.copy(batch), progress, 0, fit, device, optimizer)

    step(0)  # makes the constants
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
