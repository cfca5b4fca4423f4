"""torch.compile of a backbone gives what the backbone gives."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from tests.tiny_backbone import tiny_backbone
from wsss.config import Params
from wsss.engine.device import place

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = tiny_backbone()


def test_sizes_that_differ_have_the_maps_of_the_plain_backbone(tiny_params: Params) -> None:
    compute = tiny_params.base.compute.model_copy(update={"channels_last": False})
    plain, quick = Network().eval(), Network().eval()
    names = set(quick.state_dict())
    place(quick, compute.model_copy(update={"compile": True}), torch.device("cpu"))
    assert set(quick.state_dict()) == names
    generator = torch.Generator().manual_seed(0)
    for height, width in ((32, 48), (40, 24)):
        images = torch.rand(2, 3, height, width, generator=generator)
        with torch.no_grad():
            for mine, theirs in zip(quick.backbone(images), plain.backbone(images), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
