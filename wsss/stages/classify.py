"""Stage: train the classification network on image labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from wsss.context import Context
from wsss.data.training import CropDataset
from wsss.methods.base import Method
from wsss.networks.method import build_method
from wsss.stages.importing import import_weights
from wsss.stages.training import labelled, padding, train


def run(context: Context) -> None:
    """Train on the ``train`` role's tags, or import a checkpoint; no mask is read."""
    manifest, training = context.manifest, context.config.classify
    if training.checkpoint is not None:
        method = build_method(context.config, manifest.num_classes, False)
        import_weights(context, training.checkpoint, method, method)
        return
    method, dataset, orders = prepare(context)
    train(context, method, dataset, orders, training)


def prepare(
    context: Context,
) -> tuple[Method, CropDataset, Callable[[int], list[list[int]]]]:
    """Return the network with its objective, before training, and its crops in their order."""
    manifest, training = context.manifest, context.config.classify
    items = labelled(manifest.role("train"))
    method = build_method(context.config, manifest.num_classes, True, context.seed)
    ends = [(epoch + 1) / training.epochs for epoch in range(training.epochs)]
    views = [method.views(training, end) for end in ends]
    fill = padding(method.backbone)
    dataset = CropDataset(manifest, items, training, context.seed, fill, views=views)
    labels = torch.from_numpy(np.stack([manifest.label(item) for item in items]))
    return method, dataset, method.batches(labels, training, context.seed)
