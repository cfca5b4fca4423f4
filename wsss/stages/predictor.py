"""The trained network that predicts masks, on either road."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from wsss.config import Config
from wsss.stages.networks import build_method, build_segmenter, load_trained
from wsss.stages.segment import SegmentationTask


class Predictor(NamedTuple):
    """The ``module`` to place on a device, its (B, 3, H, W) -> (B, C + 1, h, w) ``logits``, and
    the output stride that image sizes are rounded to."""

    module: nn.Module
    logits: Callable[[Tensor], Tensor]
    multiple: int


def load_predictor(config: Config, classes: int, weights: Path) -> Predictor:
    """Build the network of ``config.road`` for ``classes`` (background not counted), trained.

    Reads the sections ``road``, ``backbone`` and ``segment`` or, single-stage, ``method`` and
    ``classify``. Raises UserError if the weights do not fit.
    """
    if config.road == "single-stage":
        method = build_method(config, classes, False)
        load_trained(method, weights)
        return Predictor(method, method.segment, config.classify.output_stride)
    task = SegmentationTask(build_segmenter(config, classes + 1, False), msc=config.segment.msc)
    load_trained(task, weights)
    return Predictor(task, task.logits, config.segment.output_stride)
