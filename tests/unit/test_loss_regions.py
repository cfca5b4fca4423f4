"""The matching of regions against loops over images, patches and quadrants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.views import Overlap, Views, draw_pair
from wsss.losses.regions import (
    DEFAULT,
    Patches,
    draw_patches,
    halves_axis,
    region_matching,
    sliding_axis,
)
from wsss.losses.transport import transport_distance


def view(size: int, seed: int, count: int = 1, channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.rand(count, channels, size, size, generator=generator), dim=1)


def smooth(size: int, seed: int, count: int) -> Tensor:
    """Maps with structure, so that pairs differ in more than rounding."""
    coarse = view(5, seed, count)
    spread = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)
    return F.normalize(spread, dim=1)


def test_patches_are_drawn_in_their_bounds() -> None:
    seen = set()
    for seed in range(300):
        patches = draw_patches(np.random.default_rng(seed), 15, 40)
        for size, stride, length in zip(patches.size, patches.stride, (15, 40), strict=True):
            assert length // 3 <= size <= length // 2
            assert size // 2 <= stride <= size
        seen.add(patches.size[0])
    assert seen == {5, 6, 7}
    other = replace(DEFAULT, smallest=5, largest=3, step=4)
    for seed in range(50):
        patches = draw_patches(np.random.default_rng(seed), 15, 40, other)
        assert all(n // 5 <= s <= n // 3 for s, n in zip(patches.size, (15, 40), strict=True))
        assert all(
            size // 4 <= stride <= size
            for size, stride in zip(patches.size, patches.stride, strict=True)
        )


@pytest.mark.parametrize(("size", "stride", "pooling"), [(31, 7, 1), (10, 9, 1), (31, 30, 4)])
def test_sliding_windows_are_resized_to_the_stride_and_pooled(
    size: int, stride: int, pooling: int
) -> None:
    line = torch.rand(80)
    weights = torch.from_numpy(sliding_axis(3, 75, size, stride, 80, pooling))
    starts = range(3, 3 + 75 - size + 1, stride)
    assert len(weights) == len(starts)
    for begin, rows in zip(starts, weights, strict=True):
        window = line[None, None, begin : begin + size]
        window = F.interpolate(window, stride, mode="linear", align_corners=True)
        expected = F.avg_pool1d(window, pooling)[0, 0]
        torch.testing.assert_close(rows @ line, expected)


def test_halves_are_averaged_over_four() -> None:
    line = torch.rand(30)
    got = torch.from_numpy(halves_axis(5, 19, 30, 4)) @ line
    for number, start in enumerate((5, 14)):
        expected = [line[start + c : start + c + 4].mean() for c in (0, 4)]
        torch.testing.assert_close(got[number], torch.stack(expected))


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(k) for k in range(count)]


def sliding_cells(maps: Tensor, patches: Patches) -> list[Tensor]:
    """Cells (M, K) of every window of (K, h, w)."""
    found = []
    for y in range(0, maps.shape[1] - patches.size[0] + 1, patches.stride[0]):
        for x in range(0, maps.shape[2] - patches.size[1] + 1, patches.stride[1]):
            window = maps[None, :, y : y + patches.size[0], x : x + patches.size[1]]
            window = F.interpolate(window, patches.stride, mode="bilinear", align_corners=True)
            if max(patches.stride) > 28:
                window = F.avg_pool2d(window, 4)
            found.append(window[0].flatten(1).T)
    return found


def quadrant_cells(maps: Tensor) -> list[Tensor]:
    """Cells (N, K) of the quarters of (K, h, w)."""
    height, width = maps.shape[1] // 2, maps.shape[2] // 2
    quarters = [maps[:, y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    return [F.avg_pool2d(quarter[None], 4)[0].flatten(1).T for quarter in quarters]


def naive_matching(first: Tensor, second: Tensor, overlaps: list[Overlap]) -> float:
    kept = []
    for b, (o, rng) in enumerate(zip(overlaps, generators(len(overlaps)), strict=True)):
        low, high = sorted((o.height, o.width))
        if low < 15 or high > 5 * low:
            continue
        patches = draw_patches(rng, o.height, o.width)
        if min(patches.stride) < 7:
            continue
        mine = first[b, :, o.top : o.top + o.height, o.left : o.left + o.width]
        theirs = second[
            b, :, o.other_top : o.other_top + o.height, o.other_left : o.other_left + o.width
        ]
        kept.append(
            min(
                float(transport_distance(x, y))
                for x in sliding_cells(mine, patches)
                for y in quadrant_cells(theirs)
            )
        )
    return sum(kept) / len(kept)


@pytest.mark.parametrize("size", [40, 130])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_loop_over_images_patches_and_quadrants(size: int, seed: int) -> None:
    """At 130 pixels some patches are pooled and others are not."""
    rng = np.random.default_rng(seed)
    pairs = [draw_pair(rng, (2 * size, 2 * size), Views(size, size)) for _ in range(8)]
    overlaps = [pair.overlap for pair in pairs]
    first, second = smooth(size, seed, 8), smooth(size, seed + 9, 8)
    got = region_matching(first, second, overlaps, generators(8))
    assert float(got.mean()) == pytest.approx(naive_matching(first, second, overlaps), rel=1e-3)


def test_the_closest_pair_of_each_image_counts() -> None:
    overlaps = [
        Overlap(40, 36, 0, 4, 0, 0),
        Overlap(14, 40, 0, 0, 26, 0),  # too low
        Overlap(30, 40, 10, 0, 0, 0),
        Overlap(40, 40, 0, 0, 0, 0),
    ]
    first, second = view(40, 0, 4), view(40, 1, 4)
    got = region_matching(first, second, overlaps, generators(4))
    assert float(got.mean()) == pytest.approx(naive_matching(first, second, overlaps), rel=1e-4)


def test_the_first_view_learns_inside_the_overlap() -> None:
    first, second = view(40, 0).requires_grad_(), view(40, 1).requires_grad_()
    overlap = Overlap(30, 32, 10, 0, 0, 8)
    region_matching(first, second, [overlap], generators(1)).sum().backward()
    assert second.grad is None
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert first.grad.any()
    assert not first.grad[..., :10, :].any()
    assert not first.grad[..., 32:].any()


@pytest.mark.parametrize(
    "overlap",
    [
        Overlap(1, 1, 0, 0, 39, 39),
        Overlap(14, 30, 0, 0, 0, 0),
        Overlap(40, 7, 0, 0, 0, 0),
    ],
)
def test_overlaps_too_small_have_no_distance(overlap: Overlap) -> None:
    first = view(40, 0).requires_grad_()
    found = region_matching(first, view(40, 1), [overlap], generators(1))
    assert found.shape == (0,)
    found.sum().backward()
    assert first.grad is not None
    assert not first.grad.any()


def test_an_overlap_too_long_is_skipped() -> None:
    first, second = view(100, 0), view(100, 1)
    long = Overlap(100, 16, 0, 0, 0, 0)
    assert len(region_matching(first, second, [long], generators(1))) == 0
    patient = replace(DEFAULT, largest_aspect=9.0, least_patch=1)
    assert region_matching(first, second, [long], generators(1), patient) > 0
