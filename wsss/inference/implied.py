"""What keys meant before they existed, for configurations that were recorded without them.

params.yaml must state every key, but weights and results that are there already cannot: they
were made by code that did what one value of the key now says. Whoever adds a key to a section that
predicts adds that value here; a key without one makes all older weights useless.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TRAINING: dict[str, Any] = {
    "geometry": "timm",
    "bias_lr": 1.0,
    "bias_decay": True,
    "schedule_every": 1,
    "freeze_levels": 0,
    "freeze_affine": False,
    "bn_momentum": None,
    "checkpoint": None,
    "warmup_start": None,
}
# Section -> key -> value. What only networks read that did not exist either is params.yaml's.
IMPLIED: dict[str, dict[str, Any]] = {
    "compute": {"compile": False},
    "classify": _TRAINING,
    "segment": {
        **_TRAINING,
        "loss": "ce",
        "boundary": None,
        "labels": "hard",
        "label_stride": 4,
        "ignore_below": 0.0,
        "msc": None,
        "norm": False,
        "low_width": 48,
        "rates": {"deeplabv2": [3, 6, 9, 12], "deeplabv3plus": [6, 12, 18]},
        "separable": False,
        "bifpn": {"layers": 3, "literal": False},
    },
    "predict": {"combine": "mean"},
    "crf": {"confidence": None, "certainty": 1.0},
}


def completed(name: str, section: Any) -> Any:
    """Return a recorded section with the keys it lacks; what is no section is left as it is."""
    if not isinstance(section, Mapping):
        return section
    return {**IMPLIED.get(name, {}), **section}
