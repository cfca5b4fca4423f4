"""Where scales and CRF of a network come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wsss.config.resolve import overlay
from wsss.inference.settings import inference

SHARING = {
    "variants": {
        "source": {"predict": {"scales": [0.5, 1.0]}, "crf": {"iterations": 7}},
        "sharer": {"share": {"from": "source", "through": "seeds"}, "crf": {"gaussian_sxy": 2}},
    }
}


def test_a_sharing_variant_has_the_settings_of_its_source(
    raw_params: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(raw_params, SHARING)))
    found = inference(tmp_path / "weights.safetensors", {}, [path], "sharer")
    assert found.predict.scales == [0.5, 1.0]
    assert found.crf is not None
    assert (found.crf.iterations, found.crf.gaussian_sxy) == (7, 2)
