"""Stage: class probabilities of the reported split, multi-scale and single-scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter
from wsss.context import Context
from wsss.engine.device import autocast, pick_device, place
from wsss.inference.images import batches_by_size, windows
from wsss.inference.progress import resumable
from wsss.inference.scales import grid_of
from wsss.inference.segmentation import multi_scale_probabilities
from wsss.refine.resize import resize_bilinear
from wsss.stages.networks import build_method, build_segmenter, load_trained
from wsss.stages.segment import SegmentationTask

# A class that scores below this everywhere cannot win and is not stored.
PRESENT = 1e-3


def _network(context: Context, weights: Path) -> tuple[nn.Module, Callable[[Tensor], Tensor], int]:
    """Return the module, its (B, 3, H, W) -> logits function and its output stride."""
    config, classes = context.config, context.manifest.num_classes
    if config.road == "single-stage":
        method = build_method(config, classes, False)
        load_trained(method, weights)
        return method, method.segment, config.classify.output_stride
    task = SegmentationTask(build_segmenter(config, classes + 1, False))
    load_trained(task, weights)
    return task, task.network, config.segment.output_stride


@torch.inference_mode()
def run(context: Context, scores: Path, single: Path) -> None:
    """Write mean probabilities (network's own classes, no tags) and single-scale label maps."""
    config, manifest = context.config, context.manifest
    stage = "classify" if config.road == "single-stage" else "segment"
    weights = context.paths.weights(stage)
    module, network, multiple = _network(context, weights)
    device = pick_device(config.compute)
    place(module, config.compute, device)
    # Without a list to report on, the training images get their masks.
    items = manifest.role("val" if config.data.splits.val else "train")
    stores = {scores: ArrayStoreWriter, single: MaskStoreWriter}
    with resumable(context, stores, items, [weights]) as job:
        for held, images in windows(manifest, job.todo, config.resources.workers, "predict"):
            results = {}
            for indices, batch in batches_by_size(images, config.predict.batch):
                size = (batch.shape[2], batch.shape[3])
                with autocast(config.compute, device):
                    found = multi_scale_probabilities(
                        network,
                        batch.to(device),
                        config.predict.scales,
                        config.predict.flip,
                        grid_of(size, config.predict.stride),
                        multiple,
                    )
                for index, mean, alone in zip(
                    indices, found.mean.cpu().numpy(), found.single.cpu().numpy(), strict=True
                ):
                    kept = [int(k) for k in np.flatnonzero(mean.max((1, 2)) > PRESENT)]
                    label = resize_bilinear(alone, size).argmax(0).astype(np.uint8)
                    results[index] = (mean[kept], kept, size, label)
            for index, item in enumerate(held):
                mean, kept, size, label = results[index]
                job.add(item.id, (mean, kept, size), (label,))
