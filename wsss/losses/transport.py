"""Optimal transport between the cells of two patches.

Source: MuSCLe (Yuan et al., citation in :mod:`wsss.methods.muscle`), region-level contrast, as in
the official code, with Sinkhorn's algorithm in the log domain (Cuturi, NeurIPS 2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Masses = Literal["raw", "normalised"]
# Which cells there are: bool (..., M) and (..., N); the others pad.
Valid = tuple[Tensor, Tensor]
# Logarithm of the mass of a padding cell: its exponential is 0.
_NOTHING = -1e4


@dataclass(frozen=True)
class Transport:
    """Constants, those of the official code by default.

    Attributes:
        epsilon: entropic regularisation.
        iterations: of Sinkhorn's algorithm.
        floor: added to the masses.
        masses: ``raw``: x_m . mean(Y) as it is; ``normalised``: divided by its sum.
        alternate: the second potential is updated from the new first one, as Sinkhorn's algorithm
            does and as convergence needs; the official code updates both from the old ones.
    """

    epsilon: float = 0.1
    iterations: int = 10
    floor: float = 1e-6
    masses: Masses = "raw"
    alternate: bool = False


DEFAULT = Transport()


def cosine_cost(first: Tensor, second: Tensor) -> Tensor:
    """1 - x_m . y_n: (..., M, D) and (..., N, D) unit vectors to (..., M, N)."""
    return 1 - first @ second.mT


def masses_of(
    first: Tensor, second: Tensor, kind: Masses = "raw", valid: Valid | None = None
) -> tuple[Tensor, Tensor]:
    """How much each cell has in common with the other patch: mu_m = x_m . mean(Y), nu likewise.

    Constants: no gradient reaches the cells through them.

    Args:
        first: (..., M, D), second: (..., N, D), both non-negative, padding cells 0.
        kind: see :class:`Transport`.

    Returns:
        (..., M) and (..., N).
    """
    first, second = first.detach(), second.detach()
    counts = _counts(first, second, valid)
    mine = (first * (second.sum(-2) / counts[1]).unsqueeze(-2)).sum(-1)
    theirs = (second * (first.sum(-2) / counts[0]).unsqueeze(-2)).sum(-1)
    if kind == "normalised":
        mine, theirs = mine / mine.sum(-1, keepdim=True), theirs / theirs.sum(-1, keepdim=True)
    return mine, theirs


def _counts(first: Tensor, second: Tensor, valid: Valid | None) -> tuple[Tensor, Tensor]:
    """How many cells each patch has: (..., 1)."""
    if valid is None:
        return first.new_full((1,), first.shape[-2]), second.new_full((1,), second.shape[-2])
    return valid[0].sum(-1, keepdim=True), valid[1].sum(-1, keepdim=True)


def _logarithms(
    mine: Tensor, theirs: Tensor, how: Transport, valid: Valid | None
) -> tuple[Tensor, Tensor]:
    logs = (mine + how.floor).log(), (theirs + how.floor).log()
    if valid is None:
        return logs
    return torch.where(valid[0], logs[0], _NOTHING), torch.where(valid[1], logs[1], _NOTHING)


def sinkhorn(
    cost: Tensor,
    mine: Tensor,
    theirs: Tensor,
    how: Transport = DEFAULT,
    valid: Valid | None = None,
) -> Tensor:
    """Return the transport plan (..., M, N) of ``cost`` (..., M, N) in the log domain.

    Potentials u and v start at 0. Each iteration adds epsilon (log mu - lse_n z) to u and
    epsilon (log nu - lse_m z) to v, z = (u + v - C) / epsilon, and the plan is exp(z). In the
    first sum u cancels, in the second v.

    Args:
        cost: gradient passes through it.
        mine, theirs: masses (..., M) and (..., N).
        how: epsilon, iterations, floor and ``alternate``.
        valid: cells outside get nothing.
    """
    kernel = -cost / how.epsilon
    log_mine, log_theirs = _logarithms(mine, theirs, how, valid)
    u, v = torch.zeros_like(log_mine), torch.zeros_like(log_theirs)  # divided by epsilon
    if valid is not None:
        u, v = torch.where(valid[0], u, _NOTHING), torch.where(valid[1], v, _NOTHING)
    for _ in range(how.iterations):
        u_next = log_mine - (kernel + v.unsqueeze(-2)).logsumexp(-1)
        basis = u_next if how.alternate else u
        v = log_theirs - (kernel + basis.unsqueeze(-1)).logsumexp(-2)
        u = u_next
    return (kernel + u.unsqueeze(-1) + v.unsqueeze(-2)).exp()


def transport_distance(
    first: Tensor, second: Tensor, how: Transport = DEFAULT, valid: Valid | None = None
) -> Tensor:
    """Cost of the plan between two patches, divided by its M x N entries.

    The cost in this product is a constant: gradient reaches the cells through the plan alone.

    Args:
        first: (..., M, D), second: (..., N, D): unit vectors, non-negative, padding cells 0.
        valid: which cells there are; None: all.

    Returns:
        (...).
    """
    cost = cosine_cost(first, second)
    plan = sinkhorn(cost, *masses_of(first, second, how.masses, valid), how, valid)
    mine, theirs = _counts(first, second, valid)
    return (plan * cost.detach()).sum((-2, -1)) / (mine * theirs)[..., 0]


@torch.no_grad()
def transport_search(
    first: Tensor, second: Tensor, how: Transport = DEFAULT, valid: Valid | None = None
) -> Tensor:
    """As :func:`transport_distance`, in a tenth of the time, to compare many pairs.

    exp(-C / epsilon) is made once, and the logarithms of sums become products with it. It must
    not underflow: for cosines of non-negative vectors, epsilon above 0.02.
    """
    cost = cosine_cost(first, second)
    mine, theirs = masses_of(first, second, how.masses, valid)
    kernel = (-cost / how.epsilon).exp()
    log_mine, log_theirs = _logarithms(mine, theirs, how, valid)
    u, v = torch.zeros_like(log_mine), torch.zeros_like(log_theirs)
    if valid is not None:
        u, v = torch.where(valid[0], u, _NOTHING), torch.where(valid[1], v, _NOTHING)
    for _ in range(how.iterations):
        u_next = log_mine - _log_product(kernel, v)
        v = log_theirs - _log_product(kernel.mT, u_next if how.alternate else u)
        u = u_next
    left, right = u.amax(-1, keepdim=True), v.amax(-1, keepdim=True)
    spent = ((kernel * cost) @ (v - right).exp().unsqueeze(-1))[..., 0]
    total = (spent * (u - left).exp()).sum(-1) * (left + right)[..., 0].exp()
    counts = _counts(first, second, valid)
    return total / (counts[0] * counts[1])[..., 0]


def _log_product(kernel: Tensor, potential: Tensor) -> Tensor:
    top = potential.amax(-1, keepdim=True)
    return (kernel @ (potential - top).exp().unsqueeze(-1))[..., 0].log() + top
