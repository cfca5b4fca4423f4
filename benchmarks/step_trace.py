"""Trace the last training step of a variant's classification or segmentation, all phases of it.

python benchmarks/step_trace.py [VARIANT] [--stage classify] [--batch 8] [--crop 128] [--top 15]

Counts what makes the host wait for the device: reading a number, finding non-zeros, copies to the
host, copies of Python numbers to the device. Left out are the optimiser, whose step counters live
on the host, and the sizes of a batch, which are taken before it moves. Runs twice, the second time
with twice the batch: a step that calls more operators then loops over samples. Exits with 1 if it
finds either. Generated scenes in a temporary folder, whose true masks stand in for pseudo masks; on
a CPU the operators are the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile, record_function

from wsss import constants
from wsss.artifacts import ArrayStoreWriter, MaskStoreWriter
from wsss.config import Params
from wsss.config.resolve import overlay, read_yaml
from wsss.context import Context, make_context
from wsss.engine import loop
from wsss.methods import load_method
from wsss.stages import classify, manifest, segment

SYNCS = {
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::unique",
    "aten::_unique2",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "Memcpy DtoH (Device -> Pageable)",
    "Memcpy DtoH (Device -> Pinned)",
}


ROOT = Path(__file__).parents[1]
STAGES = {"classify": classify.run, "segment": segment.run}
# Of a crop of 448: 128 (RTC, PPC) or a little more (SEAM).
VIEW = 2 / 7
# Reads its bounds on a CPU alone, given the number of classes.
CHECKED = "aten::one_hot"
# What is worked out before the batch moves to the device.
ON_HOST = "host"
# Makers of tensors from Python numbers, which the host waits for on a device.
FROM_NUMBERS = {"tensor", "as_tensor", "new_tensor"}


class Trace(NamedTuple):
    """One step outside the optimiser: calls of operators that are no part of another one, each
    wait with the operator it is part of, and the time of each operator itself."""

    calls: Counter[str]
    microseconds: Counter[str]
    terms: dict[str, Any]


class Numbers(TorchFunctionMode):
    """Counts where Python numbers become a tensor on the device at once.

    Made on the host and sent with ``non_blocking``, they keep nobody waiting; constants are kept on
    the device once they have been sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the line of code that calls ``func``, and call it."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in FROM_NUMBERS and (name == "new_tensor" or kwargs.get("device") is not None):
            frame = sys._getframe(1)
            file = frame.f_code.co_filename
            if file != constants.__file__:
                self.found[f"{name} in {Path(file).name}:{frame.f_lineno}"] += 1
        return func(*args, **kwargs)


def tiny(variant: str, stage: str, batch: int, crop: int, folder: Path) -> Params:
    """The configuration of ``params.yaml`` with a few scenes and four steps.

    Reduced views keep their share of the crop; pairs of views are as large as the crop, so that
    MuSCLe's patches are large enough for both of its ways to compare them.
    """
    raw = read_yaml(ROOT / "params.yaml")
    scenes = {"size": 2 * crop, "train": 4 * batch, "tune": 1, "val": 1}
    top = {
        "run": {"results": str(folder), "variants": [variant]},
        "data": {"scenes": scenes},
        stage: {"epochs": 1, "batch": batch, "crop": crop},
        "classify": {"long_side": [crop, 2 * crop]},
    }
    top[stage] |= top["classify"] if stage == "classify" else {}
    resolved = Params(overlay(raw, top)).resolve(variant).method
    views = {"view_size": max(16, round(VIEW * crop)), "view": 1.0}
    known = load_method(resolved.name).Params.model_fields
    params = {name: value for name, value in views.items() if name in known}
    return Params(overlay(raw, top | {"variants": {variant: {"method": {"params": params}}}}))


def write_labels(context: Context) -> None:
    """Write the true masks of the scenes where pseudo masks and their scores are expected."""
    items, images = context.manifest.role("train"), context.manifest
    stride = context.config.segment.label_stride
    masks, scores = (context.paths.store("pseudo", name) for name in ("masks", "scores"))
    masks.parent.mkdir(parents=True, exist_ok=True)
    with MaskStoreWriter(masks) as hard, ArrayStoreWriter(scores) as soft:
        for item in items:
            mask = images.read_mask(item)
            classes = [0, *(k + 1 for k in images.present(item))]
            maps = [mask[::stride, ::stride] == k for k in classes]
            hard.add(item.id, mask)
            soft.add(item.id, np.stack(maps).astype(np.float16), classes, mask.shape)


def trace(variant: str, stage: str, batch: int, crop: int) -> Trace:
    """Train for four steps and return the last one, its phases added up."""
    phases: list[Trace] = []
    original = loop.train_step

    def traced(task: Any, images: Any, progress: Any, phase: int, *rest: Any) -> dict[str, Any]:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        if phase == 0:
            phases.clear()
        if "sizes" not in vars(task):
            task.sizes = record_function(ON_HOST)(task.sizes)
        with Numbers() as numbers, profile(activities=activities) as seen:
            terms = original(task, images, progress, phase, *rest)
        phases.append(summed(seen.events(), numbers.found, terms))
        return terms

    with tempfile.TemporaryDirectory() as folder:
        params = tiny(variant, stage, batch, crop, Path(folder))
        manifest.run(make_context(params, "manifest", "", 0))
        context = make_context(params, stage, variant, 0)
        if stage == "segment":
            write_labels(context)
        loop.train_step = traced
        try:
            STAGES[stage](context)
        finally:
            loop.train_step = original
    return together(phases)


def together(phases: list[Trace]) -> Trace:
    """Add up the phases of one step; a term of several is their sum, as in the curves."""
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    terms: Counter[str] = Counter()
    for phase in phases:
        calls.update(phase.calls)
        spent.update(phase.microseconds)
        terms.update(phase.terms)
    return Trace(calls, spent, dict(terms))


def summed(events: Any, numbers: Counter[str], terms: dict[str, torch.Tensor]) -> Trace:
    """Add up the events outside of the optimiser's step and of what the host works out."""
    apart = [e for e in events if e.name.startswith("Optimizer.") or e.name == ON_HOST]
    spans = [event.time_range for event in apart]
    calls = Counter(numbers)
    spent: Counter[str] = Counter()
    for event in events:
        if any(s.start <= event.time_range.start <= s.end for s in spans):
            continue
        if event.name in SYNCS and _caller(event) != CHECKED:
            calls[f"{event.name} in {_caller(event)}"] += 1
        elif event.cpu_parent is None or not event.cpu_parent.name.startswith("aten::"):
            calls[event.name] += 1
        spent[event.name] += event.self_cpu_time_total
    return Trace(calls, spent, {name: float(value) for name, value in terms.items()})


def _caller(event: Any) -> str:
    """The outermost operator that an event is part of."""
    while event.cpu_parent is not None:
        event = event.cpu_parent
    return str(event.name)


class Findings(NamedTuple):
    """What is wrong with a step, and the larger one of the two that were compared.

    ``waits``: calls that keep the host waiting. ``grown``: calls of operators that there are more
    of in twice the batch, for the batch and for twice of it.
    """

    waits: dict[str, int]
    grown: dict[str, tuple[int, int]]
    large: Trace


def examine(variant: str, stage: str, batch: int, crop: int) -> Findings:
    """Trace a step and one of twice the batch."""
    small, large = (trace(variant, stage, count, crop) for count in (batch, 2 * batch))
    waits = {name: count for name, count in large.calls.items() if " in " in name}
    grown = {
        name: (small.calls[name], count)
        for name, count in large.calls.items()
        if name.startswith("aten::") and count > small.calls[name]
    }
    return Findings(waits, grown, large)


def main() -> int:
    """Print both findings and the costliest operators."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variant", nargs="?", default="rtc")
    parser.add_argument("--stage", choices=sorted(STAGES), default="classify")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--top", type=int, default=15, help="operators to list")
    args = parser.parse_args()
    waits, grown, large = examine(args.variant, args.stage, args.batch, args.crop)
    sys.stdout.write(f"{args.variant} {args.stage}: terms {', '.join(sorted(large.terms))}\n")
    sys.stdout.write(f"waits for the device: {waits or 'none'}\n")
    sys.stdout.write(f"operators called more often for twice the batch: {grown or 'none'}\n")
    total = sum(large.microseconds.values())
    sys.stdout.write(f"{sum(large.calls.values())} events, {total / 1000:.0f} ms on the host\n")
    for name, spent in large.microseconds.most_common(args.top):
        sys.stdout.write(f"{spent / 1000:9.1f} ms  {large.calls[name]:5d}  {name}\n")
    return int(bool(waits or grown))


if __name__ == "__main__":
    raise SystemExit(main())
