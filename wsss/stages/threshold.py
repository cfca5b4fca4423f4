"""The threshold that turns CAMs into masks: a constant, or what tuning found.

A module of its own, so that an edit to the evaluation does not make the seeds stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wsss.artifacts import load_json
from wsss.errors import UserError

Threshold = float | Literal["tune"]


def operating_point(
    threshold: Threshold, tuned: Path | None, data_hash: str
) -> tuple[float, Literal["configured", "tune"]]:
    """The threshold in use and where it comes from.

    ``tuned`` is the json of :func:`tune_cams`, read if ``threshold`` is ``"tune"``. Raises
    UserError if it is missing or belongs to data with another hash.
    """
    if threshold != "tune":
        return float(threshold), "configured"
    if tuned is None:
        raise UserError("cam.threshold is 'tune' but no tuning result was given: tune first")
    report = load_json(tuned)
    if report.get("data_hash") != data_hash or report.get("threshold_source") != "tune":
        raise UserError(f"{tuned} was not tuned on this data set: delete it and tune again")
    return float(report["threshold"]), "tune"
