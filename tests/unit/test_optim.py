"""Parameter groups and the steps at which their rates change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wsss.config import Params
from wsss.config.schema import Training
from wsss.engine.optim import build_optimizer, schedule_fraction
from wsss.engine.task import Task


class Net(Task):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))  # type: ignore[assignment]
        self.head = nn.Conv2d(4, 2, 1)


def training(params: Params, **changes: Any) -> Training:
    base = {"lr": 1e-3, "head_lr": 10.0, "weight_decay": 5e-4}
    return params.base.segment.model_copy(update={**base, **changes})


def rates(optimizer: torch.optim.Optimizer, task: Task) -> dict[str, tuple[float, float]]:
    """Return name -> (rate, decay)."""
    names = {id(p): name for name, p in task.named_parameters()}
    return {
        names[id(p)]: (group["base_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_new_layers_learn_faster(tiny_params: Params, kind: str) -> None:
    task = Net()
    optimizer = build_optimizer(task, training(tiny_params, optimizer=kind))
    assert len(optimizer.param_groups) == 2
    assert optimizer.param_groups[0]["lr"] == 1e-3
    got = rates(optimizer, task)
    assert got == {
        name: (pytest.approx(1e-2 if name.startswith("head") else 1e-3), 5e-4)
        for name, _ in task.named_parameters()
    }


def test_adam_takes_the_decay_into_the_gradient_and_adamw_does_not(tiny_params: Params) -> None:
    """A weight without any gradient: Adam's first step is a full one, AdamW's lr x decay x w."""
    moved = {}
    for kind in ("adam", "adamw"):
        task = Net()
        torch.nn.init.constant_(task.head.weight, 2.0)
        optimizer = build_optimizer(task, training(tiny_params, optimizer=kind, head_lr=1.0))
        for parameter in task.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        moved[kind] = float((2.0 - task.head.weight).mean())
    assert moved["adam"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["adamw"] == pytest.approx(1e-3 * 5e-4 * 2, rel=1e-2, abs=3e-7)


def test_biases_learn_at_their_own_rate_and_decay(tiny_params: Params) -> None:
    """The published recipe: backbone 1, new weights 10, new biases 20 and without decay."""
    task = Net()
    config = training(tiny_params, bias_lr=2.0, bias_decay=False)
    assert rates(build_optimizer(task, config), task) == {
        "backbone.0.weight": (1e-3, 5e-4),
        "backbone.0.bias": (2e-3, 0.0),
        "backbone.1.weight": (1e-3, 5e-4),
        "backbone.1.bias": (2e-3, 0.0),
        "head.weight": (pytest.approx(1e-2), 5e-4),
        "head.bias": (pytest.approx(2e-2), 0.0),
    }


def test_what_is_frozen_is_in_no_group(tiny_params: Params) -> None:
    task = Net()
    task.backbone.requires_grad_(False)
    optimizer = build_optimizer(task, training(tiny_params))
    assert set(rates(optimizer, task)) == {"head.weight", "head.bias"}


def test_the_schedule_moves_every_few_steps(tiny_params: Params) -> None:
    every = training(tiny_params, schedule_every=10)
    assert [schedule_fraction(step, 100, every) for step in (0, 9, 10, 29, 99)] == [
        0.0,
        0.0,
        0.1,
        0.2,
        0.9,
    ]
    each = training(tiny_params, schedule_every=1)
    assert schedule_fraction(37, 100, each) == 0.37


def test_the_momentum_of_statistics_can_be_set() -> None:
    task = Net()
    task.set_bn_momentum(None)
    assert task.backbone[1].momentum == 0.1  # type: ignore[index]
    task.set_bn_momentum(3e-4)
    assert task.backbone[1].momentum == 3e-4  # type: ignore[index]
