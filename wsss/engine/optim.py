"""Optimisers and learning-rate schedules from the configuration."""

from __future__ import annotations

import math

import torch

from wsss.config.schema import Training
from wsss.engine.task import Task


def build_optimizer(task: Task, config: Training) -> torch.optim.Optimizer:
    """Two groups: the backbone at ``lr``, new layers at ``lr * head_lr``."""
    heads = {id(p) for p in task.heads()}
    trained = [p for p in task.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in heads], "lr": config.lr},
        {"params": [p for p in trained if id(p) in heads], "lr": config.lr * config.head_lr},
    ]
    groups = [group for group in groups if group["params"]]
    for group in groups:
        group["base_lr"] = group["lr"]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def lr_factor(fraction: float, config: Training) -> float:
    """Return the factor on the base rate at ``fraction`` of training.

    After a linear warm-up: ``poly`` (1 - t)^power (Liu et al., ParseNet, 2015), ``cosine``
    (1 + cos(pi t)) / 2 (Loshchilov & Hutter, SGDR, 2017) or ``constant``.
    """
    if fraction < config.warmup:
        # Never 0: the first step would be lost.
        return max(fraction, 1e-3) / config.warmup
    if config.schedule == "poly":
        return float((1.0 - fraction) ** config.power)
    if config.schedule == "cosine":
        return float((1.0 + math.cos(math.pi * fraction)) / 2)
    return 1.0


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to ``factor`` times its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
