"""What the training stages share: run the loop, write weights and curves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from wsss.artifacts import save_csv, save_weights
from wsss.config.schema import Training
from wsss.context import Context
from wsss.data.training import CropDataset
from wsss.engine.loop import Fit, clear_state, fit
from wsss.engine.task import Task
from wsss.models.backbones import Backbone


def file_digest(paths: Sequence[Path]) -> str:
    """Return a hash of the content of input artifacts."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, hashlib.blake2b).digest())
    return digest.hexdigest()


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
        inputs: artifacts the result depends on beside the manifest; with the context's key they
            name the resumable state.
        finish: called with the trained network before it is saved.
    """
    config, stage = context.config, context.stage
    state = context.paths.state(stage, f"{context.key}-{file_digest(inputs)}")
    how = Fit(
        training,
        config.compute,
        context.seed,
        config.resources.workers,
        state,
        config.resources.checkpoint_seconds,
    )
    weights = context.paths.weights(stage)
    with context.recording(weights) as facts:
        kept = fit(task, dataset, orders, how)
        if finish is not None:
            finish(kept)
        save_curve(weights.with_name("curve.csv"), how)
        save_trained(weights, kept, context)
        facts["images_per_second"] = round(how.images_per_second, 2)
    clear_state(state)


def save_curve(path: Path, how: Fit) -> None:
    """Write one row a few steps: step, epoch, learning rate and every loss term."""
    columns = list(dict.fromkeys(name for row in how.rows for name in row))
    rows = [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()} for r in how.rows]
    save_csv(path, rows, columns)


def save_trained(path: Path, network: nn.Module, context: Context) -> None:
    """Write a network's tensors with the facts that produced them."""
    save_weights(path, network.state_dict(), context.meta())
