"""The process behind a live curve: ``python -m wsss.tracking.live_writer JOB``, rows on stdin."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wsss.config.schema import Tracking
from wsss.errors import UserError
from wsss.tracking.records import metric_name
from wsss.tracking.results import run_key
from wsss.tracking.store import Store, alone, open_store, reaching
from wsss.tracking.writer import KEY, LIVE, runs_by_key

if TYPE_CHECKING:
    from mlflow.entities import Run

_PATIENCE = 60.0


def main() -> int:
    """Write rows until there are no more; 1, with one line, if the store cannot be used."""
    job = json.loads(sys.argv[1])
    try:
        store = open_store(Tracking.model_validate(job["tracking"]))
        with reaching(store.uri):
            run = _begin(store, job)
            _follow(store, run, sys.stdin)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _begin(store: Store, job: dict[str, Any]) -> Run:
    """Find the live run of a training that goes on, or make one, below its variant's."""
    variant = run_key(job["dataset"], job["variant"], job["seed"])
    # Jobs of one variant may start together, and a variant has one run.
    with alone(store.uri, "publish", _PATIENCE):
        experiment = store.experiment(job["dataset"])
        known = runs_by_key(store, experiment)
        name = f"{job['variant']}, seed {job['seed']}"
        parent = _latest(known, variant) or _make(store, experiment, variant, name, {})
        key = f"{variant}/{job['stage']}"
        run = _latest(known, key)
        if run is not None and LIVE in run.data.tags and run.info.status == "RUNNING":
            return run
        tags = {"mlflow.parentRunId": parent.info.run_id, "stage": job["stage"]}
        return _make(store, experiment, key, f"{job['stage']} (live)", tags)


def _latest(known: dict[str, list[Run]], key: str) -> Run | None:
    return next(iter(known.get(key, ())), None)


def _make(store: Store, experiment: str, key: str, name: str, tags: dict[str, str]) -> Run:
    marks = {KEY: key, LIVE: "yes", "mlflow.source.name": "wsss"}
    return store.client.create_run(experiment, tags={**tags, **marks}, run_name=name)


def _follow(store: Store, run: Run, lines: Iterable[str]) -> None:
    from mlflow.entities import Metric

    run_id = run.info.run_id
    # What a training that goes on repeats after its last saved step is there already.
    last = max((metric.step for metric in _known(store, run_id)), default=0)
    for line in lines:
        row = json.loads(line)
        step, now = row.pop("step"), time.time_ns() // 1_000_000
        numbers = {name: value for name, value in row.items() if value is not None}
        if step > last:
            metrics = [Metric(metric_name(n), float(v), now, step) for n, v in numbers.items()]
            store.client.log_batch(run_id, metrics=metrics)


def _known(store: Store, run_id: str) -> list[Any]:
    names = store.client.get_run(run_id).data.metrics
    return list(store.client.get_metric_history(run_id, "lr")) if "lr" in names else []


if __name__ == "__main__":
    raise SystemExit(main())
