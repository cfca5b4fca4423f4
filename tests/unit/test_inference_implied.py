"""Weights and results that are older than a key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from wsss.config.resolve import validate_section
from wsss.config.schema import Backbone, Classify, Compute, Method, Predict, PredictionCrf, Segment
from wsss.inference.implied import IMPLIED, completed

_TRAINING = {
    *("batch", "clip", "crop", "ema", "epochs", "flip", "freeze_bn", "head_lr", "jitter"),
    *("long_side", "lr", "micro_batch", "momentum", "optimizer", "output_stride", "power"),
    *("scale", "schedule", "warmup", "weight_decay"),
}
# What the first weights hold. A key that is added later belongs into IMPLIED.
FIRST: dict[str, tuple[type[BaseModel], set[str]]] = {
    "compute": (Compute, {"device", "precision", "threads", "channels_last"}),
    "backbone": (Backbone, {"name", "weights", "allow_download"}),
    "method": (Method, {"name", "params"}),
    "classify": (Classify, {*_TRAINING, "dropout"}),
    "segment": (Segment, {*_TRAINING, "dilation", "dropout", "net", "width"}),
    "predict": (Predict, {"batch", "flip", "scales", "stride"}),
    "crf": (
        PredictionCrf,
        {
            *("iterations", "gaussian_sxy", "gaussian_weight"),
            *("bilateral_sxy", "bilateral_srgb", "bilateral_weight"),
        },
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_every_key_was_there_at_first_or_says_what_it_meant_before(
    name: str, raw_params: dict[str, Any]
) -> None:
    model, first = FIRST[name]
    later = IMPLIED.get(name, {})
    assert set(model.model_fields) == first | set(later)
    assert not first & set(later)
    recorded = {key: raw_params[name][key] for key in first}
    found = validate_section(model, name, completed(name, recorded), "weights").model_dump()
    assert {key: found[key] for key in later} == later


def test_what_was_recorded_stays() -> None:
    assert completed("compute", {"compile": True})["compile"]
    assert completed("compute", None) is None
    assert completed("method", {"name": "cam"}) == {"name": "cam"}
