"""Write docs/scaling.md from the JSON files in docs/scaling.

    python benchmarks/plan_check.py ... --out docs/scaling/plan.json     the plan against real jobs
    python benchmarks/coco_scale.py --out docs/scaling/coco.json         82,000 images
    python docs/scaling.py project bench.json                            a plan of COCO 2014
    python docs/scaling.py                                               write docs/scaling.md

`project` plans the preset coco-mini for the images of COCO 2014, which need not be there: their
number, size and tags are those that its authors state.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss.artifacts import load_json, save_json

DOCS = Path(__file__).parent
DATA = DOCS / "scaling"
FILES = ["params.yaml", "workflow/presets/coco-mini.yaml"]
# COCO 2014: train2014 with a label, val2014; median photo; categories an image (Lin et al., 2014).
TRAIN, VAL, SHAPE, TAGS, CLASSES = 82_081, 40_504, (480, 640), 2.9, 80
CORES = 2
Rows = Sequence[Mapping[str, Any]]


def project(bench_file: Path) -> None:
    """Plan COCO 2014 with what was measured on this machine."""
    from wsss.config import load_params
    from wsss.planning.dataset import DataFacts, Group
    from wsss.planning.plan import make_plan, plain
    from wsss.planning.rates import read_bench
    from wsss.versioning.graph import jobs

    os.environ.setdefault("COCO_ROOT", "coco")
    pixels = SHAPE[0] * SHAPE[1]
    train, val = (Group(n, pixels, pixels, TAGS) for n in (TRAIN, VAL))
    groups = dict.fromkeys(("train", "seed", "labelled", "seeded", "walked"), train)
    groups |= {"val": val, "predicted": val, "tune": Group(0, pixels, pixels, 0)}
    groups["all"] = Group(TRAIN + VAL, pixels, pixels, TAGS)
    facts = DataFacts("COCO 2014 as stated", CLASSES, SHAPE, groups)
    plan = make_plan(jobs(FILES, every=True), load_params(FILES), facts, read_bench(bench_file))
    found = plain(plan, CORES, 0)
    for job in found["jobs"]:
        del job["after"]
    save_json(DATA / "projected.json", found)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, the first column to the left."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def ratio(planned: float | None, found: float | None) -> str:
    """Planned over found, in percent too much or too little."""
    return f"{100 * (planned / found - 1):+.0f} %" if planned and found else "–"


def checked() -> Iterator[str]:
    """The plan against real jobs."""
    found = load_json(DATA / "plan.json")
    rows = [
        [
            f"{row['task']} ({row['variant']})",
            f"{row['planned_seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            ratio(row["planned_seconds"], row["cpu_seconds"]),
            f"{row['planned_mb']:.0f}",
            f"{row['peak_mb']:.0f}",
            ratio(row["planned_mb"], row["peak_mb"]),
            ratio(row["planned_bytes"], row["bytes"]),
        ]
        for row in found["rows"]
    ]
    head = ["job", "s planned", "s found", "", "MB planned", "MB found", "", "disk"]
    yield from table(head, rows)
    yield ""
    yield from _summary(found["rows"])


def _summary(rows: Rows) -> Iterator[str]:
    """How many lie within 30 %, and the sum."""
    parts = []
    pairs = {
        "time": ("planned_seconds", "cpu_seconds"),
        "memory": ("planned_mb", "peak_mb"),
        "disk": ("planned_bytes", "bytes"),
    }
    for name, (planned, found) in pairs.items():
        known = [row[planned] / row[found] for row in rows if row[planned] and row[found]]
        near = sum(abs(value - 1) <= 0.3 for value in known)
        parts.append(f"{name} of {near} of {len(known)} jobs")
    total = [sum(row[key] for row in rows) for key in ("planned_seconds", "cpu_seconds")]
    yield (
        f"Within 30 %: {', '.join(parts)}. All jobs together: {total[0]:.0f} s planned, "
        f"{total[1]:.0f} s found ({ratio(*total)})."
    )


def scaled() -> Iterator[str]:
    """Steps by the number of images."""
    found = load_json(DATA / "coco.json")
    sizes = sorted({row["images"] for row in found["rows"]})
    by = {(row["step"], row["images"]): row for row in found["rows"]}
    steps = list(dict.fromkeys(row["step"] for row in found["rows"]))
    yield f"{found['machine']}; {found['classes']} classes."
    yield ""
    head = ["processor seconds", *(f"{n:,}" for n in sizes), "growth"]
    yield from table(head, [_line(s, sizes, by, "seconds") for s in steps])
    yield ""
    head = ["MB of the largest process", *(f"{n:,}" for n in sizes), "growth"]
    yield from table(head, [_line(s, sizes, by, "peak_mb") for s in steps])


def _line(
    step: str, sizes: Sequence[int], by: Mapping[tuple[str, int], Any], key: str
) -> list[str]:
    values = [by[step, n][key] for n in sizes if (step, n) in by]
    digits = 1 if key == "seconds" else 0
    cells = [f"{value:.{digits}f}" for value in values]
    return [step, *cells, *["–"] * (len(sizes) - len(cells)), _exponent(sizes, values)]


def _exponent(sizes: Sequence[int], values: Sequence[float]) -> str:
    """The power of the number of images that the two largest sizes speak for."""
    if len(values) < 2 or values[-2] <= 0:
        return "–"
    more = sizes[len(values) - 1] / sizes[len(values) - 2]
    return f"n^{math.log(max(values[-1], 1e-9) / values[-2]) / math.log(more):.2f}"


def earlier() -> Iterator[str]:
    """What was not linear before."""
    before, now = (load_json(DATA / name)["rows"] for name in ("before.json", "coco.json"))
    after = {(row["step"], row["images"]): row for row in now}
    rows = []
    for row in before:
        if row["step"] in ("evaluate pseudo masks", "agreement", "data check"):
            new = after[row["step"], row["images"]]
            cells = [row["seconds"], new["seconds"], row["peak_mb"], new["peak_mb"]]
            rows.append([row["step"], f"{row['images']:,}", *(f"{c:g}" for c in cells)])
    yield from table(["step", "images", "s before", "s now", "MB before", "MB now"], rows)


def projected() -> Iterator[str]:
    """Hours of COCO 2014 on this machine."""
    found = load_json(DATA / "projected.json")
    rows = []
    for rule, count in found["jobs_per_rule"].items():
        jobs = [job for job in found["jobs"] if job["rule"] == rule]
        seconds = sum(job["seconds"] or 0 for job in jobs)
        size = sum(job["bytes"] or 0 for job in jobs) / 1e9
        if seconds or size > 0.01:
            work = jobs[0]["work"][0]["text"] if jobs[0]["work"] else ""
            hours = f"{seconds / 3600:.1f}" if seconds else "–"
            rows.append([rule, str(count), work, hours, f"{size:.1f}"])
    yield from table(["rule", "jobs", "what a job does", "hours", "GB"], rows)
    total = found["total"]
    yield ""
    yield (
        f"In all {total['seconds'] / 3600:.0f} hours of jobs, "
        f"{total['makespan_seconds'] / 3600:.0f} hours on {total['cores']} cores, "
        f"{total['bytes'] / 1e9:.0f} GB. Measured on "
        f"{found['machine']} ({found['device']})."
    )


def page() -> str:
    """Fill the numbers into the text."""
    text = (DATA / "page.md").read_text(encoding="utf-8")
    for name, part in {
        "plan": checked,
        "coco": scaled,
        "before": earlier,
        "projected": projected,
    }.items():
        there = (DATA / f"{name}.json").exists()
        text = text.replace(f"<!-- {name} -->", "\n".join(part()) if there else "Not measured yet.")
    return text


if __name__ == "__main__":
    if sys.argv[1:2] == ["project"]:
        project(Path(sys.argv[2]))
    (DOCS / "scaling.md").write_text(page(), encoding="utf-8")
