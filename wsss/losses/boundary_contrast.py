"""BEACON: contrast of dense features on both sides of predicted object boundaries.

Source: MuSCLe (Yuan et al., citation in :mod:`wsss.methods.muscle`), boundary contrast of the
segmentation network, as in the official code. Boundaries are found on the network's own
prediction; the pseudo labels say which pairs of points across them belong together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.randomness import keyed_uniform

# Random layers of the two draws, apart from those of dropout.
_INSIDE, _OUTSIDE = 2001, 2002


@dataclass(frozen=True)
class BoundaryContrast:
    """Constants, those of the official code by default.

    Attributes:
        step: pixels from the boundary to the points on either side.
        points: drawn a side, image and class.
        least: fewer valid points on a side than this, before ``points`` of them are drawn, and
            the class is left out. The official code needs 129, one more than it draws, so that
            small objects never count.
        share: of the largest gradient that a boundary pixel has at least.
        sharpness: factor on the logits before the softmax.
        literal: the official code's arithmetic, which steps along the boundary: where the
            gradient is horizontal, outside is ``step`` rows up and inside one row down, where it
            is vertical, one column left and right, and both are the boundary pixel itself where
            it is diagonal.
    """

    step: int = 7
    points: int = 128
    least: int = 10
    share: float = 0.8
    sharpness: float = 100.0
    literal: bool = False


DEFAULT = BoundaryContrast()


class Sides(NamedTuple):
    """Pixels on both sides of boundaries, (..., H, W) each.

    ``rows`` and ``columns`` (2, ...) int64: inside first, clamped to the map; ``valid`` (2, ...)
    bool: a boundary pixel stepped there, and it lies on the map.
    """

    rows: Tensor
    columns: Tensor
    valid: Tensor


class Points(NamedTuple):
    """Drawn points of P pairs of image and class: (P, k) each; ``valid`` says which there are."""

    rows: Tensor
    columns: Tensor
    valid: Tensor


def sobel_kernels(like: Tensor) -> Tensor:
    """Return (2, 1, 5, 5): responses are left minus right and top minus bottom.

    Rows of the first one are (2, 1, 0, -1, -2), (3, 2, 0, -2, -3), (4, 3, 0, -3, -4) and mirrored
    (official code): 2 + column - row, as distances from the middle. Computed, because the host
    would wait for numbers of its own to reach the device.
    """
    line = torch.arange(-2, 3, device=like.device, dtype=like.dtype)
    across = -line.sign() * (2 + line.abs() - line.abs()[:, None])
    return torch.stack([across, across.T])[:, None]


def gradients(maps: Tensor) -> Tensor:
    """Correlate (B, K, H, W) with the kernels, zeros around: (B, K, 2, H, W)."""
    flat = maps.flatten(0, 1)[:, None]
    found = F.conv2d(flat, sobel_kernels(maps), padding=2)
    return found.view(*maps.shape[:2], *found.shape[1:])


def find_sides(maps: Tensor, how: BoundaryContrast = DEFAULT) -> Sides:
    """Find the boundaries of class maps and step off them to both sides.

    A boundary pixel has at least ``how.share`` of its map's largest gradient, which must exceed
    1. The points are p + s n and p - s n, n the unit normal that points into the object, rounded
    to pixels; those off the map are dropped.

    Args:
        maps: (B, K, H, W) in [0, 1].
    """
    across, down = gradients(maps).unbind(2)
    magnitude = (across**2 + down**2 + 1e-8).sqrt()
    largest = magnitude.amax((2, 3), keepdim=True)
    boundary = (magnitude >= how.share * largest) & (largest > 1)
    # Responses are left minus right, top minus bottom: the object lies against them.
    offsets = _literal(across, down, how.step) if how.literal else _normals(across, down, how.step)
    height, width = maps.shape[2:]
    line, column = (torch.arange(n, device=maps.device) for n in (height, width))
    rows, columns = offsets[:, 0] + line[:, None], offsets[:, 1] + column
    on_map = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return Sides(rows.clamp(0, height - 1), columns.clamp(0, width - 1), boundary & on_map)


def _normals(across: Tensor, down: Tensor, step: int) -> Tensor:
    """Offsets (2, 2, B, K, H, W): of the inside and the outside point, in rows and columns."""
    length = (across**2 + down**2).sqrt().clamp(min=1e-8)
    inward = torch.stack([-down, -across]) / length * step
    return torch.stack([inward, -inward]).round().long()


def _literal(across: Tensor, down: Tensor, step: int) -> Tensor:
    """The same as the official code steps, see :class:`BoundaryContrast`."""
    angle = torch.atan2(down, across).abs()
    eighth = math.pi / 8
    horizontal = (angle < eighth) | (angle >= 7 * eighth)
    vertical = (angle >= 3 * eighth) & (angle < 5 * eighth)
    zero = torch.zeros_like(across)
    inside = torch.stack([horizontal.to(zero.dtype), vertical.to(zero.dtype)])
    outside = torch.stack([-step * horizontal.to(zero.dtype), -vertical.to(zero.dtype)])
    return torch.stack([inside, outside]).long()


def draw_points(
    rows: Tensor, columns: Tensor, valid: Tensor, uniform: Tensor, count: int
) -> Points:
    """Draw up to ``count`` of the valid places of each map without replacement.

    Args:
        rows, columns, valid: (P, N), see :class:`Sides`.
        uniform: (P, N) random numbers in [0, 1); the largest are drawn.

    Returns:
        (P, count), fewer columns if N is smaller.
    """
    order = torch.where(valid, uniform, -1.0).topk(min(count, valid.shape[1]), dim=1)
    where = order.indices
    return Points(rows.gather(1, where), columns.gather(1, where), order.values >= 0)


def group_contrast(
    outer: Tensor, inner: Tensor, same: Tensor, valid_outer: Tensor, valid_inner: Tensor
) -> Tensor:
    """Pull points across a boundary together or apart, in four groups of equal weight.

    A point is alike (t = 1) if its mean label similarity to the other side is above the mean of
    all pairs, and close (d = 1) if its mean feature similarity is. Each of the four groups (t, d)
    that has members gives their mean of -similarity if t = 1, +similarity if t = 0; first for
    outside points, then for inside ones.

    Args:
        outer, inner: (P, O, D) and (P, I, D) features; no gradient reaches ``inner``.
        same: (P, O, I) label similarities.
        valid_outer, valid_inner: (P, O) and (P, I) bool.

    Returns:
        (P,).
    """
    close = outer @ inner.detach().mT
    pairs = valid_outer[:, :, None] & valid_inner[:, None, :]
    total = close.new_zeros(len(close))
    for axis, members in ((2, valid_outer), (1, valid_inner)):
        alike = _above(same, pairs, axis)
        near = _above(close.detach(), pairs, axis)
        means = _mean(close, pairs, axis)
        for together in (True, False):
            for found in (True, False):
                group = members & (alike == together) & (near == found)
                value = _mean(means, group, 1)
                total = total - value if together else total + value
    return total


def _mean(values: Tensor, where: Tensor, axis: int) -> Tensor:
    """Mean over an axis of the places ``where``; 0 if there is none."""
    return torch.where(where, values, 0).sum(axis) / where.sum(axis).clamp(min=1)


def _above(values: Tensor, pairs: Tensor, axis: int) -> Tensor:
    """Whether the mean over an axis is above that of all pairs: (P, O) or (P, I) bool."""
    overall = torch.where(pairs, values, 0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return _mean(values, pairs, axis) > overall[:, None]


def sample_features(
    features: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int], aligned: bool
) -> Tensor:
    """Read (B, D, h, w) maps, spread bilinearly over ``size`` (H, W) pixels, at pixels.

    Args:
        rows, columns: (B, N) int64.
        aligned: corners of maps and pixels coincide (``align_corners``).

    Returns:
        (B, N, D).
    """
    places = []
    for pixels, length in ((columns, size[1]), (rows, size[0])):
        x = pixels.to(features.dtype)
        places.append(2 * x / max(length - 1, 1) - 1 if aligned else (2 * x + 1) / length - 1)
    grid = torch.stack(places, -1)[:, :, None]
    found = F.grid_sample(
        features, grid, mode="bilinear", padding_mode="border", align_corners=aligned
    )
    return found[..., 0].mT


def label_codes(labels: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """Softmax over classes of the (B, K, h, w) pseudo label nearest to each pixel: (B, N, K).

    The labels' grid spans the ``size`` (H, W) pixels.
    """
    height, width = labels.shape[2:]
    y, x = rows * height // size[0], columns * width // size[1]
    flat = (y * width + x)[:, None].expand(-1, labels.shape[1], -1)
    return labels.flatten(2).gather(2, flat).mT.softmax(-1)


def boundary_contrast(
    logits: Tensor,
    features: Tensor,
    targets: Tensor,
    labels: Tensor,
    keys: Tensor,
    how: BoundaryContrast = DEFAULT,
    aligned: bool = False,
    most: int | None = None,
) -> Tensor:
    """Sum of :func:`group_contrast` over images and their classes.

    Args:
        logits: (B, C + 1, H, W) of the network at the image's size; no gradient reaches them.
        features: (B, D, h, w) its dense features; a softmax over D is what is compared.
        targets: (B, C + 1, s, t) pseudo labels, one-hot or soft.
        labels: (B, C) image-level labels: classes that are searched for boundaries.
        keys: (B,) int64; the draw of points is a function of them.
        how: constants.
        aligned: see :func:`sample_features`.
        most: no image has more classes, as the host knows: so many are searched in each, present
            ones first. None: all.

    Returns:
        A scalar; the official code divides it by B.
    """
    height, width = size = (logits.shape[2], logits.shape[3])
    count, classes = len(labels), min(labels.shape[1], most or labels.shape[1])
    present, chosen = labels.topk(classes, dim=1)
    with torch.no_grad():
        sharp = (how.sharpness * logits).softmax(1)[:, 1:]
        sharp = sharp.gather(1, chosen[:, :, None, None].expand(-1, -1, height, width))
        sides = find_sides(sharp, how)
        drawn = [
            draw_points(
                sides.rows[side].flatten(2).flatten(0, 1),
                sides.columns[side].flatten(2).flatten(0, 1),
                sides.valid[side].flatten(2).flatten(0, 1),
                keyed_uniform(keys, layer, height * width)[:, None]
                .expand(-1, classes, -1)
                .flatten(0, 1),
                how.points,
            )
            for side, layer in enumerate((_INSIDE, _OUTSIDE))
        ]
    inner, outer = (_at(points, features, count, size, aligned) for points in drawn)
    with torch.no_grad():
        codes = [_labels_at(points, targets, count, size) for points in drawn]
        same = codes[1] @ codes[0].mT
        # All valid points count, not the drawn ones: there may be more than are drawn.
        enough = (sides.valid.sum((-2, -1)) >= how.least).all(0).flatten()
        active = enough & (present.flatten() > 0)
    values = group_contrast(outer, inner, same, drawn[1].valid, drawn[0].valid)
    return torch.where(active, values, 0).sum()


def _at(
    points: Points, features: Tensor, count: int, size: tuple[int, int], aligned: bool
) -> Tensor:
    """Softmax of the features at the points: (P, k, D)."""
    rows, columns = (x.view(count, -1) for x in (points.rows, points.columns))
    found = sample_features(features, rows, columns, size, aligned).softmax(-1)
    return found.view(len(points.rows), -1, found.shape[-1])


def _labels_at(points: Points, targets: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    rows, columns = (x.view(count, -1) for x in (points.rows, points.columns))
    found = label_codes(targets, rows, columns, size)
    return found.view(len(points.rows), -1, found.shape[-1])
