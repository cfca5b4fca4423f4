"""Batch normalisation of pooled features when the batch is a single image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.models.sync_norm import is_synchronised


def allow_single_values(network: nn.Module) -> None:
    """Let the batch normalisation inside ``network`` meet one value a channel.

    That is what a pooled map of a single image holds (image pooling, split attention). It has no
    batch statistics, and torch raises; here it is normalised by the running ones, as at
    inference, and leaves them as they are. Any larger input is normalised as usual.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_before)
            module.register_forward_hook(_after)


def _single(module: nn.Module, inputs: tuple[Any, ...]) -> bool:
    if is_synchronised(module):  # it meets those of other processes, too
        return False
    x: Tensor = inputs[0]
    tracked = getattr(module, "running_mean", None) is not None
    return tracked and x.numel() == x.shape[1]


def _before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    if module.training and _single(module, inputs):
        module.training = False
        module.single = True  # type: ignore[assignment]


def _after(module: nn.Module, _inputs: tuple[Any, ...], _output: Any) -> None:
    if getattr(module, "single", False):
        module.training = True
        module.single = False  # type: ignore[assignment]
