"""Wide ResNet-38, the backbone of SEAM, PPC, RTC and of much of the field; timm has none.

Source: Wu, Shen & van den Hengel, "Wider or Deeper: Revisiting the ResNet Model for Visual
Recognition", Pattern Recognition 2019, model A1, dilated to output stride 8 as by Ahn & Kwak, CVPR
2018. Parameters are named as in the PyTorch conversion of the ImageNet weights
``ilsvrc-cls_rna-a1_cls1000_ep-0001`` that visinf/1-stage-wseg publishes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.models.dropout import KeyedDropout
from wsss.models.levels import Levels

NAME = "wide_resnet38"
STRIDE = 8
# Of ImageNet's RGB; the weights' own classifier is of no use here.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEADS = ("linear1000.", "fc8.", "fc.")


class Widths(NamedTuple):
    """Channels of the stages; those of the tests are narrower."""

    stem: int = 64
    second: int = 128
    third: int = 256
    fourth: int = 512
    fifth: int = 1024
    sixth: int = 2048
    seventh: int = 4096


class _Block(nn.Module):
    """Two 3x3 convolutions before the addition, each behind normalisation and ReLU."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        first, second = dilations
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, hidden, 3, stride, first, first, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(hidden)
        self.conv_branch2b1 = nn.Conv2d(hidden, outputs, 3, 1, second, second, bias=False)
        self.conv_branch1 = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if inputs != outputs or stride != 1
            else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the normalised input, which is what later layers tap."""
        tap = F.relu(self.bn_branch2a(x))
        residual = self.conv_branch2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(tap))))
        # The projection sees the normalised input, the identity the bare one.
        return (x if self.conv_branch1 is None else self.conv_branch1(tap)) + residual, tap


class _Bottleneck(nn.Module):
    """1x1 to a quarter, dilated 3x3 to a half, 1x1; channels drop out before the last two."""

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        quarter, half = outputs // 4, outputs // 2
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, quarter, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(quarter)
        self.dropout_2b1 = KeyedDropout(dropout, channels=True)
        self.conv_branch2b1 = nn.Conv2d(quarter, half, 3, 1, dilation, dilation, bias=False)
        self.bn_branch2b2 = nn.BatchNorm2d(half)
        self.dropout_2b2 = KeyedDropout(dropout, channels=True)
        self.conv_branch2b2 = nn.Conv2d(half, outputs, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and the normalised input."""
        tap = F.relu(self.bn_branch2a(x))
        x = F.relu(self.bn_branch2b1(self.conv_branch2a(tap)))
        x = F.relu(self.bn_branch2b2(self.conv_branch2b1(self.dropout_2b1(x))))
        return self.conv_branch1(tap) + self.conv_branch2b2(self.dropout_2b2(x)), tap


# Attribute, first of a stage whose normalised input is a feature map.
_BLOCKS = (
    *("b2", "b2_1", "b2_2", "b3", "b3_1", "b3_2"),
    *("b4", "b4_1", "b4_2", "b4_3", "b4_4", "b4_5", "b5", "b5_1", "b5_2", "b6", "b7"),
)
_TAPPED = ("b3", "b4", "b5", "b6")


class WideResNet38(nn.Module):
    """Five maps: the normalised inputs of b3 to b6 (known as conv2 to conv5) and conv6.

    Strides 2, 4, 8, 8, 8. ``freeze_levels: 1`` freezes the first convolution and the stage of 128
    channels, as PSA and its successors do.
    """

    def __init__(self, widths: Widths | None = None) -> None:
        super().__init__()
        w = widths or Widths()
        self.conv1a = nn.Conv2d(3, w.stem, 3, padding=1, bias=False)
        self.b2 = _Block(w.stem, w.second, w.second, 2)
        self.b2_1 = _Block(w.second, w.second, w.second)
        self.b2_2 = _Block(w.second, w.second, w.second)
        self.b3 = _Block(w.second, w.third, w.third, 2)
        self.b3_1 = _Block(w.third, w.third, w.third)
        self.b3_2 = _Block(w.third, w.third, w.third)
        self.b4 = _Block(w.third, w.fourth, w.fourth, 2)
        for number in range(1, 6):
            self.add_module(f"b4_{number}", _Block(w.fourth, w.fourth, w.fourth))
        self.b5 = _Block(w.fourth, w.fourth, w.fifth, dilations=(1, 2))
        self.b5_1 = _Block(w.fifth, w.fourth, w.fifth, dilations=(2, 2))
        self.b5_2 = _Block(w.fifth, w.fourth, w.fifth, dilations=(2, 2))
        self.b6 = _Bottleneck(w.fifth, w.sixth, 4, 0.3)
        self.b7 = _Bottleneck(w.sixth, w.seventh, 4, 0.5)
        self.bn7 = nn.BatchNorm2d(w.seventh)
        channels = [w.second, w.third, w.fourth, w.fifth, w.seventh]
        self.feature_info = Levels(channels, [2, 4, 8, 8, 8])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised (B, 3, H, W) to five maps (B, D, h, w), finest first."""
        x, maps = self.conv1a(images), []
        for name in _BLOCKS:
            x, tap = self.get_submodule(name)(x)
            if name in _TAPPED:
                maps.append(tap)
        return [*maps, F.relu(self.bn7(x))]


def create(output_stride: int) -> WideResNet38:
    """Make the network; any output stride but 8 is a :class:`UserError`."""
    if output_stride != STRIDE:
        raise UserError(
            f"backbone {NAME!r} has output stride {STRIDE} alone, not {output_stride}: set it"
        )
    return WideResNet38()


def without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the classifier of the 1000 ImageNet classes."""
    return {name: value for name, value in state.items() if not name.startswith(HEADS)}
