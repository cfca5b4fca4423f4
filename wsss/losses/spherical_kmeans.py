"""Spherical k-means inside many sets of cells at once.

Source: Dhillon & Modha, "Concept Decompositions for Large Sparse Text Data Using Clustering",
Machine Learning 2001: cells go to the centroid of highest cosine, centroids are normalised sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.precision import full_precision


class Groups(NamedTuple):
    """J groups of each of M sets in each of B images.

    ``centroids`` (B, M, J, D) of length 1; ``sizes`` (B, M, J) cells, 0 for a group that is not in
    use, whose centroid means nothing; ``cosines`` (B, M, J), the mean cosine of a group's cells to
    its centroid.
    """

    centroids: Tensor
    sizes: Tensor
    cosines: Tensor


def membership(sets: Tensor, count: int) -> Tensor:
    """Return (B, M, P) bool of the (B, P) numbers of sets below ``count``; others are in none."""
    return sets[:, None] == torch.arange(count, device=sets.device)[:, None]


def set_means(features: Tensor, member: Tensor) -> Tensor:
    """Return the (B, M, D) normalised sums of (B, P, D) features over (B, M, P) sets."""
    return F.normalize(torch.einsum("bmp,bpd->bmd", member.to(features.dtype), features), dim=2)


@torch.no_grad()
def spherical_groups(
    features: Tensor, sets: Tensor, count: int, groups: int, iterations: int, least: int = 8
) -> Groups:
    """Split every set into groups of cells that look alike.

    Starts from the cell nearest the set's mean, then always from the cell least like those
    before (farthest first): nothing is random.

    Args:
        features: (B, P, D) of length 1, any float type.
        sets: (B, P) int64, the set of each cell below ``count``; others are in none.
        count: M.
        groups: J.
        iterations: assignments, at least one.
        least: a set with fewer than ``least * groups`` cells is one group.

    Returns:
        float32; no gradient.
    """
    with full_precision(features):
        cells, member = features.float(), membership(sets, count)
        used = torch.where(member.sum(2) >= least * groups, groups, 1)  # (B, M)
        numbers = torch.arange(groups, device=sets.device)
        unused = numbers >= used[..., None]  # (B, M, J)
        centroids = _farthest_first(cells, member, groups)
        for _ in range(iterations):
            near = torch.einsum("bpd,bmjd->bmjp", cells, centroids)
            best = near.masked_fill(unused[..., None], -torch.inf).argmax(2)  # (B, M, P)
            hot = (best[:, :, None] == numbers[:, None]) & member[:, :, None]
            sums = torch.einsum("bmjp,bpd->bmjd", hot.float(), cells)
            sizes = hot.sum(3).float()
            # A group that lost all its cells waits where it is.
            centroids = torch.where(sizes[..., None] > 0, F.normalize(sums, dim=3), centroids)
        # The sum's length is what its cells' cosines to it add up to.
        return Groups(centroids, sizes, sums.norm(dim=3) / sizes.clamp(min=1))


def _farthest_first(cells: Tensor, member: Tensor, groups: int) -> Tensor:
    """Choose (B, M, J, D) cells to start from."""
    to_mean = torch.einsum("bpd,bmd->bmp", cells, set_means(cells, member))
    chosen = [_cell(cells, to_mean.masked_fill(~member, -torch.inf).argmax(2))]
    near = torch.einsum("bpd,bmd->bmp", cells, chosen[0])
    for _ in range(groups - 1):
        chosen.append(_cell(cells, near.masked_fill(~member, torch.inf).argmin(2)))
        near = torch.maximum(near, torch.einsum("bpd,bmd->bmp", cells, chosen[-1]))
    return torch.stack(chosen, 2)


def _cell(cells: Tensor, index: Tensor) -> Tensor:
    """Take (B, M) of the (B, P, D) cells: (B, M, D)."""
    return cells.gather(1, index[..., None].expand(-1, -1, cells.shape[2]))
