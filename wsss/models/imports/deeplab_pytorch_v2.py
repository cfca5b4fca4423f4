"""DeepLabV2 with ResNet-101 of deeplab-pytorch, ``deeplabv2_resnet101_msc-vocaug*.pth``.

Source: the published code (kazuto1011/deeplab-pytorch), which holds the networks of Chen et al.,
"DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
Connected CRFs", TPAMI 2017, in Caffe's geometry. Its input is BGR in 0..255 less a mean. Many
weakly supervised methods publish their segmentation networks in this layout.

The layout is that of the published code; it has not been tried on a published file. Its own test
is one pass whose logits are the maximum over scales 1, 0.75 and 0.5.
"""

from __future__ import annotations

import re

from torch import Tensor

from wsss.data.voc import CLASSES
from wsss.models.imports.keys import Rule
from wsss.models.imports.layout import Layout

_UNIT = {
    "reduce.conv": "conv1",
    "reduce.bn": "bn1",
    "conv3x3.conv": "conv2",
    "conv3x3.bn": "bn2",
    "increase.conv": "conv3",
    "increase.bn": "bn3",
    "shortcut.conv": "downsample.0",
    "shortcut.bn": "downsample.1",
}
_STEM = {"conv": "conv1", "bn": "bn1"}
# Of blue, green and red in 0..255.
_MEAN_BGR = (104.008, 116.669, 122.675)


def _block(match: re.Match[str]) -> str:
    # Layer 1 is the stem there; blocks count from 1.
    stage, block, unit, leaf = int(match[1]) - 1, int(match[2]) - 1, _UNIT[match[3]], match[4]
    return f"backbone.network.layer{stage}.{block}.{unit}.{leaf}"


_RULES: list[Rule] = [
    (
        r"(?:base\.)?layer1\.conv1\.(conv|bn)\.(\w+)",
        lambda m: f"backbone.network.{_STEM[m[1]]}.{m[2]}",
    ),
    (
        r"(?:base\.)?layer([2-5])\.block(\d+)\.(" + "|".join(map(re.escape, _UNIT)) + r")\.(\w+)",
        _block,
    ),
    (r"(?:base\.)?aspp\.c(\d)\.(weight|bias)", r"classifiers.\1.\2"),
]


def _to_rgb(state: dict[str, Tensor]) -> None:
    key = "backbone.network.conv1.weight"
    if key in state:
        state[key] = state[key].flip(1)


LAYOUT = Layout(
    title="DeepLabV2, ResNet-101, of deeplab-pytorch",
    source="kazuto1011/deeplab-pytorch, libs/models and configs/voc12.yaml",
    stage="segment",
    classes=CLASSES,
    background=True,
    settings={
        "backbone": {"name": "resnet101"},
        "segment": {
            "net": "deeplabv2",
            "output_stride": 8,
            "geometry": "caffe",
            # Stated for output stride 16 and doubled at 8.
            "rates": {"deeplabv2": [3, 6, 9, 12]},
        },
    },
    protocol={
        "segment": {"msc": [0.5, 0.75]},
        "predict": {"scales": [1.0], "flip": False},
    },
    rules=_RULES,
    by_class=r"classifiers\.\d+\.(?:weight|bias)",
    # (RGB * 255 - mean) / 1.
    mean=tuple(value / 255 for value in reversed(_MEAN_BGR)),  # type: ignore[arg-type]
    std=(1 / 255,) * 3,
    adapt=_to_rgb,
)
