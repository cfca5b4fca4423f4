"""Vision transformers as feature extractors: maps of several blocks, all at the patch size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.levels import Levels

# Maps at even depths, the last block's included; a CNN's stages number about as many.
LEVELS = 4


class TransformerFeatures(nn.Module):
    """Patch tokens of a timm vision transformer as maps (B, D, h, w), early blocks first.

    Position embeddings are interpolated to the image, which is padded on the right and at the
    bottom to whole patches, so that any size will do. The last map has the network's final
    normalisation, as its own classifier sees it.

    Args:
        network: a transformer without classifier, made by :func:`create`.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.vit: Any = network
        depth, patch = len(network.blocks), max(network.patch_embed.patch_size)
        count = min(LEVELS, depth)
        self.indices = [depth * (level + 1) // count - 1 for level in range(count)]
        self.feature_info = Levels([network.embed_dim] * count, [patch] * count)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised (B, 3, H, W) to (B, D, ceil(H / patch), ceil(W / patch)) a level."""
        maps: list[Tensor] = self.vit.forward_intermediates(
            images, indices=self.indices, norm=False, intermediates_only=True
        )
        last = self.vit.norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return [*maps[:-1], last]


def is_transformer(name: str) -> bool:
    """Whether a timm network is a plain vision transformer, which keeps one resolution."""
    from timm.models import is_model_in_modules

    return bool(is_model_in_modules(name.partition(".")[0], ["vision_transformer", "deit", "eva"]))


def create(timm: Any, name: str, output_stride: int, **options: Any) -> TransformerFeatures:
    """Make a transformer of any image size.

    Args:
        timm: the imported package.
        options: further arguments of ``timm.create_model``.

    Raises:
        UserError: ``output_stride`` is not the patch size, which is a transformer's only stride;
            the network cannot take images of any size.
    """
    sized = {"num_classes": 0, "dynamic_img_size": True, "dynamic_img_pad": True}
    try:
        with torch.device("meta"):
            patch = max(timm.create_model(name, **sized).patch_embed.patch_size)
    except (TypeError, AttributeError) as error:
        raise UserError(
            f"backbone {name!r} cannot take images of any size ({error}): choose another"
        ) from error
    if output_stride != patch:
        raise UserError(
            f"backbone {name!r} has patches of {patch} pixels, so output_stride must be {patch}, "
            f"not {output_stride}"
        )
    return TransformerFeatures(timm.create_model(name, **sized, **options))
