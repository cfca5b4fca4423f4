"""What each loss term of a method moves, measured on trained networks of the ladder.

    VOC_ROOT=... python docs/gradients.py measure muscle-full 0
    VOC_ROOT=... python docs/gradients.py measure muscle-beacon 0 segment
    python docs/gradients.py

The first writes a file in docs/gradients, the second likewise of the rung's segmentation network,
the last prints the table.

A term's gradient with respect to the backbone, weighted as in the objective, on training crops as
the last epoch draws them, beside the gradient of the terms that read labels alone: the tags, or the
pseudo masks. A term whose gradient is hundreds of times smaller cannot change much in a short
training; one that points against it, costs it something. The rung's weights have to be there;
nothing is trained.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.artifacts import load_json, save_json
from wsss.config import load_params
from wsss.config.schema import Training
from wsss.context import Context, make_context
from wsss.data.training import Batch, CropDataset, collate, finish_images
from wsss.engine.task import Losses, Progress, Task
from wsss.models.dropout import set_keys
from wsss.networks.trained import load_trained
from wsss.runrecord import machine
from wsss.stages import classify, segment

DOCS = Path(__file__).parent
KEPT = DOCS / "gradients"
PRESETS = ("voc-animals", "ladder")
BATCHES = 6
# Terms of the tags alone, and of the masks: what the others are held against.
LABELS = ("cls", "cls_aux", "cls_graph", "focal", "soft", "rank", "min", "ce")


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


def of_batch(task: Task, batch: Batch, progress: Progress) -> dict[str, Tensor]:
    """Return the gradients of all phases' terms on one batch."""
    parameters = [p for p in task.backbone.parameters() if p.requires_grad]
    batch = task.prepare(batch)
    moved = finish_images(batch, task.backbone.mean)
    moved["sizes"] = task.sizes(batch)
    set_keys(task, moved["key"])
    found: dict[str, Tensor] = {}
    for phase in range(task.phases(progress)):
        found |= weighted(task.losses(moved, progress, phase), parameters)
    return found


def against_labels(found: dict[str, Tensor]) -> dict[str, list[float]]:
    """Return of each term its norm as a share of the labels', and its cosine with theirs."""
    labels = torch.stack([found[name] for name in LABELS if name in found]).sum(0)
    return {
        name: [
            float(gradient.norm() / labels.norm()),
            float(torch.cosine_similarity(gradient, labels, dim=0)),
        ]
        for name, gradient in found.items()
        if name not in LABELS
    }


def assembled(
    context: Context,
) -> tuple[Task, CropDataset, Callable[[int], list[list[int]]], Training]:
    """Return a trained network with its objective, and what it was trained on."""
    task: Task
    if context.stage == "segment":
        task, dataset, orders, _ = segment.prepare(context)
        training: Training = context.config.segment
    else:
        task, dataset, orders = classify.prepare(context)
        training = context.config.classify
    load_trained(task, context.paths.weights(context.stage))
    task.freeze_bn = training.freeze_bn
    task.train()
    return task, dataset, orders, training


def measure(rung: str, seed: int, stage: str) -> dict[str, Any]:
    """Return the means over a few batches of the last epoch."""
    torch.manual_seed(seed)
    files = ["params.yaml", *(f"workflow/presets/{name}.yaml" for name in PRESETS)]
    context = make_context(load_params([DOCS.parent / f for f in files]), stage, rung, seed)
    task, dataset, orders, training = assembled(context)
    last, order = training.epochs - 1, orders(training.epochs - 1)
    rows = []
    for number, places in enumerate(order[:BATCHES]):
        batch = collate([dataset[(last, place)] for place in places])
        progress = Progress(last * len(order) + number, training.epochs * len(order), last)
        rows.append(against_labels(of_batch(task, batch, progress)))
    return {
        "rung": rung,
        "stage": stage,
        "seed": seed,
        "batches": len(rows),
        "machine": machine(),
        "terms": {
            name: [statistics.mean(row[name][k] for row in rows if name in row) for k in (0, 1)]
            for name in {name: None for row in rows for name in row}
        },
    }


def table() -> str:
    """Return what was measured as a table."""
    found = [load_json(path) for path in sorted(KEPT.glob("*.json"))]
    if not found:
        return ""
    lines = ["| rung | stage | seed | term | gradient / that of the labels | cosine with it |"]
    lines.append("|---|---|--:|---|--:|--:|")
    for entry in found:
        for name, (share, cosine) in entry["terms"].items():
            lines.append(
                f"| {entry['rung']} | {entry['stage']} | {entry['seed']} | `{name}` | {share:.3f} "
                f"| {cosine:+.2f} |"
            )
    lines += [
        "",
        "Gradients of the terms, weighted as in the objective, with respect to the trained "
        f"backbone: means over {found[0]['batches']} batches of the last epoch. "
        f"`python docs/gradients.py measure RUNG SEED STAGE`; {found[0]['machine']}.",
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
    measuring.add_argument("stage", nargs="?", choices=("classify", "segment"), default="classify")
    options = parser.parse_args(words)
    if options.command == "measure":
        KEPT.mkdir(exist_ok=True)
        found = measure(options.rung, options.seed, options.stage)
        save_json(KEPT / f"{options.rung}-{options.stage}-seed{options.seed}.json", found)
    sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
