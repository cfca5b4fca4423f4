"""Published checkpoints: converted networks give the numbers of the networks they come from.

The published networks are written anew here, small, straight from the description of their
layout, with random weights; nothing is shared with the code under test.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import wsss.torchvision_shim  # noqa: F401  (timm imports torchvision)
from wsss.artifacts import load_json, load_weights, save_json, weights_meta
from wsss.cli import main
from wsss.config import Params, load_params
from wsss.config.resolve import overlay
from wsss.config.schema import Backbone as BackboneConfig
from wsss.config.schema import Distributed
from wsss.config.spread import spread
from wsss.context import make_context
from wsss.data.voc import CLASSES
from wsss.errors import UserError
from wsss.methods import load_method
from wsss.models.backbones import Backbone, build_backbone
from wsss.models.deeplabv2 import DeepLabV2
from wsss.models.geometry import Geometry
from wsss.models.imports import UNSUPPORTED, layout_names, load_layout
from wsss.models.imports.keys import complete, translate
from wsss.models.imports.layout import fill
from wsss.provenance import stage_modules
from wsss.stages import cam, classify, evaluate, segment
from wsss.stages.compare import compare
from wsss.stages.evaluations import EVALUATIONS, imported_stages, wanted

IRN, DEEPLAB = "irn-resnet50-cam", "deeplab-pytorch-v2"
# Even and odd numbers of cells: max pooling that rounds up differs from one that rounds down.
SIZES = [(64, 64), (65, 81), (72, 57)]


def randomise(module: nn.Module) -> None:
    """Weights that keep activations of a fair size, and normalisation that does something."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.dim() > 1:
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(noise * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("num_batches_tracked"):
            value.fill_(7)
        else:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.2
            value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + low)


# The ResNet-50 of IRNet's classification network, in torchvision's key names.


class IrnBlock(nn.Module):
    def __init__(self, inside: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if project:
            conv = nn.Conv2d(inside, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn1(self.conv1(x)).relu()
        h = self.bn2(self.conv2(h)).relu()
        h = self.bn3(self.conv3(h))
        return (h + (x if self.downsample is None else self.downsample(x))).relu()


class IrnResNet(nn.Module):
    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inside = 64
        for index, (count, stride) in enumerate(zip(counts, (1, 2, 2, 1), strict=True)):
            width, blocks = 64 * 2**index, []
            for number in range(count):
                first = number == 0
                blocks.append(IrnBlock(inside, width, stride if first else 1, first))
                inside = 4 * width
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))


class IrnNet(nn.Module):
    """Every layer is registered three times, as in the published class."""

    def __init__(self, counts: list[int], classes: int = 20) -> None:
        super().__init__()
        net = self.resnet50 = IrnResNet(counts)
        self.stage1 = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
        self.stage2 = nn.Sequential(net.layer2)
        self.stage3 = nn.Sequential(net.layer3)
        self.stage4 = nn.Sequential(net.layer4)
        self.classifier = nn.Conv2d(2048, classes, 1, bias=False)
        self.backbone = nn.ModuleList([self.stage1, self.stage2, self.stage3, self.stage4])
        self.newly_added = nn.ModuleList([self.classifier])

    def forward(self, images: Tensor) -> Tensor:
        """RGB in [0, 1] -> CAMs."""
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (images - mean[:, None, None]) / std[:, None, None]
        return self.classifier(self.stage4(self.stage3(self.stage2(self.stage1(x)))))


# The DeepLabV2 of deeplab-pytorch, functional: keys are all there is to a layer.


def deeplab_state(counts: list[int], outputs: int = 21) -> dict[str, Tensor]:
    """A random state dict in the layout of deeplab-pytorch."""
    generator = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {}

    def unit(key: str, inside: int, outside: int, kernel: int) -> None:
        fan = inside * kernel**2
        shape = (outside, inside, kernel, kernel)
        # BGR values reach 255: the first layer's weights are small.
        scale = (2 / fan) ** 0.5 / (100 if inside == 3 else 1)
        state[f"{key}.conv.weight"] = torch.randn(shape, generator=generator) * scale
        for name, low in (("weight", 0.5), ("bias", -0.2), ("running_mean", -0.2)):
            state[f"{key}.bn.{name}"] = torch.rand(outside, generator=generator) * 0.4 + low
        state[f"{key}.bn.running_var"] = torch.rand(outside, generator=generator) * 0.4 + 0.8
        state[f"{key}.bn.num_batches_tracked"] = torch.tensor(5)

    unit("base.layer1.conv1", 3, 64, 7)
    inside = 64
    for layer, count in enumerate(counts, 2):
        outside = 256 * 2 ** (layer - 2)
        for block in range(1, count + 1):
            key = f"base.layer{layer}.block{block}"
            unit(f"{key}.reduce", inside, outside // 4, 1)
            unit(f"{key}.conv3x3", outside // 4, outside // 4, 3)
            unit(f"{key}.increase", outside // 4, outside, 1)
            if block == 1:
                unit(f"{key}.shortcut", inside, outside, 1)
            inside = outside
    for branch in range(4):
        shape = (outputs, inside, 3, 3)
        state[f"base.aspp.c{branch}.weight"] = torch.randn(shape, generator=generator) * 0.01
        state[f"base.aspp.c{branch}.bias"] = torch.randn(outputs, generator=generator)
    return state


def deeplab_logits(state: dict[str, Tensor], images: Tensor, counts: list[int]) -> Tensor:
    """RGB in [0, 1] -> logits, by the published network's description."""

    def unit(key: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{key}.conv.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        h = F.conv2d(x, weight, None, stride, padding, dilation)
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, var, scale, shift = (state[f"{key}.bn.{part}"][:, None, None] for part in parts)
        return (h - mean) / (var + 1e-5).sqrt() * scale + shift

    mean = torch.tensor([104.008, 116.669, 122.675])
    x = images.flip(1) * 255 - mean[:, None, None]
    x = unit("base.layer1.conv1", x, 2).relu()
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    for layer, (count, stride, dilation) in enumerate(
        zip(counts, (1, 2, 1, 1), (1, 1, 2, 4), strict=True), 2
    ):
        for block in range(1, count + 1):
            key, step = f"base.layer{layer}.block{block}", stride if block == 1 else 1
            h = unit(f"{key}.reduce", x, step).relu()
            h = unit(f"{key}.conv3x3", h, 1, dilation).relu()
            h = unit(f"{key}.increase", h)
            x = (h + (unit(f"{key}.shortcut", x, step) if block == 1 else x)).relu()
    branches = [
        F.conv2d(
            x,
            state[f"base.aspp.c{i}.weight"],
            state[f"base.aspp.c{i}.bias"],
            padding=rate,
            dilation=rate,
        )
        for i, rate in enumerate((6, 12, 18, 24))
    ]
    return torch.stack(branches).sum(0)


def backbone(name: str, stride: int, geometry: Geometry, weights: str = "random") -> Backbone:
    config = BackboneConfig(name=name, weights=weights, allow_download=False)
    return build_backbone(config, stride, weights != "random", geometry)


def ours(name: str, stage: str, classes: int) -> nn.Module:
    """The network that a layout's settings describe, on a ResNet of another depth."""
    geometry: Geometry = "undilated" if stage == "classify" else "caffe"
    if stage == "segment":
        return DeepLabV2(backbone(name, 8, geometry), classes + 1, [6, 12, 18, 24]).eval()
    method = load_method("baseline")
    return method(backbone(name, 16, geometry), classes, method.Params(), 0.5).eval()


@pytest.fixture(scope="module")
def irn(tmp_path_factory: pytest.TempPathFactory) -> tuple[IrnNet, Path]:
    """A random network of ResNet-26's depth (timm has no shallower one) and its checkpoint."""
    torch.manual_seed(0)
    network = IrnNet([2, 2, 2, 2]).eval()
    randomise(network)
    path = tmp_path_factory.mktemp("irn") / "res50_cam.pth"
    torch.save(network.state_dict(), path)
    return network, path


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Path]:
    state = deeplab_state([2, 2, 2, 2])
    path = tmp_path_factory.mktemp("deeplab") / "deeplab.pth"
    torch.save(state, path)
    return state, path


def images(size: tuple[int, int]) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(sum(size)))


# Numbers


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_irnet_cams_are_those_of_the_published_network(
    irn: tuple[IrnNet, Path], size: tuple[int, int]
) -> None:
    network, path = irn
    method = ours("resnet26", "classify", 20)
    fill(method, path, IRN, CLASSES)
    expected = network(images(size))
    assert expected.std() > 0.1
    torch.testing.assert_close(method(images(size)).cam, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(method.seed_maps(images(size)), method(images(size)).cam.relu())


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_deeplab_logits_are_those_of_the_published_network(
    deeplab: tuple[dict[str, Tensor], Path], size: tuple[int, int]
) -> None:
    state, path = deeplab
    network = ours("resnet26", "segment", 20)
    fill(network, path, DEEPLAB, CLASSES)
    expected = deeplab_logits(state, images(size), [2, 2, 2, 2])
    assert expected.std() > 0.1
    torch.testing.assert_close(network(images(size)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("geometry", ["timm", "undilated"])
@torch.no_grad()
def test_another_geometry_gives_other_numbers(
    deeplab: tuple[dict[str, Tensor], Path], geometry: Geometry
) -> None:
    """Were it not so, the tests above would show nothing."""
    _, path = deeplab
    right = ours("resnet26", "segment", 20)
    wrong = DeepLabV2(backbone("resnet26", 8, geometry), 21, [6, 12, 18, 24]).eval()
    for network in (right, wrong):
        fill(network, path, DEEPLAB, CLASSES)
    one, other = right(images((64, 64))), wrong(images((64, 64)))
    assert one.shape[2] == other.shape[2] + 1
    assert (one[:, :, :-1, :-1] - other).abs().max() > 0.1


@torch.no_grad()
def test_a_selection_of_classes_keeps_their_outputs(
    irn: tuple[IrnNet, Path], deeplab: tuple[dict[str, Tensor], Path]
) -> None:
    chosen = ["dog", "cat", "aeroplane"]
    places = [CLASSES.index(name) for name in chosen]
    method = ours("resnet26", "classify", 3)
    facts = fill(method, irn[1], IRN, chosen)
    expected = irn[0](images((64, 64)))[:, places]
    torch.testing.assert_close(method(images((64, 64))).cam, expected, rtol=1e-4, atol=1e-4)
    assert facts["classes"] == list(CLASSES)
    network = ours("resnet26", "segment", 3)
    fill(network, deeplab[1], DEEPLAB, chosen)
    logits = deeplab_logits(deeplab[0], images((64, 64)), [2, 2, 2, 2])
    expected = logits[:, [0, *(place + 1 for place in places)]]
    torch.testing.assert_close(network(images((64, 64))), expected, rtol=1e-3, atol=1e-3)


def test_the_facts_name_the_file_and_its_content(irn: tuple[IrnNet, Path]) -> None:
    _, path = irn
    facts = fill(ours("resnet26", "classify", 20), path, IRN, CLASSES)
    assert facts == {"layout": IRN, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_torchvisions_resnets_are_initial_weights_as_they_are(tmp_path: Path, name: str) -> None:
    """``backbone.weights: file:`` takes torchvision's files: the same keys, the same numbers."""
    from torchvision.models import get_model

    network = get_model(name, weights=None).eval()
    randomise(network)
    path = tmp_path / f"{name}.pth"
    torch.save(network.state_dict(), path)
    loaded = backbone(name, 32, "timm", f"file:{path}").eval()
    x = images((64, 96))
    h = (x - loaded.mean[:, None, None]) / loaded.std[:, None, None]
    h = network.maxpool(network.relu(network.bn1(network.conv1(h))))
    for index in (1, 2, 3, 4):
        h = network.get_submodule(f"layer{index}")(h)
        torch.testing.assert_close(loaded(x)[index], h, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "geometry", "message"),
    [
        ("tf_efficientnet_lite0", "caffe", "is for ResNets, not for 'tf_efficientnet_lite0'"),
        ("regnetx_002", "undilated", "is for ResNets"),
        ("resnet18", "caffe", "needs bottleneck blocks, unlike 'resnet18'"),
    ],
)
def test_a_geometry_is_refused_where_it_means_nothing(
    name: str, geometry: Geometry, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        backbone(name, 16, geometry)


# Keys


@given(st.permutations(["a.1", "a.2", "b.1", "drop.me"]))
def test_translation_does_not_depend_on_the_order(names: list[str]) -> None:
    values = {name: torch.tensor([float(len(name)), float(ord(name[-1]))]) for name in names}
    rules = [(r"a\.(\d)", r"x.\1"), (r"b\.(\d)", lambda m: f"y.{int(m[1]) + 1}"), ("drop.*", None)]
    renamed = translate(values, rules, "here")
    assert {k: v.tolist() for k, v in renamed.items()} == {
        "x.1": values["a.1"].tolist(),
        "x.2": values["a.2"].tolist(),
        "y.2": values["b.1"].tolist(),
    }


def test_every_key_is_used_or_left_out_by_name() -> None:
    with pytest.raises(UserError, match=r"here: 2 keys unknown: aa, b"):
        translate(
            {"a": torch.ones(1), "b": torch.ones(1), "aa": torch.ones(1)}, [("a", "x")], "here"
        )
    with pytest.raises(UserError, match=r"here: a and b should hold the same tensor"):
        translate({"a": torch.ones(1), "b": torch.zeros(1)}, [("[ab]", "x")], "here")


def test_a_network_is_filled_completely() -> None:
    own = {"w": torch.zeros(2), "bn.num_batches_tracked": torch.tensor(3)}
    assert complete({"w": torch.ones(2).double()}, own, "here")["w"].dtype == torch.float32
    assert complete({"w": torch.ones(2)}, own, "here")["bn.num_batches_tracked"] == 3
    for state, message in (
        ({}, "1 keys missing: w"),
        ({"w": torch.ones(2), "v": torch.ones(1)}, "1 keys superfluous: v"),
        ({"w": torch.ones(3)}, r"w is \(3,\), the network has \(2,\)"),
    ):
        with pytest.raises(UserError, match=message):
            complete(state, own, "here")


def broken(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    edits: dict[str, dict[str, Tensor | None]] = {
        "missing": {"resnet50.layer2.0.conv1.weight": None, "stage2.0.0.conv1.weight": None}
        | {"backbone.1.0.0.conv1.weight": None},
        "extra": {"resnet50.layer2.7.conv1.weight": torch.zeros(1)},
        "unknown": {"fc8.weight": torch.zeros(1)},
        "unequal": {"stage4.0.0.bn1.bias": state["stage4.0.0.bn1.bias"] + 1},
        "shape": {
            key: torch.zeros(64, 3, 3, 3)
            for key in ("resnet50.conv1.weight", "stage1.0.weight", "backbone.0.0.weight")
        },
        "classes": {
            key: torch.zeros(80, 2048, 1, 1)
            for key in ("classifier.weight", "newly_added.0.weight")
        },
    }
    merged = {**state, **edits[how]}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"1 keys missing: backbone\.network\.layer2\.0\.conv1\.weight"),
        ("extra", r"1 keys superfluous: backbone\.network\.layer2\.7\.conv1\.weight"),
        ("unknown", r"1 keys unknown: fc8\.weight"),
        ("unequal", r"resnet50\.layer4\.0\.bn1\.bias and stage4\.0\.0\.bn1\.bias"),
        ("shape", r"conv1\.weight is \(64, 3, 3, 3\), the network has \(64, 3, 7, 7\)"),
        ("classes", r"classifier\.weight has 80 outputs, 20 are expected"),
    ],
)
def test_what_does_not_fit_is_named(
    irn: tuple[IrnNet, Path], tmp_path: Path, how: str, message: str
) -> None:
    path = tmp_path / "broken.pth"
    torch.save(broken(dict(irn[0].state_dict()), how), path)
    method = ours("resnet26", "classify", 20)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        fill(method, path, IRN, CLASSES)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())


def test_only_plain_tensors_are_read(tmp_path: Path) -> None:
    cases: dict[str, Any] = {
        "numpy": {"resnet50.conv1.weight": np.float64(1)},
        "object": {"a": Path("x")},
        "list": [torch.ones(1)],
    }
    for name, value in cases.items():
        path = tmp_path / f"{name}.pth"
        torch.save(value, path)
        with pytest.raises(UserError, match=r"checkpoint: .*tensors"):
            fill(ours("resnet26", "classify", 20), path, IRN, CLASSES)
    with pytest.raises(UserError, match="does not exist"):
        fill(ours("resnet26", "classify", 20), tmp_path / "none.pth", IRN, CLASSES)


def test_an_unknown_class_or_layout_is_named(irn: tuple[IrnNet, Path]) -> None:
    with pytest.raises(UserError, match="does not know the class 'unicorn'"):
        fill(ours("resnet26", "classify", 1), irn[1], IRN, ["unicorn"])
    with pytest.raises(UserError, match="unknown layout 'x': known are"):
        load_layout("x")
    for name in UNSUPPORTED:
        with pytest.raises(UserError, match=f"layout '{name}' is not supported: "):
            load_layout(name)


@pytest.mark.parametrize("name", layout_names())
def test_a_layout_is_complete(name: str) -> None:
    layout = load_layout(name)
    assert layout.stage in layout.settings
    assert "backbone" in layout.settings
    for pattern, _ in layout.rules:
        re.compile(pattern)


# In the workflow


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layouts, for a ResNet of another depth."""
    from dataclasses import replace

    from wsss.models.imports import deeplab_pytorch_v2, irn_resnet50_cam

    for module in (deeplab_pytorch_v2, irn_resnet50_cam):
        layout = module.LAYOUT
        backbone = {**layout.settings["backbone"], "name": "resnet26"}
        settings = {**layout.settings, "backbone": backbone}
        monkeypatch.setattr(module, "LAYOUT", replace(layout, settings=settings))


def scene_order(params: Params) -> list[str]:
    """Twenty class names that hold those of the generated scenes."""
    from wsss.stages import manifest

    context = make_context(params, "manifest", "", 0)
    manifest.run(context)
    found = context.manifest.classes
    return [*CLASSES[: 20 - len(found)], *found]


def imported_raw(
    raw: dict[str, Any], stage: str, path: Path, order: list[str] | None
) -> dict[str, Any]:
    layout = load_layout(IRN if stage == "classify" else DEEPLAB)
    name = IRN if stage == "classify" else DEEPLAB
    facts = {"file": str(path), "layout": name, "classes": order}
    return overlay(overlay(raw, dict(layout.settings)), {stage: {"checkpoint": facts}})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("stage", "run"), [("classify", classify.run), ("segment", segment.run)])
@torch.no_grad()
def test_a_stage_imports_in_place_of_training(
    stage: str,
    run: Any,
    irn: tuple[IrnNet, Path],
    deeplab: tuple[dict[str, Tensor], Path],
    tiny_raw: dict[str, Any],
) -> None:
    path = irn[1] if stage == "classify" else deeplab[1]
    order = scene_order(Params(tiny_raw))
    params = Params(imported_raw(tiny_raw, stage, path, order))
    context = make_context(params, stage, "baseline", 0)
    run(context)
    weights = context.paths.weights(stage)
    state, meta = load_weights(weights)
    assert meta["imported"]["layout"] == params.base.model_dump()[stage]["checkpoint"]["layout"]
    assert meta["imported"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert meta["classes"] == list(context.manifest.classes)
    assert weights.with_name("curve.csv").read_text() == "step,epoch,lr\n"
    original = irn[0].state_dict() if stage == "classify" else deeplab[0]
    source = "classifier.weight" if stage == "classify" else "base.aspp.c3.weight"
    target = "classifier.weight" if stage == "classify" else "network.classifiers.3.weight"
    first = 20 - len(meta["classes"]) + (stage == "segment")
    assert torch.equal(state[target][-len(meta["classes"]) :], original[source][first:])
    once = weights.read_bytes()
    run(context)
    assert weights.read_bytes() == once


@pytest.mark.usefixtures("small")
def test_an_import_that_fails_leaves_nothing(
    irn: tuple[IrnNet, Path], tiny_raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise UserError("disk full")

    order = scene_order(Params(tiny_raw))
    context = make_context(
        Params(imported_raw(tiny_raw, "classify", irn[1], order)), "classify", "baseline", 0
    )
    monkeypatch.setattr("wsss.stages.importing.save_weights", fail)
    with pytest.raises(UserError, match="disk full"):
        classify.run(context)
    assert not context.paths.weights("classify").with_name("curve.csv").exists()


def test_an_import_is_no_matter_of_several_processes(tiny_raw: dict[str, Any]) -> None:
    raw = overlay(tiny_raw, {"distributed": {"nodes": 2, "processes": 4}})
    config = Params(imported_raw(raw, "classify", Path("weights.pth"), None)).base
    assert spread(config, "classify") == Distributed(nodes=1, processes=1)
    assert spread(config, "segment") == spread(config, "affinity") == config.distributed


@pytest.mark.usefixtures("small")
def test_metrics_and_comparison_name_what_was_imported(
    irn: tuple[IrnNet, Path], tiny_raw: dict[str, Any]
) -> None:
    order = scene_order(Params(tiny_raw))
    fast = {"cam": {"scales": [0.5], "flip": False, "threshold": 0.3}}
    raw = overlay(imported_raw(tiny_raw, "classify", irn[1], order), fast)
    contexts = {
        stage: make_context(Params(raw), stage, "baseline", 0)
        for stage in ("classify", "cam", "evaluate_cam")
    }
    paths = contexts["cam"].paths
    classify.run(contexts["classify"])
    cam.run(contexts["cam"], paths.store("cam", "maps"))
    evaluate.run(contexts["evaluate_cam"], "cam")
    report = load_json(Path(f"{paths.metrics('cam')}.json"))
    digest = hashlib.sha256(irn[1].read_bytes()).hexdigest()
    assert report["imported"] == f"classify: {IRN} (sha256 {digest})"
    text = compare(paths.results, paths.dataset, ["baseline"], [0])
    assert "not trained here: baseline" in text
    del report["imported"]
    save_json(Path(f"{paths.metrics('cam')}.json"), report)
    assert "trained here" not in compare(paths.results, paths.dataset, ["baseline"], [0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classify": {"geometry": "timm"}}, "needs classify.geometry 'undilated', not 'timm'"),
        ({"backbone": {"name": "resnet50"}}, "needs backbone.name 'resnet26', not 'resnet50'"),
        ({"classify": {"output_stride": 8}}, "needs classify.output_stride 16, not 8"),
        ({"classify": {"checkpoint": {"layout": DEEPLAB}}}, "is of stage 'segment'"),
    ],
)
def test_another_network_is_refused(
    change: dict[str, Any], message: str, irn: tuple[IrnNet, Path], tiny_raw: dict[str, Any]
) -> None:
    order = scene_order(Params(tiny_raw))
    params = Params(overlay(imported_raw(tiny_raw, "classify", irn[1], order), change))
    context = make_context(params, "classify", "baseline", 0)
    with pytest.raises(UserError, match=re.escape(message)):
        classify.run(context)
    assert not context.paths.weights("classify").exists()


def test_the_code_of_a_layout_is_part_of_the_stage_that_imports_it(
    tiny_raw: dict[str, Any], irn: tuple[IrnNet, Path]
) -> None:
    module = "wsss.models.imports.irn_resnet50_cam"
    assert module in stage_modules("classify", "baseline", IRN)
    assert module not in stage_modules("classify", "baseline")
    plain = make_context(Params(tiny_raw), "classify", "baseline", 0)
    raw = imported_raw(tiny_raw, "classify", irn[1], None)
    assert make_context(Params(raw), "classify", "baseline", 0).code != plain.code


def test_scores_say_what_was_imported(tiny_raw: dict[str, Any], irn: tuple[IrnNet, Path]) -> None:
    both = imported_raw(imported_raw(tiny_raw, "classify", irn[1], None), "segment", irn[1], None)
    cases = [
        (tiny_raw, {"cam": [], "final": []}),
        (
            imported_raw(tiny_raw, "classify", irn[1], None),
            {"cam": ["classify"], "pseudo": ["classify"], "final": ["classify"]},
        ),
        (imported_raw(tiny_raw, "segment", irn[1], None), {"cam": [], "multi": ["segment"]}),
        (both, {"crf": ["classify"], "single": ["segment"]}),
        (both | {"road": "supervised"}, {"final": ["segment"]}),
    ]
    for raw, expected in cases:
        config = Params(raw).base
        for what, stages in expected.items():
            assert imported_stages(config, EVALUATIONS[what]) == stages
    config = Params(imported_raw(tiny_raw, "segment", irn[1], None)).base
    assert wanted(config) == ["single", "multi", "final"]
    assert "cam" in wanted(Params(imported_raw(tiny_raw, "classify", irn[1], None)).base)


def test_a_mistaken_checkpoint_is_found_before_any_job(tiny_raw: dict[str, Any]) -> None:
    for layout, message in (("irn", "unknown layout 'irn'"), ("psa-vgg16", "not supported")):
        facts = {"file": "x.pth", "layout": layout, "classes": None}
        with pytest.raises(UserError, match=rf"classify\.checkpoint: .*{message}"):
            _ = Params(overlay(tiny_raw, {"classify": {"checkpoint": facts}})).base


# The command


@pytest.mark.usefixtures("small")
def test_import_writes_weights_and_prints_what_scores_them(
    irn: tuple[IrnNet, Path], tmp_path: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, base = tmp_path / "out.safetensors", project / "params.yaml"
    command = ["import", str(irn[1]), "--layout", IRN, "--out", str(out), "--params", str(base)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    meta = weights_meta(out)
    assert meta["stage"] == "classify"
    assert meta["classes"] == list(CLASSES)
    assert meta["imported"]["layout"] == IRN
    assert json.dumps(meta["params"]["classify"]["geometry"]) == '"undilated"'
    top = tmp_path / "top.yaml"
    top.write_text(printed)
    config = load_params([base, top]).resolve(yaml.safe_load(printed)["run"]["variants"][0])
    assert config.classify.checkpoint is not None
    assert config.classify.checkpoint.file == str(irn[1])
    assert config.classify.geometry == "undilated"
    again = tmp_path / "again.safetensors"
    assert main([*command[:5], str(again), *command[6:]]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_import_explains_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["import", "--list"]) == 0
    listed = capsys.readouterr().out
    for name in [*layout_names(), *UNSUPPORTED]:
        assert name in listed
    assert main(["import", "x.pth"]) == 1
    assert "--layout NAME" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "x.pth"), "--layout", "nothing"]) == 1
    assert "unknown layout 'nothing'" in capsys.readouterr().err
