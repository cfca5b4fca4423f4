"""Write docs/results.md from metrics files.

    python docs/results.py collect results/voc-animals   copy a run's small files to docs/metrics
    python docs/results.py                               write docs/results.md from docs/metrics

Only what a workflow run wrote is quoted; nothing is typed in by hand.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path
from typing import Any

import gradients
import ladder
import refinement

from wsss.artifacts import load_json
from wsss.config.resolve import Params, overlay, read_yaml
from wsss.methods import load_method
from wsss.stages.compare import compare, timings

DOCS = Path(__file__).parent
METHODS = ("baseline", "seam", "ppc", "rtc", "muscle", "pss", "dscnet", "mcc")
METRICS = DOCS / "metrics"
# What a data set's results were made with, where it is not the preset of its name.
PRESETS = {"scenes": ("demo-all", "scenes-seeds")}
SMALL = (
    "params.yaml",
    "data/dataset.json",
    "*/seed*/metrics/*.json",
    "*/seed*/metrics/*.classes.csv",
    "*/seed*/metrics/*.sweep.csv",
    "*/seed*/*/*.run.json",
    "*/seed*/*/shards/*.run.json",
    "*/seed*/*/curve.csv",
)
NOTES = """\
mIoU in percent over all classes and background. Values in brackets are oracles: their threshold
was seen on the reported images. CAM, CRF, walked and pseudo masks belong to training images and
use their tags; predictions use no tags. Wall times are those of jobs that shared the machine with
each other and with other work. Code is the revision that ran; 08118efb819f, 5c42aeaf089f and
8be34bb942ae were working copies, whose changes this history holds in other commits.
"""


def collect(folder: Path) -> None:
    """Copy the small files of one data set's results."""
    target = METRICS / folder.name
    shutil.rmtree(target, ignore_errors=True)
    for pattern in SMALL:
        for path in sorted(folder.glob(pattern)):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def per_class(folder: Path, variants: list[str], seed: int) -> list[str]:
    """Return a table of final IoU per class, a column a variant."""
    columns = {}
    for variant in variants:
        path = folder / variant / f"seed{seed}" / "metrics" / "final.classes.csv"
        if path.exists():
            with path.open() as stream:
                columns[variant] = {row["class"]: row["iou"] for row in csv.DictReader(stream)}
    if not columns:
        return []
    classes = list(next(iter(columns.values())))
    lines = [
        f"Final IoU per class (seed {seed}):",
        "",
        "| variant | " + " | ".join(classes) + " |",
        "|---" * (len(classes) + 1) + "|",
    ]
    for variant, values in columns.items():
        cells = [f"{100 * float(values[name]):.1f}" if values[name] else "–" for name in classes]
        lines.append("| " + " | ".join([variant, *cells]) + " |")
    return [*lines, ""]


def section(folder: Path) -> list[str]:
    """Return one data set's part of the page."""
    run = read_yaml(folder / "params.yaml")["run"]
    records = [load_json(p) for p in sorted(folder.glob("*/seed*/segment/*.run.json"))]
    params = Params(read_yaml(folder / "params.yaml"), str(folder / "params.yaml"))
    done = [v for v in run["variants"] if any(folder.glob(f"{v}/seed*/metrics/*.json"))]
    waiting = [v for v in run["variants"] if v not in done]
    compare(METRICS, folder.name, done, run["seeds"], twin=params.twin, owners=params.owners)
    timings(METRICS, folder.name, done, run["seeds"], today(params))
    machines = sorted({record["machine"] for record in records})
    revisions = sorted({(record["git"] or "unknown")[:12] for record in records})
    data_hash = load_json(folder / "data" / "dataset.json")["data_hash"]
    files = [f"workflow/presets/{name}.yaml" for name in PRESETS.get(folder.name, (folder.name,))]
    option = f" --configfile {' '.join(files)}"
    return [
        f"## {folder.name}",
        "",
        f"`snakemake --cores all{option}`",
        "",
        f"Machine: {'; '.join(machines)}. Code: {', '.join(revisions)}. Data: {data_hash}.",
        "",
        *remarks(folder.name),
        *([f"Not run yet: {', '.join(waiting)}.", ""] if waiting else []),
        *table(folder / "comparison.md"),
        *per_class(folder, done, run["seeds"][0]),
        *table(folder / "timings.md"),
    ]


def today(params: Params) -> Params:
    """Return a configuration as one of today, to ask which stages its variants go through: it may
    lack later keys, hold keys that are gone, and name data that is not here."""
    base = read_yaml(DOCS.parent / "params.yaml")
    variants = {
        name: _known(top or {}, {**base, "share": None}) for name, top in params.variants.items()
    }
    raw = overlay(overlay(base, _known(params.raw, base)), {"data": {"root": "."}})
    return Params({**raw, "variants": variants}, params.origin)


def _known(values: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _known(value, base[key]) if isinstance(base[key], dict) and value else value
        for key, value in values.items()
        if key in base
    }


def remarks(dataset: str) -> list[str]:
    """Return what has to be known of how a run came about."""
    path = DOCS / "notes" / f"{dataset}.md"
    return [path.read_text().strip(), ""] if path.exists() else []


def table(path: Path) -> list[str]:
    """Return a written table with its title one level down."""
    return [path.read_text().strip().replace("# ", "### ", 1), ""]


def fill_readme(readme: Path, folder: Path) -> None:
    """Put the demo's table between the README's markers: of its variants and seed alone."""
    if not folder.is_dir():
        return
    run = read_yaml(DOCS.parent / "params.yaml")["run"]
    params = Params(read_yaml(folder / "params.yaml"), str(folder / "params.yaml"))
    compare(METRICS, folder.name, run["variants"], run["seeds"], twin=params.twin)
    records = [load_json(p) for p in sorted(folder.glob("*/seed*/segment/*.run.json"))]
    where = "; ".join(sorted({record["machine"] for record in records}))
    lines = (folder / "comparison.md").read_text().strip().splitlines()
    title = lines[0].lstrip("# ")
    body = "\n".join(lines[1:]).strip()
    fill(readme, "demo", f"What `make demo` printed ({title}; {where}):\n\n{body}")


def fill_method(path: Path) -> None:
    """Put a method's rungs of the ladder between its page's markers."""
    names = {"mcc": ("mcc",), "baseline": ()}.get(path.stem, (path.stem,))
    mine = [rung for rung in ladder.rungs() if rung.split("-")[0] in names]
    rows = ladder.table(["baseline", *mine])
    expected = load_method(path.stem).info.expected
    said = "; ".join(f"{where}: {score}" for where, score in expected.items())
    head = f"Published: {said}.\n\n" if said and path.stem not in ("seam", "ppc") else ""
    text = f"{head}VOC-animals, 192 pixels, 5 epochs ([protocol](../results.md)):\n\n{rows}"
    fill(path, "results", text.strip())


def fill(path: Path, name: str, text: str) -> None:
    """Replace what stands between two markers of a page."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = path.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"error: {path} lacks {start} or {end}")
    path.write_text(f"{before}{start}\n{text}\n{end}{after}")


def page() -> str:
    """Return the whole page."""
    lines = ["# Results", "", "Written by `python docs/results.py`; do not edit.", "", NOTES]
    for folder in sorted(p for p in METRICS.iterdir() if p.is_dir()):
        lines += section(folder)
    lines += ["## What each part of a method adds", "", "`make ladder`", "", *remarks("ladder")]
    lines += [ladder.table(), "### The refinement of RTC's CAMs, trained alone", ""]
    lines += [refinement.table(), "### What each term moves", "", *remarks("gradients")]
    lines.append(gradients.table())
    return "\n".join(lines).rstrip() + "\n"


def main(words: list[str] | None = None) -> int:
    """Collect a run's files if asked to, then write the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    collecting = parser.add_subparsers(dest="command").add_parser("collect")
    collecting.add_argument("folder", type=Path)
    options = parser.parse_args(words)
    if options.command == "collect":
        collect(options.folder)
    # First: it leaves the comparison of the demo alone, which the page's own replaces.
    fill_readme(DOCS.parent / "README.md", METRICS / "scenes")
    (DOCS / "results.md").write_text(page())
    for method in METHODS:
        fill_method(DOCS / "methods" / f"{method}.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
