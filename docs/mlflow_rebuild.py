"""Publish results, lose the store, fill it again, and say whether both are equal.

    python docs/mlflow_rebuild.py params.yaml workflow/presets/voc-animals.yaml
        --out docs/mlflow-rebuild.json

Works in a folder of its own; every step is a process of its own, so that nothing is remembered.
Fails if both differ, or if networks are wanted but there is not one among what is published.
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
from typing import Any, NamedTuple

import yaml

from wsss.artifacts import save_json
from wsss.config import load_params
from wsss.tracking.dump import dump
from wsss.tracking.store import URI, open_store

Dump = dict[str, Any]


class Done(NamedTuple):
    """How long publishing took, what it said, and what it could not do."""

    seconds: float
    said: str
    notes: list[str]


def publish(params: list[str], env: dict[str, str]) -> Done:
    """Publish once."""
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
    lines = done.stderr.splitlines()
    notes = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
    said = done.stdout.split(" (")[0].partition(":")[2].strip()
    return Done(round(time.monotonic() - began, 1), said, notes)


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
    first = publish(files, env)
    before = dumped(files, env)
    again = publish(files, env)
    unchanged = dumped(files, env) == before
    database.unlink()
    shutil.rmtree(artifacts)
    refilled = publish(files, env)
    after = dumped(files, env)
    differing = sorted(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
    base = load_params(params).base
    return {
        "dataset": base.run.dataset,
        "published": counts(before),
        "models_wanted": base.tracking.models,
        "said": [first.said, again.said, refilled.said],
        "notes": first.notes,
        "seconds": {
            "publish": first.seconds,
            "publish_again": again.seconds,
            "rebuild": refilled.seconds,
        },
        "unchanged_by_publishing_again": unchanged,
        "rebuilt_equal": not differing,
        "differing_runs": differing,
        "mlflow": version("mlflow"),
    }


def failures(seen: dict[str, Any]) -> list[str]:
    """Return what is not as it should be, a line each."""
    lines = {
        "publishing again changed what is published": seen["unchanged_by_publishing_again"],
        "what is published after a loss is not what it was": seen["rebuilt_equal"],
        "no network was published, though tracking.models is true": (
            seen["published"]["models"] or not seen["models_wanted"]
        ),
    }
    return [line for line, good in lines.items() if not good]


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
    if args.out is not None:
        save_json(args.out, seen)
    sys.stdout.write(json.dumps(seen, indent=2) + "\n")
    sys.exit("\n".join(f"error: {line}" for line in failures(seen)) or 0)


if __name__ == "__main__":
    main()
