"""Segmentation networks on several backbones, and freezing the first levels of those."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.config.schema import Backbone as BackboneConfig
from wsss.config.schema import Segment
from wsss.engine.optim import build_optimizer
from wsss.errors import UserError
from wsss.models.backbones import Backbone, build_backbone
from wsss.models.deeplabv2 import DeepLabV2
from wsss.models.deeplabv3plus import Aspp, DeepLabV3Plus, low_level
from wsss.models.dropout import set_keys
from wsss.models.norms import allow_single_values
from wsss.models.segmenters import SEGMENTERS, Segmenter
from wsss.networks.segmenter import build_segmenter
from wsss.tasks.segmentation import SegmentationTask

CLASSES = 5
CNNS = ("test_efficientnet.r160_in1k", "test_resnet.r160_in1k")
NETS = sorted(SEGMENTERS)
# Strides of the logits that are not the output stride.
STEPS = {"deeplabv3plus": 4, "bifpn": 1}


def backbone_of(name: str, stride: int) -> Backbone:
    torch.manual_seed(0)
    config = BackboneConfig(name=name, weights="random", allow_download=False)
    return build_backbone(config, stride, True)


def network_of(params: Params, net: str, backbone: Backbone, **changes: Any) -> Segmenter:
    config = params.base.segment.model_copy(update={"width": 16, "low_width": 8, **changes})
    return SEGMENTERS[net](backbone, CLASSES, config)


def test_the_configuration_offers_exactly_the_registered_networks() -> None:
    assert set(get_args(Segment.model_fields["net"].annotation)) == set(SEGMENTERS)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize("stride", [8, 16])
def test_logits_come_at_the_output_stride_or_the_decoders(
    tiny_params: Params, net: str, name: str, stride: int
) -> None:
    network = network_of(tiny_params, net, backbone_of(name, stride)).eval()
    step = STEPS.get(net, stride)
    for height, width in [(64, 96), (50, 71)]:
        logits = network(torch.rand(2, 3, height, width))
        assert logits.shape == (2, CLASSES, -(-height // step), -(-width // step))
        assert logits.isfinite().all()
        dense = network.dense(torch.rand(2, 3, height, width))
        assert dense.logits.shape == logits.shape
        assert dense.features.shape[0] == 2


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("separable", [False, True])
def test_one_image_can_be_a_batch_and_every_parameter_learns(
    tiny_params: Params, net: str, separable: bool
) -> None:
    network = network_of(tiny_params, net, backbone_of(CNNS[0], 16), separable=separable)
    task = SegmentationTask(network).train()
    reached: set[str] = set()
    for count in (1, 2):
        generator = torch.Generator().manual_seed(count)
        batch = {
            "image": torch.rand(count, 3, 64, 64, generator=generator),
            "masks": torch.randint(0, CLASSES, (count, 1, 64, 64), generator=generator),
            "key": torch.arange(count),
        }
        task.zero_grad()
        set_keys(task, batch["key"])
        loss = task.losses(batch, None).total  # type: ignore[arg-type]
        assert loss.isfinite()
        loss.backward()
        for name, parameter in task.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name
                reached |= {name} if parameter.grad.any() else set()
    assert reached == {name for name, _ in task.named_parameters()}


def test_the_pyramid_of_v2_is_a_sum_over_dilated_neighbours(tiny_params: Params) -> None:
    backbone = backbone_of(CNNS[1], 8)
    network = network_of(tiny_params, "deeplabv2", backbone).eval()
    assert isinstance(network, DeepLabV2)
    rates = tiny_params.base.segment.rates.deeplabv2
    images = torch.rand(1, 3, 64, 96)
    features = backbone.eval()(images)[-1]
    expected = torch.zeros(1, CLASSES, *features.shape[2:])
    height, width = features.shape[2:]
    for rate, layer in zip(rates, network.classifiers, strict=True):
        for y in range(height):
            for x in range(width):
                for i in range(3):
                    for j in range(3):
                        v, u = y + (i - 1) * rate, x + (j - 1) * rate
                        if 0 <= v < height and 0 <= u < width:
                            expected[0, :, y, x] += layer.weight[:, :, i, j] @ features[0, :, v, u]
        expected += layer.bias[:, None, None]
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-4)


def test_the_pyramid_of_v3_concatenates_its_branches() -> None:
    torch.manual_seed(0)
    aspp = Aspp(6, 4, [1, 2], separable=False, dropout=0.0).eval()
    x = torch.randn(2, 6, 7, 5)
    kernels = [branch[0].weight for branch in (aspp.point, *aspp.dilated)]
    parts = [F.conv2d(x, kernels[0]).relu()]
    for rate, kernel in zip([1, 2], kernels[1:], strict=True):
        parts.append(F.conv2d(x, kernel, padding=rate, dilation=rate).relu())
    pooled = F.conv2d(x.mean((2, 3), keepdim=True), aspp.pooled[0].weight).relu()
    parts.append(pooled.expand(2, 4, 7, 5))
    # Fresh normalisation divides by sqrt(1 + eps) alone.
    joined = torch.cat(parts, 1) / (1 + 1e-5) ** 0.5
    expected = F.conv2d(joined, aspp.project[0].weight).relu() / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(aspp(x), expected)


def test_the_decoder_sees_the_low_level_features(tiny_params: Params) -> None:
    network = network_of(tiny_params, "deeplabv3plus", backbone_of(CNNS[0], 16)).eval()
    assert isinstance(network, DeepLabV3Plus)
    assert network.backbone.reductions[network.level] == 4
    assert network.reduce[0].weight.shape[0] == 8
    images = torch.rand(1, 3, 64, 64)
    before = network(images)
    nn.init.zeros_(network.reduce[0].weight)
    assert not torch.allclose(before, network(images))


def test_low_level_features_are_those_of_stride_4() -> None:
    assert low_level([2, 4, 8, 16]) == 1
    assert low_level([4, 4, 8]) == 1
    assert low_level([2, 8, 16]) == 1
    assert low_level([16, 16]) == 0


def test_a_single_pooled_value_is_normalised_by_the_running_statistics() -> None:
    norm, twin = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    allow_single_values(norm)
    many = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm(many), twin(many))
    one = torch.randn(1, 3, 1, 1)
    got = norm(one)
    torch.testing.assert_close(got, twin.eval()(one))
    torch.testing.assert_close(norm.running_mean, twin.running_mean)
    assert norm.training
    torch.testing.assert_close(norm(many), twin.train()(many))
    assert not norm.eval()(one).isnan().any()
    assert not norm.training
    with pytest.raises(ValueError, match="more than 1 value"):
        twin(one)


def test_a_backbone_that_pools_takes_a_single_image() -> None:
    """ResNeSt's split attention normalises pooled features."""
    backbone = backbone_of("resnest14d", 16).train()
    maps = backbone(torch.rand(1, 3, 32, 32))
    maps[-1].sum().backward()
    assert all(m.training for m in backbone.network.modules())


def test_a_stride_that_a_network_cannot_have_is_an_error() -> None:
    """Some networks take any number and round it without a word."""
    with pytest.raises(UserError, match="output stride 8, not at 14"):
        backbone_of(CNNS[0], 14)


@pytest.mark.parametrize(
    ("name", "levels", "frozen"),
    [
        (CNNS[0], 1, ("conv_stem", "bn1", "blocks.0")),
        (CNNS[0], 3, ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")),
        (CNNS[1], 1, ("conv1", "bn1")),
        (CNNS[1], 3, ("conv1", "bn1", "layer1", "layer2")),
    ],
)
def test_freezing_takes_the_stem_and_the_first_levels(
    name: str, levels: int, frozen: tuple[str, ...]
) -> None:
    backbone = backbone_of(name, 16)
    backbone.freeze(levels)
    for key, parameter in backbone.network.named_parameters():
        inside = any(key.startswith(f"{prefix}.") for prefix in frozen)
        assert parameter.requires_grad is not inside, key
    assert backbone.training
    for key, module in backbone.network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            inside = any(f"{key}.".startswith(f"{prefix}.") for prefix in frozen)
            assert module.training is not inside, key
    maps = backbone(torch.rand(2, 3, 64, 64))
    assert [level.requires_grad for level in maps] == [
        index >= levels for index in range(len(maps))
    ]


def test_frozen_levels_do_not_change_in_training(tiny_params: Params) -> None:
    backbone = backbone_of(CNNS[1], 16)
    backbone.freeze(2)
    task = SegmentationTask(network_of(tiny_params, "largefov", backbone)).train()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    optimizer = build_optimizer(task, tiny_params.base.segment)
    batch = {
        "image": torch.rand(2, 3, 64, 64),
        "masks": torch.zeros(2, 1, 64, 64, dtype=torch.uint8),
        "key": torch.arange(2),
    }
    set_keys(task, batch["key"])
    task.losses(batch, None).total.backward()  # type: ignore[arg-type]
    optimizer.step()
    after = task.state_dict()
    prefixes = tuple(f"network.backbone.network.{p}." for p in ("conv1", "bn1", "layer1"))
    frozen = {name for name in before if name.startswith(prefixes)}
    assert frozen
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    trained = "network.backbone.network.layer2.0.conv1.weight"
    assert not torch.equal(before[trained], after[trained])


def test_more_frozen_levels_than_there_are_is_an_error() -> None:
    with pytest.raises(UserError, match="freeze_levels is 9, but the backbone has 5 levels"):
        backbone_of(CNNS[1], 16).freeze(9)


def test_freezing_random_layers_is_refused(tiny_raw: dict[str, Any]) -> None:
    raw = overlay(tiny_raw, {"segment": {"freeze_levels": 1}, "backbone": {"weights": "random"}})
    with pytest.raises(UserError, match=r"segment\.freeze_levels is 1 but backbone\.weights"):
        _ = Params(raw).base


@pytest.mark.parametrize("net", NETS)
def test_the_stage_builds_what_the_configuration_names(tiny_raw: dict[str, Any], net: str) -> None:
    changes = {"segment": {"net": net, "width": 8, "freeze_levels": 1}}
    config = Params(overlay(tiny_raw, changes)).base
    trained = build_segmenter(config, CLASSES, True)
    assert type(trained) is type(network_of(Params(tiny_raw), net, trained.backbone))
    assert not next(trained.backbone.network.parameters()).requires_grad
    loaded = build_segmenter(config, CLASSES, False)
    assert next(loaded.backbone.network.parameters()).requires_grad
    assert loaded.state_dict().keys() == trained.state_dict().keys()


VIT = "test_vit.r160_in1k"


@pytest.mark.parametrize("net", NETS)
def test_every_network_runs_on_a_transformer_at_any_size(tiny_params: Params, net: str) -> None:
    network = network_of(tiny_params, net, backbone_of(VIT, 16)).eval()
    step = STEPS.get(net, 16)
    for height, width in [(64, 96), (50, 71)]:
        logits = network(torch.rand(2, 3, height, width))
        assert logits.shape == (2, CLASSES, -(-height // step), -(-width // step))
        assert logits.isfinite().all()
    if isinstance(network, DeepLabV3Plus):
        assert network.level == 0


def test_maps_of_a_transformer_are_its_blocks() -> None:
    backbone = backbone_of(VIT, 16).eval()
    assert backbone.reductions == [16] * 4
    assert backbone.channels == [64] * 4
    vit: Any = backbone.network.vit
    images = torch.rand(1, 3, 64, 48)
    maps = backbone(images)
    tokens: list[torch.Tensor] = []
    hooks = [b.register_forward_hook(lambda _m, _i, out: tokens.append(out)) for b in vit.blocks]
    final = vit.forward_features(
        (images - backbone.mean[:, None, None]) / backbone.std[:, None, None]
    )
    for hook in hooks:
        hook.remove()
    chosen = [tokens[i] for i in backbone.network.indices]
    assert backbone.network.indices == [0, 2, 3, 5]
    for level, expected in zip(maps, [*chosen[:-1], final], strict=True):
        grid = expected[:, vit.num_prefix_tokens :].transpose(1, 2).reshape(1, 64, 4, 3)
        torch.testing.assert_close(level, grid)


def test_a_transformer_trains_with_its_first_blocks_frozen(tiny_params: Params) -> None:
    backbone = backbone_of(VIT, 16)
    backbone.freeze(2)
    task = SegmentationTask(network_of(tiny_params, "largefov", backbone)).train()
    batch = {
        "image": torch.rand(2, 3, 48, 64),
        "masks": torch.zeros(2, 1, 48, 64, dtype=torch.uint8),
        "key": torch.arange(2),
    }
    set_keys(task, batch["key"])
    task.losses(batch, None).total.backward()  # type: ignore[arg-type]
    learning = {n for n, p in backbone.network.named_parameters() if p.grad is not None}
    frozen = {n for n, p in backbone.network.named_parameters() if not p.requires_grad}
    assert learning.isdisjoint(frozen)
    assert {"vit.pos_embed", "vit.patch_embed.proj.weight", "vit.blocks.2.mlp.fc1.bias"} <= frozen
    assert {"vit.blocks.3.mlp.fc1.bias", "vit.norm.weight"} <= learning


@pytest.mark.parametrize("stride", [8, 32])
def test_a_transformer_has_one_stride(stride: int) -> None:
    with pytest.raises(UserError, match=f"output_stride must be 16, not {stride}"):
        backbone_of(VIT, stride)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("swin_tiny_patch4_window7_224", "cannot give features at output stride 16"),
        ("test_resnet.bogus", "not in timm"),
        ("vit_bogus", "not in timm"),
    ],
)
def test_a_backbone_that_cannot_is_one_clear_error(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        backbone_of(name, 16)


def test_frozen_scale_and_shift_leave_the_weights_free() -> None:
    backbone = backbone_of(CNNS[1], 16)
    backbone.freeze(0, affine=True)
    for name, parameter in backbone.network.named_parameters():
        # This network's convolutions have no bias: its vectors are all scales and shifts.
        assert parameter.requires_grad is (parameter.dim() > 1), name
    assert all(m.training for m in backbone.network.modules())


@pytest.mark.parametrize("norm", [False, True])
def test_largefov_is_two_hidden_layers_and_a_classifier(tiny_params: Params, norm: bool) -> None:
    network = network_of(tiny_params, "largefov", backbone_of(CNNS[1], 16), norm=norm, dilation=2)
    network.eval()
    images = torch.rand(1, 3, 64, 96)
    x = network.backbone(images)[-1]
    convolutions = [m for m in network.head if isinstance(m, nn.Conv2d)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.head) == 2 * norm
    scale = (1 + 1e-5) ** 0.5 if norm else 1.0
    wide, point, classifier = convolutions
    x = F.conv2d(x, wide.weight, wide.bias, padding=2, dilation=2).div(scale).relu()
    x = F.conv2d(x, point.weight, point.bias).div(scale).relu()
    expected = F.conv2d(x, classifier.weight, classifier.bias)
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("count", [1, 2])
def test_bf16_is_finite(tiny_params: Params, net: str, count: int) -> None:
    task = SegmentationTask(network_of(tiny_params, net, backbone_of(CNNS[0], 16))).train()
    batch = {
        "image": torch.rand(count, 3, 64, 64),
        "masks": torch.zeros(count, 1, 64, 64, dtype=torch.uint8),
        "key": torch.arange(count),
    }
    set_keys(task, batch["key"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.losses(batch, None).total  # type: ignore[arg-type]
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in task.parameters() if p.grad is not None)
