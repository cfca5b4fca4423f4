"""Which of DVC's plots there are: one figure for all variants, of what the workflow makes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple


class _Kind(NamedTuple):
    """Tables with a suffix, their columns, and what their figure says."""

    suffix: str
    name: str
    title: str
    x: str
    y: str
    x_label: str = ""
    y_label: str = ""


_SWEEP = ("sweep", "{}: score at every threshold", "threshold")
# The first that fits.
_KINDS = (
    _Kind("/curve.csv", "loss", "{}: loss of training", "step", "loss", "step", "loss"),
    _Kind("/boxes.sweep.csv", *_SWEEP, "seed_boxacc_50", "threshold", "share of pairs, IoU 0.5"),
    _Kind(".sweep.csv", *_SWEEP, "miou", "threshold", "mIoU"),
    _Kind("/boxes.classes.csv", "classes", "{}: share of pairs, IoU 0.5", "boxacc_50", "class"),
    _Kind(".classes.csv", "classes", "{}: IoU of every class", "iou", "class"),
)


def plots(files: Iterable[str]) -> list[dict[str, dict[str, Any]]]:
    """Return the entries of dvc.yaml's ``plots`` for the workflow's output files."""
    figures: dict[str, dict[str, Any]] = {}
    for file in files:
        kind = next((kind for kind in _KINDS if file.endswith(kind.suffix)), None)
        if kind is not None:
            subject = _subject(file)
            figure = figures.setdefault(f"{kind.name}-{subject}", _figure(kind, subject))
            figure["y"][file] = kind.y
            if isinstance(figure["x"], dict):
                figure["x"][file] = kind.x
    return [{name: figures[name]} for name in sorted(figures)]


def _subject(file: str) -> str:
    path = PurePosixPath(file)
    return path.parent.name if path.name == "curve.csv" else path.name.split(".")[0]


def _figure(kind: _Kind, subject: str) -> dict[str, Any]:
    title = {"title": kind.title.format(subject)}
    if kind.name == "classes":
        return {"template": "class_bars", "x": {}, "y": {}, **title}
    return {"x": kind.x, "y": {}, **title, "x_label": kind.x_label, "y_label": kind.y_label}
