"""Stage: multi-scale CAMs of training, seed and tune images, present classes only."""

from __future__ import annotations

from pathlib import Path

import torch

from wsss.artifacts import ArrayStoreWriter
from wsss.context import Context
from wsss.engine.device import autocast, pick_device, place
from wsss.grids import grid_of
from wsss.inference.cam import multi_scale_cam
from wsss.inference.images import batches_by_size, windows
from wsss.inference.progress import resumable
from wsss.networks.method import build_method
from wsss.networks.trained import load_trained
from wsss.shards import shard_bounds


@torch.inference_mode()
def run(context: Context, out: Path, shard: int = 0, shards: int = 1) -> None:
    """Write the CAMs of one shard; which classes are present comes from the tags."""
    config, manifest = context.config, context.manifest
    method = build_method(config, manifest.num_classes, False)
    maps = method.seeds(config.cam.maps)
    twice = config.cam.flip and config.cam.flip_combine == "sum"
    summed = len(config.cam.scales) * (1 + twice)
    normalise = method.normaliser(config.cam.maps, summed)
    weights = context.paths.weights("classify")
    load_trained(method, weights)
    device = pick_device(config.compute)
    place(method, config.compute, device)
    items = manifest.walked()
    start, stop = shard_bounds(len(items), shard, shards)
    with resumable(context, {out: ArrayStoreWriter}, items[start:stop], [weights]) as job:
        for held, images in windows(manifest, job.todo, config.resources.workers, "cam"):
            results = {}
            for indices, batch in batches_by_size(images, config.cam.batch):
                size = (batch.shape[2], batch.shape[3])
                with autocast(config.compute, device):
                    cams = multi_scale_cam(
                        maps,
                        batch.to(device),
                        config.cam.scales,
                        config.cam.flip,
                        grid_of(size, config.cam.stride),
                        config.classify.output_stride,
                        normalise,
                        config.cam.flip_combine,
                        config.cam.resize,
                    )
                for index, cam in zip(indices, cams.cpu(), strict=True):
                    present = manifest.present(held[index])
                    results[index] = (cam[present].half().numpy(), present, size)
            for index, item in enumerate(held):
                job.add(item.id, results[index])
