"""Where a ResNet's strides and dilations sit: published networks differ where weights do not.

The same tensors give other features when a stride moves by one convolution, so that weights are
only worth something in the geometry they were trained in.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from wsss.errors import UserError

Geometry = Literal["timm", "undilated", "caffe"]
_STAGES = ("layer1", "layer2", "layer3", "layer4")


def set_geometry(network: nn.Module, geometry: Geometry, name: str) -> None:
    """Move the strides and dilations of a timm network in place.

    Args:
        network: a timm network, already at its output stride.
        geometry: ``timm`` leaves it alone: strides in the 3x3 convolutions, and where a stride
            was taken away, everything behind it dilates. ``undilated``: strides are taken away and
            nothing dilates, as in the ResNet-50 of IRNet (Ahn et al., CVPR 2019, published
            code) and the EfficientNet of MuSCLe (official code). ``caffe``: the ResNet of He et
            al. (CVPR 2016) as DeepLab (Chen et al., TPAMI 2017) uses it: strides in the first 1x1
            convolution of a stage, the first block of a dilated stage as dilated as the others,
            and a max pooling that rounds sizes up.
        name: what errors call the network.

    Raises:
        UserError: the network is no ResNet (nor, for ``undilated``, an EfficientNet), or for
            ``caffe``, one without bottlenecks.
    """
    if geometry == "timm":
        return
    blocks = getattr(network, "blocks", None)
    if geometry == "undilated" and isinstance(blocks, nn.Sequential):
        _undilate(blocks)
        return
    stages = [stage for key in _STAGES if (stage := getattr(network, key, None)) is not None]
    pool = getattr(network, "maxpool", None)
    if len(stages) != len(_STAGES) or not isinstance(pool, nn.MaxPool2d):
        raise UserError(f"geometry {geometry!r} is for ResNets, not for {name!r}")
    if geometry == "undilated":
        for stage in stages:
            _undilate(stage)
        return
    pool.ceil_mode = True
    dilation = 1
    for index, stage in enumerate(stages):
        dilation = _caffe_stage(stage, dilation, 1 if index == 0 else 2, name)


def _undilate(stage: nn.Module) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
            _dilate(module, 1)


def _caffe_stage(stage: nn.Module, dilation: int, nominal: int, name: str) -> int:
    """Rearrange one stage and return the dilation its convolutions have.

    Args:
        stage: bottleneck blocks.
        dilation: of the stage before.
        nominal: stride of the stage in a classification network.
    """
    blocks = list(stage.children())
    if not all(_is_bottleneck(block) for block in blocks):
        raise UserError(f"geometry 'caffe' needs bottleneck blocks, unlike {name!r}")
    first: dict[str, nn.Conv2d] = dict(blocks[0].named_children())  # type: ignore[arg-type]
    stride = first["conv2"].stride[0]
    if stride < nominal:
        dilation *= nominal
    first["conv1"].stride, first["conv2"].stride = (stride, stride), (1, 1)
    for block in blocks:
        conv = block.get_submodule("conv2")
        assert isinstance(conv, nn.Conv2d)
        _dilate(conv, dilation)
    return dilation


def _is_bottleneck(block: nn.Module) -> bool:
    convs = [getattr(block, name, None) for name in ("conv1", "conv2", "conv3")]
    sizes = [conv.kernel_size for conv in convs if isinstance(conv, nn.Conv2d)]
    return sizes == [(1, 1), (3, 3), (1, 1)]


def _dilate(conv: nn.Conv2d, dilation: int) -> None:
    """Set the dilation and the padding that keeps the size."""
    conv.dilation = (dilation, dilation)
    if conv.kernel_size[0] > 1:
        conv.padding = (dilation * (conv.kernel_size[0] // 2),) * 2
