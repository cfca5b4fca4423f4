"""Stage: class probabilities of the reported split, multi-scale and single-scale."""

from __future__ import annotations

from pathlib import Path

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter
from wsss.context import Context
from wsss.engine.device import pick_device, place
from wsss.inference.images import windows
from wsss.inference.prediction import predict_window
from wsss.stages.predictor import Predictor, load_predictor


def _predictor(context: Context) -> Predictor:
    """Return the network of the variant's road."""
    stage = "classify" if context.config.road == "single-stage" else "segment"
    weights = context.paths.weights(stage)
    return load_predictor(context.config, context.manifest.num_classes, weights)


def run(context: Context, scores: Path, single: Path) -> None:
    """Write mean probabilities (network's own classes, no tags) and single-scale label maps."""
    config, manifest = context.config, context.manifest
    predictor = _predictor(context)
    device = pick_device(config.compute)
    place(predictor.module, config.compute, device)
    # Without a list to report on, the training images get their masks.
    items = manifest.role("val" if config.data.splits.val else "train")
    with (
        context.recording(scores),
        ArrayStoreWriter(scores) as score_store,
        MaskStoreWriter(single) as mask_store,
    ):
        for held, images in windows(manifest, items, config.resources.workers, "predict"):
            found = predict_window(
                *(predictor.logits, images, config.predict, config.compute, device),
                predictor.multiple,
            )
            for item, one in zip(held, found, strict=True):
                score_store.add(item.id, one.scores, one.classes, one.size)
                mask_store.add(item.id, one.single)
