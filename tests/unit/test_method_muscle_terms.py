"""MuSCLe's terms, written out from the equations, image by image; without erasing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.unit.test_method_muscle import CLASSES, TERMS, at, learning, matched, muscle
from wsss.data.training import Batch
from wsss.losses.regions import region_matching
from wsss.methods.muscle import Muscle
from wsss.models.dropout import set_keys


def plain_and_refined(method: Muscle, images: Tensor) -> tuple[Tensor, Tensor]:
    """CAM and SGC (B, C, H, W) at the size of the images."""
    with torch.no_grad():
        maps = method.maps(images)
    size = images.shape[2:]
    spread = [
        F.interpolate(m, size, mode="bilinear", align_corners=True)
        for m in (maps.plain, maps.refined)
    ]
    return spread[0], spread[1]


def softmaxed(maps: Tensor) -> Tensor:
    """[1 - max s, s] of one image's (C, H, W), s over all classes."""
    shares = maps.exp() / maps.exp().sum(0)
    return torch.cat([1 - shares.amax(0, keepdim=True), shares])


def stretched(maps: Tensor, label: Tensor) -> Tensor:
    """Present classes of one image between their minimum and maximum, and 1 - max."""
    found = torch.zeros_like(maps)
    for k in range(CLASSES):
        low, high = maps[k].relu().min(), maps[k].relu().max()
        found[k] = ((maps[k].relu() - low - 1e-6) / (high - low + 1e-6)).relu() * label[k]
    return torch.cat([1 - found.amax(0, keepdim=True), found])


def several() -> Batch:
    """Images 0 and 1 have the same tags, 2 shares one with them, 3 to 5 none."""
    batch = matched(6)
    tags = [[0], [0], [0, 1], [1, 2], [1, 2], [2]]
    batch["label"] = torch.stack([F.one_hot(torch.tensor(t), CLASSES).sum(0) for t in tags]).float()
    return batch


@pytest.mark.parametrize("per_batch", [False, True])
def test_the_first_step_is_that_of_the_paper(per_batch: bool) -> None:
    count: Any = "batch" if per_batch else "image"
    method, batch = muscle(erase=0.0, er_count=count).eval(), several()
    found = method.losses(batch, at(30)).terms
    images, labels = batch["image"], batch["label"]
    plain, refined = plain_and_refined(method, images)
    with torch.no_grad():
        pooled = method.backbone(images)[-1].mean((2, 3))
        logits = pooled @ method.classifier.weight[:, :, 0, 0].T
    total = dict.fromkeys(TERMS[:5], 0.0)
    for b, (z, y) in enumerate(zip(logits, labels, strict=True)):
        p = z.sigmoid()
        q = torch.where(y > 0, p, 1 - p)
        total["focal"] += float((-0.5 * (1 - q) ** 2 * (q + 1e-9).log()).sum())
        total["soft"] += float(-(y * p.log() + (1 - y) * (1 - p).log()).mean())
        pairs = sum(
            ((p * (1 - y))[j] - (p * y)[i]).exp() for i in range(CLASSES) for j in range(CLASSES)
        )
        total["rank"] += float((1 + pairs / CLASSES**2).log())
        present = torch.cat([torch.ones(1), y])[:, None, None]
        gaps = ((softmaxed(plain[b]) - softmaxed(refined[b])) * present).abs().flatten()
        tags = labels.sum() if per_batch else y.sum()
        largest = int(0.2 * tags * images.shape[2] * images.shape[3])
        total["er"] += float(gaps.sort(descending=True).values[:largest].mean())
    units = pooled / pooled.norm(dim=1, keepdim=True)
    for i in range(len(labels)):
        later = range(i + 1, len(labels))
        same = [j for j in later if torch.equal(labels[i], labels[j])]
        apart = [j for j in later if not (labels[i] * labels[j]).any()]
        if same and len(apart) > len(same):
            near, far = (
                float(sum((units[i] @ units[j] / 0.1).exp() for j in js)) for js in (same, apart)
            )
            total["imc"] -= np.log(near / (near + far))
    assert set(found) == set(total)
    assert total["imc"] > 0
    for name, value in total.items():
        assert float(found[name].detach()) == pytest.approx(value / len(labels), rel=1e-3), name


def test_the_second_step_is_that_of_the_paper() -> None:
    """View 1 gives the refined maps, view 2 the plain ones."""
    method, batch = muscle().train(), matched()
    found = method.losses(batch, at(99), 1).terms
    method.eval()
    views, labels = batch["views"], batch["label"]
    refined, plain = (
        plain_and_refined(method, views[:, 0])[1],
        plain_and_refined(method, views[:, 1])[0],
    )
    cosines, first, second = [], [], []
    for b, overlap in enumerate(batch["overlaps"]):
        h, w, top, left, other_top, other_left = overlap
        mine = stretched(refined[b], labels[b])[:, top : top + h, left : left + w]
        theirs = stretched(plain[b], labels[b])
        theirs = theirs[:, other_top : other_top + h, other_left : other_left + w]
        cosine = (mine * theirs).sum(0) / (mine.norm(dim=0) * theirs.norm(dim=0)).clamp(min=1e-8)
        cosines.append(cosine.mean())
        # Regions are compared over all classes, tagged or not.
        for maps, kept in ((refined, first), (plain, second)):
            values = softmaxed(maps[b])
            kept.append(values / values.norm(dim=0))
    generators = [np.random.default_rng([key, 1]) for key in batch["host_keys"]]
    distances = region_matching(
        torch.stack(first), torch.stack(second), batch["overlaps"], generators
    )
    assert len(distances) > 0
    expected = {"pix": 1 - torch.stack(cosines).mean(), "emd": distances.mean()}
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-3, atol=1e-5)


def test_image_contrast_reaches_the_backbone_alone() -> None:
    method, batch = muscle(**{**dict.fromkeys(TERMS, 0.0), "imc": 1.0}), matched()
    set_keys(method, batch["key"])
    losses = method.losses(batch, at(30))
    assert tuple(losses.terms) == ("imc",)
    assert losses.terms["imc"] > 0
    losses.total.backward()
    reached = learning(method)
    assert "backbone.network.conv_stem.weight" in reached
    assert not {n for n in reached if not n.startswith("backbone.")}
