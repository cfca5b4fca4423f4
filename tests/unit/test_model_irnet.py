"""The shape and the frozen parts of IRNet."""

from __future__ import annotations

import pytest
import torch

from wsss.config.schema import Backbone as BackboneConfig
from wsss.models.backbones import build_backbone
from wsss.models.irnet import IrNet


def build(name: str = "test_efficientnet.r160_in1k") -> IrNet:
    torch.manual_seed(0)
    config = BackboneConfig(name=name, weights="random", allow_download=False)
    return IrNet(build_backbone(config, 16, False))


@pytest.mark.parametrize("name", ["test_efficientnet.r160_in1k", "test_resnet.r160_in1k"])
@pytest.mark.parametrize("size", [(64, 64), (66, 95)])
def test_maps_have_stride_four_of_any_size(name: str, size: tuple[int, int]) -> None:
    network = build(name).eval()
    with torch.no_grad():
        found = network(torch.rand(2, 3, *size))
    grid = (-(-size[0] // 4), -(-size[1] // 4))
    assert found.edge.shape == (2, 1, *grid)
    assert found.displacement.shape == (2, 2, *grid)


def test_the_backbone_never_learns_nor_moves_its_statistics() -> None:
    network = build().train()
    before = {k: v.clone() for k, v in network.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    found = network(torch.rand(2, 3, 64, 64))
    (found.edge.sum() + found.displacement.sum()).backward()
    optimizer.step()
    for name, value in network.backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    learned = [p for p in network.parameters() if p.requires_grad]
    assert learned
    assert all(p.grad is not None for p in learned)


def test_the_mean_displacement_is_subtracted_in_eval_mode_alone() -> None:
    network = build()
    images = torch.rand(1, 3, 64, 64)
    network.mean_displacement.copy_(torch.tensor([2.0, -3.0]))
    with torch.no_grad():
        trained, evaluated = network.train()(images), network.eval()(images)
    shift = (trained.displacement - evaluated.displacement).mean((0, 2, 3))
    torch.testing.assert_close(shift, torch.tensor([2.0, -3.0]))
