"""Stage: propagate CAMs by a random walk over learned affinities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss.artifacts import ArrayStore, ArrayStoreWriter, Entry
from wsss.config.schema import Walk
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.engine.device import autocast, pick_device, place
from wsss.inference.images import batches_in_cells, windows
from wsss.inference.progress import resumable
from wsss.losses.affinity import affinity
from wsss.networks.affinity import build_affinity
from wsss.networks.trained import load_trained
from wsss.refine.crf import alpha_scores
from wsss.refine.pairs import half_disc_offsets
from wsss.refine.paths import boundary_affinity
from wsss.refine.resize import resize_bilinear
from wsss.refine.walk import random_walk
from wsss.shards import shard_bounds
from wsss.tasks.affinity import AffinityTask

# A class without any evidence keeps its zeros when scores are divided by their maximum.
EPSILON = 1e-5


@torch.inference_mode()
def run(context: Context, out: Path, shard: int = 0, shards: int = 1) -> None:
    """Write the walked scores of one shard on the grid of its affinities.

    Where ``walk.background`` is ``alpha``, the store holds background and present classes (ids
    0..C): the background score (1 - max)^alpha walks with the CAMs (Ahn & Kwak, CVPR 2018,
    section 4.3). Where it is ``threshold``, it holds the present classes alone (ids 0..C-1),
    divided by the largest score of the image (Ahn et al., CVPR 2019, section 5); background is
    what stays below a threshold, so that no tagged image ends without an object.
    """
    config, manifest, walk = context.config, context.manifest, context.config.walk
    cams = ArrayStore(context.paths.store("cam", "maps"))
    items = manifest.walked()
    start, stop = shard_bounds(len(items), shard, shards)
    features = config.refine.method == "affinitynet"
    source = _from_features if features else _from_edges
    paths = context.paths
    learned = paths.weights("affinity") if features else paths.store("irnet", "edges")
    inputs = [cams.path, learned]
    with resumable(context, {out: ArrayStoreWriter}, items[start:stop], inputs) as job:
        for item, affinities, edge in source(context, job.todo, learned):
            entry = cams.get(item.id)
            scores = walked(entry, affinities, edge, walk)
            classes = list(entry.classes)
            if walk.background == "alpha":
                classes = [0, *(c + 1 for c in classes)]
            job.add(item.id, (scores, classes, entry.size))


def walked(entry: Entry, affinities: Tensor, edge: Tensor | None, walk: Walk) -> np.ndarray:
    """Propagate one image's CAMs.

    Args:
        entry: K CAMs.
        affinities: (P, h, w) in [0, 1].
        edge: (h, w) boundaries in [0, 1]; activations on them are suppressed before the walk.

    Returns:
        (K, h, w) or, with a walked background, (K + 1, h, w) float32.
    """
    height, width = affinities.shape[1:]
    if not entry.classes and walk.background == "threshold":
        return np.zeros((0, height, width), np.float32)
    cams = resize_bilinear(entry.array, (height, width))
    cams = cams**walk.power
    if walk.background == "alpha":
        cams = alpha_scores(cams, walk.background_alpha)
    scores = torch.from_numpy(cams).to(affinities.device)
    if edge is not None and walk.suppress_edges:
        scores = scores * (1 - edge)
    result = random_walk(scores, affinities, walk.radius, walk.beta, walk.steps)
    if walk.background == "threshold":
        result = result / (result.max() + EPSILON)
    array: np.ndarray = result.cpu().numpy()
    return array


Source = Iterator[tuple[Item, Tensor, Tensor | None]]


def _from_features(context: Context, items: list[Item], weights: Path) -> Source:
    """Yield each image's affinities by AffinityNet."""
    config, manifest, walk = context.config, context.manifest, context.config.walk
    device = pick_device(config.compute)
    task = AffinityTask(build_affinity(config, False), config.affinity.radius)
    load_trained(task, weights)
    place(task, config.compute, device)
    network, offsets = task.network, half_disc_offsets(walk.radius)
    multiple = max(network.stride, config.affinity.output_stride)
    for held, images in windows(manifest, items, config.resources.workers, "walk"):
        results: dict[int, Tensor] = {}
        for indices, pixels in batches_in_cells(images, walk.batch, multiple, device):
            with autocast(config.compute, device):
                features = network(pixels)
            results |= zip(indices, affinity(features, offsets), strict=True)
        for index, item in enumerate(held):
            yield item, results.pop(index), None


def _from_edges(context: Context, items: list[Item], edges: Path) -> Source:
    """Yield each image's affinities between the boundaries of IRNet."""
    offsets = half_disc_offsets(context.config.walk.radius)
    device = pick_device(context.config.compute)
    store = ArrayStore(edges)
    for item in items:
        edge = torch.from_numpy(store.get(item.id).array[0].astype(np.float32)).to(device)
        yield item, boundary_affinity(edge[None], offsets)[0], edge
