"""Stage: class boundary maps of IRNet."""

from __future__ import annotations

from pathlib import Path

import torch

from wsss.artifacts import ArrayStoreWriter
from wsss.context import Context
from wsss.engine.device import autocast, pick_device, place
from wsss.inference.images import batches_in_cells, windows
from wsss.inference.progress import resumable
from wsss.networks.irnet import build_irnet
from wsss.networks.trained import load_trained
from wsss.shards import shard_bounds
from wsss.tasks.irnet import IrNetTask


@torch.inference_mode()
def run(context: Context, out: Path, shard: int = 0, shards: int = 1) -> None:
    """Write one (1, h, w) map in [0, 1] an image: the sigmoid of the mean logit of both flips.

    Source: Ahn et al., CVPR 2019, section 5; stride 4 of the image, which is first resized to
    whole cells of the backbone's output stride.
    """
    config, manifest = context.config, context.manifest
    device = pick_device(config.compute)
    task = IrNetTask(build_irnet(config, False), config.irnet.radius)
    weights = context.paths.weights("irnet")
    load_trained(task, weights)
    place(task, config.compute, device)
    network = task.network
    multiple = max(network.stride, config.irnet.output_stride)
    items = manifest.walked()
    start, stop = shard_bounds(len(items), shard, shards)
    with resumable(context, {out: ArrayStoreWriter}, items[start:stop], [weights]) as job:
        for held, images in windows(manifest, job.todo, config.resources.workers, "edges"):
            results = {}
            for indices, pixels in batches_in_cells(images, config.walk.batch, multiple, device):
                with autocast(config.compute, device):
                    logits = network(torch.cat([pixels, pixels.flip(3)])).edge.float()
                plain, flipped = logits.chunk(2)
                edges = ((plain + flipped.flip(3)) / 2).sigmoid()
                for index, edge in zip(indices, edges.cpu().numpy(), strict=True):
                    results[index] = edge
            for index, item in enumerate(held):
                job.add(item.id, (results[index], [0], images[index].shape[:2]))
