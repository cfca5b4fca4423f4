"""The process behind a live curve: ``python -m wsss.tracking.live_writer JOB``, rows on stdin."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wsss.config.schema import Tracking
from wsss.errors import UserError
from wsss.tracking.live import FINISHED
from wsss.tracking.records import metric_name
from wsss.tracking.results import run_key
from wsss.tracking.store import Store, alone, open_store, reaching
from wsss.tracking.writer import CONTENT, KEY, LIVE, PARENT, runs_by_key, unfinished

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
            _end(store, run, _follow(store, run, sys.stdin))
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
        parent = _parent(known.get(variant, [])) or _make(store, experiment, variant, name, {})
        if CONTENT not in parent.data.tags:
            _running(store, parent)
        key = f"{variant}/{job['stage']}"
        run = next(filter(unfinished, known.get(key, [])), None)
        if run is not None:
            _running(store, run)
            return run
        tags = {PARENT: parent.info.run_id, "stage": job["stage"]}
        return _make(store, experiment, key, f"{job['stage']} (live)", tags)


def _parent(runs: list[Run]) -> Run | None:
    """The variant's run: the published one, if there is one."""
    published = (run for run in runs if CONTENT in run.data.tags)
    return next(published, runs[0] if runs else None)


def _running(store: Store, run: Run) -> None:
    if run.info.status != "RUNNING":
        store.client.update_run(run.info.run_id, status="RUNNING")


def _end(store: Store, run: Run, finished: bool) -> None:
    """Say whether the training was finished or stopped; so of its variant, where nothing of it is
    published. One that went well is told of when the workflow ends."""
    run_id = run.info.run_id
    store.client.set_terminated(run_id, "FINISHED" if finished else "KILLED")
    # Publishing may have hung it below another run.
    parent = store.client.get_run(store.client.get_run(run_id).data.tags[PARENT])
    if not finished and CONTENT not in parent.data.tags:
        store.client.set_terminated(parent.info.run_id, "KILLED")


def _make(store: Store, experiment: str, key: str, name: str, tags: dict[str, str]) -> Run:
    marks = {KEY: key, LIVE: "yes", "mlflow.source.name": "wsss"}
    return store.client.create_run(experiment, tags={**tags, **marks}, run_name=name)


def _follow(store: Store, run: Run, lines: Iterable[str]) -> bool:
    """Write rows as they come; return whether the last one says that the training is finished."""
    from mlflow.entities import Metric

    run_id = run.info.run_id
    # What a training that goes on repeats after its last saved step is there already.
    last = max((metric.step for metric in _known(store, run_id)), default=0)
    for line in lines:
        row = json.loads(line)
        if row == FINISHED:
            return True
        step, now = row.pop("step"), time.time_ns() // 1_000_000
        numbers = {name: value for name, value in row.items() if value is not None}
        if step > last:
            metrics = [Metric(metric_name(n), float(v), now, step) for n, v in numbers.items()]
            store.client.log_batch(run_id, metrics=metrics)
    return False


def _known(store: Store, run_id: str) -> list[Any]:
    names = store.client.get_run(run_id).data.metrics
    return list(store.client.get_metric_history(run_id, "lr")) if "lr" in names else []


if __name__ == "__main__":
    raise SystemExit(main())
