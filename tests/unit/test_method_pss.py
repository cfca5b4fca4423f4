"""PSS as a whole: its schedule, its switches, and where gradients go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.tiny_backbone import tiny_backbone
from wsss.data.training import Batch
from wsss.engine.task import Progress
from wsss.losses.region_contrast import region_masks
from wsss.methods.pss import Pss, PssParams
from wsss.models.dropout import set_keys
from wsss.models.teacher import ramped

CLASSES, SIZE = 3, 32
LATE = Progress(90, 100, 9)


def make(**params: Any) -> Pss:
    torch.manual_seed(1)
    return Pss(tiny_backbone(), CLASSES, PssParams.model_validate({"width": 8, **params}), 0.5)


def batch_of(count: int, label: torch.Tensor | None = None) -> Batch:
    if label is None:
        label = torch.zeros(count, CLASSES)
        label[torch.arange(count), torch.arange(count) % 2] = 1  # class 2 is never present
    return {
        "image": torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)),
        "label": label,
        "valid": torch.ones(count, 1, SIZE, SIZE, dtype=torch.bool),
        "key": torch.arange(count),
        "id": [str(k) for k in range(count)],
    }


def losses(method: Pss, batch: Batch, progress: Progress = LATE) -> dict[str, torch.Tensor]:
    set_keys(method, batch["key"])
    found = method.losses(batch, progress)
    return {**found.terms, "total": found.total}


def test_its_parts_begin_one_after_the_other() -> None:
    method, batch = make().train(), batch_of(2)
    with torch.no_grad():
        early, middle, late = (losses(method, batch, Progress(k, 100, 0)) for k in (19, 20, 40))
    assert (float(early["rcm"]), float(early["mam"])) == (0, 0)
    assert float(early["total"]) == float(early["cls"])
    assert float(middle["rcm"]) > 0
    assert float(middle["mam"]) == 0
    assert float(late["mam"]) > 0
    parts = late["cls"] + late["rcm"] + late["mam"]
    assert torch.allclose(late["total"], parts)


def test_processes_share_the_images_that_attention_looks_at() -> None:
    assert [make().fewest(batch) for batch in (2, 3, 8)] == [1, 2, 4]
    assert make(mam_share=0.1).fewest(8) == 1
    assert make(mam_weight=0).fewest(2) == 2


def test_no_gradient_reaches_the_support_network() -> None:
    method, batch = make().train(), batch_of(2)
    before = {k: v.clone() for k, v in method.support.state_dict().items()}
    losses(method, batch)["total"].backward()
    assert all(p.grad is None for p in method.support.parameters())
    assert all(p.grad is not None for p in method.head.parameters())
    # Nor do its running statistics move: it is in eval mode all the time.
    assert all(torch.equal(v, before[k]) for k, v in method.support.state_dict().items())
    assert not any(m.training for m in method.support.modules())
    assert method.head.training


@pytest.mark.parametrize("ramp", [True, False])
def test_the_support_network_is_an_exact_average(ramp: bool) -> None:
    method = make(support_ramp=ramp).train()
    expected = method.support.head.classifier.weight.clone()
    for step in range(4):
        with torch.no_grad():
            method.head.classifier.weight.add_(step + 1)
        method.after_step(Progress(step, 100, 0))
        m = ramped(0.996, step) if ramp else 0.996
        expected = m * expected + (1 - m) * method.head.classifier.weight
    got = method.support.head.classifier.weight
    assert torch.allclose(got, expected, atol=1e-6)


def test_switches_leave_their_part_out() -> None:
    batch = batch_of(2)
    assert "mam" not in losses(make(mam_weight=0.0).train(), batch)
    assert "rcm" not in losses(make(rcm_weight=0.0).train(), batch)
    alone = losses(make(rcm_weight=0.0, mam_weight=0.0).train(), batch)
    assert torch.equal(alone["total"], alone["cls"])


def test_choices_of_attention_and_parts_of_the_batch_count() -> None:
    batch, whole = batch_of(4), {"mam_share": 1.0}
    choices = (
        whole,
        {"mam_share": 0.5},
        {"mam_weighted": False, **whole},
        {"mam_grow": False, **whole},
    )
    values = [float(losses(make(**p).train(), batch)["mam"].detach()) for p in choices]
    assert len(set(values)) == 4
    assert values[0] < values[3]  # of both directions, one


def test_the_memory_keeps_what_the_batch_lacks() -> None:
    method = make().train()
    losses(method, batch_of(2, torch.eye(CLASSES)[[0, 1]]))
    assert method.known.tolist() == [True, True, True, False]
    kept = method.vectors[2].clone()
    losses(method, batch_of(2, torch.eye(CLASSES)[[0, 0]]))
    assert method.known.tolist() == [True, True, True, False]
    assert torch.equal(method.vectors[2], kept)
    forgetful = make(memory=None).train()
    losses(forgetful, batch_of(2))
    assert not forgetful.known.any()


def test_foreground_alone_has_no_background_prototype() -> None:
    method = make(background=False).train()
    losses(method, batch_of(2))
    assert not method.known[0]
    assert method.known[1]


def test_evaluation_leaves_the_memory_alone() -> None:
    method = make().eval()
    losses(method, batch_of(2))
    assert not method.known.any()


def test_one_image_and_an_image_of_padding_alone() -> None:
    method, batch = make().train(), batch_of(1)
    assert losses(method, batch)["total"].isfinite()
    batch["valid"] = torch.zeros_like(batch["valid"])
    found = losses(method, batch)
    assert found["rcm"].item() == found["mam"].item() == 0
    found["total"].backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_regions_see_every_scale() -> None:
    """Masks come from the sum over scales, on the grid of the features."""
    method, batch = make().train(), batch_of(2)
    support = method._look(batch["image"])
    assert [tuple(cam.shape[2:]) for cam in support.cams] == [(4, 4), (8, 8), (12, 12), (16, 16)]
    assert support.features.shape == (2, 8, 8, 8)
    masks = region_masks(support.cams[1], batch["label"], 0.3)
    assert masks.shape == (2, 8, 8)


def test_support_scales_must_contain_one() -> None:
    with pytest.raises(ValidationError, match=r"must contain 1\.0"):
        PssParams.model_validate({"support_scales": [0.5, 2.0]})


def test_seeds_come_from_either_network() -> None:
    method, images = make().eval(), batch_of(2)["image"]
    assert torch.equal(method.seeds("main")(images), method.seeds("support")(images))
    with torch.no_grad():
        method.head.classifier.weight.neg_()
    assert not torch.equal(method.seeds(None)(images), method.seeds("support")(images))
