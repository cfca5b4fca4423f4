"""Masks made while training and their balanced loss."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from wsss.losses.online_masks import (
    class_counts,
    complete,
    present_softmax,
    self_supervised_loss,
    two_level_masks,
)

SIZE, GRID = (8, 8), (4, 4)


def untouched(maps: Tensor) -> Tensor:
    return maps


def test_softmax_over_present_classes_alone() -> None:
    scores, presence = torch.rand(2, 4, 3, 3), torch.tensor([[1.0, 0, 1, 0], [1.0, 1, 1, 1]])
    got = present_softmax(scores, presence)
    kept = scores[0, [0, 2]].softmax(0)
    torch.testing.assert_close(got[0, [0, 2]], kept)
    assert (got[0, [1, 3]] == 0).all()
    torch.testing.assert_close(got[1], scores[1].softmax(0))


def test_two_levels_leave_the_middle_open() -> None:
    """Left third below the low level, right third above the high one."""
    maps, label = torch.zeros(1, 2, *SIZE), torch.tensor([[1.0, 0.0]])
    maps[0, 0, :, :] = torch.tensor([0.0, 0.0, 0.0, 0.4, 0.4, 0.9, 0.9, 0.9])
    got = two_level_masks(maps, label, 0.55, 0.2, untouched, SIZE, SIZE)
    assert got[0, 0].tolist() == [0, 0, 0, 255, 255, 1, 1, 1]


def test_an_absent_class_is_never_drawn() -> None:
    maps = torch.ones(2, 3, *SIZE)
    label = torch.tensor([[0.0, 1, 0], [0.0, 0, 1]])
    got = two_level_masks(maps, label, 0.55, 0.2, untouched, SIZE, GRID)
    assert (got[0] == 2).all()
    assert (got[1] == 3).all()


def test_the_refinement_sees_both_levels_at_the_grid() -> None:
    seen: list[tuple[int, ...]] = []

    def watch(maps: Tensor) -> Tensor:
        seen.append(tuple(maps.shape))
        assert maps[:, 0].mean() > maps[:, 3].mean()  # the higher background first
        return maps

    maps = torch.rand(1, 2, *SIZE)
    two_level_masks(maps, torch.ones(1, 2), 0.55, 0.2, watch, SIZE, GRID)
    assert seen == [(1, 6, *GRID)]


def test_counts_leave_ignored_pixels_out() -> None:
    masks = torch.tensor([[[0, 1], [1, 255]], [[2, 2], [2, 2]]])
    assert class_counts(masks, 3).tolist() == [[1, 2, 0], [0, 0, 4]]


def test_complete_needs_background_and_every_class() -> None:
    label = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    masks = torch.tensor([[[0, 1], [1, 255]], [[0, 0], [1, 0]], [[1, 1], [1, 1]]])
    assert complete(masks, label).tolist() == [False, True, False]


def test_the_loss_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (2, 6, 6), generator=generator)
    masks[:, :2] = 255
    logits = torch.randn(2, 3, 6, 6, generator=generator)
    label = torch.ones(2, 2)
    total = 0.0
    for b in range(2):
        labelled = [int(v) for v in masks[b].flatten() if v != 255]
        number = len(labelled)
        for y, x in itertools.product(range(6), range(6)):
            c = int(masks[b, y, x])
            if c != 255:
                weight = (number - labelled.count(c)) / (1 + number)
                total -= weight * math.log(float(logits[b, :, y, x].softmax(0)[c])) / 36
    assert float(self_supervised_loss(logits, masks, label)) == pytest.approx(total / 2, rel=1e-5)


def test_a_missing_class_zeroes_its_image_and_stays_in_the_mean() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    masks = torch.zeros(2, 4, 4, dtype=torch.int64)
    masks[:, :2] = 1
    one = self_supervised_loss(logits, masks, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    both = self_supervised_loss(logits, masks, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    alone = self_supervised_loss(logits[:1], masks[:1], torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(one, alone / 2)
    assert both > one
    one.backward()
    assert logits.grad is not None
    assert logits.grad[0].any()
    assert not logits.grad[1].any()


def test_nothing_labelled_is_no_loss() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = self_supervised_loss(logits, torch.full((1, 4, 4), 255), torch.tensor([[1.0, 0.0]]))
    assert float(loss) == 0
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
