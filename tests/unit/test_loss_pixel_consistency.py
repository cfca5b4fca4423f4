"""Agreement of views against a loop over the pixels of their overlaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.data.views import Overlap, Views, draw_pair
from wsss.losses.pixel_consistency import align, pixel_consistency

SIZE = 9


def overlaps_of(count: int, seed: int) -> list[Overlap]:
    rng = np.random.default_rng(seed)
    return [draw_pair(rng, (20, 17), Views(SIZE, 12)).overlap for _ in range(count)]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_it_is_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(3, 4, SIZE, SIZE, generator=generator) for _ in range(2))
    overlaps = overlaps_of(3, seed)
    total = 0.0
    for b, o in enumerate(overlaps):
        values = []
        for y in range(o.height):
            for x in range(o.width):
                one = first[b, :, o.top + y, o.left + x]
                two = second[b, :, o.other_top + y, o.other_left + x]
                values.append(float(one @ two / (one.norm() * two.norm())))
        total += 1 - sum(values) / len(values)
    got = pixel_consistency(first, second, torch.tensor(overlaps))
    assert float(got) == pytest.approx(total / 3, rel=1e-4, abs=1e-6)


def test_aligned_views_of_one_image_agree() -> None:
    """Both views are windows of the same maps."""
    pair = draw_pair(np.random.default_rng(3), (20, 17), Views(SIZE, 12))
    whole = torch.rand(1, 4, pair.height, pair.width)
    (y, x), (v, u) = pair.first, pair.second
    first, second = whole[..., y : y + SIZE, x : x + SIZE], whole[..., v : v + SIZE, u : u + SIZE]
    overlaps = torch.tensor([pair.overlap])
    moved, inside = align(second, overlaps)
    assert torch.equal((moved * inside[:, None]), first * inside[:, None])
    assert int(inside.sum()) == pair.overlap.height * pair.overlap.width
    assert pixel_consistency(first, second, overlaps) == pytest.approx(0, abs=1e-6)


def test_the_first_view_learns_and_only_where_they_overlap() -> None:
    first, second = (torch.rand(1, 3, SIZE, SIZE).requires_grad_() for _ in range(2))
    overlap = Overlap(2, 3, 7, 0, 0, 6)
    pixel_consistency(first, second, torch.tensor([overlap])).backward()
    assert second.grad is None
    assert first.grad is not None
    reached = first.grad.abs().sum(1)[0] > 0
    assert reached[7:9, 0:3].all()
    assert int(reached.sum()) == 6


def test_an_overlap_of_one_pixel_and_empty_maps() -> None:
    first = torch.zeros(1, 2, SIZE, SIZE, requires_grad=True)
    overlap = torch.tensor([Overlap(1, 1, 0, 0, SIZE - 1, SIZE - 1)])
    value = pixel_consistency(first, torch.rand(1, 2, SIZE, SIZE), overlap)
    value.backward()
    assert value == 1
    assert first.grad is not None
    assert first.grad.isfinite().all()
