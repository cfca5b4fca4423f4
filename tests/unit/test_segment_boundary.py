"""The boundary contrast as part of the segmentation loss, for every network and kind of label."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.test_model_segmenters import CLASSES, CNNS, NETS, backbone_of, network_of
from wsss.config import Params
from wsss.config.schema import Boundary
from wsss.engine.loop import split_batch
from wsss.models.dropout import set_keys
from wsss.models.segmenters import Segmenter
from wsss.tasks.segmentation import SegmentationTask

LOOSE = Boundary(weight=0.5, step=3, points=128, least=1, share=0.1, sharpness=1e6, literal=False)


def batch_of(count: int, soft: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, CLASSES, (count, 1, 4, 4), generator=generator).float()
    masks = F.interpolate(masks, (64, 64)).to(torch.uint8)
    masks[:, :, :6] = 255
    batch = {
        "image": torch.rand(count, 3, 64, 64, generator=generator),
        "label": torch.ones(count, CLASSES - 1),
        "masks": masks,
        "key": torch.arange(count),
        "id": [str(k) for k in range(count)],
    }
    if soft:
        batch["targets"] = torch.rand(count, CLASSES, 16, 16, generator=generator).softmax(1).half()
    return batch


def fresh(params: Params, net: str) -> Segmenter:
    """A network in training mode whose classes win in different places, so that it has
    boundaries: a random one mostly predicts one class everywhere."""
    torch.manual_seed(1)
    network = network_of(params, net, backbone_of(CNNS[0], 16), dropout=0.0).train()
    last = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
    assert last.out_channels == CLASSES
    assert last.bias is not None
    with torch.no_grad():
        last.bias -= network(batch_of(2, False)["image"]).mean((0, 2, 3))
    return network


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("labels", ["hard", "soft", "both"])
def test_every_network_learns_from_it(tiny_params: Params, net: str, labels: str) -> None:
    network = fresh(tiny_params, net)
    task = SegmentationTask(network, soft=labels == "soft", boundary=LOOSE).train()
    batch = batch_of(2, soft=labels != "hard")
    losses = task.losses(batch, None)  # type: ignore[arg-type]
    assert set(losses.terms) == {"ce", "beacon"}
    torch.testing.assert_close(losses.total, losses.terms["ce"] + 0.5 * losses.terms["beacon"])
    bare = SegmentationTask(network, soft=labels == "soft").train().losses(batch, None)  # type: ignore[arg-type]
    torch.testing.assert_close(bare.total, losses.terms["ce"])
    assert losses.terms["beacon"] != 0
    losses.terms["beacon"].backward()
    assert any(p.grad is not None and p.grad.any() for p in task.parameters())


def test_the_classifier_gets_none_of_it(tiny_params: Params) -> None:
    network = fresh(tiny_params, "bifpn")
    task = SegmentationTask(network, boundary=LOOSE).train()
    task.losses(batch_of(2, soft=False), None).terms["beacon"].backward()  # type: ignore[arg-type]
    assert network.classifier.weight.grad is None  # type: ignore[union-attr]


def test_of_several_scales_the_first_counts(tiny_params: Params) -> None:
    network = fresh(tiny_params, "bifpn")
    terms = []
    for msc in (None, [0.5]):
        task = SegmentationTask(network, msc=msc, boundary=LOOSE).train()
        terms.append(task.losses(batch_of(2, soft=False), None).terms)  # type: ignore[arg-type]
    torch.testing.assert_close(terms[0]["beacon"], terms[1]["beacon"])
    assert terms[0]["ce"] < terms[1]["ce"]


def test_micro_batches_add_up(tiny_params: Params) -> None:
    network = fresh(tiny_params, "bifpn")
    task = SegmentationTask(network, boundary=LOOSE).eval()
    batch = batch_of(4, soft=True)
    whole = task.losses(batch, None)  # type: ignore[arg-type]
    parts = split_batch(batch, 2)
    sizes = [task.sizes(part) for part in parts]
    totals = {name: sum(size[name] for size in sizes) for name in sizes[0]}
    found = [task.losses({**part, "sizes": totals}, None) for part in parts]  # type: ignore[arg-type]
    torch.testing.assert_close(sum(f.total for f in found), whole.total)


def test_bf16_is_finite(tiny_params: Params) -> None:
    network = fresh(tiny_params, "bifpn")
    task = SegmentationTask(network, boundary=LOOSE).train()
    batch = batch_of(2, soft=True)
    set_keys(task, batch["key"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = task.losses(batch, None)  # type: ignore[arg-type]
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(p.grad.isfinite().all() for p in task.parameters() if p.grad is not None)
