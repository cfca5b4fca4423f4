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
from wsss.methods.dscnet import DscNet, DscParams
from wsss.models.dropout import set_keys

CLASSES, SIZE = 3, 32
LATE = Progress(90, 100, 9)
SMALL = {"pixel_width": 8, "pixel_hidden": 8, "graph_width": 8, "seg_width": 8, "seg_dilation": 1}


def make(**params: Any) -> DscNet:
    torch.manual_seed(1)
    checked = DscParams.model_validate({**SMALL, **params})
    return DscNet(tiny_backbone(), CLASSES, checked, 0.0).train()


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


def test_seeds_come_from_cams_or_from_the_head() -> None:
    method, images = make().eval(), batch_of(2)["image"]
    assert torch.equal(method.seeds(None)(images), method.seeds("cam")(images))
    decoder = method.seeds("decoder")(images)
    assert decoder.shape[1] == CLASSES
    assert (decoder >= 0).all()
    assert (decoder.sum(1) < 1).all(), "the background has its share"
