"""Dropout whose mask is a function of (sample key, layer), not of a global generator.

A resumed, sharded or multi-process run then draws the masks that an undisturbed one draws.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsss.randomness import keyed_uniform


class KeyedDropout(nn.Module):
    """Dropout of single values or, with ``channels``, of whole channels.

    Before a training forward the caller sets the batch's keys with :func:`set_keys`.
    """

    keys: Tensor | None

    def __init__(self, rate: float, channels: bool = False) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate {rate} is outside [0, 1)")
        self.rate = rate
        self.channels = channels
        self.layer = 0
        self.keys = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop and rescale (B, ...); identity in eval mode."""
        if not self.training or self.rate == 0:
            return x
        if self.keys is None or len(self.keys) != len(x):
            raise RuntimeError("KeyedDropout needs one key a sample: call set_keys before forward")
        shape = self._shape(x)
        count = int(torch.Size(shape[1:]).numel())
        uniform = keyed_uniform(self.keys, self.layer, count).view(shape)
        keep = (uniform >= self.rate).to(x.dtype) / (1 - self.rate)
        return x * keep.view(*shape, *(1,) * (x.dim() - len(shape)))

    def _shape(self, x: Tensor) -> torch.Size:
        """Leading axes of ``x`` whose entries are dropped independently."""
        return x.shape[:2] if self.channels else x.shape

    def extra_repr(self) -> str:
        """Show the rate and the kind."""
        return f"rate={self.rate}, channels={self.channels}"


class KeyedDropPath(KeyedDropout):
    """Leaves out the residual branch of whole samples (Huang et al., ECCV 2016)."""

    def _shape(self, x: Tensor) -> torch.Size:
        return x.shape[:1]


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Let each residual branch of a timm network be left out, the i-th of n at ``rate`` i / n.

    Source: drop connect of EfficientNet (Tan & Le, ICML 2019, official code). Blocks are those
    with a ``drop_path``; a network without any stays as it is.
    """
    blocks = [m for m in network.modules() if isinstance(getattr(m, "drop_path", None), nn.Module)]
    for index, block in enumerate(blocks):
        block.drop_path = KeyedDropPath(rate * index / len(blocks))


def replace_dropout(module: nn.Module) -> None:
    """Swap every ``nn.Dropout`` and ``nn.Dropout2d`` inside ``module`` for a keyed one."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Dropout | nn.Dropout2d):
            if child.p == 0:
                continue  # draws nothing, and timm's attention reads its rate
            setattr(module, name, KeyedDropout(child.p, isinstance(child, nn.Dropout2d)))
        else:
            replace_dropout(child)


def set_keys(module: nn.Module, keys: Tensor) -> None:
    """Give every keyed layer the batch's (B,) keys and its own layer number."""
    layers = (m for m in module.modules() if isinstance(m, KeyedDropout))
    for number, layer in enumerate(layers):
        layer.keys, layer.layer = keys, number
