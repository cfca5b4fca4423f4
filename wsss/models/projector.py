"""The projector of class tokens, and copies of it that no gradient reaches."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Projector(nn.Module):
    """The head of DINO (Caron et al., "Emerging Properties in Self-Supervised Vision
    Transformers", ICCV 2021, section 3.1): three layers, a unit vector, directions of length 1.

    The result is not normalised: each of its numbers is a cosine.

    Args:
        dim: of the class token.
        hidden: of both hidden layers.
        bottleneck: of the unit vector.
        out: number of directions.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        # Default initialisation: the published code leaves these directions as they start.
        self.directions = nn.Linear(bottleneck, out, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., dim) to (..., out) cosines."""
        point = F.normalize(self.layers(tokens), dim=-1)
        return F.linear(point, F.normalize(self.directions.weight, dim=-1).to(point.dtype))


def frozen_copy(module: Module) -> Module:
    """Return a copy whose parameters are buffers: saved with it, never trained."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for name in list(part._parameters):
            value = part._parameters.pop(name)
            part.register_buffer(name, None if value is None else value.detach())
    return twin


@torch.no_grad()
def follow(twin: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move a frozen copy towards its origin: momentum * copy + (1 - momentum) * origin."""
    own = dict(twin.named_buffers())
    for name, value in module.named_parameters():
        own[name].mul_(momentum).add_(value.detach(), alpha=1 - momentum)
