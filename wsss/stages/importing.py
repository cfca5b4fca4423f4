"""Stage: in place of a training, fill its network from a published checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from wsss.artifacts import save_csv, save_weights
from wsss.atomic import together
from wsss.config.schema import Checkpoint
from wsss.context import Context
from wsss.errors import UserError
from wsss.models.imports import load_layout
from wsss.models.imports.layout import fill, unlike

# Columns of the curve of a training that did not take place.
CURVE = ("step", "epoch", "lr")


def import_weights(
    context: Context, checkpoint: Checkpoint, whole: nn.Module, network: nn.Module
) -> None:
    """Write imported weights where the stage's own would be, and a curve without a row.

    Args:
        whole: what the stage saves.
        network: the part of it, or itself, that the layout describes.

    Raises:
        UserError: the layout is of another stage or another network, or the file does not fit.
    """
    name = checkpoint.layout
    check_layout(context, name)
    weights = context.paths.weights(context.stage)
    with context.recording(weights):
        facts = fill(
            network,
            Path(checkpoint.file),
            name,
            context.manifest.classes,
            checkpoint.classes,
        )
        with together():
            save_csv(weights.with_name("curve.csv"), [], CURVE)
            save_weights(weights, whole.state_dict(), context.meta() | {"imported": facts})


def check_layout(context: Context, name: str) -> None:
    """Refuse a configuration that builds another network than the layout's."""
    layout, key = load_layout(name), f"{context.stage}.checkpoint"
    if layout.stage != context.stage:
        raise UserError(f"{key}: layout {name!r} is of stage {layout.stage!r}")
    if found := unlike(layout.settings, context.config):
        raise UserError(
            f"{key}: layout {name!r} needs {found}: lay over it what `wsss import` prints"
        )
