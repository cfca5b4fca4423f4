"""Resumable training state: tensors in safetensors, the rest in its metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss.artifacts import load_weights, save_weights


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer/{index}/{name}": torch.as_tensor(value)
        for index, slots in state.items()
        for name, value in slots.items()
        if value is not None
    }


def save_state(
    path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, meta: Any
) -> None:
    """Write everything an interrupted run needs to continue as if undisturbed."""
    tensors = _flatten_optimizer(optimizer)
    for prefix, module in modules.items():
        tensors |= {f"{prefix}/{name}": value for name, value in module.state_dict().items()}
    save_weights(path, tensors, meta)


def load_state(
    path: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what :func:`save_state` wrote; returns its metadata."""
    tensors, meta = load_weights(path)
    for prefix, module in modules.items():
        own = {n.removeprefix(f"{prefix}/"): v for n, v in tensors.items() if _under(n, prefix)}
        module.load_state_dict(own)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if _under(name, "optimizer"):
            _, index, slot = name.split("/", 2)
            slots.setdefault(int(index), {})[slot] = value
    full = optimizer.state_dict()
    full["state"] = slots
    optimizer.load_state_dict(full)
    return meta


def _under(name: str, prefix: str) -> bool:
    return name.startswith(f"{prefix}/")
