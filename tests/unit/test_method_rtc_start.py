"""RTC before its first step, on real photos, beside the log that the official code ships.

Comparable: the three contrasts, whose scale is ln(C + 1), here with VOC's 20 classes; ``er``,
``ecr`` and ``com``, means over 20 classes of normalised maps. Not comparable: ``cls`` and ``min``,
whose size is that of another backbone's features, and ``seg``, which is 0 at the start.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from wsss.config import Params
from wsss.config.resolve import overlay, read_yaml
from wsss.context import make_context
from wsss.data.training import CropDataset, collate, finish_images
from wsss.engine.task import Progress
from wsss.models.dropout import set_keys
from wsss.networks.method import build_method
from wsss.stages import manifest
from wsss.stages.training import padding

# Of steps 0 and 50: between them training has begun.
LOG = {
    "nce_intra": (0.318, 0.331),
    "nce_cross_label": (0.317, 0.330),
    "nce_cross_prototype": (0.309, 0.342),
}
# Of step 0; maps of another network differ by more than contrasts do.
ROUGHLY = {"er": 0.0123, "ecr": 0.401, "com": 0.0712}


def test_losses_start_where_the_official_log_starts(voc_root: Path, tmp_path: Path) -> None:
    presets = ROOT / "workflow" / "presets"
    raw = overlay(read_yaml(ROOT / "params.yaml"), read_yaml(presets / "voc-animals.yaml"))
    top = {
        "run": {"results": str(tmp_path), "variants": ["rtc"]},
        "data": {"root": str(voc_root), "classes": None},
        "classify": {"crop": 448, "long_side": [448, 768], "output_stride": 8, "batch": 4},
        "variants": {"rtc": {"method": {"params": {"view_size": 128, "dilation": 12}}}},
    }
    params = Params(overlay(raw, top))
    manifest.run(make_context(params, "manifest", "", 0))
    context = make_context(params, "classify", "rtc", 0)
    images = context.manifest
    assert images.num_classes == 20
    method = build_method(context.config, 20, True, 0).train()
    training = context.config.classify
    items = images.role("train")
    dataset = CropDataset(images, items, training, 0, padding(method.backbone))
    batch = finish_images(collate([dataset[(0, i)] for i in range(4)]), method.backbone.mean)
    set_keys(method, batch["key"])
    with torch.no_grad():
        terms = {k: float(v) for k, v in method.losses(batch, Progress(0, 100, 0)).terms.items()}
    for name, (low, high) in LOG.items():
        assert 0.9 * low < terms[name] < 1.1 * high, (name, terms[name])
    for name, value in ROUGHLY.items():
        assert value / 2 < terms[name] < 2 * value, (name, terms[name])
    assert terms["seg"] == 0
    assert terms["cls"] == pytest.approx(0.7, abs=0.7)
