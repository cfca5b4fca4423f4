"""The closest regions of two views of an image.

Source: MuSCLe (Yuan et al., citation in :mod:`wsss.methods.muscle`), region-level contrast, as in
the official code. Cutting, resizing and pooling patches are linear maps of rows and of columns;
they are made on the host, from host numbers, so that the whole batch is worked on at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsss.data.views import Overlap
from wsss.losses.transport import Transport, transport_distance, transport_search

QUADRANTS = 4


@dataclass(frozen=True)
class Regions:
    """Constants, those of the official code by default.

    Attributes:
        transport: the distance of two patches.
        least_overlap: smaller overlaps (pixels a side) are skipped.
        largest_aspect: longer overlaps are skipped.
        smallest, largest: sliding patches have at least this fraction of the overlap's side (3: a
            third) and at most that one.
        step: they move by at least this fraction of their side (2: half), at most all of it.
        least_patch: images whose patches would have fewer cells a side are skipped.
        largest_patch: larger patches are averaged over ``pooling`` x ``pooling`` cells.
        pooling: of those and of all quadrants.
    """

    transport: Transport = field(default_factory=Transport)
    least_overlap: int = 15
    largest_aspect: float = 5.0
    smallest: int = 3
    largest: int = 2
    step: int = 2
    least_patch: int = 7
    largest_patch: int = 28
    pooling: int = 4


DEFAULT = Regions()


class Patches(NamedTuple):
    """Size and stride of the sliding patches of one image, rows before columns."""

    size: tuple[int, int]
    stride: tuple[int, int]


class Cut(NamedTuple):
    """How the cells of one image are made: for each axis (windows, cells, pixels) float32.

    ``image`` is its place in the batch; ``mine`` rows and columns of the sliding patches of
    the first view, ``theirs`` of the quadrants of the second.
    """

    image: int
    mine: tuple[np.ndarray, np.ndarray]
    theirs: tuple[np.ndarray, np.ndarray]


def draw_patches(
    rng: np.random.Generator, height: int, width: int, how: Regions = DEFAULT
) -> Patches:
    """Draw the patches of an overlap: a third to a half of it, moved by half to all of their size.

    Size and stride are drawn for each axis; ``how`` has the fractions.
    """
    lengths = (height, width)
    sizes = [int(rng.integers(n // how.smallest, n // how.largest + 1)) for n in lengths]
    strides = [int(rng.integers(size // how.step, size + 1)) for size in sizes]
    return Patches((sizes[0], sizes[1]), (strides[0], strides[1]))


def sliding_axis(
    start: int, length: int, size: int, stride: int, side: int, pooling: int = 1
) -> np.ndarray:
    """Windows of ``size`` pixels that move by ``stride`` inside ``length`` pixels from ``start``.

    Each is resized to ``stride`` cells, bilinearly with corners aligned; ``pooling`` of these are
    averaged to one, what remains at the end is dropped.

    Returns:
        (windows, cells, side): the weights of the ``side`` pixels of a view.
    """
    places = np.linspace(0, size - 1, stride)
    low = np.minimum(places.astype(int), size - 2) if size > 1 else np.zeros(stride, int)
    resize = np.zeros((stride, size), np.float32)
    resize[np.arange(stride), low] = 1 - (places - low)
    if size > 1:
        resize[np.arange(stride), low + 1] += places - low
    cells = resize[: stride // pooling * pooling].reshape(-1, pooling, size).mean(1)
    starts = range(start, start + length - size + 1, stride)
    weights = np.zeros((len(starts), len(cells), side), np.float32)
    for number, begin in enumerate(starts):
        weights[number, :, begin : begin + size] = cells
    return weights


def halves_axis(start: int, length: int, side: int, pooling: int) -> np.ndarray:
    """Both halves of ``length`` pixels from ``start``, averaged over ``pooling`` pixels each.

    Returns:
        (2, cells, side), see :func:`sliding_axis`.
    """
    half = length // 2
    weights = np.zeros((2, half // pooling, side), np.float32)
    for number in range(2):
        for cell in range(half // pooling):
            begin = start + number * half + cell * pooling
            weights[number, cell, begin : begin + pooling] = 1 / pooling
    return weights


def region_matching(
    first: Tensor,
    second: Tensor,
    overlaps: Sequence[Overlap],
    generators: Sequence[np.random.Generator],
    how: Regions = DEFAULT,
) -> Tensor:
    """Distance of the closest pair of a first view's patch and a second view's quadrant.

    The closest pair is found without gradient; its distance alone is minimised.

    Args:
        first: (B, K, S, S) non-negative maps, unit vectors over K.
        second: (B, K, S, S) the same of the second views; no gradient reaches them.
        overlaps: of the views, on the host.
        generators: one an image, for the size and the stride of its patches.
        how: constants.

    Returns:
        (n,) distances of the images that have patches.
    """
    # Pooled and other patches apart: together, most cells would be padding.
    groups: dict[bool, list[Cut]] = {}
    for index, (overlap, rng) in enumerate(zip(overlaps, generators, strict=True)):
        if (patches := _patches(overlap, rng, how)) is not None:
            pooled = max(patches.stride) > how.largest_patch
            cut = _cut(index, overlap, patches, first.shape[-1], pooled, how)
            groups.setdefault(pooled, []).append(cut)
    if not groups:
        return first.flatten()[:0]
    found = [_closest(first, second.detach(), groups[key], how) for key in sorted(groups)]
    return torch.cat(found)


def _patches(overlap: Overlap, rng: np.random.Generator, how: Regions) -> Patches | None:
    sides = sorted((overlap.height, overlap.width))
    if sides[0] < how.least_overlap or sides[1] > how.largest_aspect * sides[0]:
        return None
    patches = draw_patches(rng, overlap.height, overlap.width, how)
    return patches if min(patches.stride) >= how.least_patch else None


def _cut(
    index: int, overlap: Overlap, patches: Patches, side: int, pooled: bool, how: Regions
) -> Cut:
    pooling = how.pooling if pooled else 1
    lengths = (overlap.height, overlap.width)
    mine = [
        sliding_axis(start, length, size, stride, side, pooling)
        for start, length, size, stride in zip(
            (overlap.top, overlap.left), lengths, *patches, strict=True
        )
    ]
    theirs = [
        halves_axis(start, length, side, how.pooling)
        for start, length in zip((overlap.other_top, overlap.other_left), lengths, strict=True)
    ]
    return Cut(index, (mine[0], mine[1]), (theirs[0], theirs[1]))


def _closest(first: Tensor, second: Tensor, cuts: Sequence[Cut], how: Regions) -> Tensor:
    """Distances (n,) of the closest pairs of n images."""
    images = torch.tensor([cut.image for cut in cuts]).to(first.device, non_blocking=True)
    patches, mine = _cells(first.index_select(0, images), [cut.mine for cut in cuts])
    quadrants, theirs = _cells(second.index_select(0, images), [cut.theirs for cut in cuts])
    best = _search(patches.detach(), quadrants, (mine, theirs), cuts, how.transport)
    count, most = patches.shape[:2]
    line = torch.arange(count, device=first.device)
    one = patches.flatten(0, 1).index_select(0, line * most + best // QUADRANTS)
    other = quadrants.flatten(0, 1).index_select(0, line * QUADRANTS + best % QUADRANTS)
    return transport_distance(one, other, how.transport, (mine, theirs))


def _search(
    patches: Tensor,
    quadrants: Tensor,
    valid: tuple[Tensor, Tensor],
    cuts: Sequence[Cut],
    how: Transport,
) -> Tensor:
    """Index (n,) of each image's closest pair: 4 x its patch + its quadrant."""
    count, most = patches.shape[:2]
    columns = max(len(cut.mine[1]) for cut in cuts)
    # Patches that are there, in one row: images have few or many.
    slots = [
        (number, number * most + y * columns + x)
        for number, cut in enumerate(cuts)
        for y in range(len(cut.mine[0]))
        for x in range(len(cut.mine[1]))
    ]
    owners, places = torch.tensor(slots).to(patches.device, non_blocking=True).T
    flat = patches.flatten(0, 1).index_select(0, places)
    masks = valid[0].index_select(0, owners), valid[1].index_select(0, owners)
    distances = [
        transport_search(flat, quadrants[:, q].index_select(0, owners), how, masks)
        for q in range(QUADRANTS)
    ]
    table = flat.new_full((count * most, QUADRANTS), torch.inf)
    return table.index_copy(0, places, torch.stack(distances, 1)).view(count, -1).argmin(1)


def _cells(maps: Tensor, axes: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Apply the rows and columns of each image, padded to those of the largest.

    Args:
        maps: (n, K, S, S).

    Returns:
        (n, R, M, K) cells and (n, M) bool, which of them there are.
    """
    rows, tall = _padded([axis[0] for axis in axes], maps)
    columns, wide = _padded([axis[1] for axis in axes], maps)
    found = torch.einsum("bkyx,bnmy->bknmx", maps, rows)
    found = torch.einsum("bknmx,bpqx->bnpmqk", found, columns)
    valid = tall[:, :, None] & wide[:, None, :]
    return found.flatten(3, 4).flatten(1, 2), valid.flatten(1)


def _padded(weights: Sequence[np.ndarray], like: Tensor) -> tuple[Tensor, Tensor]:
    """Stack (windows, cells, S) of images to (n, W, M, S), and which cells each has: (n, M)."""
    windows, cells, side = np.array([w.shape for w in weights]).max(0)
    stacked = np.zeros((len(weights), windows, cells, side), np.float32)
    valid = np.zeros((len(weights), cells), bool)
    for number, one in enumerate(weights):
        stacked[number, : one.shape[0], : one.shape[1]] = one
        valid[number, : one.shape[1]] = True
    return (
        torch.from_numpy(stacked).to(like.device, like.dtype, non_blocking=True),
        torch.from_numpy(valid).to(like.device, non_blocking=True),
    )
