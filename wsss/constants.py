"""Constant tensors, kept on the device that computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# A few for each kind of step; a process that meets ever new values forgets the oldest.
_KEPT = 256


def constant(values: Sequence[Any], like: Tensor) -> Tensor:
    """Return ``values``, numbers or equal sequences of them, as a tensor of the kind of ``like``.

    What ``like.new_tensor`` gives, but a device waits for the host's list the first time only.
    The result is shared: never change it in place.
    """
    return _made(_frozen(values), like.device, like.dtype)


@lru_cache(maxsize=_KEPT)
def _made(values: tuple[Any, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    # It outlives the mode in which it is first asked for, and may be trained with in another.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _frozen(values: Any) -> Any:
    return tuple(map(_frozen, values)) if isinstance(values, list | tuple) else values
