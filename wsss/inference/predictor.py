"""The trained network that predicts masks, on either road."""

from __future__ import annotations

from pathlib import Path

from wsss.config import Config
from wsss.inference.prediction import Predictor
from wsss.networks.method import build_method
from wsss.networks.segmenter import build_segmenter
from wsss.networks.trained import load_trained
from wsss.tasks.segmentation import SegmentationTask


def load_predictor(config: Config, classes: int, weights: Path) -> Predictor:
    """Build the network of ``config.road`` for ``classes`` (background not counted), trained.

    Reads the sections ``road``, ``backbone`` and ``segment`` or, single-stage, ``method`` and
    ``classify``. Raises UserError if the weights do not fit.
    """
    if config.road == "single-stage":
        method = build_method(config, classes, False)
        load_trained(method, weights)
        logits = None if method.gives_scores() else method.segment
        return Predictor(method, logits, config.classify.output_stride, method.scores)
    task = SegmentationTask(build_segmenter(config, classes + 1, False), msc=config.segment.msc)
    load_trained(task, weights)
    return Predictor(task, task.logits, config.segment.output_stride)
