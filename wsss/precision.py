"""Arithmetic that stays in float32 whatever the autocast around it."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context without autocast on the tensor's device.

    For sums over thousands of cells and differences of nearly equal numbers, which bfloat16's
    eight bits do not hold.
    """
    return torch.autocast(tensor.device.type, enabled=False)
