"""Optimisers and learning-rate schedules from the configuration."""

from __future__ import annotations

import math
from typing import Any

import torch

from wsss.config.schema import Training
from wsss.engine.task import Task


def build_optimizer(task: Task, config: Training) -> torch.optim.Optimizer:
    """Group parameters by rate and decay.

    The backbone learns at ``lr``, new layers at ``lr * head_lr``; biases (of normalisation, too)
    at ``bias_lr`` times the rate of the weights beside them and, unless ``bias_decay``, without
    weight decay.
    """
    heads = {id(p) for p in task.heads()}
    groups: dict[tuple[bool, float, float], dict[str, Any]] = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        head = id(parameter) in heads
        lr, decay = config.lr * (config.head_lr if head else 1), config.weight_decay
        if name.endswith("bias"):
            lr, decay = lr * config.bias_lr, decay if config.bias_decay else 0.0
        new = {"params": [], "lr": lr, "base_lr": lr, "weight_decay": decay}
        groups.setdefault((head, lr, decay), new)["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups, key=lambda key: key[0])]
    if config.optimizer == "sgd":
        return torch.optim.SGD(ordered, lr=config.lr, momentum=config.momentum)
    # adam: weight decay is part of the gradient (L2); adamw: it is not.
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(ordered, lr=config.lr)


def schedule_fraction(step: int, total: int, config: Training) -> float:
    """Return the share of training that the schedule sees: it moves every ``schedule_every``
    steps."""
    return (step - step % config.schedule_every) / total


def lr_factor(fraction: float, config: Training) -> float:
    """Return the factor on the base rate at ``fraction`` of training.

    After a linear warm-up from ``warmup_start``: ``poly`` (1 - t)^power (Liu et al., ParseNet,
    2015), ``cosine`` (1 + cos(pi t)) / 2 (Loshchilov & Hutter, SGDR, 2017) or ``constant``.
    """
    if fraction < config.warmup:
        start = config.warmup_start
        if start is None:
            # Never 0: the first step would be lost.
            return max(fraction, 1e-3) / config.warmup
        return start + (1.0 - start) * fraction / config.warmup
    if config.schedule == "poly":
        return float((1.0 - fraction) ** config.power)
    if config.schedule == "cosine":
        return float((1.0 + math.cos(math.pi * fraction)) / 2)
    return 1.0


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to ``factor`` times its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
