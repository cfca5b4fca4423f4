"""The bidirectional pyramid against its equations, and the seven maps that it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.config.schema import Backbone as BackboneConfig
from wsss.models.backbones import Backbone, build_backbone
from wsss.models.bifpn import BiFpn, BiFpnLayer, resample
from wsss.models.dropout import KeyedDropPath, set_drop_path, set_keys

SIZES = ((8, 12), (4, 6), (4, 6), (2, 3), (2, 3))


def backbone_of(name: str, stride: int = 16, geometry: Any = "timm") -> Backbone:
    torch.manual_seed(0)
    config = BackboneConfig(name=name, weights="random", allow_download=False)
    return build_backbone(config, stride, True, geometry)


def maps_of(width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, width, *size, generator=generator) for size in SIZES]


@pytest.mark.parametrize("literal", [False, True])
def test_a_layer_is_its_equations(literal: bool) -> None:
    torch.manual_seed(0)
    layer = BiFpnLayer(6, literal).eval()
    for merge in layer.up:
        nn.init.normal_(merge.norm.weight)
        nn.init.normal_(merge.norm.bias)
    p3, p4, p5, p6, p7 = maps_of(6)

    def f(number: int, own: Tensor, other: Tensor) -> Tensor:
        mix = layer.down[number].mix
        return F.silu(F.conv2d(torch.cat([own, other], 1), mix.weight, mix.bias))

    def g(number: int, x: Tensor) -> Tensor:
        part = layer.up[number]
        x = F.conv2d(x, part.mix.weight) / (1 + 1e-5) ** 0.5
        return F.silu(x * part.norm.weight[:, None, None] + part.norm.bias[:, None, None])

    def up(x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    def down(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, stride=2, padding=1)

    m6 = f(3, p6, p7)
    m5 = f(2, p5, up(m6, (4, 6)))
    m4 = f(1, p4, p5 if literal else m5)
    o3 = f(0, p3, up(m4, (8, 12)))
    o4 = g(0, p4 + m4 + down(o3))
    o5 = g(1, p5 + m5 + o4)
    o6 = g(2, p6 + m6 + down(o5))
    o7 = g(3, p7 + o6)
    for got, expected in zip(layer(maps_of(6)), (o3, o4, o5, o6, o7), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_resampling_keeps_equal_grids_and_reaches_odd_ones() -> None:
    maps = torch.rand(1, 2, 7, 9)
    assert resample(maps, maps) is maps
    coarse = torch.rand(1, 2, 4, 5)
    torch.testing.assert_close(resample(maps, coarse), F.avg_pool2d(maps, 3, 2, 1))
    assert resample(maps, torch.rand(1, 2, 3, 3)).shape[2:] == (3, 3)
    assert resample(coarse, maps).shape == maps.shape


def test_layers_start_as_copies_and_logits_are_linear_in_the_features() -> None:
    network = BiFpn(backbone_of("tf_efficientnet_lite0", 32), 3, 8, 3, False).eval()
    first, second, last = network.layers
    for name, value in last.state_dict().items():
        assert torch.equal(value, first.state_dict()[name])
        assert torch.equal(value, second.state_dict()[name])
    assert not hasattr(last, "up")
    images = torch.rand(1, 3, 64, 96)
    dense = network.dense(images)
    assert dense.features.shape == (1, 8, 8, 12)
    assert dense.aligned
    # As if the features were brought to the image's size and classified there.
    spread = F.interpolate(dense.features, (64, 96), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(images), network.classifier(spread), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("tf_efficientnet_lite0", [16, 24, 40, 80, 112, 192, 320]),
        ("tf_efficientnet_b1", [16, 24, 40, 80, 112, 192, 320]),
        ("tf_efficientnet_b3", [24, 32, 48, 96, 136, 232, 384]),
        ("tf_efficientnet_b5", [24, 40, 64, 128, 176, 304, 512]),
        ("tf_efficientnet_b7", [32, 48, 80, 160, 224, 384, 640]),
    ],
)
def test_taps_of_efficientnets_are_their_seven_stages(name: str, channels: list[int]) -> None:
    import wsss.torchvision_shim  # noqa: F401

    import timm  # isort: skip  (after the shim)

    with torch.device("meta"):
        network = timm.create_model(name, features_only=True, output_stride=32)
        backbone = Backbone(network, (0.5,) * 3, (0.5,) * 3)
        assert backbone.tap_channels == channels


def test_taps_have_the_strides_of_the_paper() -> None:
    backbone = backbone_of("tf_efficientnet_lite0", 32).eval()
    images = torch.rand(1, 3, 64, 96)
    taps = backbone.taps(images)
    assert [64 // t.shape[2] for t in taps] == [2, 4, 8, 16, 16, 32, 32]
    assert [t.shape[1] for t in taps] == backbone.tap_channels
    for level, reduction in zip(backbone(images), backbone.reductions, strict=True):
        assert any(torch.equal(level, tap) for tap in taps), reduction
    assert not any(stage._forward_hooks for stage in backbone._seven_stages())


def test_other_networks_repeat_their_levels() -> None:
    backbone = backbone_of("test_resnet.r160_in1k").eval()
    images = torch.rand(1, 3, 64, 64)
    levels, taps = backbone(images), backbone.taps(images)
    chosen = [0, 1, 2, 3, 3, 4, 4]
    assert all(torch.equal(levels[i], tap) for i, tap in zip(chosen, taps, strict=True))
    assert backbone.tap_channels == [backbone.channels[i] for i in chosen]


def test_asking_for_channels_leaves_statistics_and_mode_alone() -> None:
    backbone = backbone_of("tf_efficientnet_lite0").train()
    before = {n: b.clone() for n, b in backbone.named_buffers()}
    _ = backbone.tap_channels
    assert backbone.training
    assert all(torch.equal(before[n], b) for n, b in backbone.named_buffers())


def test_undilated_efficientnets_keep_their_stride_and_size() -> None:
    images = torch.rand(1, 3, 64, 64)
    dilated = backbone_of("tf_efficientnet_lite0").eval()
    plain = backbone_of("tf_efficientnet_lite0", 16, "undilated").eval()
    convolutions = [m for m in plain.modules() if isinstance(m, nn.Conv2d)]
    assert all(conv.dilation == (1, 1) for conv in convolutions)
    assert plain(images)[-1].shape == dilated(images)[-1].shape
    assert not torch.allclose(plain(images)[-1], dilated(images)[-1])
    torch.testing.assert_close(plain(images)[2], dilated(images)[2])


def test_whole_samples_skip_a_residual_branch() -> None:
    network = backbone_of("tf_efficientnet_lite0").network
    set_drop_path(network, 0.9)
    paths = [m for m in network.modules() if isinstance(m, KeyedDropPath)]
    path = paths[-1].train()
    set_keys(network, torch.arange(200))
    got = path(torch.ones(200, 3, 2, 2))
    kept = got[:, 0, 0, 0] > 0
    assert torch.equal(got, kept[:, None, None, None].float().expand_as(got) / (1 - path.rate))
    assert 0 < int(kept.sum()) < 80
    assert torch.equal(path.eval()(torch.ones(2, 1)), torch.ones(2, 1))
