"""Batches made of groups of images that share a class.

Source: Lai & Vong, "Weakly-supervised Semantic Segmentation via Dual-stream Contrastive Learning
of Cross-image Contextual Information" (DSCNet), arXiv 2405.04913, abstract: context across images.
How groups are drawn there is not public; inverse-root frequency is a choice of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from wsss.errors import UserError


class _Members:
    """The images of one class, dealt in random order, all of them once a round."""

    def __init__(self, members: Sequence[int], rng: np.random.Generator) -> None:
        self.members, self.rng = list(members), rng
        self.left: list[int] = []

    def deal(self, taken: set[int]) -> int:
        """Return an image that is not in ``taken``, or any where all are."""
        for _ in range(2):
            for place in range(len(self.left) - 1, -1, -1):
                if self.left[place] not in taken:
                    return self.left.pop(place)
            self.left = self.rng.permutation(self.members).tolist()
        return self.left.pop()


def class_chances(labels: np.ndarray) -> np.ndarray:
    """Return the chance of each class to be a group's: proportional to 1 / sqrt(images with it).

    Args:
        labels: (N, C) of 0 and 1.

    Returns:
        (C,) that sums to 1; 0 for classes that no image has.
    """
    counts = labels.sum(0).astype(np.float64)
    chances = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1)), 0)
    return np.asarray(chances / chances.sum())


def group_batches(
    labels: Tensor, batch: int, size: int, seed: int
) -> Callable[[int], list[list[int]]]:
    """Return epoch -> batches of ``batch / size`` groups, each of images that share a class.

    The class of each group is drawn by :func:`class_chances`, its images without repetition
    within the batch as long as the class has any left. An epoch has as many batches as
    one that shows every image once; which images it shows is up to the draw.

    Args:
        labels: (N, C) of 0 and 1; every image has a class.
        batch: images a batch.
        size: images a group.

    Raises:
        UserError: the batch does not consist of whole groups.
    """
    if batch % size:
        raise UserError(
            f"classify.batch is {batch} but method.params.group_size is {size}: a batch is made of "
            "whole groups; make it a multiple"
        )
    table = labels.numpy() > 0
    chances = class_chances(table)
    members = [np.flatnonzero(column).tolist() for column in table.T]

    def orders(epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([seed, epoch])
        dealers = [_Members(images, rng) for images in members]
        batches = []
        for _ in range(max(1, len(table) // batch)):
            chosen: list[int] = []
            for kind in rng.choice(len(chances), batch // size, p=chances):
                for _ in range(size):
                    chosen.append(dealers[kind].deal(set(chosen)))
            batches.append(chosen)
        return batches

    return orders
