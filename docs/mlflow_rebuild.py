"""Publish results, lose the store, fill it again, and say whether both are equal.

    python docs/mlflow_rebuild.py params.yaml workflow/presets/voc-animals.yaml
        --out docs/mlflow-rebuild.json

Works in a folder of its own; every step is a process of its own, so that nothing is remembered.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from wsss.artifacts import save_json
from wsss.config import load_params
from wsss.tracking.dump import dump
from wsss.tracking.store import URI, open_store

Dump = dict[str, Any]


def publish(params: list[str], env: dict[str, str]) -> tuple[float, str]:
    """Publish once; return the seconds it took and what it said."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "wsss", "publish", "--params", *params],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return round(time.monotonic() - began, 1), done.stdout.split(" (")[0].strip()


def dumped(params: list[str], env: dict[str, str]) -> Dump:
    """Return everything that is published, read by another process."""
    done = subprocess.run(
        [sys.executable, __file__, *params, "--dump"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    found: Dump = json.loads(done.stdout)
    return found


def counts(found: Dump) -> dict[str, int]:
    """Return how much is published."""
    runs = found.values()
    return {
        "runs": len(found),
        "parameters": sum(len(run["params"]) for run in runs),
        "metric_points": sum(len(h) for run in runs for h in run["metrics"].values()),
        "tags": sum(len(run["tags"]) for run in runs),
        "inputs": sum(len(run["inputs"]) for run in runs),
        "files": sum(len(run["files"]) for run in runs),
        "models": sum(len(run["models"]) for run in runs),
    }


def rebuild(params: list[str], folder: Path) -> dict[str, Any]:
    """Publish, publish again, delete, publish; return what was seen."""
    artifacts, database = folder / "mlartifacts", folder / "mlflow.db"
    top = folder / "store.yaml"
    top.write_text(yaml.safe_dump({"tracking": {"artifacts": str(artifacts)}}))
    files, env = [*params, str(top)], {**os.environ, URI: f"sqlite:///{database}"}
    first, said = publish(files, env)
    before = dumped(files, env)
    second, again = publish(files, env)
    unchanged = dumped(files, env) == before
    database.unlink()
    shutil.rmtree(artifacts)
    third, refilled = publish(files, env)
    after = dumped(files, env)
    differing = sorted(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
    return {
        "dataset": load_params(params).base.run.dataset,
        "published": counts(before),
        "said": [said, again, refilled],
        "seconds": {"publish": first, "publish_again": second, "rebuild": third},
        "unchanged_by_publishing_again": unchanged,
        "rebuilt_equal": not differing,
        "differing_runs": differing,
        "mlflow": version("mlflow"),
    }


def main() -> None:
    """Write what was seen as JSON; with ``--dump``, print what is published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("params", nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dump", action="store_true")
    args = parser.parse_args()
    if args.dump:
        base = load_params(args.params).base
        sys.stdout.write(json.dumps(dump(open_store(base.tracking), base.run.dataset)))
        return
    with tempfile.TemporaryDirectory() as name:
        seen = rebuild(args.params, Path(name))
    seen["said"] = [line.partition(":")[2].strip() for line in seen["said"]]
    if args.out is not None:
        save_json(args.out, seen)
    sys.stdout.write(json.dumps(seen, indent=2) + "\n")
    sys.exit(0 if seen["rebuilt_equal"] and seen["unchanged_by_publishing_again"] else 1)


if __name__ == "__main__":
    main()
