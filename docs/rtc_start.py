"""Print RTC's losses before its first step beside the first line of the official log.

    VOC_ROOT=... python docs/rtc_start.py

Three batches of 8 photos of VOC-animals (workflow/presets/voc-animals.yaml), crops of 448 pixels,
EfficientNet-Lite0 with ImageNet weights at output stride 8: the table of docs/methods/rtc.md. Once
with all classes of VOC, as the log's, and once with the preset's own.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from wsss.config import Params
from wsss.config.resolve import overlay, read_yaml
from wsss.context import make_context
from wsss.data.training import CropDataset, collate, finish_images
from wsss.engine.task import Progress
from wsss.models.dropout import set_keys
from wsss.networks.method import build_method
from wsss.stages import manifest
from wsss.stages.training import padding

ROOT = Path(__file__).parents[1]
# The first line of the official code's log; Wide ResNet-38, all of VOC, batches of 8.
LOG = {
    "nce_intra": 0.331,
    "nce_cross_label": 0.330,
    "nce_cross_prototype": 0.342,
    "er": 0.0123,
    "ecr": 0.401,
    "com": 0.0712,
    "cls + min": 1.228,
}
CONTRASTS = ("nce_intra", "nce_cross_label", "nce_cross_prototype")


def starts(
    root: Path, results: Path, batches: int, size: int, every_class: bool = True
) -> Iterator[dict[str, float]]:
    """Yield the terms of RTC on batches of VOC photos before any training.

    Args:
        root: of VOC, as ``data.root``.
        results: where the list of images is written.
        batches, size: how many, and photos in each.
        every_class: all 20 classes; otherwise the preset's.
    """
    presets = ROOT / "workflow" / "presets"
    raw = overlay(read_yaml(ROOT / "params.yaml"), read_yaml(presets / "voc-animals.yaml"))
    chosen = {"classes": None} if every_class else {}
    top = {
        "run": {"results": str(results), "variants": ["rtc"]},
        "data": {"root": str(root), **chosen},
        "classify": {"crop": 448, "long_side": [448, 768], "output_stride": 8, "batch": size},
        "variants": {"rtc": {"method": {"params": {"view_size": 128, "dilation": 12}}}},
    }
    params = Params(overlay(raw, top))
    manifest.run(make_context(params, "manifest", "", 0))
    context = make_context(params, "classify", "rtc", 0)
    images, training = context.manifest, context.config.classify
    method = build_method(context.config, images.num_classes, True, 0).train()
    items = images.role("train")
    dataset = CropDataset(images, items, training, 0, padding(method.backbone))
    for number in range(batches):
        places = range(number * size, (number + 1) * size)
        batch = finish_images(collate([dataset[(0, i)] for i in places]), method.backbone.mean)
        set_keys(method, batch["key"])
        with torch.no_grad():
            terms = method.losses(batch, Progress(0, 100, 0)).terms
        yield {name: float(value) for name, value in terms.items()}


def bounds(values: list[float]) -> str:
    """Return the smallest and the largest value."""
    digits = 2 if max(values) > 0.4 else 3
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} – {high}"


def table(found: list[dict[str, float]]) -> str:
    """Return the terms of several batches beside the log's, and how far apart their means are."""
    lines = ["| term | here | official log | mean, to the log |", "|---|--:|--:|--:|"]
    for name, logged in LOG.items():
        values = [sum(terms[part] for part in name.split(" + ")) for terms in found]
        gap = 100 * (sum(values) / len(values) / logged - 1)
        term = " + ".join(f"`{part}`" for part in name.split(" + "))
        lines.append(f"| {term} | {bounds(values)} | {logged} | {gap:+.0f} % |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table, and the contrasts with fewer classes, scaled to the log's."""
    root = os.environ.get("VOC_ROOT")
    if not root:
        sys.stderr.write("error: VOC_ROOT is not set\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(table(list(starts(Path(root), Path(folder), 3, 8))))
    with tempfile.TemporaryDirectory() as folder:
        few = list(starts(Path(root), Path(folder), 3, 8, every_class=False))
    scaled = [
        f"`{name}` {bounds([terms[name] * math.log(21) / math.log(7) for terms in few])}"
        for name in CONTRASTS
    ]
    sys.stdout.write(f"\nSix classes, scaled by ln 21 / ln 7: {', '.join(scaled)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
