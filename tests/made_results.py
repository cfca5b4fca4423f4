"""Results of a tiny data set, made up instead of trained: masks are truth with noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter, save_csv
from wsss.config import Params
from wsss.config.resolve import overlay
from wsss.context import make_context
from wsss.data.manifest import Item, Manifest
from wsss.stages import evaluate, manifest
from wsss.stages.evaluations import tuned_by, wanted

# Two refinements of the same CAMs, and their upper bound.
VARIANTS: dict[str, Any] = {
    "run": {"variants": ["baseline", "irnet", "supervised"]},
    "variants": {
        "irnet": {
            "share": {"from": "baseline", "through": "seeds"},
            "refine": {"method": "irnet"},
            "walk": {"background": "threshold", "background_threshold": "tune"},
        },
    },
    "refine": {"method": "none"},
    "report": {"images": 1, "bootstrap": 100, "thumbnail": 48, "sheet": 4},
}
NOISE = {"baseline": 0.3, "irnet": 0.2, "supervised": 0.05}
TERMS = {"classify": ["cls"], "irnet": ["boundary", "dp_fg"], "segment": ["ce"]}


def params_of(tiny_raw: dict[str, Any], **more: Any) -> Params:
    """The shrunk configuration with the variants of this module."""
    return Params(overlay(overlay(tiny_raw, VARIANTS), more))


def photos(folder: Path, images: int, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    """A folder of photos with tags and without masks."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    lines = ["image,labels"]
    for number in range(images):
        pixels = generator.integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number}.png")
        lines.append(f"p{number}.png,{classes[number % len(classes)]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def make_manifest(params: Params) -> Manifest:
    """Write the data set and return it."""
    context = make_context(params, "manifest", "", 0)
    manifest.run(context)
    return context.manifest


def make_results(params: Params, *variants: str, evaluated: bool = True) -> Manifest:
    """Fill the results folder; all variants unless some are named."""
    data = make_manifest(params)
    for variant in variants or params.base.run.variants:
        for seed in params.base.run.seeds:
            _fill(params, data, variant, seed)
            if evaluated:
                _evaluate(params, variant, seed)
    return data


def _fill(params: Params, data: Manifest, variant: str, seed: int) -> None:
    config = params.resolve(variant)
    paths = make_context(params, "report", variant, seed).paths
    owners = params.owners(variant)
    generator = np.random.default_rng([seed, len(variant)])
    weak = config.road != "supervised"
    tagged = data.union("train", "seed", "tune")
    predicted = data.role("val" if data.roles["val"] else "train")
    if weak and "cam" not in owners:
        _curve(paths.run / "classify", TERMS["classify"], generator)
        _maps(data, tagged, paths.store("cam", "maps"), generator)
        _masks(data, tagged, paths.store("seeds", "crf"), generator, 0.4)
    if weak:
        _masks(data, tagged, paths.store("pseudo", "masks"), generator, NOISE[variant])
        if config.refine.method == "irnet":
            _curve(paths.run / "irnet", TERMS["irnet"], generator)
            _maps(data, tagged, paths.store("walk", "scores"), generator)
    _curve(paths.run / "segment", TERMS["segment"], generator)
    _masks(data, predicted, paths.store("predict", "single"), generator, NOISE[variant] + 0.1)
    _masks(data, predicted, paths.store("predict", "masks"), generator, NOISE[variant])
    _scores(data, predicted, paths.store("predict", "scores"), generator)


def _evaluate(params: Params, variant: str, seed: int) -> None:
    owners, config = params.owners(variant), params.resolve(variant)
    whats = [what for what in wanted(config) if f"metrics/{what}" not in owners]
    # What tunes a threshold comes first.
    for what in sorted(whats, key=lambda what: tuned_by(what, config) is not None):
        stage = f"evaluate_{what}" if what in ("cam", "walk") else "evaluate"
        stage = "evaluate_tune" if what.endswith("_tune") else stage
        evaluate.run(make_context(params, stage, variant, seed), what)


def _truth(data: Manifest, item: Item) -> np.ndarray:
    if item.mask is not None:
        mask = data.read_mask(item)
        return np.where(mask == 255, 0, mask).astype(np.uint8)
    height, width = data.read_image(item).shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for number, c in enumerate(data.present(item)):
        mask[height // 4 : height // 2 + 4, 5 + 20 * number : 25 + 20 * number] = c + 1
    return mask


def _noisy(data: Manifest, item: Item, generator: np.random.Generator, noise: float) -> np.ndarray:
    truth = _truth(data, item)
    blocks = generator.random((-(-truth.shape[0] // 8), -(-truth.shape[1] // 8))) < noise
    wrong = np.kron(blocks, np.ones((8, 8), bool))[: truth.shape[0], : truth.shape[1]]
    drawn = generator.integers(data.num_classes + 1, size=truth.shape)
    return np.where(wrong, drawn, truth).astype(np.uint8)


def _masks(
    data: Manifest, items: list[Item], path: Path, generator: np.random.Generator, noise: float
) -> None:
    with MaskStoreWriter(path) as writer:
        for item in items:
            writer.add(item.id, _noisy(data, item, generator, noise))


def _maps(data: Manifest, items: list[Item], path: Path, generator: np.random.Generator) -> None:
    with ArrayStoreWriter(path) as writer:
        for item in items:
            truth, present = _truth(data, item), data.present(item)
            small = truth[::4, ::4]
            parts = [0.6 * (small == c + 1) + 0.4 * generator.random(small.shape) for c in present]
            array = np.stack(parts) if parts else np.zeros((0, *small.shape))
            size = (truth.shape[0], truth.shape[1])
            writer.add(item.id, array, present, size)


def _scores(data: Manifest, items: list[Item], path: Path, generator: np.random.Generator) -> None:
    with ArrayStoreWriter(path) as writer:
        for item in items:
            truth = _truth(data, item)
            small, classes = truth[::4, ::4], list(range(data.num_classes + 1))
            raw = np.stack([1.0 + 4.0 * (small == c) for c in classes])
            raw += generator.random(raw.shape)
            size = (truth.shape[0], truth.shape[1])
            writer.add(item.id, raw / raw.sum(0), classes, size)


def _curve(folder: Path, terms: list[str], generator: np.random.Generator) -> None:
    rows = []
    for step in range(1, 6):
        losses = {term: round(float(generator.random() / step), 6) for term in terms}
        total = {"loss": round(sum(losses.values()), 6)}
        rows.append({"step": step, "epoch": 0, "lr": 0.1 / step, **losses, **total})
    save_csv(folder / "curve.csv", rows, ["step", "epoch", "lr", *terms, "loss"])


def dump(params: Params, path: Path) -> Path:
    """Write the configuration for a command to read."""
    path.write_text(yaml.safe_dump(params.raw, sort_keys=False))
    return path
