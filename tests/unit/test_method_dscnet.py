"""DSCNet as a whole: its schedule, its switches, and where gradients go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.tiny_backbone import tiny_backbone
from wsss.config import Params
from wsss.data.training import Batch
from wsss.engine.task import Progress
from wsss.errors import UserError
from wsss.methods import dscnet
from wsss.methods.dscnet import DscNet, DscParams
from wsss.models.dropout import set_keys

CLASSES, SIZE = 3, 32
LATE = Progress(90, 100, 9)
SMALL = {"pixel_width": 8, "pixel_hidden": 8, "graph_width": 8, "seg_width": 8, "seg_dilation": 1}


def make(dropout: float = 0.0, **params: Any) -> DscNet:
    torch.manual_seed(1)
    checked = DscParams.model_validate({**SMALL, **params})
    return DscNet(tiny_backbone(), CLASSES, checked, dropout).train()


def batch_of(count: int) -> Batch:
    label = torch.zeros(count, CLASSES)
    label[torch.arange(count), torch.arange(count) % 2] = 1  # class 2 is never present
    return {
        "image": torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)),
        "label": label,
        "valid": torch.ones(count, 1, SIZE, SIZE, dtype=torch.bool),
        "key": torch.arange(count),
        "id": [str(k) for k in range(count)],
    }


def losses(method: DscNet, batch: Batch, progress: Progress = LATE) -> dict[str, torch.Tensor]:
    set_keys(method, batch["key"])
    found = method.losses(batch, progress)
    return {**found.terms, "total": found.total}


def numbers(found: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in found.items()}


def reached(parameters: Iterable[nn.Parameter]) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def test_its_parts_begin_one_after_the_other() -> None:
    method, batch = make(), batch_of(4)
    early, middle, late = (numbers(losses(method, batch, Progress(k, 100, 0))) for k in (9, 10, 20))
    streams = ("pgcl", "sgcl", "node", "cls_graph")
    assert all(early[name] == 0 for name in (*streams, "seg"))
    assert early["total"] == early["cls"]
    assert all(middle[name] > 0 for name in streams)
    assert middle["seg"] == 0
    assert late["seg"] > 0
    assert late["total"] == pytest.approx(sum(v for k, v in late.items() if k != "total"))


def test_streams_can_train_one_after_the_other() -> None:
    method, batch = make(pixel_span=[0.1, 0.5], graph_span=[0.5, 1.0]), batch_of(4)
    first, second = (numbers(losses(method, batch, Progress(k, 100, 0))) for k in (49, 50))
    assert first["pgcl"] > 0
    assert first["sgcl"] == 0
    assert second["pgcl"] == 0
    assert second["sgcl"] > 0


def test_switches_leave_their_terms_out() -> None:
    batch = batch_of(4)
    assert set(losses(make(pixel_weight=0.0), batch)) == {
        *("cls", "sgcl", "node", "cls_graph", "seg", "total")
    }
    assert set(losses(make(graph_weight=0.0), batch)) == {"cls", "pgcl", "seg", "total"}
    alone = losses(make(graph_weight=0.0, pixel_weight=0.0, seg_weight=0.0), batch)
    assert torch.equal(alone["total"], alone["cls"])
    with pytest.raises(UserError, match="seg_weight is 0"):
        make(seg_weight=0.0).segment(batch["image"])


def test_coupling_changes_the_pseudo_labels() -> None:
    batch = batch_of(4)
    found = [numbers(losses(make(coupling=c), batch)) for c in (True, False)]
    assert found[0]["seg"] != found[1]["seg"]
    assert found[0]["cls"] == found[1]["cls"]
    pure = [numbers(losses(make(purity=c), batch))["sgcl"] for c in (True, False)]
    assert pure[0] != pure[1]


def test_separate_training_keeps_masks_from_the_backbone() -> None:
    for kind in ("joint", "separate"):
        method, batch = make(segmentation=kind), batch_of(4)
        losses(method, batch)["seg"].backward()
        assert reached(method.seg_head.parameters())
        assert reached(method.backbone.parameters()) == (kind == "joint")
        others = (method.classifier, method.pixel_head, method.embed, method.gcn)
        assert not any(reached(m.parameters()) for m in others), "pseudo labels carry no gradient"


def test_where_the_gradients_of_the_streams_go() -> None:
    parts = {
        "pgcl": {"pixel_head"},
        "sgcl": {"embed", "gcn"},
        "node": {"embed", "gcn", "node_classifier"},
        "cls_graph": {"embed", "gcn"},
        "cls": {"classifier"},
    }
    for term, expected in parts.items():
        method, batch = make(), batch_of(4)
        losses(method, batch)[term].backward()
        names = ("classifier", "pixel_head", "embed", "gcn", "node_classifier", "seg_head")
        assert {n for n in names if reached(getattr(method, n).parameters())} == expected, term
        assert reached(method.backbone.parameters())


def test_the_queue_fills_while_training_alone() -> None:
    method = make(queue=5)
    losses(method.eval(), batch_of(4))
    assert not method.queue_valid.any()
    losses(method.train(), batch_of(4))
    filled = method.queue_valid.sum(1)
    assert filled[1] > 0
    assert filled[3] == 0  # class 2 was not there
    assert "queue_vectors" in method.state_dict()
    assert "queue_vectors" not in make().state_dict()


@pytest.mark.parametrize("kind", ["one image", "padding", "no labels"])
def test_degenerate_batches(kind: str) -> None:
    method, batch = make(), batch_of(1 if kind == "one image" else 4)
    if kind == "padding":
        batch["valid"] = torch.zeros_like(batch["valid"])
    if kind == "no labels":
        batch["label"] = torch.zeros_like(batch["label"])
    found = losses(method, batch)
    found["total"].backward()
    assert all(value.isfinite() for value in found.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    if kind == "padding":
        assert found["pgcl"].item() == found["seg"].item() == 0


def test_the_batch_must_be_made_of_groups(tiny_params: Params) -> None:
    training = tiny_params.base.classify.model_copy(update={"batch": 6})
    with pytest.raises(UserError, match="whole groups"):
        make().batches(torch.ones(20, CLASSES), training, 0)
    batches = make(group_size=3).batches(torch.ones(20, CLASSES), training, 0)(0)
    assert [len(batch) for batch in batches] == [6, 6, 6]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"high": 0.2, "low": 0.3}, r"low 0\.3 must not exceed high 0\.2"),
        ({"graph_span": [0.5, 0.1]}, "the start comes first"),
        ({"segmentation": "both"}, "segmentation"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DscParams.model_validate(params)


def test_refinements_give_different_pseudo_labels() -> None:
    batch = batch_of(4)
    found = {losses(make(refine=kind), batch)["seg"].item() for kind in ("pamr", "par", "none")}
    assert len(found) == 3


@pytest.mark.parametrize("kind", ["pamr", "par"])
def test_each_refinement_has_its_own_scale(kind: str) -> None:
    batch, own = batch_of(4), {"pamr": 0.1, "par": 0.3}
    given = {
        scale: losses(make(refine=kind, refine_scale=scale), batch)["seg"].item()
        for scale in own.values()
    }
    assert losses(make(refine=kind), batch)["seg"].item() == given[own[kind]]
    assert len(set(given.values())) == 2


def test_dropout_does_not_reach_the_pseudo_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    soft = DscNet._soft_labels
    monkeypatch.setattr(
        DscNet,
        "_soft_labels",
        lambda self, cam, *rest: (seen.append(cam), soft(self, cam, *rest))[1],
    )
    nodes = []
    for dropout in (0.0, 0.5):
        method, batch = make(dropout, graph_weight=0.1), batch_of(4)
        found = losses(method, batch)
        nodes.append(found["sgcl"])
        assert not seen[-1].requires_grad
    assert torch.equal(*seen)
    assert torch.equal(*nodes)
    assert not torch.equal(
        losses(make(0.5), batch_of(4))["cls"], losses(make(0.0), batch_of(4))["cls"]
    )


def test_shares_of_the_coupling_and_of_hard_anchors() -> None:
    batch = batch_of(4)
    half, cam, graph = (
        losses(make(coupling_share=share), batch)["seg"] for share in (0.5, 0.0, 1.0)
    )
    assert torch.equal(cam, losses(make(coupling=False), batch)["seg"])
    assert len({half.item(), cam.item(), graph.item()}) == 3
    hard, random = (
        losses(make(pixel_anchors=4, anchor_hard_share=share), batch)["pgcl"]
        for share in (1.0, 0.0)
    )
    assert not torch.equal(hard, random)


def test_graph_maps_start_at_their_lowest_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features after a ReLU are alike everywhere: without it no cell is surely background."""
    raised = torch.rand(4, CLASSES, 8, 8) / 2 + 0.5
    monkeypatch.setattr(dscnet, "cosine_maps", lambda *_: raised)
    batch, found = batch_of(4), []
    present = batch["label"].bool()
    for stretch in (True, False):
        method = make(graph_stretch=stretch, coupling_share=1.0, refine="none", mask_stride=4)
        output = method(batch["image"])
        cam = output.cam.detach()
        built = method._build(output.features, cam, batch)
        found.append(method._soft_labels(cam, built, batch)[present])
    assert found[0].amin((1, 2)).max() < 1e-6
    assert found[1].amin() > 0.4
    assert all(torch.allclose(maps.amax((1, 2)), torch.ones(4), atol=1e-3) for maps in found)


def test_nodes_may_share_the_classifier_of_images() -> None:
    method, batch = make(node_classifier="shared"), batch_of(4)
    assert not any(name.startswith("node_classifier") for name in method.state_dict())
    losses(method, batch)["node"].backward()
    assert reached(method.classifier.parameters())
    assert reached(method.embed.parameters())
    nodes = torch.randn(2, CLASSES, 8)
    rows = method.embed(method.classifier.weight).flatten(1)  # one pixel a class
    assert torch.allclose(method._classify_nodes(nodes), nodes @ rows.T, atol=1e-6)


def test_the_head_may_be_a_pyramid() -> None:
    method, batch = make(head="aspp", seg_rates=[1, 2]), batch_of(4)
    losses(method, batch)["seg"].backward()
    assert all(reached([p]) for p in method.seg_head.parameters())
    with torch.no_grad():
        assert method.eval().segment(batch["image"]).shape == (4, CLASSES + 1, 8, 8)


def test_seeds_come_from_cams_or_from_the_head() -> None:
    method, images = make().eval(), batch_of(2)["image"]
    assert torch.equal(method.seeds(None)(images), method.seeds("cam")(images))
    decoder = method.seeds("decoder")(images)
    assert decoder.shape[1] == CLASSES
    assert (decoder >= 0).all()
    assert (decoder.sum(1) < 1).all(), "the background has its share"
