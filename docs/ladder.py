"""Run the ladders of the methods' parts, a rung at a time, and keep a small file of each.

    python docs/ladder.py run [RUNG ...]   run what has no file in docs/ladder yet, in order
    python docs/ladder.py                  print the table

A rung is a variant of workflow/presets/ladder.yaml. Runs may be interrupted: the same command goes
on. Files in docs/ladder are copies for the page of results; delete one to run its rung again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from wsss.artifacts import load_json, save_json
from wsss.config import Params, load_params
from wsss.config.resolve import read_yaml
from wsss.stages.evaluations import wanted

DOCS = Path(__file__).parent
KEPT = DOCS / "ladder"
OVERLAYS = ("workflow/presets/voc-animals.yaml", "workflow/presets/ladder.yaml")
ROOT = DOCS.parent
# Of a rung's metrics: what the table shows.
SCORES = ("cam_tune", "cam", "pseudo", "single", "final")
# Rungs that go all the way to a network's masks.
FULL = (
    "rtc-full",
    "rtc-full-wide",
    "rtc-full-light",
    "muscle-full",
    "muscle-beacon",
    "muscle-beacon-more",
    "baseline-full",
    "dscnet-full",
    "dscnet-separate",
    "mcc-toco",
    "mcc-full",
)
# Rungs that end with their pseudo masks.
MASKS = ("pss-both-affinity",)


def rungs() -> list[str]:
    """Return the variants in the order of the preset."""
    return list(read_yaml(ROOT / OVERLAYS[-1])["run"]["variants"])


def file_of(rung: str, seed: int) -> Path:
    """Where the result of a rung is kept."""
    return KEPT / f"{rung}-seed{seed}.json"


def folder_of(params: Params, rung: str, seed: int, key: str) -> str:
    """Folder of the run that holds a stage or evaluation of a rung, shared or its own."""
    run, owner = params.base.run, params.owners(rung).get(key, rung)
    return f"{run.results}/{run.dataset}/{owner}/seed{seed}"


def evaluations(params: Params, rung: str) -> list[str]:
    """Return what a rung is scored by: its CAM seed, all up to its pseudo masks, or all."""
    if rung not in FULL + MASKS:
        return ["cam"]
    names = wanted(params.resolve(rung))
    return names if rung in FULL else names[: names.index("pseudo") + 1]


def targets(params: Params, rung: str, seed: int) -> list[str]:
    """Return the scores that Snakemake has to make for a rung."""
    return [
        f"{folder_of(params, rung, seed, f'metrics/{name}')}/metrics/{name}.json"
        for name in evaluations(params, rung)
    ]


def run(params: Params, chosen: list[str]) -> int:
    """Run the rungs that have no file, all seeds of one together."""
    code = 0
    for rung in chosen or rungs():
        seeds = [s for s in params.base.run.seeds if not file_of(rung, s).exists()]
        if not seeds:
            continue
        files = [target for seed in seeds for target in targets(params, rung, seed)]
        command = ["snakemake", *files, "--cores", "all", "--quiet", "host", "reason", "rules"]
        done = subprocess.run([*command, "--configfile", *OVERLAYS], cwd=ROOT, check=False)
        if done.returncode:
            code = done.returncode
            sys.stderr.write(f"{rung} failed; the others go on\n")
            continue
        for seed in seeds:
            keep(params, rung, seed)
    return code


def keep(params: Params, rung: str, seed: int) -> None:
    """Write the small file of a finished rung."""
    run = params.base.run
    folder = ROOT / folder_of(params, rung, seed, "classify") / "classify"
    record = load_json(folder / "weights.run.json")
    scores: dict[str, Any] = {}
    # What rungs are scored by is chosen on `tune`, never on the reported list.
    for name in ["cam_tune", *evaluations(params, rung)]:
        key = f"metrics/{name}"
        path = ROOT / folder_of(params, rung, seed, key) / f"{key}.json"
        if name in SCORES and path.exists():
            scores[name] = load_json(path)
    data = load_json(ROOT / run.results / run.dataset / "data" / "dataset.json")
    facts = {
        "rung": rung,
        "seed": seed,
        "scores": scores,
        "losses": tenths(folder / "curve.csv"),
        "last_losses": last_row(folder / "curve.csv"),
        "segment_losses": last_row(own) if (own := segment_curve(params, rung, seed)) else {},
        "data_hash": data["data_hash"],
        **{k: record[k] for k in ("seconds", "peak_rss_mb", "git", "machine", "versions")},
    }
    KEPT.mkdir(exist_ok=True)
    save_json(file_of(rung, seed), facts)


def segment_curve(params: Params, rung: str, seed: int) -> Path | None:
    """Where the curve of a rung's segmentation network is, if it has one."""
    path = ROOT / folder_of(params, rung, seed, "segment") / "segment" / "curve.csv"
    return path if path.exists() else None


def tenths(path: Path) -> dict[str, list[str]]:
    """Return ten rows of a curve, evenly spaced and the last one among them, by column."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    chosen = [rows[len(rows) * part // 10 - 1] for part in range(1, 11)] if rows[9:] else rows
    return {name: [row[name] for row in chosen] for name in rows[0]}


def last_row(path: Path) -> dict[str, str]:
    """Return the last line of a curve."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))[-1]


def mean_of(found: list[dict[str, Any]], name: str, key: str = "miou") -> str:
    """Return a score in percent as mean ± standard deviation over seeds, or a dash."""
    values = [100 * e["scores"][name][key] for e in found if name in e["scores"]]
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def kept(rung: str) -> list[dict[str, Any]]:
    """Return the small files of a rung, one a seed."""
    return [load_json(path) for path in sorted(KEPT.glob(f"{rung}-seed*.json"))]


def seed_score(found: list[dict[str, Any]]) -> float | None:
    """Return the mean score of the CAM seeds in percent, or None where there is no file."""
    values = [100 * entry["scores"]["cam"]["miou"] for entry in found]
    return statistics.mean(values) if values else None


def table(shown: list[str] | None = None) -> str:
    """Return the ladder as a table: mean and spread over seeds, difference to the baseline.

    ``shown`` are its rungs, all by default; the first one is what the others are held against, or
    nothing while it has not run.
    """
    shown = shown or rungs()
    lines = [
        "| rung | CAM seed | above baseline | [oracle] | on tune | pseudo masks "
        "| val single-scale | val +CRF | seeds | minutes of classify |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    base = seed_score(kept(shown[0]))
    waiting, machines = [], set()
    for rung in shown:
        found = kept(rung)
        mean = seed_score(found)
        if mean is None:
            waiting.append(rung)
            continue
        minutes = statistics.mean(entry["seconds"] for entry in found) / 60
        machines |= {entry["machine"] for entry in found}
        cells = [
            mean_of(found, "cam"),
            "–" if base is None else f"{mean - base:+.1f}",
            f"[{mean_of(found, 'cam', 'oracle_miou')}]",
            *(mean_of(found, name) for name in ("cam_tune", "pseudo", "single", "final")),
            ", ".join(str(entry["seed"]) for entry in found),
            f"{minutes:.0f}",
        ]
        lines.append(f"| {rung} | {' | '.join(cells)} |")
    if waiting:
        lines += ["", f"Not run yet: {', '.join(waiting)}."]
    lines += ["", f"Machine: {'; '.join(sorted(machines))}, shared with other work."]
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> int:
    """Run or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    running = parser.add_subparsers(dest="command").add_parser("run")
    running.add_argument("rung", nargs="*", metavar="RUNG")
    options = parser.parse_args(words)
    if options.command == "run":
        if unknown := sorted(set(options.rung) - set(rungs())):
            parser.error(f"no rung {', '.join(unknown)}")
        return run(load_params(["params.yaml", *OVERLAYS]), options.rung)
    sys.stdout.write(table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
