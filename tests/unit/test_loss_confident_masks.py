"""Masks of two thresholds and their balanced cross-entropy."""

from __future__ import annotations

import pytest
import torch

from wsss.labels import IGNORE
from wsss.losses.confident_masks import (
    confident_masks,
    present_peaks,
)
from wsss.losses.segmentation import balanced_cross_entropy, hard_sizes, hard_sums, mean_of_groups


def test_sure_background_unsure_and_padding() -> None:
    maps = torch.tensor([[[0.9, 0.1, 0.4, 0.6, 0.9]], [[0.2, 0.2, 0.5, 0.8, 0.1]]])[:, None]
    maps = maps.transpose(0, 1)  # one image of two classes, 1 x 5 cells
    valid = torch.tensor([[[True, True, True, True, False]]])
    got = confident_masks(maps, 0.55, 0.25, valid)
    assert got.tolist() == [[[1, 0, IGNORE, 2, IGNORE]]]


def test_peaks_are_those_of_present_classes() -> None:
    maps = torch.tensor([[[[2.0, 4, -1]], [[9.0, 9, 9]], [[0.0, 0, 0]]]])
    got = present_peaks(maps, torch.tensor([[1.0, 0, 1]]))
    assert torch.allclose(got[0, 0], torch.tensor([[0.5, 1, 0]]), atol=1e-4)
    assert not got[0, 1:].any()


def test_it_is_the_balanced_loss_of_the_segmentation_stage() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 5, generator=generator)
    masks = torch.tensor([0, 0, 2, 3, IGNORE])[torch.randint(0, 5, (2, 5, 5), generator=generator)]
    expected = mean_of_groups(hard_sums(logits, masks, True), hard_sizes(masks, True))
    assert torch.allclose(balanced_cross_entropy(logits, masks), expected)


@pytest.mark.parametrize("value", [IGNORE, 0, 1])
def test_a_part_without_cells_counts_as_nothing(value: int) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = balanced_cross_entropy(logits, torch.full((1, 4, 4), value))
    loss.backward()
    assert (loss.item() == 0) == (value == IGNORE)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
