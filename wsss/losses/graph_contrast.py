"""Semantic-wise graph contrast: classes of images against each other, in two views of a graph.

Source: Lai & Vong, "Weakly-supervised Semantic Segmentation via Dual-stream Contrastive Learning
of Cross-image Contextual Information" (DSCNet), arXiv 2405.04913, abstract: semantic-wise graph
contrast. Its equations are not public: those here are a reconstruction. Two stochastic views as in
You et al., "Graph Contrastive Learning with Augmentations", NeurIPS 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.losses.info_nce import info_nce
from wsss.precision import full_precision


def graph_contrast(
    one: Tensor, two: Tensor, label: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Contrast of the nodes of both views, weighted mean over nodes.

    Node (n, c) is class c of image n. Positives: the nodes of the same class, in other images of
    either view and the same node of the other view; negatives: all nodes of other classes.

    Args:
        one, two: (B, C, D), one a view; compared at length 1.
        label: (B, C) of 0 and 1; nodes of absent classes take no part.
        weights: (B, C) non-negative, of the nodes as anchors; no gradient reaches them.

    Returns:
        Scalar, 0 if all weights are.
    """
    nodes = F.normalize(torch.cat([one.flatten(0, 1), two.flatten(0, 1)]).float(), dim=1)
    with full_precision(nodes):
        similar = nodes @ nodes.T / temperature
    present = (label.flatten() > 0).repeat(2)
    classes = torch.arange(label.shape[1], device=label.device).repeat(2 * len(label))
    same = classes[:, None] == classes
    both = present[:, None] & present
    itself = torch.eye(len(nodes), dtype=torch.bool, device=nodes.device)
    values = info_nce(similar, same & both & ~itself, ~same & both)
    counted = torch.where(label > 0, weights.detach().float(), 0).flatten().repeat(2)
    return (values * counted).sum() / counted.sum().clamp(min=1e-6)


def node_classification(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each node against its own class, mean over the nodes of present classes.

    Args:
        logits: (B, C, C) of node (n, c).
        label: (B, C) of 0 and 1.
    """
    values = -logits.float().log_softmax(2).diagonal(dim1=1, dim2=2)
    return torch.where(label > 0, values, 0).sum() / label.sum().clamp(min=1)
