"""A graph whose nodes are the classes of the images of a batch.

Node (n, c) exists if image n is tagged with class c. All tensors have a place for every pair, and
absent nodes have no edges, so that shapes do not depend on labels.

Source: Lai & Vong (DSCNet), arXiv 2405.04913, abstract: semantic-wise context across images. How
its graph is built is not public: this is a reconstruction, from Kipf & Welling, "Semi-Supervised
Classification with Graph Convolutional Networks", ICLR 2017 (propagation), and You et al., "Graph
Contrastive Learning with Augmentations", NeurIPS 2020 (views).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.randomness import keyed_uniform

# Odd numbers without pattern, so that pairs of nodes get keys of their own.
_IMAGE, _CLASS = 0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9


def node_features(weights: Tensor, features: Tensor) -> Tensor:
    """Means of features, weighted by class maps.

    Args:
        weights: (B, C, h, w), non-negative.
        features: (B, D, h, w).

    Returns:
        (B, C, D); 0 where a map is.
    """
    total = torch.einsum("bchw,bdhw->bcd", weights, features)
    return total / weights.sum((2, 3)).clamp(min=1e-5)[..., None]


@torch.no_grad()
def edges(
    nodes: Tensor, label: Tensor, neighbours: int, temperature: float, together: float
) -> Tensor:
    """Weights of the edges between nodes.

    - Between images: softmax of the cosine to the nearest nodes, made symmetric.
    - Within an image: ``together`` between its classes.

    Args:
        nodes: (B, C, D).
        label: (B, C) of 0 and 1.
        neighbours: nearest nodes in other images that a node is linked to.
        temperature: of the softmax.

    Returns:
        (N, N) float32 with N = B C, symmetric, 0 on the diagonal; no gradient.
    """
    flat = F.normalize(nodes.float().flatten(0, 1), dim=1)
    images = torch.arange(len(label), device=label.device).repeat_interleave(label.shape[1])
    present = label.flatten() > 0
    both = present[:, None] & present
    apart = images[:, None] != images
    similar = (flat @ flat.T / temperature).masked_fill(~(both & apart), -torch.inf)
    nearest = similar.topk(min(neighbours, len(flat)), dim=1)
    # A node without any neighbour has a row of minus infinity.
    shares = nearest.values.softmax(1).nan_to_num(0)
    across = torch.zeros_like(similar).scatter(1, nearest.indices, shares)
    itself = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    within = (both & ~apart & ~itself).float() * together
    return (across + across.T) / 2 + within


def drop_edges(links: Tensor, keys: Tensor, rate: float, layer: int) -> Tensor:
    """Cut edges at random, both directions together.

    Args:
        links: (N, N).
        keys: (B,) int64, one an image; B divides N.
        rate: chance of an edge to be cut.
        layer: number of the draw.
    """
    classes = torch.arange(len(links) // len(keys), device=keys.device)
    nodes = ((keys + 1) * _IMAGE)[:, None] ^ ((classes + 1) * _CLASS)
    pairs = nodes.flatten()[:, None] + nodes.flatten()
    uniform = keyed_uniform(pairs.flatten(), layer, 1).view_as(links)
    return torch.where(uniform < rate, 0, links)


def mask_features(nodes: Tensor, keys: Tensor, rate: float, layer: int) -> Tensor:
    """Set values of (B, C, D) nodes to 0 at random."""
    uniform = keyed_uniform(keys, layer, nodes[0].numel()).view_as(nodes)
    return torch.where(uniform < rate, 0, nodes)


def propagation(links: Tensor, label: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 (Kipf & Welling 2017, section 2); no links of absent nodes.

    Args:
        links: (N, N), symmetric.
        label: (B, C) of 0 and 1, N of them.
    """
    looped = links + torch.diag(label.flatten().to(links.dtype))
    scale = looped.sum(1).clamp(min=1e-12).rsqrt()
    return scale[:, None] * looped * scale


def cosine_maps(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosine of every cell to every vector.

    Args:
        features: (B, D, h, w).
        vectors: (B, C, D), or (C, D) for all images; 0 gives 0.

    Returns:
        (B, C, h, w) in [-1, 1].
    """
    cells, unit = F.normalize(features, dim=1), F.normalize(vectors, dim=-1)
    return torch.einsum("bdhw,bcd->bchw", cells, unit.expand(len(cells), -1, -1))


class ResidualGcn(nn.Module):
    """Graph convolutions that each add to what was there: H + ReLU(A H W)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))

    def forward(self, nodes: Tensor, spread: Tensor) -> Tensor:
        """Map (B, C, D) nodes over an (N, N) propagation matrix to (B, C, D)."""
        found = nodes.flatten(0, 1)
        for layer in self.layers:
            found = found + (spread @ layer(found)).relu()
        return found.view_as(nodes)
