"""Pixel-wise group contrast: cells against the groups that cells of all images form.

Source: Lai & Vong, "Weakly-supervised Semantic Segmentation via Dual-stream Contrastive Learning
of Cross-image Contextual Information" (DSCNet), arXiv 2405.04913, abstract: pixel-wise group
contrast across images. Its equations are not public: those here are a reconstruction. Hard and
random anchors follow Du et al., "Weakly Supervised Semantic Segmentation by Pixel-to-Prototype
Contrast" (PPC), CVPR 2022.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wsss.losses.info_nce import info_nce
from wsss.losses.spherical_kmeans import Groups, membership, set_means
from wsss.precision import full_precision


class Sets(NamedTuple):
    """The M largest classes of each image.

    ``slots`` (B, P): which of them a cell belongs to, or -1; ``classes`` (B, M) their ids;
    ``sizes`` (B, M) their cells, 0 where an image has fewer classes.
    """

    slots: Tensor
    classes: Tensor
    sizes: Tensor


class Anchors(NamedTuple):
    """``cells`` (B, M, A) numbers of cells, ``valid`` (B, M, A) bool: which of them count."""

    cells: Tensor
    valid: Tensor


class Bank(NamedTuple):
    """N vectors to compare with: ``vectors`` (N, D), their ``classes`` (N,), ``images`` (N,) within
    the batch, -1 for earlier ones, and ``valid`` (N,) bool."""

    vectors: Tensor
    classes: Tensor
    images: Tensor
    valid: Tensor


class Queue(NamedTuple):
    """Centroids of earlier batches, newest first: ``vectors`` (K, Q, D), ``valid`` (K, Q) bool."""

    vectors: Tensor
    valid: Tensor


def largest_sets(masks: Tensor, classes: int, most: int) -> Sets:
    """Find the classes with most cells in each image.

    Args:
        masks: (B, P) ids below ``classes``, or 255.
        most: M, at most this many; an image's smaller classes are left out.
    """
    counts = membership(masks, classes).sum(2)
    sizes, ids = counts.topk(min(most, classes), dim=1)
    hit = masks[..., None] == ids[:, None]  # (B, P, M)
    slots = torch.where(hit.any(2), hit.int().argmax(2), -1)
    return Sets(slots, ids, sizes)


@torch.no_grad()
def choose_anchors(
    features: Tensor, sets: Sets, count: int, uniform: Tensor, hard_share: float = 0.5
) -> Anchors:
    """Choose cells of each set: the least like the set's mean, the rest at random, none twice.

    Args:
        features: (B, P, D) of length 1.
        count: A, cells a set.
        uniform: (B, P) random numbers in [0, 1).
        hard_share: of the cells, those least like the mean, rounded down.
    """
    member = membership(sets.slots, sets.classes.shape[1])
    with full_precision(features):
        cells = features.float()
        likeness = torch.einsum("bpd,bmd->bmp", cells, set_means(cells, member))
    number = features.shape[1]
    wanted = int(count * hard_share)
    hard, rest = min(wanted, number), min(count - wanted, number)
    hardest = likeness.masked_fill(~member, torch.inf).topk(hard, 2, largest=False)
    picked = torch.zeros_like(member).scatter(2, hardest.indices, True)
    drawn = uniform[:, None].masked_fill(~member | picked, -1.0).topk(rest, 2)
    return Anchors(
        torch.cat([hardest.indices, drawn.indices], 2),
        torch.cat([hardest.values.isfinite(), drawn.values >= 0], 2),
    )


def bank_of(groups: Groups, sets: Sets, queue: Queue | None = None) -> Bank:
    """Collect the centroids of the batch and, if given, of a queue; no gradient."""
    batch, most, number = groups.sizes.shape
    shape = (batch, most, number)
    images = torch.arange(batch, device=sets.classes.device)[:, None, None].expand(shape)
    bank = Bank(
        groups.centroids.detach().flatten(0, 2),
        sets.classes[..., None].expand(shape).flatten(),
        images.flatten(),
        (groups.sizes > 0).flatten(),
    )
    if queue is None:
        return bank
    classes = torch.arange(len(queue.valid), device=bank.classes.device)
    classes = classes[:, None].expand(queue.valid.shape).flatten()
    earlier = Bank(
        queue.vectors.flatten(0, 1), classes, torch.full_like(classes, -1), queue.valid.flatten()
    )
    return Bank(*(torch.cat(pair) for pair in zip(bank, earlier, strict=True)))


def group_contrast(
    features: Tensor, sets: Sets, anchors: Anchors, bank: Bank, temperature: float
) -> Tensor:
    """Contrast of anchors with the bank, mean over anchors.

    Positives of an anchor are the centroids of its class in other images, or, without any, in
    its own; negatives those of all other classes. See :func:`wsss.losses.info_nce.info_nce`.

    Args:
        features: (B, P, D) of length 1; the gradient goes to the anchors among them.

    Returns:
        Scalar, 0 without anchors.
    """
    batch, most, count = anchors.cells.shape
    width = features.shape[2]
    index = anchors.cells.flatten(1)[..., None].expand(-1, -1, width)
    with full_precision(features):
        chosen = features.float().gather(1, index)
        similar = chosen @ bank.vectors.float().T / temperature  # (B, M * A, N)
    images = torch.arange(batch, device=features.device)[:, None, None]
    same = (sets.classes[..., None] == bank.classes) & bank.valid  # (B, M, N)
    elsewhere = same & (bank.images != images)
    positives = torch.where(elsewhere.any(2, keepdim=True), elsewhere, same)
    negatives = (sets.classes[..., None] != bank.classes) & bank.valid
    values = info_nce(
        similar.view(batch, most, count, -1), positives[:, :, None], negatives[:, :, None]
    )
    return torch.where(anchors.valid, values, 0).sum() / anchors.valid.sum().clamp(min=1)


def purity(groups: Groups, sets: Sets, classes: int) -> Tensor:
    """How alike the cells of each class of an image are inside its groups.

    Sum over groups of (share of the class's cells) * (mean cosine to the centroid), not below 0.

    Returns:
        (B, classes); 0 for a class without cells.
    """
    share = groups.sizes / groups.sizes.sum(2, keepdim=True).clamp(min=1)
    value = (share * groups.cosines).sum(2).clamp(min=0)
    empty = value.new_zeros(len(value), classes)
    return empty.scatter(1, sets.classes, value)


def enqueue(queue: Queue, groups: Groups, sets: Sets) -> Queue:
    """Put the centroids of a batch before those of earlier ones; the oldest fall out."""
    classes, length = queue.valid.shape
    bank = bank_of(groups, sets)
    mine = (bank.classes == torch.arange(classes, device=bank.classes.device)[:, None]) & bank.valid
    valid = torch.cat([mine, queue.valid], 1)
    vectors = torch.cat([bank.vectors.expand(classes, -1, -1), queue.vectors], 1)
    # Stable: valid ones first, in their order.
    order = (~valid).int().argsort(dim=1, stable=True)[:, :length]
    kept = vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[2]))
    return Queue(kept, valid.gather(1, order))
