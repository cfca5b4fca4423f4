"""Which images each stage works on."""

from __future__ import annotations

from wsss.pipeline import TRAINED
from wsss.stages.evaluations import EVALUATIONS

_REPORTED = ("predict", "crf")


def roles_of(stage: str) -> tuple[str, ...]:
    """Return the roles whose lists a stage, or ``evaluate_WHAT``, works on."""
    what = stage.removeprefix("evaluate_")
    if what != stage:
        role = EVALUATIONS[what].role
        return ("seed", "tune") if what == "boxes" else (role,)
    if stage in TRAINED:
        return ("train",)
    return ("val",) if stage in _REPORTED else ("train", "seed", "tune")
