"""The projector of class tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


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
