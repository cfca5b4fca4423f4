"""Trace the last training step of a variant's classification stage, as the workflow trains it.

python benchmarks/step_trace.py [VARIANT] [--batch 4] [--crop 64] [--top 15]

Counts what makes the host wait for the device (reading a number, finding non-zeros, copies to the
host), outside of the optimiser, whose step counters live on the host. Runs twice, the second time
with twice the batch: a step that calls more operators then loops over samples. Exits with 1 if
it finds either. Generated scenes in a temporary folder; on a CPU the operators are the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from wsss.config import Params
from wsss.config.resolve import overlay, read_yaml
from wsss.context import make_context
from wsss.engine import loop
from wsss.stages import classify, manifest

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


class Trace(NamedTuple):
    """One step outside the optimiser: calls of operators that are no part of another one, each
    wait with the operator it is part of, and the time of each operator itself."""

    calls: Counter[str]
    microseconds: Counter[str]
    terms: dict[str, Any]


def tiny(variant: str, batch: int, crop: int, folder: Path) -> Params:
    """The configuration of ``params.yaml`` with a few scenes and four steps."""
    raw = read_yaml("params.yaml")
    scenes = {"size": 2 * crop, "train": 4 * batch, "tune": 1, "val": 1}
    top = {
        "run": {"results": str(folder), "variants": [variant]},
        "data": {"scenes": scenes},
        "classify": {"epochs": 1, "batch": batch, "crop": crop, "long_side": [crop, 2 * crop]},
    }
    return Params(overlay(raw, top))


def trace(variant: str, batch: int, crop: int) -> Trace:
    """Train for four steps and return the last one."""
    traces: list[Trace] = []
    original = loop.train_step

    def traced(*arguments: Any) -> dict[str, torch.Tensor]:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as seen:
            terms = original(*arguments)
        traces.append(summed(seen.events(), terms))
        return terms

    with tempfile.TemporaryDirectory() as folder:
        params = tiny(variant, batch, crop, Path(folder))
        manifest.run(make_context(params, "manifest", "", 0))
        loop.train_step = traced
        try:
            classify.run(make_context(params, "classify", variant, 0))
        finally:
            loop.train_step = original
    return traces[-1]


def summed(events: Any, terms: dict[str, torch.Tensor]) -> Trace:
    """Add up the events outside of the optimiser's step."""
    spans = [e.time_range for e in events if e.name.startswith("Optimizer.")]
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for event in events:
        if any(s.start <= event.time_range.start <= s.end for s in spans):
            continue
        if event.name in SYNCS:
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


def main() -> int:
    """Print both findings and the costliest operators."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variant", nargs="?", default="rtc")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--top", type=int, default=15, help="operators to list")
    args = parser.parse_args()
    small, large = (trace(args.variant, b, args.crop) for b in (args.batch, 2 * args.batch))
    waits = {name: count for name, count in large.calls.items() if " in " in name}
    grown = {
        name: (small.calls[name], count)
        for name, count in large.calls.items()
        if name.startswith("aten::") and count > small.calls[name]
    }
    sys.stdout.write(f"{args.variant}: terms {', '.join(sorted(large.terms))}\n")
    sys.stdout.write(f"waits for the device: {waits or 'none'}\n")
    sys.stdout.write(f"operators called more often for twice the batch: {grown or 'none'}\n")
    total = sum(large.microseconds.values())
    sys.stdout.write(f"{sum(large.calls.values())} events, {total / 1000:.0f} ms on the host\n")
    for name, spent in large.microseconds.most_common(args.top):
        sys.stdout.write(f"{spent / 1000:9.1f} ms  {large.calls[name]:5d}  {name}\n")
    return int(bool(waits or grown))


if __name__ == "__main__":
    raise SystemExit(main())
