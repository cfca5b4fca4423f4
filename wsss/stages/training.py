"""What the training stages share: choose images, run the loop, write weights and curves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from wsss.artifacts import save_csv, save_weights
from wsss.atomic import together
from wsss.config.schema import Training
from wsss.context import Context
from wsss.data.manifest import Item
from wsss.data.training import CropDataset
from wsss.distributed.group import count, rank
from wsss.engine.loop import Fit, fit
from wsss.engine.task import Task
from wsss.errors import UserError
from wsss.jobstate import held, state_folder
from wsss.models.backbones import Backbone
from wsss.tracking.live import live_curve

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


def padding(backbone: Backbone) -> list[int]:
    """Return the RGB bytes that normalisation maps closest to zero."""
    return [round(float(value) * 255) for value in backbone.mean]


def train(
    context: Context,
    task: Task,
    dataset: CropDataset,
    orders: Callable[[int], list[list[int]]],
    training: Training,
    inputs: Sequence[Path] = (),
    finish: Callable[[nn.Module], None] | None = None,
) -> None:
    """Train ``task``; write its weights, curves and record; forget the resumable state.

    Args:
        inputs: artifacts the result depends on beside the manifest; with the context's key and
            the images they name the resumable state.
        finish: called with the trained network before it is saved.
    """
    config, stage = context.config, context.stage
    state = state_folder(context, [item.id for item in dataset.items], inputs)
    how = Fit(
        training,
        config.compute,
        context.seed,
        config.resources.workers,
        state,
        config.resources.checkpoint_seconds,
    )
    if rank() > 0:  # the first process writes for all
        fit(task, dataset, orders, how)
        return
    weights = context.paths.weights(stage)
    with (
        held(state),
        context.recording(weights) as facts,
        live_curve(context) as how.watch,
    ):
        kept = fit(task, dataset, orders, how)
        if finish is not None:
            finish(kept)
        with together():
            save_curve(weights.with_name("curve.csv"), how)
            save_trained(weights, kept, context)
        how.costs.save(weights.with_name("curve.run.csv"))
        facts["images_per_second"] = round(how.images_per_second, 2)
        if count() > 1:
            facts["processes"] = count()
        if how.continued_at:
            facts["continued_at"] = how.continued_at


def save_curve(path: Path, how: Fit) -> None:
    """Write one row a few steps: step, epoch, learning rate and every loss term."""
    # In this order whatever a resumed state did to that of the rows' keys.
    head = ["step", "epoch", "lr"]
    columns = [*head, *sorted({name for row in how.rows for name in row}.difference(head))]
    rows = [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()} for r in how.rows]
    save_csv(path, rows, columns)


def save_trained(path: Path, network: nn.Module, context: Context) -> None:
    """Write a network's tensors with the facts that produced them."""
    save_weights(path, network.state_dict(), context.meta())
