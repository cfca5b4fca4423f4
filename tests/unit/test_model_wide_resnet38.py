"""Wide ResNet-38: its maps, its names, its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.config.schema import Backbone as BackboneConfig
from wsss.errors import UserError
from wsss.models import wide_resnet38
from wsss.models.backbones import Backbone, build_backbone
from wsss.models.dropout import set_keys
from wsss.models.wide_resnet38 import WideResNet38, Widths

NARROW = Widths(4, 6, 8, 10, 12, 16, 24)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> WideResNet38:
    """A narrow network, which is also what building the backbone makes."""
    torch.manual_seed(0)
    monkeypatch.setattr(wide_resnet38, "WideResNet38", lambda: WideResNet38(NARROW))
    network = WideResNet38(NARROW)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 2)
    return network


def build(weights: str = "random", stride: int = 8, pretrained: bool = True) -> Backbone:
    config = BackboneConfig(name="wide_resnet38", weights=weights, allow_download=False)
    return build_backbone(config, stride, pretrained)


def test_it_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        state = WideResNet38().state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    convolutions = [name for name in shapes if ".conv" in name or name.startswith("conv")]
    assert len([n for n in convolutions if "branch1" not in n]) == 1 + 2 * 15 + 3 * 2
    assert {n.split(".")[0] for n in convolutions if "branch1." in n} == {
        *("b2", "b3", "b4", "b5", "b6", "b7")
    }
    assert shapes["conv1a.weight"] == (64, 3, 3, 3)
    assert shapes["b2.conv_branch1.weight"] == (128, 64, 1, 1)
    assert shapes["b4_5.conv_branch2b1.weight"] == (512, 512, 3, 3)
    assert shapes["b5_2.conv_branch2a.weight"] == (512, 1024, 3, 3)
    assert shapes["b6.conv_branch2a.weight"] == (512, 1024, 1, 1)
    assert shapes["b7.conv_branch2b1.weight"] == (2048, 1024, 3, 3)
    assert shapes["b7.conv_branch2b2.weight"] == (4096, 2048, 1, 1)
    assert shapes["b7.bn_branch2b2.weight"] == (2048,)
    assert shapes["bn7.running_mean"] == (4096,)


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, weight, bias = (state[f"{name}.{leaf}"] for leaf in names)
    return F.relu(F.batch_norm(x, mean, var, weight, bias))


def test_maps_are_those_of_the_paper(narrow: WideResNet38) -> None:
    """The network, written once more as a sequence of operations."""
    state, x = narrow.state_dict(), torch.randn(1, 3, 48, 64)
    expected, y = [], F.conv2d(x, state["conv1a.weight"], padding=1)
    plan = {"b2": (2, 1, 1), "b2_1": (1, 1, 1), "b2_2": (1, 1, 1)}
    plan |= {"b3": (2, 1, 1), "b3_1": (1, 1, 1), "b3_2": (1, 1, 1), "b4": (2, 1, 1)}
    plan |= {f"b4_{n}": (1, 1, 1) for n in range(1, 6)}
    plan |= {"b5": (1, 1, 2), "b5_1": (1, 2, 2), "b5_2": (1, 2, 2)}
    for name, (stride, first, second) in plan.items():
        entered = norm(state, f"{name}.bn_branch2a", y)
        if name in ("b3", "b4", "b5"):
            expected.append(entered)
        z = F.conv2d(
            entered, state[f"{name}.conv_branch2a.weight"], None, stride, first, dilation=first
        )
        z = norm(state, f"{name}.bn_branch2b1", z)
        z = F.conv2d(z, state[f"{name}.conv_branch2b1.weight"], padding=second, dilation=second)
        skip = state.get(f"{name}.conv_branch1.weight")
        y = z + (y if skip is None else F.conv2d(entered, skip, stride=stride))
    for name in ("b6", "b7"):
        entered = norm(state, f"{name}.bn_branch2a", y)
        if name == "b6":
            expected.append(entered)
        z = F.conv2d(entered, state[f"{name}.conv_branch2a.weight"])
        z = norm(state, f"{name}.bn_branch2b1", z)
        z = F.conv2d(z, state[f"{name}.conv_branch2b1.weight"], padding=4, dilation=4)
        z = norm(state, f"{name}.bn_branch2b2", z)
        z = F.conv2d(z, state[f"{name}.conv_branch2b2.weight"])
        y = z + F.conv2d(entered, state[f"{name}.conv_branch1.weight"])
    expected.append(norm(state, "bn7", y))
    got = narrow.eval()(x)
    assert [tuple(m.shape[1:]) for m in got] == [
        *((6, 24, 32), (8, 12, 16), (10, 6, 8), (12, 6, 8), (24, 6, 8))
    ]
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_backbone_says_what_it_gives(narrow: WideResNet38) -> None:  # noqa: ARG001
    backbone = build().eval()
    assert backbone.channels == [6, 8, 10, 12, 24]
    assert backbone.reductions == [2, 4, 8, 8, 8]
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = backbone(images)
    assert [m.shape[2] for m in maps] == [64 // r for r in backbone.reductions]


def test_one_frozen_level_is_the_published_one(narrow: WideResNet38) -> None:  # noqa: ARG001
    backbone = build()
    backbone.freeze(1, affine=True)
    frozen = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    learning = {
        n.split(".")[1] for n, p in backbone.named_parameters() if p.requires_grad and "conv" in n
    }
    assert {"conv1a", "b2", "b2_1", "b2_2"} <= frozen - learning
    assert learning >= {"b3", "b4", "b5", "b6", "b7"}


def test_dropout_follows_the_keys(narrow: WideResNet38) -> None:
    narrow.train()
    images = torch.randn(2, 3, 32, 32)
    outputs = []
    for keys in ([1, 2], [1, 2], [3, 4]):
        set_keys(narrow, torch.tensor(keys))
        outputs.append(narrow(images)[-1])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_converted_weights_are_loaded(narrow: WideResNet38, tmp_path: Path) -> None:
    """As published: no counters of batches, and a classifier that is not needed."""
    state = {n: v for n, v in narrow.state_dict().items() if "num_batches" not in n}
    state["linear1000.weight"] = torch.zeros(1000, 24)
    path = tmp_path / "converted.pth"
    torch.save(state, path)
    backbone = build(f"file:{path}").eval()
    images = torch.rand(1, 3, 32, 32)
    expected = narrow.eval()((images - backbone.mean[:, None, None]) / backbone.std[:, None, None])
    assert torch.equal(backbone(images)[-1], expected[-1])


def test_weights_that_do_not_fit_are_refused(narrow: WideResNet38, tmp_path: Path) -> None:
    state = narrow.state_dict()
    path = tmp_path / "other.pth"
    torch.save({f"net.{name}": value for name, value in state.items()}, path)
    with pytest.raises(UserError, match=r"keys missing, such as b2.bn_branch2a.bias"):
        build(f"file:{path}")
    torch.save({**state, "conv1a.weight": torch.zeros(4, 1, 3, 3)}, path)
    with pytest.raises(UserError, match=r"conv1a.weight: \(4, 1, 3, 3\) instead of \(4, 3, 3, 3\)"):
        build(f"file:{path}")


@pytest.mark.parametrize(
    ("weights", "stride", "message"),
    [("hub", 8, "file:PATH"), ("random", 16, "output stride 8 alone")],
)
def test_what_it_cannot_do_is_said(weights: str, stride: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(weights, stride)


def test_geometry_is_its_own(narrow: WideResNet38) -> None:  # noqa: ARG001
    config = BackboneConfig(name="wide_resnet38", weights="random", allow_download=False)
    with pytest.raises(UserError, match="geometry 'caffe' is for ResNets"):
        build_backbone(config, 8, False, "caffe")
