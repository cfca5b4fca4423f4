"""Hold the plan against jobs that really run: seconds, memory and disk of every kind of stage.

python benchmarks/plan_check.py --params params.yaml workflow/presets/voc-animals.yaml \
    --bench bench.json --artifacts results/voc-animals --out docs/scaling/plan.json

Every third image of a finished run is taken, with the artifacts that it left; one job of each kind
then runs in a folder of its own, trainings for two epochs, and is compared with what the plan says
of that very job. Seconds are processor time of the job and its children, so that other work on the
machine does not matter. The memory is what the job itself recorded.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from wsss.artifacts import load_json, save_json
from wsss.config import Params, load_params
from wsss.data.manifest import Manifest
from wsss.planning.dataset import data_facts
from wsss.planning.plan import Plan, Planned, make_plan
from wsss.planning.rates import cost_key, read_bench
from wsss.versioning.graph import jobs

EVERY, EPOCHS, SHARDS = 3, 2, 3
COMMANDS = {
    "seeds_alpha": ["seeds", "alpha"],
    "seeds_label": ["seeds", "label"],
    "seeds_confident": ["seeds", "confident"],
}


def smaller(results: Path) -> dict[str, Any]:
    """The configuration of the check: few epochs, shards, results of its own."""
    epochs = {stage: {"epochs": EPOCHS} for stage in ("classify", "affinity", "irnet", "segment")}
    shards = {"cam": SHARDS, "seeds": SHARDS, "walk": SHARDS, "predict": 1, "crf": 1}
    return {
        **epochs,
        "run": {"results": str(results)},
        "resources": {"processes": 1, "shards": shards},
        "tracking": {"mlflow": False},
    }


def take(artifacts: Path, params: Params, to: Path) -> None:
    """Copy a finished run's artifacts, and every third row of its manifest."""
    for pattern in ("*/seed*/*/*.zip", "*/seed*/*/*.safetensors", "*/seed*/metrics/*_tune.json"):
        for source in artifacts.glob(pattern):
            copy = to / source.relative_to(artifacts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    root = Path(params.base.data.root or "")
    manifest = Manifest.load(artifacts / "data", root)
    replace(manifest, items=manifest.items[::EVERY]).save(to / "data")


def chosen(plan: Plan, params: Params) -> Iterator[Planned]:
    """One job of each kind."""
    seen = set()
    for job in plan.jobs:
        if not job.work or job.rule == "manifest":
            continue
        config = params.resolve(job.variant)
        kind = tuple((work.task, cost_key(work.task, config)) for work in job.work)
        if kind not in seen:
            seen.add(kind)
            yield job


def command(job: Planned, params: Path) -> list[str]:
    """The command line of a job."""
    line = COMMANDS.get(job.rule, [job.rule])
    if job.rule.startswith("evaluate"):
        line = ["evaluate", Path(job.name).stem]
    part = re.search(r"\.(\d+)of(\d+)\.zip$", job.name)
    shard = ["--shard", f"{part[1]}/{part[2]}"] if part else []
    where = ["--params", str(params), "--variant", job.variant, "--seed", job.seed]
    return [sys.executable, "-m", "wsss", *line, *where, *shard]


def run(job: Planned, params: Path) -> dict[str, float]:
    """Run a job; return its processor and wall seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command(job, params), capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{job.name}: {done.stderr.strip()[-400:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": round(spent, 1), "wall": round(time.perf_counter() - began, 1)}


def compared(job: Planned, spent: dict[str, float]) -> dict[str, Any]:
    """One row: planned and found."""
    out = Path(job.name)
    record = load_json(out.with_name(f"{out.stem}.run.json"))
    named = [out, *out.parent.glob("single.zip")] if job.rule == "predict" else [out]
    if job.rule == "seeds_alpha":
        named.append(out.with_name(out.name.replace("low", "high")))
    sized = out.suffix == ".zip"
    row = {
        "task": " + ".join(work.task for work in job.work),
        "variant": job.variant,
        "work": "; ".join(work.text for work in job.work),
        "planned_seconds": round(job.seconds or 0.0, 1),
        "cpu_seconds": spent["cpu"],
        "wall_seconds": spent["wall"],
        "planned_mb": round(job.process_mb or 0.0),
        "peak_mb": round(record["peak_rss_mb"]),
        "planned_bytes": round(job.size or 0) if sized else None,
        "bytes": sum(path.stat().st_size for path in named) if sized else None,
    }
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()
    return row


def main() -> None:
    """Run the check and write its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", nargs="+", required=True)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bench = read_bench(args.bench)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overlay = folder / "check.yaml"
        overlay.write_text(yaml.safe_dump(smaller(folder / "results")))
        files = [*args.params, str(overlay)]
        params = load_params(files)
        dataset = params.base.run.dataset
        take(args.artifacts, params, folder / "results" / dataset)
        facts = data_facts(params.base, folder / "results" / dataset / "data")
        plan = make_plan(jobs(files, every=True), params, facts, bench)
        resolved = folder / "params.yaml"
        resolved.write_text(yaml.safe_dump(params.raw, sort_keys=False))
        about = {"machine": bench.file.machine, "dataset": dataset, "data": facts.plain()}
        about["data"].pop("origin")
        rows: list[dict[str, Any]] = []
        for job in chosen(plan, params):
            rows.append(compared(job, run(job, resolved)))
            save_json(args.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
