"""Numbers of the host as tensors of the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def constant(values: Sequence[Any], like: Tensor) -> Tensor:
    """Return nested ``values`` as a tensor of the type and on the device of ``like``.

    ``like.new_tensor`` would keep the host waiting until the device has all that came before.
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)
