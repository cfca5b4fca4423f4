"""What each loss term of a method moves, measured on trained networks of the ladder.

    VOC_ROOT=... python docs/gradients.py measure muscle-full 0    keep docs/gradients/*.json
    python docs/gradients.py                                       print the table

A term's gradient with respect to the backbone, weighted as in the objective, on training crops as
the last epoch draws them. A term whose gradient is hundreds of times smaller than that of the
tags cannot change much in a short training; one that points against it, costs it something. The
rung's weights have to be there; nothing is trained.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.artifacts import load_json, save_json
from wsss.config import load_params
from wsss.context import Context, make_context
from wsss.data.training import Batch, CropDataset, collate, finish_images
from wsss.engine.task import Losses, Progress
from wsss.methods.base import Method
from wsss.models.dropout import set_keys
from wsss.networks.method import build_method
from wsss.networks.trained import load_trained
from wsss.runrecord import machine
from wsss.stages.training import labelled, padding

DOCS = Path(__file__).parent
KEPT = DOCS / "gradients"
PRESETS = ("voc-animals", "ladder")
BATCHES = 6
# Terms of the tags alone: what the others are held against.
TAGS = ("cls", "cls_aux", "cls_graph", "focal", "soft", "rank", "min")


def weighted(losses: Losses, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return each term's part of the objective's gradient, as one vector (D,)."""
    found = {}
    for name, term in losses.terms.items():
        if not term.requires_grad:
            continue
        (weight,) = gradients(losses.total, [term])
        if weight is None:  # told, not minimised
            continue
        parts = gradients(weight * term, parameters)
        found[name] = torch.cat(
            [
                (torch.zeros_like(own) if part is None else part).flatten()
                for own, part in zip(parameters, parts, strict=True)
            ]
        )
    return found


def gradients(scalar: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return what a scalar's gradient is to each input, None for those it does not depend on."""
    return torch.autograd.grad(scalar, inputs, retain_graph=True, allow_unused=True)


def of_batch(method: Method, batch: Batch, progress: Progress) -> dict[str, Tensor]:
    """Return the gradients of all phases' terms on one batch."""
    parameters = [p for p in method.backbone.parameters() if p.requires_grad]
    batch = method.prepare(batch)
    moved = finish_images(batch, method.backbone.mean)
    moved["sizes"] = method.sizes(batch)
    set_keys(method, moved["key"])
    found: dict[str, Tensor] = {}
    for phase in range(method.phases(progress)):
        found |= weighted(method.losses(moved, progress, phase), parameters)
    return found


def against_tags(found: dict[str, Tensor]) -> dict[str, list[float]]:
    """Return of each term its norm as a share of the tags', and its cosine with theirs."""
    tags = torch.stack([found[name] for name in TAGS if name in found]).sum(0)
    return {
        name: [
            float(gradient.norm() / tags.norm()),
            float(torch.cosine_similarity(gradient, tags, dim=0)),
        ]
        for name, gradient in found.items()
        if name not in TAGS
    }


def network(rung: str, seed: int) -> tuple[Context, Method]:
    """Return a rung's configuration and its trained network, in training mode."""
    files = ["params.yaml", *(f"workflow/presets/{name}.yaml" for name in PRESETS)]
    context = make_context(load_params([DOCS.parent / f for f in files]), "classify", rung, seed)
    method = build_method(context.config, context.manifest.num_classes, False)
    load_trained(method, context.paths.weights("classify"))
    method.freeze_bn = context.config.classify.freeze_bn
    method.train()
    return context, method


def measure(rung: str, seed: int) -> dict[str, Any]:
    """Return the means over a few batches of the last epoch."""
    torch.manual_seed(seed)
    context, method = network(rung, seed)
    manifest, training = context.manifest, context.config.classify
    items = labelled(manifest.role("train"))
    ends = [(epoch + 1) / training.epochs for epoch in range(training.epochs)]
    views = [method.views(training, end) for end in ends]
    fill = padding(method.backbone)
    dataset = CropDataset(manifest, items, training, seed, fill, views=views)
    labels = torch.stack([torch.as_tensor(manifest.label(item)) for item in items])
    last = training.epochs - 1
    order = method.batches(labels, training, seed)(last)
    total = training.epochs * len(order)
    rows = []
    for number, places in enumerate(order[:BATCHES]):
        batch = collate([dataset[(last, place)] for place in places])
        progress = Progress(last * len(order) + number, total, last)
        rows.append(against_tags(of_batch(method, batch, progress)))
    names = {name: None for row in rows for name in row}
    return {
        "rung": rung,
        "seed": seed,
        "batches": len(rows),
        "machine": machine(),
        "terms": {
            name: [statistics.mean(row[name][k] for row in rows if name in row) for k in (0, 1)]
            for name in names
        },
    }


def table() -> str:
    """Return what was measured as a table."""
    found = [load_json(path) for path in sorted(KEPT.glob("*.json"))]
    if not found:
        return ""
    lines = ["| rung | seed | term | gradient / that of the tags | cosine with it |"]
    lines.append("|---|--:|---|--:|--:|")
    for entry in found:
        for name, (share, cosine) in entry["terms"].items():
            lines.append(
                f"| {entry['rung']} | {entry['seed']} | `{name}` | {share:.3f} | {cosine:+.2f} |"
            )
    lines += [
        "",
        "Gradients of the terms, weighted as in the objective, with respect to the trained "
        f"backbone: means over {found[0]['batches']} batches of the last epoch. "
        f"`python docs/gradients.py measure RUNG SEED`; {found[0]['machine']}.",
    ]
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> int:
    """Measure or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measuring = parser.add_subparsers(dest="command").add_parser("measure")
    measuring.add_argument("rung")
    measuring.add_argument("seed", type=int)
    options = parser.parse_args(words)
    if options.command == "measure":
        KEPT.mkdir(exist_ok=True)
        found = measure(options.rung, options.seed)
        save_json(KEPT / f"{options.rung}-seed{options.seed}.json", found)
    sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
