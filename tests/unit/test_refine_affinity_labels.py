"""Affinity labels and pairs against naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.refine.affinity_labels import affinity_labels, majority, pair_masks
from wsss.refine.pairs import half_disc_offsets, partners

sides = st.integers(1, 20)


def random_mask(shape: tuple[int, ...], seed: int, ids: int = 4) -> torch.Tensor:
    """Ids 0..ids-2 and 255 in blocks, so that whole cells are padding sometimes."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, ids, shape, generator=generator, dtype=torch.uint8)
    return torch.where(values == ids - 1, 255, values)


def naive_labels(low: np.ndarray, high: np.ndarray, stride: int) -> np.ndarray:
    """The rule in the paper's code, cell by cell, on average-pooled one-hot maps."""
    height, width = low.shape
    rows, columns = -(-height // stride), -(-width // stride)
    result = np.zeros((rows, columns), np.uint8)
    for y in range(rows):
        for x in range(columns):
            where = np.s_[y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
            shares = [[(m[where] == c).sum() / stride**2 for c in range(8)] for m in (low, high)]
            label = int(np.argmax(shares[0]))
            if label == 0:
                label = 255
            if int(np.argmax(shares[1])) == 0:
                label = 0
            if min(np.max(shares[0]), np.max(shares[1])) < 1e-5:
                label = 255
            result[y, x] = label
    return result


@settings(max_examples=60, deadline=None)
@given(h=sides, w=sides, stride=st.integers(1, 5), seed=st.integers(0, 1000))
def test_equal_to_the_naive_rule(h: int, w: int, stride: int, seed: int) -> None:
    low, high = random_mask((2, h, w), seed)
    expected = naive_labels(low.numpy(), high.numpy(), stride)
    np.testing.assert_array_equal(affinity_labels(low, high, stride).numpy(), expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1, 1, 1),
        (1, 2, 1),  # the low-alpha class counts, whatever the high-alpha class
        (0, 1, 255),  # neither is sure
        (0, 0, 0),
        (1, 0, 0),  # sure background overrides
        (255, 255, 255),
        (255, 0, 255),
    ],
)
def test_rule(low: int, high: int, expected: int) -> None:
    low_mask, high_mask = (torch.full((8, 8), v, dtype=torch.uint8) for v in (low, high))
    assert affinity_labels(low_mask, high_mask).tolist() == [[expected]]


def test_batches_are_images_side_by_side() -> None:
    low, high = random_mask((2, 3, 19, 21), 0)
    single = [affinity_labels(a, b, 4) for a, b in zip(low, high, strict=True)]
    assert torch.equal(affinity_labels(low, high, 4), torch.stack(single))
    assert affinity_labels(low, high, 4).shape == (3, 5, 6)


def test_padding_does_not_vote() -> None:
    mask = torch.full((8, 8), 255, dtype=torch.uint8)
    mask[0, :3] = torch.tensor([7, 7, 0])
    assert majority(mask, 8).tolist() == [[7]]


def test_a_tie_goes_to_the_lowest_id() -> None:
    mask = torch.tensor([[3, 1], [1, 3]], dtype=torch.uint8)
    assert majority(mask, 2).tolist() == [[1]]


def test_bad_maps() -> None:
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="two uint8 maps"):
        affinity_labels(mask, mask[:4])
    with pytest.raises(ValueError, match="two uint8 maps"):
        affinity_labels(mask, mask.long())


def test_radius_five_has_34_pairs() -> None:
    assert len(half_disc_offsets(5)) == 34


@pytest.mark.parametrize("radius", [1, 2, 3, 5, 8])
def test_offsets_and_their_opposites_are_the_disc(radius: int) -> None:
    offsets = half_disc_offsets(radius)
    span = range(-radius, radius + 1)
    disc = {(dy, dx) for dy in span for dx in span if 0 < dy * dy + dx * dx < radius * radius}
    opposite = {(-dy, -dx) for dy, dx in offsets}
    assert set(offsets) | opposite == disc
    assert not set(offsets) & opposite


def test_radius_must_be_positive() -> None:
    with pytest.raises(ValueError, match="radius"):
        half_disc_offsets(0)


@settings(max_examples=40, deadline=None)
@given(h=st.integers(1, 9), w=st.integers(1, 9), radius=st.integers(1, 6))
def test_partners(h: int, w: int, radius: int) -> None:
    grid = torch.arange(h * w).reshape(h, w)
    offsets = half_disc_offsets(radius)
    offsets += [(-dy, -dx) for dy, dx in offsets]
    result = partners(grid[None], offsets, -1)[0]
    for index, (dy, dx) in enumerate(offsets):
        for y in range(h):
            for x in range(w):
                inside = 0 <= y + dy < h and 0 <= x + dx < w
                expected = (y + dy) * w + x + dx if inside else -1
                assert result[index, y, x] == expected


@settings(max_examples=20, deadline=None)
@given(h=st.integers(1, 9), w=st.integers(1, 9), seed=st.integers(0, 100))
def test_pair_masks(h: int, w: int, seed: int) -> None:
    labels = random_mask((2, h, w), seed)
    offsets = half_disc_offsets(3)
    masks = pair_masks(labels, offsets)
    for b, p, y, x in np.ndindex(2, len(offsets), h, w):
        dy, dx = offsets[p]
        inside = y + dy < h and 0 <= x + dx < w
        here = int(labels[b, y, x])
        there = int(labels[b, y + dy, x + dx]) if inside else 255
        valid = 255 not in (here, there)
        assert masks.background[b, p, y, x] == (valid and here == there == 0)
        assert masks.foreground[b, p, y, x] == (valid and here == there != 0)
        assert masks.negative[b, p, y, x] == (valid and here != there)
