"""Write performance.md from performance.json, which `benchmarks/cuda_steps.py` measures.

python docs/performance.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = {"step": "Training step", "cam": "CAM inference"}
COMPILE = (
    "`torch.compile` (`compute.compile`) takes the backbone alone: heads and losses differ from "
    "step to step. Training has one size of crops and a graph for it. At inference images and "
    "scales have many sizes, and one graph serves all (`dynamic=True`). Images padded to a few "
    "sizes, a graph each, would have kernels made for their sizes, but other maps: what a network "
    "sees at its borders reaches far into the image."
)


def table(report: dict[str, Any], kind: str) -> list[str]:
    """Images a second of each method and form, with the ratio to fp32."""
    forms = list(dict.fromkeys(row["form"] for row in report["rows"]))
    found = {(row["method"], row["form"]): row.get(kind) for row in report["rows"]}
    lines = [
        f"| {NAMES[kind]} | {' | '.join(forms)} |",
        f"|---|{'---:|' * len(forms)}",
    ]
    for method in dict.fromkeys(row["method"] for row in report["rows"]):
        base = found.get((method, "fp32"))
        cells = [cell(found.get((method, form)), base) for form in forms]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def cell(value: float | None, base: float | None) -> str:
    if value is None:
        return "failed"
    return f"{value:.1f}" + (f" ({value / base:.2f}x)" if base else "")


def page(report: dict[str, Any]) -> str:
    rates = ", ".join(f"{name} {value:g}" for name, value in report["tflops"].items())
    cuda = report["on_gpu"]
    lines = [
        "# Performance",
        "",
        "Made by `docs/performance.py` from `docs/performance.json`, which "
        "`benchmarks/cuda_steps.py` writes: random images, random weights, the best of several "
        "repetitions, every term of every method taking part.",
        "",
        f"{report['date']}, {report['device']}, torch {report['torch']}; crops of "
        f"{report['crop']} px, batches of {report['batch']}, backbone: {report['backbone']}.",
        f"Matrix products: {rates} TFLOP/s.",
        "",
    ]
    if not cuda:
        lines += [
            "**No GPU has been measured yet.** This is `--small` on a CPU, one thread, while other "
            "work shared the cores: it shows that every form runs, and no more. On a machine with "
            "a GPU `python benchmarks/cuda_steps.py && python docs/performance.py` replaces it.",
            "",
        ]
    compiled = any("compile" in row["form"] for row in report["rows"])
    lines += [COMPILE if compiled else f"{COMPILE} How fast that is has not been measured.", ""]
    for kind in NAMES:
        lines += ["Images a second; in brackets, relative to fp32 eager:", ""]
        lines += [*table(report, kind), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    report = json.loads((HERE / "performance.json").read_text())
    (HERE / "performance.md").write_text(page(report))
    sys.stdout.write(f"{HERE.name}/performance.md\n")
