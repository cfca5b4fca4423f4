"""Stage: class scores of the reported split, multi-scale and single-scale."""

from __future__ import annotations

from pathlib import Path

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter
from wsss.context import Context
from wsss.engine.device import pick_device, place
from wsss.inference.images import windows
from wsss.inference.prediction import predict_window
from wsss.inference.predictor import load_predictor
from wsss.inference.progress import resumable
from wsss.shards import shard_bounds


def run(context: Context, scores: Path, single: Path, shard: int = 0, shards: int = 1) -> None:
    """Write mean scores (network's own classes, no tags) and single-scale label maps of one
    shard."""
    config, manifest = context.config, context.manifest
    stage = "classify" if config.road == "single-stage" else "segment"
    weights = context.paths.weights(stage)
    predictor = load_predictor(config, manifest.num_classes, weights)
    device = pick_device(config.compute)
    place(predictor.module, config.compute, device)
    # Without a list to report on, the training images get their masks.
    items = manifest.role("val" if config.data.splits.val else "train")
    start, stop = shard_bounds(len(items), shard, shards)
    stores = {scores: ArrayStoreWriter, single: MaskStoreWriter}
    with resumable(context, stores, items[start:stop], [weights]) as job:
        for held, images in windows(manifest, job.todo, config.resources.workers, "predict"):
            found = predict_window(predictor, images, config.predict, config.compute, device)
            for item, one in zip(held, found, strict=True):
                job.add(item.id, (one.scores, one.classes, one.size), (one.single,))
