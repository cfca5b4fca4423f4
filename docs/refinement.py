"""Train RTC's refinement of CAMs alone, to see which of its losses does what.

    VOC_ROOT=... python docs/refinement.py train 0     seed 0: docs/refinement/seed0.json
    python docs/refinement.py                          print the table

The network of the ladder's rung `rtc-crr` stays as it is; of the refinement, whose projections
start at random again, one copy learns from each loss, and one from both, all from the same crops.
Refined CAMs are scored on every fourth image of `tune`, at scale 1 and the best threshold there.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsss.artifacts import load_json, save_json
from wsss.config import load_params
from wsss.context import Context, make_context
from wsss.data.training import CropDataset, EpochBatches, collate, finish_images, shuffled_batches
from wsss.engine.optim import lr_factor, schedule_fraction
from wsss.inference.images import batches_in_cells, windows
from wsss.losses.siamese import (
    View,
    classification_terms,
    equivariance_terms,
    framed,
    resize,
    view_of,
)
from wsss.methods.rtc import CrossRepresentation, Rtc
from wsss.metrics import sweep
from wsss.networks.method import build_method
from wsss.networks.trained import load_trained
from wsss.refine.resize import resize_bilinear
from wsss.runrecord import machine
from wsss.stages.training import padding

DOCS = Path(__file__).parent
KEPT = DOCS / "refinement"
PRESETS = ("voc-animals", "ladder")
RUNG = "rtc-crr"
# What each copy learns from: weights of equivariant cross regularisation and minimum pooling, and
# pixels of the second view; RTC's share of the crop makes 56.
COPIES = {
    "ecr and min, as RTC": (1, 1, 56),
    "ecr": (1, 0, 56),
    "min": (0, 1, 56),
    "ecr and min, second views of 112 pixels": (1, 1, 112),
    "ecr, second views of 112 pixels": (1, 0, 112),
}
STEPS = (0, 30, 100, 310)
BINS, EVERY = 50, 4


@dataclass(frozen=True)
class Seen:
    """An image batch of `tune` as the network sees it: what a refinement needs, and what scores."""

    images: Tensor
    levels: list[Tensor]
    cam: Tensor
    truths: list[np.ndarray]
    present: list[list[int]]


def look(method: Rtc, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the raw CAM and the levels that the refinement reads."""
    levels = method.backbone(images)
    return method.activate(levels)[1], method.deep_levels(levels)


def seen(context: Context, method: Rtc) -> list[Seen]:
    """What the network sees of the scored images."""
    manifest, found = context.manifest, []
    items = manifest.role("tune")[::EVERY]
    stride = context.config.classify.output_stride
    for held, images in windows(manifest, items, 0, "tune"):
        for indices, batch in batches_in_cells(images, 8, stride, torch.device("cpu")):
            cam, levels = look(method, batch)
            truths = [manifest.read_mask(held[i]) for i in indices]
            present = [list(manifest.present(held[i])) for i in indices]
            found.append(Seen(method.backbone.normalise(batch), levels, cam, truths, present))
    return found


def score(scenes: list[Seen], refinement: CrossRepresentation | None, classes: int) -> list[float]:
    """Return mIoU at the best threshold, and that threshold; of plain CAMs without refinement."""
    edges, counts = sweep.thresholds(BINS), np.zeros((), np.int64)
    for scene in scenes:
        if refinement is None:
            maps = scene.cam.relu()
        else:
            maps = refinement(scene.cam, scene.images, scene.levels)[:, 1:]
            maps = maps - maps.amin((2, 3), keepdim=True)
        for own, truth, present in zip(maps, scene.truths, scene.present, strict=True):
            tall = resize_bilinear(own[present].numpy(), (truth.shape[0], truth.shape[1]))
            tall = tall / (tall.max((1, 2), keepdims=True) + 1e-5)
            top, strength = sweep.top_foreground(tall.astype(np.float32), present)
            counts = counts + sweep.histogram(truth, top, strength, edges, classes + 1)
    curve = sweep.sweep(counts)
    place = sweep.best(curve)
    return [curve[place].miou, float(edges[place])]


def step(
    method: Rtc, copies: dict[str, CrossRepresentation], batch: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the loss of each copy on one batch."""
    p, images, label = method.params, batch["image"], batch["label"].float()
    sizes = {images.shape[-1], *(size for _, _, size in COPIES.values())}
    with torch.no_grad():
        pictures = {size: resize(images, (size, size)) for size in sizes}
        looks = {size: look(method, picture) for size, picture in pictures.items()}

    def view(refinement: CrossRepresentation, size: int) -> View:
        (cam, levels), picture = looks[size], pictures[size]
        refined = refinement(cam, method.backbone.normalise(picture), levels)
        return view_of(picture, levels, cam, cam, refined, "pixels")

    losses = {}
    for name, refinement in copies.items():
        ecr, low, size = COPIES[name]
        both = (view(refinement, images.shape[-1]), view(refinement, size))
        maps = [framed(seen.wide_cam, both[1].size, label) for seen in both]
        terms = classification_terms(both, label, low, p.min_share)
        terms |= equivariance_terms(both, maps, label, 0, ecr, p.ecr_share)
        losses[name] = torch.stack([terms[key] for key in ("ecr", "min") if key in terms]).sum()
    return losses


def networks(seed: int) -> tuple[Context, Rtc, Rtc]:
    """Return the rung's configuration, its network, and one that nothing has trained."""
    files = ["params.yaml", *(f"workflow/presets/{name}.yaml" for name in PRESETS)]
    params = load_params([DOCS.parent / file for file in files])
    context = make_context(params, "classify", RUNG, seed)
    trained, fresh = (
        build_method(context.config, context.manifest.num_classes, False) for _ in range(2)
    )
    assert isinstance(trained, Rtc)
    assert isinstance(fresh, Rtc)
    load_trained(trained, context.paths.weights("classify"))
    return context, trained.eval(), fresh


def train(seed: int) -> dict[str, Any]:
    """Train the copies; return their scores by name and step."""
    torch.manual_seed(seed)
    context, method, fresh = networks(seed)
    manifest, training = context.manifest, context.config.classify
    copies = {name: copy.deepcopy(fresh.crr) for name in COPIES}
    rate = training.lr * training.head_lr
    learning = {
        name: torch.optim.AdamW(own.parameters(), lr=rate, weight_decay=training.weight_decay)
        for name, own in copies.items()
    }
    with torch.inference_mode():
        scenes = seen(context, method)
        facts = {
            "seed": seed,
            "images": sum(len(scene.truths) for scene in scenes),
            "machine": machine(),
            "plain": score(scenes, None, manifest.num_classes),
            "with the network": score(scenes, method.crr, manifest.num_classes),
        }
    items = manifest.role("train")
    dataset = CropDataset(manifest, items, training, seed, padding(method.backbone))
    places = list(EpochBatches(shuffled_batches(len(items), training.batch, seed), training.epochs))
    curves: dict[str, dict[int, list[float]]] = {name: {} for name in COPIES}
    for number in range(len(places) + 1):
        if number in STEPS:
            with torch.inference_mode():
                for name, own in copies.items():
                    curves[name][number] = score(scenes, own, manifest.num_classes)
        if number == len(places):
            break
        batch = collate([dataset[place] for place in places[number]])
        losses = step(method, copies, finish_images(batch, method.backbone.mean))
        factor = lr_factor(schedule_fraction(number, len(places), training), training)
        for name, optimizer in learning.items():
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.zero_grad()
            losses[name].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {**facts, "copies": curves}


def table() -> str:
    """Return the scores as a table: mean over seeds."""
    found = [load_json(path) for path in sorted(KEPT.glob("seed*.json"))]
    if not found:
        return ""
    steps = [str(number) for number in STEPS]
    lines = [
        "| refinement | " + " | ".join(f"{number} steps" for number in steps) + " |",
        "|---" + "|--:" * len(steps) + "|",
    ]
    for name in COPIES:
        cells = [told([entry["copies"][name][number] for entry in found]) for number in steps]
        lines.append(f"| learns from {name} | {' | '.join(cells)} |")
    ends = {name: told([entry[name] for entry in found]) for name in ("plain", "with the network")}
    seeds = ", ".join(str(entry["seed"]) for entry in found)
    lines += [
        "",
        f"Plain CAMs: {ends['plain']}. The refinement that learned beside the network: "
        f"{ends['with the network']}. mIoU (%) at the best threshold (in brackets), "
        f"{found[0]['images']} images of `tune`, seeds {seeds}; `python docs/refinement.py "
        f"train SEED`; {found[0]['machine']}.",
    ]
    return "\n".join(lines) + "\n"


def told(points: list[list[float]]) -> str:
    """Return mean mIoU in percent and the mean threshold."""
    mious, thresholds = zip(*points, strict=True)
    return f"{100 * statistics.mean(mious):.1f} ({statistics.mean(thresholds):.2f})"


def main(words: list[str] | None = None) -> int:
    """Train or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_subparsers(dest="command").add_parser("train").add_argument("seed", type=int)
    options = parser.parse_args(words)
    if options.command == "train":
        KEPT.mkdir(exist_ok=True)
        save_json(KEPT / f"seed{options.seed}.json", train(options.seed))
    sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
