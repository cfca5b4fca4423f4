"""Random walk of class scores over semantic affinities (Ahn & Kwak, CVPR 2018, section 3.3).

The paper squares the N x N transition matrix log2(steps) times. Only its product with a few
score maps is needed, so here the sparse matrix is applied ``steps`` times: the same result with
memory linear in the number of cells N, and for VOC images thousands of times less arithmetic.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from wsss.refine.pairs import Offset, half_disc_offsets, partners

# Steps, exponent and radius of the paper's implementation: eight squarings, beta 8.
STEPS = 256
BETA = 8.0
RADIUS = 5


def random_walk(
    scores: Tensor,
    affinity: Tensor,
    radius: int = RADIUS,
    beta: float = BETA,
    steps: int = STEPS,
) -> Tensor:
    """Propagate scores along affinities: scores T^steps (equation 11).

    Each step replaces a cell's score by the mean of its neighbours', weighted by
    affinity^beta, itself with weight 1; constant maps and the range of values are kept.

    Args:
        scores: (K, h, w), any float type.
        affinity: (P, h, w) in [0, 1] on the same device, P the number of
            ``half_disc_offsets(radius)``; what is outside the grid is not read.
        radius: of the neighbourhood, in cells.
        beta: exponent of the affinities; larger values trust only strong ones.
        steps: number of steps; 0 changes nothing.

    Returns:
        (K, h, w) float32.

    Raises:
        ValueError: shapes do not fit each other, or ``steps`` is negative.
    """
    if scores.ndim != 3 or scores.shape[1:] != affinity.shape[1:]:
        raise ValueError(
            f"scores {tuple(scores.shape)} and affinities {tuple(affinity.shape)} differ in size"
        )
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    with torch.no_grad(), _one_thread(scores.device):
        matrix = transition(affinity, half_disc_offsets(radius), beta)
        columns = scores.flatten(1).T.float().contiguous()
        for _ in range(steps):
            columns = matrix @ columns
        return columns.T.reshape(scores.shape).contiguous()


def transition(affinity: Tensor, offsets: Sequence[Offset], beta: float) -> Tensor:
    """The transposed transition matrix: rows sum to 1.

    With A the symmetric affinities and 1 on the diagonal, T_ij = A_ij^beta / sum_i A_ij^beta;
    the transpose is what a column of scores is multiplied by.

    Args:
        affinity: (P, h, w) in [0, 1].
        offsets: the P offsets, without (0, 0) and one of each opposite two.
        beta: exponent.

    Returns:
        N x N float32 CSR with N = h w and 2 P + 1 entries a row at most.

    Raises:
        ValueError: the number of offsets is not that of the affinities.
    """
    if affinity.ndim != 3 or len(affinity) != len(offsets):
        raise ValueError(f"expected {len(offsets)} x h x w, got {tuple(affinity.shape)}")
    height, width = affinity.shape[1:]
    weights = affinity.float() ** beta
    # Row-major order of the offsets makes the columns of each row ascend.
    full = sorted([*offsets, *((-dy, -dx) for dy, dx in offsets), (0, 0)])
    grid = torch.arange(height * width, device=affinity.device).reshape(height, width)
    column = _rows(partners(grid, full, -1))
    values = _rows(torch.stack([_weight(weights, offsets, offset) for offset in full]))
    inside = column >= 0
    values = torch.where(inside, values, 0)
    values = values / values.sum(dim=1, keepdim=True)
    ends = inside.sum(dim=1).cumsum(0)
    with warnings.catch_warnings():
        # torch announces once a process that its CSR interface may still change.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            # 32-bit indices: a third less memory to read in each of the many products.
            torch.cat([ends.new_zeros(1), ends]).int(),
            column[inside].int(),
            values[inside],
            (height * width, height * width),
            check_invariants=False,
        )


def _weight(weights: Tensor, offsets: Sequence[Offset], offset: Offset) -> Tensor:
    """The (h, w) weights of the pairs at any offset, the opposite ones and (0, 0) included."""
    if offset == (0, 0):
        return weights.new_ones(weights.shape[1:])
    if offset in offsets:
        return weights[offsets.index(offset)]
    opposite = weights[offsets.index((-offset[0], -offset[1]))]
    return partners(opposite, [offset], 0)[0]


def _rows(planes: Tensor) -> Tensor:
    """(P, h, w) -> (h w, P)."""
    return planes.reshape(len(planes), -1).T


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Run CPU work on one thread.

    A product takes a tenth of a millisecond: threads gain little when the cores are free, and
    waiting for each other makes it a hundred times slower when they are not.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
