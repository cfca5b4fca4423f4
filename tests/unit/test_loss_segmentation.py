"""Segmentation losses against loops over pixels, and in parts against the whole."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from wsss.engine.loop import split_batch
from wsss.engine.task import Progress
from wsss.losses.segmentation import (
    IGNORE,
    balanced_by_image,
    hard_sizes,
    hard_sums,
    mean_of_groups,
    soft_sizes,
    soft_sums,
)
from wsss.models.dense import Dense
from wsss.models.pyramid import pyramid_logits
from wsss.tasks.segmentation import SegmentationTask

START = Progress(0, 10, 0)


def random_case(seed: int, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 4, 5, 6, generator=generator)
    masks = torch.randint(-1, 4, (count, 5, 6), generator=generator)
    masks[masks < 0] = IGNORE
    return logits, masks


def naive(logits: Tensor, masks: Tensor, balanced: bool) -> float:
    """Loop over pixels."""
    groups: dict[bool, list[float]] = {True: [], False: []}
    for b in range(len(masks)):
        for y in range(masks.shape[1]):
            for x in range(masks.shape[2]):
                label = int(masks[b, y, x])
                if label != IGNORE:
                    scores = logits[b, :, y, x].double().exp()
                    value = -math.log(scores[label] / scores.sum())
                    groups[label == 0].append(value)
    means = [sum(g) / len(g) if g else 0.0 for g in groups.values()]
    flat = groups[True] + groups[False]
    if balanced:
        return sum(means) / 2
    return sum(flat) / len(flat) if flat else 0.0


@pytest.mark.parametrize("balanced", [False, True])
@given(seed=st.integers(0, 1000))
def test_hard_losses_are_means_over_pixels(balanced: bool, seed: int) -> None:
    logits, masks = random_case(seed)
    sizes = hard_sizes(masks, balanced)
    got = mean_of_groups(hard_sums(logits, masks, balanced), sizes)
    assert float(got) == pytest.approx(naive(logits, masks, balanced), rel=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
def test_certain_soft_labels_are_hard_labels(balanced: bool) -> None:
    logits, masks = random_case(3)
    targets = torch.zeros_like(logits)
    for k in range(logits.shape[1]):
        targets[:, k] = (masks == k).float()
    assert soft_sizes(targets, balanced) == hard_sizes(masks, balanced)
    hard, soft = hard_sums(logits, masks, balanced), soft_sums(logits, targets, balanced)
    assert hard.keys() == soft.keys()
    for name, value in hard.items():
        torch.testing.assert_close(soft[name], value)


def test_soft_labels_weigh_each_class_by_its_probability() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).view(1, 3, 1, 1)
    targets = torch.tensor([0.25, 0.75, 0.0]).view(1, 3, 1, 1)
    plain = mean_of_groups(soft_sums(logits, targets, False), soft_sizes(targets, False))
    assert float(plain) == pytest.approx(-(0.25 * math.log(0.5) + 0.75 * math.log(0.3)))
    even = mean_of_groups(soft_sums(logits, targets, True), soft_sizes(targets, True))
    assert float(even) == pytest.approx(-(math.log(0.5) + math.log(0.3)) / 2)


def test_a_batch_without_any_label_costs_nothing() -> None:
    logits = torch.randn(2, 4, 5, 6, requires_grad=True)
    masks = torch.full((2, 5, 6), IGNORE)
    for balanced in (False, True):
        sums = hard_sums(logits, masks, balanced)
        loss = mean_of_groups(sums, hard_sizes(masks, balanced))
        assert float(loss.detach()) == 0
        loss.backward()
    assert not logits.grad.any()


class Pixels(nn.Module):
    """The least segmentation network: one 3x3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Conv2d(3, 4, 3, padding=1, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(images).logits

    def dense(self, images: Tensor) -> Dense:
        return Dense(self.backbone(images), images, aligned=False)


def batch_of(seed: int) -> dict[str, Any]:
    _, masks = random_case(seed, 4)
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(4, 4, 5, 6, generator=generator)
    targets[:, :, 0] = 0
    return {
        "image": torch.rand(4, 3, 5, 6, generator=generator),
        "masks": masks[:, None].to(torch.uint8),
        "targets": targets / targets.sum(1, keepdim=True).clamp(min=1e-9),
        "id": list("abcd"),
    }


@pytest.mark.parametrize("msc", [None, [0.75, 0.5]])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_micro_batches_add_up_to_the_whole_batch(
    balanced: bool, soft: bool, msc: list[float] | None
) -> None:
    batch = batch_of(1)
    # One image all background and one all ignored: shares differ between the parts.
    batch["masks"][0], batch["masks"][2] = 0, IGNORE
    task = SegmentationTask(Pixels(), balanced, soft, msc)  # type: ignore[arg-type]
    task.losses(batch, START).total.backward()
    whole = [p.grad.clone() for p in task.parameters()]
    task.zero_grad()
    parts = split_batch(batch, 1)
    sizes = [task.sizes(part) for part in parts]
    totals = {name: sum(size[name] for size in sizes) for name in sizes[0]}
    assert totals == pytest.approx(task.sizes(batch))
    for part in parts:
        task.losses({**part, "sizes": totals}, START).total.backward()
    for parameter, gradient in zip(task.parameters(), whole, strict=True):
        assert gradient.any()
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_pyramid_takes_the_maximum_and_trains_every_scale() -> None:
    task = SegmentationTask(Pixels(), msc=[0.5])  # type: ignore[arg-type]
    images = torch.rand(2, 3, 16, 24)
    full, half, best = pyramid_logits(task.network, images, [0.5])
    torch.testing.assert_close(full, task.network(images))
    assert half.shape == (2, 4, 4, 6)
    upsampled = nn.functional.interpolate(half, (8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(best, torch.maximum(full, upsampled))
    torch.testing.assert_close(task.logits(images), best)
    masks = torch.randint(0, 4, (2, 1, 16, 24), dtype=torch.uint8)
    expected = torch.stack(
        [
            nn.functional.cross_entropy(
                nn.functional.interpolate(x, (16, 24), mode="bilinear", align_corners=False),
                masks[:, 0].long(),
            )
            for x in (full, half, best)
        ]
    ).sum()
    got = task.losses({"image": images, "masks": masks, "id": ["a", "b"]}, START).total
    torch.testing.assert_close(got, expected)


def test_without_a_pyramid_a_prediction_is_the_networks() -> None:
    task = SegmentationTask(Pixels())  # type: ignore[arg-type]
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(task.logits(images), task.network(images))


@pytest.mark.parametrize("count", [1, 3])
def test_each_image_has_its_own_balanced_mean(count: int) -> None:
    logits = torch.randn(count, 4, 5, 6)
    masks = torch.randint(0, 4, (count, 5, 6))
    masks[:, 0] = 255
    expected = 0.0
    for image, mask in zip(logits, masks, strict=True):
        groups = []
        for group in (mask == 0, (mask > 0) & (mask < 255)):
            values = [
                -float(image.log_softmax(0)[mask[y, x], y, x]) for y, x in group.nonzero().tolist()
            ]
            groups.append(sum(values) / len(values))
        expected += sum(groups) / 2 / count
    assert float(balanced_by_image(logits, masks)) == pytest.approx(expected, rel=1e-5)


def test_an_image_without_labelled_pixels_gives_zero() -> None:
    logits = torch.randn(1, 4, 5, 6, requires_grad=True)
    loss = balanced_by_image(logits, torch.full((1, 5, 6), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()
