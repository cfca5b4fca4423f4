"""Stage: train the classification network on image labels."""

from __future__ import annotations

import logging

import numpy as np
import torch

from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import CropDataset
from wsss.errors import UserError
from wsss.stages.importing import import_weights
from wsss.stages.networks import build_method
from wsss.stages.training import padding, train

log = logging.getLogger(__name__)


def labelled(items: list[Item]) -> list[Item]:
    """Drop images without a label: they carry no class and cannot teach one."""
    kept = [item for item in items if item.labels]
    if not kept:
        raise UserError("no image of the train role has a label: see `wsss data check`")
    if len(kept) < len(items):
        log.warning(
            "%d of %d images have no label and are left out", len(items) - len(kept), len(items)
        )
    return kept


def run(context: Context) -> None:
    """Train on the ``train`` role's tags, or import a checkpoint; no mask is read."""
    manifest, training = context.manifest, context.config.classify
    if training.checkpoint is not None:
        method = build_method(context.config, manifest.num_classes, False)
        import_weights(context, training.checkpoint, method, method)
        return
    items = labelled(manifest.role("train"))
    method = build_method(context.config, manifest.num_classes, True, context.seed)
    ends = [(epoch + 1) / training.epochs for epoch in range(training.epochs)]
    views = [method.views(training, end) for end in ends]
    fill = padding(method.backbone)
    dataset = CropDataset(manifest, items, training, context.seed, fill, views=views)
    labels = torch.from_numpy(np.stack([manifest.label(item) for item in items]))
    train(context, method, dataset, method.batches(labels, training, context.seed), training)
