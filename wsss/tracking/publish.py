"""Project everything under ``results/DATASET`` into MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wsss.config import Params
from wsss.errors import UserError
from wsss.tracking.lock import lock_hash, locked_outs
from wsss.tracking.pictures import gallery_of
from wsss.tracking.reading import reading
from wsss.tracking.records import Record
from wsss.tracking.results import Results, all_results
from wsss.tracking.stages import evaluation_record, stage_record
from wsss.tracking.store import Store, alone, open_store, reaching
from wsss.tracking.variants import variant_record
from wsss.tracking.writer import Writer

_PATIENCE = 60.0


class Published(NamedTuple):
    """What was done: runs that the results hold, those written and removed, and remarks."""

    uri: str
    runs: int
    written: int
    removed: int
    updated: int
    notes: list[str]


def publish(params: Params) -> Published:
    """Bring the store up to date with the results of ``run.dataset``.

    Runs that are there with the same content are left alone; a second call changes nothing.

    Raises:
        UserError: no results, one that cannot be read, or a store that cannot be used; what was
            written until then is whole, the next call goes on from there.
    """
    run, tracking = params.base.run, params.base.tracking
    with reading():
        found = all_results(params)
    if not found:
        root = Path(run.results) / run.dataset
        raise UserError(
            f"{root} holds no finished stage of {', '.join(run.variants)}: run the workflow first"
        )
    store = open_store(tracking)
    with reaching(store.uri), alone(store.uri, "publish", _PATIENCE):
        return _publish(store, run.dataset, found)


def _publish(store: Store, dataset: str, found: list[Results]) -> Published:
    writer = Writer(store, dataset)
    written, runs = 0, 0
    parents: list[tuple[Results, Record]] = []
    for results in found:
        with reading():
            mine = list(records(results))
        for record in mine:
            written += writer.write(record)
        runs += len(mine)
        parents.append((results, mine[0]))
    removed = writer.remove_rest(record.key for _, record in parents)
    # Links need the ids of all runs.
    outs = locked_outs()
    updated = 0
    for results, record in parents:
        with reading():
            version = lock_hash(outs, results.paths.run)
        updated += writer.update(record, {"dvc_lock": version})
    return Published(store.uri, runs, written, removed, updated, writer.notes)


def records(results: Results) -> Iterator[Record]:
    """Return the run of a variant and seed and, after it, those of its stages."""
    tracking = results.config.tracking
    gallery = gallery_of(results, tracking.pictures)
    yield variant_record(results, gallery.variant() if gallery else (), tracking.models)
    for stage in results.stages:
        yield stage_record(results, stage, gallery.stage(stage) if gallery else ())
    for what in results.evaluations:
        yield evaluation_record(results, what)
