"""Weights that know how to predict, wherever they are taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss.artifacts import load_weights, save_weights
from wsss.errors import UserError
from wsss.inference.settings import PLAIN, inference, trained


def export_weights(path: Path, out: Path, params: Sequence[Path], variant: str | None) -> Path:
    """Copy segmentation weights with scales and CRF added to their metadata; return the copy.

    Raises UserError: no such weights, or nothing says at which scales they predict.
    """
    meta = trained(path).meta
    settings = inference(path, meta, params, variant)
    if settings.origin == PLAIN or settings.crf is None:
        raise UserError(f"nothing says at which scales {path} predicts: name it with --params")
    state, _ = load_weights(path)
    sections = {"predict": settings.predict.model_dump(), "crf": settings.crf.model_dump()}
    target = out / path.name
    if target.exists() and target.samefile(path):
        raise UserError(f"{target} is the file itself: export to another folder")
    save_weights(target, state, {**meta, "inference": sections})
    return target
