"""A segmentation network on a bidirectional feature pyramid."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.models.backbones import Backbone
from wsss.models.dense import Dense
from wsss.models.norms import allow_single_values

# The finest of the backbone's seven maps p1..p7 that the pyramid has.
_FINEST = 2
LEVELS = 5


class Fuse(nn.Module):
    """Concatenates two maps and mixes them: biased 1x1 convolution, swish."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * width, width, 1)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Map two (B, D, h, w), the second at any grid, to (B, D, h, w)."""
        joined = torch.cat([own, resample(other, own)], dim=1)
        return F.silu(self.mix(joined))


class Merge(nn.Module):
    """Mixes a sum of maps: 1x1 convolution, batch normalisation, swish."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, summed: Tensor) -> Tensor:
        """Map (B, D, h, w) to (B, D, h, w)."""
        return F.silu(self.norm(self.mix(summed)))


class BiFpnLayer(nn.Module):
    """One pass down and up the pyramid p3..p7.

    Source: MuSCLe (Yuan et al., arXiv:2201.07021), official code, after Tan, Pang & Le
    ("EfficientDet", CVPR 2020, section 3.3), without its weights of the inputs. With f
    :class:`Fuse` and g :class:`Merge`,

        m6 = f(p6, p7)   m5 = f(p5, m6)   m4 = f(p4, m5)   o3 = f(p3, m4)
        o4 = g(p4 + m4 + o3)   o5 = g(p5 + m5 + o4)   o6 = g(p6 + m6 + o5)   o7 = g(p7 + o6)

    Args:
        width: channels of every map.
        literal: m4 = f(p4, p5), as in the official code, which loses the link from m5.
    """

    def __init__(self, width: int, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.down = nn.ModuleList(Fuse(width) for _ in range(LEVELS - 1))
        self.up = nn.ModuleList(Merge(width) for _ in range(LEVELS - 1))

    def finest(self, maps: list[Tensor]) -> list[Tensor]:
        """Return o3, m4, m5 and m6 of p3..p7 (B, D, h_i, w_i)."""
        p3, p4, p5, p6, p7 = maps
        m6 = self.down[3](p6, p7)
        m5 = self.down[2](p5, m6)
        m4 = self.down[1](p4, p5 if self.literal else m5)
        return [self.down[0](p3, m4), m4, m5, m6]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map p3..p7 to o3..o7, of the same shapes."""
        found, *middle = self.finest(maps)
        out = [found]
        for own, between, merge in zip(maps[1:], [*middle, None], self.up, strict=True):
            summed = own + resample(out[-1], own)
            out.append(merge(summed if between is None else summed + between))
        return out


def resample(maps: Tensor, like: Tensor) -> Tensor:
    """Bring maps (B, D, h, w) to the grid of others, bilinearly; to coarser ones after a 3x3
    average at stride 2."""
    size = like.shape[2:]
    if maps.shape[2:] == size:
        return maps
    if maps.shape[2] > size[0]:
        maps = F.avg_pool2d(maps, 3, 2, 1)
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


class BiFpn(nn.Module):
    """Features of the stages p3..p7, several pyramid layers, one 1x1 classifier.

    Source: segmentation network of MuSCLe (official code: EfficientNet-B7, 256 channels, three
    layers that start as copies of each other).

    Args:
        backbone: any, see :meth:`wsss.models.backbones.Backbone.taps`.
        num_classes: background included.
        width: channels of the pyramid and of the dense features.
        layers: number of pyramid layers.
        literal: see :class:`BiFpnLayer`.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, width: int, layers: int, literal: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(source, width, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU())
            for source in backbone.tap_channels[_FINEST:]
        )
        first = BiFpnLayer(width, literal)
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))
        # Nothing reads what the last layer passes up.
        del self.layers[-1].up
        self.classifier = nn.Conv2d(width, num_classes, 1)
        allow_single_values(self.lateral)
        allow_single_values(self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) RGB in [0, 1] to logits (B, classes, H, W)."""
        return self.dense(images).logits

    def dense(self, images: Tensor) -> Dense:
        """Return logits at the image's size and the features p3 at stride 8.

        The official code brings the features to the image's size and classifies those, which
        gives the same logits.
        """
        taps = self.backbone.taps(images)[_FINEST:]
        maps = [lateral(tap) for lateral, tap in zip(self.lateral, taps, strict=True)]
        *earlier, last = self.layers
        for layer in earlier:
            maps = layer(maps)
        assert isinstance(last, BiFpnLayer)
        features = last.finest(maps)[0]
        logits = F.interpolate(
            self.classifier(features), images.shape[2:], mode="bilinear", align_corners=True
        )
        return Dense(logits, features, aligned=True)
