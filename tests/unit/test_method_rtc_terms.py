"""RTC's terms and parts, written out from the equations, image by image; without dropout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.unit.test_method_rtc import CLASSES, USUAL, batch_of, losses, make
from wsss.data.training import Batch
from wsss.engine.task import Progress
from wsss.losses.normalisation import max_norm
from wsss.losses.prototypes import cells_of, ranked_scores
from wsss.losses.siamese import View
from wsss.methods.rtc import CrossRepresentation, Decoder, Rtc
from wsss.refine.local import neighbour_weights, refine_locally

SIDE, SMALL, GRID = 64, 48, 6
COUNT = 4  # an eighth of the 36 cells of a view


def wide(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=True)


def method_at_8() -> Rtc:
    return make(stride=8, view_size=SMALL).eval()


def looked(method: Rtc, batch: Batch) -> tuple[View, View]:
    with torch.no_grad():
        return method._look(batch["image"]), method._look(wide(batch["image"], SMALL))


def sparse_views(method: Rtc, batch: Batch) -> tuple[View, View]:
    """Both views with features of few large channels, which differ from cell to cell and between
    the views, unlike those of a random network; the method sees the same."""
    generator = torch.Generator().manual_seed(7)
    views = []
    for view in looked(method, batch):
        drawn = torch.rand(view.features.shape, generator=generator)
        views.append(view._replace(features=drawn**8))
    left = iter(views)
    method._look = lambda images: next(left)  # type: ignore[method-assign] # noqa: ARG005
    return views[0], views[1]


def floored(maps: Tensor) -> Tensor:
    """Of one (h, w) map: its values below the minimum + 1e-5 are 0 and end below it."""
    positive = maps.relu()
    low, high = positive.min(), positive.max()
    kept = torch.where(positive < low + 1e-5, 0, positive)
    return (kept - low - 1e-5) / (high - low + 1e-5)


def cells(view: View) -> tuple[Tensor, Tensor]:
    """Scores (B, C + 1, h, w) and raw features on the grid of the second view."""
    refined, features = wide(view.refined, GRID), wide(view.features, GRID)
    scores = torch.full_like(refined, 0.2)
    for b in range(len(refined)):
        for k in range(1, CLASSES + 1):
            scores[b, k] = floored(refined[b, k])
    return scores, features


def pseudo(scores: Tensor, label: Tensor) -> Tensor:
    presence = torch.cat([torch.ones(len(label), 1), label], 1)[:, :, None, None]
    return (scores * presence).softmax(1).argmax(1)


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Weights and places (b, y, x flattened) of a class's highest cells of the whole batch."""
    top = scores[:, k].flatten().topk(COUNT)
    return top.values, top.indices


def rows(features: Tensor) -> Tensor:
    """(B * h * w, D), in the order of :func:`best`."""
    return torch.stack([f[:, y, x] for f in features for y in range(GRID) for x in range(GRID)])


def prototype(scores: Tensor, features: Tensor, k: int) -> Tensor:
    """sum r f / sum r, of length 1."""
    weights, places = best(scores, k)
    mean = sum(w * rows(features)[p] for w, p in zip(weights, places, strict=True)) / weights.sum()
    return mean / mean.norm()


def nce(features: Tensor, centres: list[Tensor], labels: Tensor) -> Tensor:
    values = []
    for cell, own in zip(rows(features), labels.flatten().tolist(), strict=True):
        terms = torch.stack([(cell / cell.norm() @ p / 0.1).exp() for p in centres])
        values.append(-(terms[own] / terms.sum()).log())
    return torch.stack(values).mean()


def winner(maps: Tensor) -> Tensor:
    return torch.where(maps < maps.amax(0, keepdim=True), 0, maps)


def test_the_contrasts_cross_weights_and_features() -> None:
    """P1: weights of view 1, features of view 2; the labels or the prototypes change places."""
    method, batch = method_at_8(), batch_of(USUAL, SIDE)
    views = sparse_views(method, batch)
    found = losses(method, batch).terms
    (r1, f1), (r2, f2) = (cells(view) for view in views)
    p1 = [prototype(r1, f2, k) for k in range(CLASSES + 1)]
    p2 = [prototype(r2, f1, k) for k in range(CLASSES + 1)]
    y1, y2 = (pseudo(r, batch["label"]) for r in (r1, r2))
    expected = {
        "nce_intra": nce(f1, p1, y1) + nce(f2, p2, y2),
        "nce_cross_label": nce(f1, p1, y2) + nce(f2, p2, y1),
        "nce_cross_prototype": nce(f1, p2, y1) + nce(f2, p1, y2),
    }
    assert not torch.equal(y1, y2)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), 0.1 * value / 2, rtol=1e-4, atol=1e-6)


def test_the_compensator_adds_cells_of_the_crossed_view() -> None:
    """new_1 = r_1 + attention of f_2 to the cells that r_1 chose of f_2; by analogy new_2."""
    method, batch = method_at_8(), batch_of(USUAL, SIDE)
    views = sparse_views(method, batch)
    found = losses(method, batch).terms["com"]
    (r1, f1), (r2, f2) = (cells(view) for view in views)
    total = torch.zeros(())
    for view, r, crossed in ((views[0], r1, f2), (views[1], r2, f1)):
        keys = F.normalize(rows(crossed), dim=1)
        for b, label in enumerate(batch["label"]):
            new = r[b, 1:].clone()
            for k in range(CLASSES):
                weights, places = best(r, k + 1)
                for y in range(GRID):
                    for x in range(GRID):
                        here = F.normalize(crossed[b, :, y, x], dim=0)
                        new[k, y, x] += (keys[places] @ here).softmax(0) @ weights
            target = winner(wide(max_norm(new[None]), SMALL)[0] * label[:, None, None])
            own = winner(wide(max_norm(view.wide_cam[b][None]), SMALL)[0] * label[:, None, None])
            gaps = (target - own).abs().flatten().sort(descending=True).values
            total += gaps[: int(0.8 * CLASSES * SMALL * SMALL)].mean() / len(USUAL)
    torch.testing.assert_close(found.detach(), total, rtol=1e-4, atol=1e-6)


def test_the_terms_of_seam_are_those_of_the_paper() -> None:
    """cls, min, er, ecr; er and ecr in the frame of view 2."""
    method, batch = method_at_8(), batch_of(USUAL, SIDE)
    found = losses(method, batch).terms
    views = looked(method, batch)
    expected = dict.fromkeys(("cls", "min", "er", "ecr"), 0.0)
    for b, label in enumerate(batch["label"]):
        full = torch.cat([torch.ones(1), label])[:, None, None]
        plain, refined = [], []
        for view, side in zip(views, (SIDE, SMALL), strict=True):
            cam, spread = (wide(m[b][None], side) for m in (view.cam, view.refined))
            score = cam.mean((2, 3))[0].sigmoid()
            margin = -(label * score.log() + (1 - label) * (1 - score).log()).mean()
            expected["cls"] += float(margin) / 2
            strongest = (spread[0, 1:] * full[1:]).amax(0).flatten().sort().values
            expected["min"] += float(strongest[: side * side // 4].relu().mean()) / 2
            plain.append(wide(max_norm(cam), SMALL)[0] * full[1:])
            refined.append(wide(max_norm(spread), SMALL)[0] * full)
        expected["er"] += float((plain[0] - plain[1]).abs().mean())
        for theirs, mine in ((plain[1], refined[0]), (plain[0], refined[1])):
            target = torch.cat([1 - theirs.amax(0, keepdim=True), winner(theirs)])
            gaps = (target - mine).abs().flatten().sort(descending=True).values
            expected["ecr"] += float(gaps[: int(0.2 * len(gaps))].mean())
    for name, value in expected.items():
        assert float(found[name].detach()) == pytest.approx(value / len(USUAL), rel=1e-4), name


def designed(method: Rtc, batch: Batch) -> View:
    """View 1 with refined maps whose online masks show every class: one in each corner."""
    one = looked(method, batch)[0]
    refined = torch.rand(one.refined.shape, generator=torch.Generator().manual_seed(3)) * 0.35
    for k, (y, x) in enumerate([(0, 0), (0, 4), (4, 0)]):
        refined[:, k + 1, y : y + 4, x : x + 4] += 0.6
    return one._replace(refined=refined)


def online_mask(maps: Tensor, present: list[int], colours: Tensor, dilations: list[int]) -> Tensor:
    """Of one image: maps (C, h, w) of its refined CAMs on their grid."""
    stretched = torch.stack(
        [((m - m.min() - 1e-5).relu() / (m.max() - m.min() + 1e-5)) for m in maps.relu()]
    )
    half = F.interpolate(colours[None], (SIDE // 2, SIDE // 2), mode="bilinear")
    weights = neighbour_weights(half, "varm", dilations, contrast=4, share=0.01)
    levels = []
    for constant in (0.55, 0.2):
        background = torch.full((1, SIDE, SIDE), constant)
        chosen = torch.stack([wide(stretched[None], SIDE)[0][k - 1] for k in present])
        planes = torch.cat([background, chosen])[None]
        # Corners are not aligned here, unlike anywhere else.
        planes = F.interpolate(planes, (SIDE // 2, SIDE // 2), mode="bilinear").softmax(1)
        soft = refine_locally(planes, weights, 10, dilations)
        order = F.interpolate(soft, (SIDE, SIDE), mode="bilinear")[0].argmax(0)
        levels.append(torch.tensor([0, *present])[order])
    high, low = levels
    return torch.where(high > 0, high, torch.where(low == 0, 0, 255))


def test_the_decoder_learns_masks_of_two_backgrounds() -> None:
    method, batch = method_at_8(), batch_of(USUAL, SIDE)
    batch["valid"][0, :, :, :7] = False
    one = designed(method, batch)
    with torch.no_grad():
        found = method._segmentation(one, batch, batch["label"])
        logits = wide(method.decoder(one.levels[1], one.levels[4]), SIDE).log_softmax(1)
    values = []
    for b, label in enumerate(batch["label"]):
        present = [k + 1 for k in range(CLASSES) if label[k]]
        mask = online_mask(one.refined[b, 1:], present, batch["image"][b], [1, 2, 4])
        mask = torch.where(batch["valid"][b, 0], mask, 255)
        assert set(mask.unique().tolist()) - {255} == {0, *present}, "of no weight otherwise"
        labelled = int((mask != 255).sum())
        assert labelled < SIDE * SIDE
        total = 0.0
        for k in (0, *present):
            where = mask == k
            weight = (labelled - int(where.sum())) / (1 + labelled)
            total += float((-logits[b, k] * where).sum()) * weight
        values.append(total / SIDE / SIDE)
    assert float(found) == pytest.approx(sum(values) / len(values), rel=1e-4)


def test_the_total_has_the_decoders_loss_of_view_one() -> None:
    method, batch = method_at_8(), batch_of(USUAL, SIDE)
    one = looked(method, batch)[0]
    found = method.losses(batch, Progress(90, 100, 9)).terms["seg"]
    expected = method._segmentation(one, batch, batch["label"])
    torch.testing.assert_close(found.detach(), expected.detach())


def test_scores_are_floored_on_the_common_grid() -> None:
    """Zeroed cells end below 0, the constant is channel 0, absent classes have no label."""
    torch.manual_seed(0)
    refined, features = torch.randn(2, CLASSES + 1, 5, 5), torch.randn(2, 3, 5, 5)
    label = torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]])
    got = cells_of(refined, features, (4, 4), label, 0.2)
    moved = wide(refined, 4)
    for b in range(2):
        for k in range(1, CLASSES + 1):
            torch.testing.assert_close(got.scores[b, k], floored(moved[b, k]))
    assert (got.scores[:, 0] == torch.tensor(0.2)).all()
    assert got.scores.min() < 0
    torch.testing.assert_close(got.features, wide(features, 4))
    assert torch.equal(got.labels, pseudo(got.scores, label))
    assert not (got.labels[0] > 1).any()


def test_the_background_is_a_constant_or_where_present_classes_are_weak() -> None:
    scores, label = torch.rand(2, CLASSES + 1, 3, 3), torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]])
    assert torch.equal(ranked_scores(scores, label, "constant"), scores)
    lowest = ranked_scores(scores, label, "lowest")
    for b in range(2):
        present = scores[b, 1:] * label[b][:, None, None]
        torch.testing.assert_close(lowest[b, 0], 1 - present.amax(0))
        torch.testing.assert_close(lowest[b, 1:], present)


def test_cross_representation_is_the_mean_of_two_correlations() -> None:
    """Deep: conv5 and conv6, each through a ReLU; shallow: colours beside conv4 through one."""
    torch.manual_seed(0)
    module = CrossRepresentation(4, 5, 6, 3, 2)
    images, cam = torch.rand(2, 3, 20, 20), torch.randn(2, CLASSES, 5, 5)
    levels = [torch.randn(2, 4, 10, 10), torch.randn(2, 5, 5, 5), torch.randn(2, 6, 5, 5)]
    got = module(cam, images, levels)
    with torch.no_grad():
        deep = torch.cat([module.deep5(levels[1]).relu(), module.deep6(levels[2]).relu()], 1)
        # Features are resized before the convolution, and nothing follows the last one.
        lines = module.shallow4(wide(levels[0], 5)).relu()
        both = (module.deep(deep), module.shallow(torch.cat([wide(images, 5), lines], 1)))
    for b in range(2):
        peak = (cam[b].relu() - 1e-5).relu() / (cam[b].relu().amax((1, 2), keepdim=True) + 1e-5)
        rival = torch.cat([1 - peak.amax(0, keepdim=True), winner(peak)]).flatten(1)
        spread = torch.zeros_like(rival)
        for features in both:
            units = [f / (f.norm() + 1e-5) for f in features[b].flatten(1).T]
            alike = torch.stack([torch.stack([(i @ j).clamp(min=0) for j in units]) for i in units])
            alike = alike / (alike.sum(0, keepdim=True) + 1e-5)
            spread += rival @ alike / 2
        torch.testing.assert_close(got[b].flatten(1), spread, rtol=1e-4, atol=1e-5)


def test_the_decoder_joins_three_branches() -> None:
    torch.manual_seed(0)
    module = Decoder(3, 7, CLASSES + 1, 4, 2, dilation=3)
    conv3, conv6 = torch.randn(1, 3, 12, 12), torch.randn(1, 7, 6, 6)
    with torch.no_grad():
        first, second = module.wide
        far = F.conv2d(conv6, first.weight, first.bias, padding=3, dilation=3)
        far = F.conv2d(far, second.weight, second.bias, padding=3, dilation=3)
        near = F.conv2d(conv6, module.near.weight, padding=1)
        merged = F.conv2d(torch.cat([far, near], 1), module.merge.weight)
        low = F.conv2d(conv3, module.low.weight, padding=1)
        joined = F.conv2d(torch.cat([wide(merged, 12), low], 1), module.project.weight).relu()
        torch.testing.assert_close(module(conv3, conv6), F.conv2d(joined, module.classifier.weight))
    widths = [tuple(layer.weight.shape[:2]) for layer in (first, second, module.merge)]
    assert widths == [(8, 7), (4, 8), (4, 8)]
    assert first.bias is not None
    assert second.bias is not None
