"""Stage: propagate CAMs by a random walk over learned affinities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from wsss.artifacts import ArrayStore, ArrayStoreWriter
from wsss.context import Context
from wsss.engine.device import autocast, pick_device, place
from wsss.inference.images import batches_by_size, windows
from wsss.inference.progress import resumable
from wsss.inference.scales import aligned, shard_bounds
from wsss.losses.affinity import affinity
from wsss.refine.crf import alpha_scores
from wsss.refine.pairs import half_disc_offsets
from wsss.refine.resize import resize_bilinear
from wsss.refine.walk import random_walk
from wsss.stages.affinity import AffinityTask
from wsss.stages.networks import build_affinity, load_trained


@torch.inference_mode()
def run(context: Context, out: Path, shard: int = 0, shards: int = 1) -> None:
    """Write walked scores of one shard at the affinity's stride: background and present classes.

    Source: Ahn & Kwak, CVPR 2018, section 4.3: the background score (1 - max)^alpha is put
    before the CAMs, and both walk together.
    """
    config, manifest, walk = context.config, context.manifest, context.config.walk
    device = pick_device(config.compute)
    task = AffinityTask(build_affinity(config, False), config.affinity.radius)
    weights = context.paths.weights("affinity")
    load_trained(task, weights)
    place(task, config.compute, device)
    network, offsets = task.network, half_disc_offsets(walk.radius)
    store = ArrayStore(context.paths.store("cam", "maps"))
    items = manifest.union("train", "seed")
    start, stop = shard_bounds(len(items), shard, shards)
    inputs = [store.path, weights]
    with resumable(context, {out: ArrayStoreWriter}, items[start:stop], inputs) as job:
        for held, images in windows(manifest, job.todo, config.resources.workers, "walk"):
            results: dict[int, np.ndarray] = {}
            for indices, batch in batches_by_size(images, walk.batch):
                multiple = max(network.stride, config.affinity.output_stride)
                size = tuple(aligned(length, 1.0, multiple) for length in batch.shape[2:])
                pixels = F.interpolate(
                    batch.to(device), size, mode="bilinear", align_corners=False, antialias=True
                )
                with autocast(config.compute, device):
                    features = network(pixels)
                for index, values in zip(indices, affinity(features, offsets), strict=True):
                    height, width = values.shape[1:]
                    cams = resize_bilinear(store.get(held[index].id).array, (height, width))
                    scores = torch.from_numpy(alpha_scores(cams, walk.background_alpha))
                    walked = random_walk(
                        scores.to(device), values, walk.radius, walk.beta, walk.steps
                    )
                    results[index] = walked.cpu().numpy()
            for index, item in enumerate(held):
                classes = [0, *(c + 1 for c in manifest.present(item))]
                job.add(item.id, (results[index], classes, images[index].shape[:2]))
