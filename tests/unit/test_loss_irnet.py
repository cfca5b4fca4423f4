"""IRNet's losses against loops over pairs."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.labels import IGNORE
from wsss.losses.affinity import pair_loss, pair_sizes
from wsss.losses.irnet import displacement_loss
from wsss.refine.affinity_labels import pair_masks
from wsss.refine.pairs import half_disc_offsets

OFFSETS = half_disc_offsets(3)


def each_pair(labels: torch.Tensor):  # type: ignore[no-untyped-def]
    """Yield (kind, image, pair, cell, partner) of every pair that counts."""
    batch, height, width = labels.shape
    for b in range(batch):
        for p, (dy, dx) in enumerate(OFFSETS):
            for y in range(height):
                for x in range(width):
                    v, u = y + dy, x + dx
                    if not (0 <= v < height and 0 <= u < width):
                        continue
                    one, two = int(labels[b, y, x]), int(labels[b, v, u])
                    if IGNORE in (one, two):
                        continue
                    kind = "negative" if one != two else "background" if one == 0 else "foreground"
                    yield kind, b, p, (y, x), (v, u)


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor([0, 1, 2, IGNORE], dtype=torch.uint8)
    labels = table[torch.randint(0, 4, (2, 4, 5), generator=generator)]
    affinities = torch.rand(2, len(OFFSETS), 4, 5, generator=generator)
    field = 3 * torch.randn(2, 2, 4, 5, generator=generator)
    return labels, affinities, field


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_boundary_loss_equals_loops(seed: int) -> None:
    labels, affinities, _ = draw(seed)
    terms: dict[str, list[float]] = {"background": [], "foreground": [], "negative": []}
    for kind, b, p, (y, x), _ in each_pair(labels):
        a = float(affinities[b, p, y, x])
        terms[kind].append(-math.log(1 + 1e-5 - a if kind == "negative" else a + 1e-5))
    means = {kind: sum(v) / (len(v) + 1e-5) for kind, v in terms.items()}
    expected = (means["background"] / 2 + means["foreground"] / 2 + means["negative"]) / 2
    pairs = pair_masks(labels, OFFSETS)
    found = pair_loss(affinities, pairs, pair_sizes(pairs))
    assert math.isclose(float(found), expected, rel_tol=1e-4, abs_tol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_displacement_loss_equals_loops(seed: int) -> None:
    labels, _, field = draw(seed)
    sums, counts = {"background": 0.0, "foreground": 0.0}, {"background": 0, "foreground": 0}
    for kind, b, p, (y, x), (v, u) in each_pair(labels):
        if kind == "negative":
            continue
        target = OFFSETS[p] if kind == "foreground" else (0, 0)
        for axis in range(2):
            gap = float(field[b, axis, y, x] - field[b, axis, v, u]) - target[axis]
            sums[kind] += abs(gap)
        counts[kind] += 1
    pairs = pair_masks(labels, OFFSETS)
    found = displacement_loss(field, pairs, OFFSETS, pair_sizes(pairs))
    for value, kind in zip(found, ("foreground", "background"), strict=True):
        expected = sums[kind] / (2 * counts[kind] + 1e-5)
        assert math.isclose(float(value), expected, rel_tol=1e-4, abs_tol=1e-5)


def test_cells_that_point_at_one_centre_cost_nothing() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    field = torch.stack([2 - rows, 3 - columns])[None]
    labels = torch.full((1, 6, 6), 1, dtype=torch.uint8)
    pairs = pair_masks(labels, OFFSETS)
    foreground, background = displacement_loss(field, pairs, OFFSETS, pair_sizes(pairs))
    assert float(foreground) == 0
    assert float(background) == 0


def test_without_any_pair_every_term_is_zero() -> None:
    labels = torch.full((1, 4, 4), IGNORE, dtype=torch.uint8)
    pairs = pair_masks(labels, OFFSETS)
    sizes = pair_sizes(pairs)
    assert float(pair_loss(torch.rand(1, len(OFFSETS), 4, 4), pairs, sizes)) == 0
    found = displacement_loss(torch.rand(1, 2, 4, 4), pairs, OFFSETS, sizes)
    assert [float(value) for value in found] == [0, 0]
