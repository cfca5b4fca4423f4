"""From records to MLflow: a run is written once, whole, and never again while it stays the same.

Every run carries its key and, as the last thing that is written, the hash of its content. A run
whose hash is another one, or that has none because its writing was cut short, is replaced.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wsss.errors import UserError
from wsss.tracking.model import log_network
from wsss.tracking.records import Input, Record
from wsss.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

KEY = "wsss.key"
CONTENT = "wsss.content"
LIVE = "wsss.live"
# Limits of one request (MLflow 3).
_METRICS, _PARAMS = 1000, 100
_PAGE = 1000
_NOTE = "mlflow.note.content"
_PARENT = "mlflow.parentRunId"
Thing = TypeVar("Thing")


class Writer:
    """Writes records into one experiment."""

    def __init__(self, store: Store, dataset: str) -> None:
        self.store, self.client = store, store.client
        self.experiment = store.experiment(dataset)
        self.known = runs_by_key(store, self.experiment)
        self.ids: dict[str, str] = {}
        self.notes: list[str] = []

    def write(self, record: Record) -> bool:
        """Write a run unless it is there already; return whether it was written."""
        mine: Run | None = None
        for run in self.known.pop(record.key, []):
            if mine is None and run.data.tags.get(CONTENT) == record.content:
                mine = run
            else:
                self.remove(run)
        if mine is None:
            self.ids[record.key] = self._create(record)
            return True
        self.ids[record.key] = mine.info.run_id
        self._adopt(mine, record)
        return False

    def remove(self, run: Run) -> None:
        """Move a run, and the model it holds, to the bin."""
        run_id = run.info.run_id
        for model in self._models(run_id):
            self.client.delete_logged_model(model.model_id)
        self.client.delete_run(run_id)

    def _models(self, run_id: str) -> Sequence[Any]:
        condition = f"source_run_id='{run_id}'"
        return list(self.client.search_logged_models([self.experiment], filter_string=condition))

    def _adopt(self, run: Run, record: Record) -> None:
        """Hang a run that stays below a parent that was written again."""
        parent = self.ids.get(record.parent or "")
        if parent is not None and run.data.tags.get(_PARENT) != parent:
            self.client.set_tag(run.info.run_id, _PARENT, parent)

    def _create(self, record: Record) -> str:
        tags = {**record.tags, KEY: record.key, "mlflow.source.name": "wsss"}
        if record.parent is not None:
            tags[_PARENT] = self.ids[record.parent]
        run = self.client.create_run(
            self.experiment, start_time=record.times.began, tags=tags, run_name=record.name
        )
        run_id = str(run.info.run_id)
        self._numbers(run_id, record)
        self._inputs(run_id, record.inputs)
        self._files(run_id, record)
        if record.network is not None:
            try:
                log_network(run_id, record.network)
            except UserError as error:
                self.notes.append(f"{record.key}: no model: {error}")
        self.client.set_tag(run_id, CONTENT, record.content)
        self.client.set_terminated(run_id, "FINISHED", record.times.ended)
        if not record.complete:  # shows as running
            self.client.update_run(run_id, status="RUNNING")
        return run_id

    def _numbers(self, run_id: str, record: Record) -> None:
        from mlflow.entities import Metric, Param

        last = max((metric.step for metric in record.metrics), default=0)
        span = record.times.ended - record.times.began
        metrics = (
            Metric(m.name, m.value, record.times.began + span * m.step // max(last, 1), m.step)
            for m in record.metrics
        )
        for some in _batches(metrics, _METRICS):
            self.client.log_batch(run_id, metrics=some)
        params = (Param(name, value) for name, value in record.params.items())
        for few in _batches(params, _PARAMS):
            self.client.log_batch(run_id, params=few)

    def _inputs(self, run_id: str, inputs: Sequence[Input]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self.client.log_inputs(
            run_id,
            [
                DatasetInput(
                    Dataset(
                        name=one.name,
                        digest=one.digest,
                        source_type="local",
                        source=json.dumps({"uri": one.source}),
                        profile=json.dumps(one.profile),
                    ),
                    [InputTag("mlflow.data.context", one.context)],
                )
                for one in inputs
            ],
        )

    def _files(self, run_id: str, record: Record) -> None:
        if not record.files:
            return
        with tempfile.TemporaryDirectory() as name:
            for file in record.files:
                path = Path(name) / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())
            self.client.log_artifacts(run_id, name)

    def remove_rest(self, parents: Iterable[str]) -> int:
        """Remove stages that the results no longer hold, of variants that they do hold.

        A stage that is training now and shows its curve stays.
        """
        gone = 0
        owned = tuple(f"{key}/" for key in parents)
        for key, runs in self.known.items():
            for run in runs if key.startswith(owned) else ():
                if not (LIVE in run.data.tags and run.info.status == "RUNNING"):
                    self.remove(run)
                    gone += 1
        return gone

    def update(self, record: Record, loose: Mapping[str, str]) -> bool:
        """Bring a run's description, with links to the runs that it shares, and tags that are no
        part of its content up to date; return whether they were not."""
        run_id = self.ids[record.key]
        wanted = {_NOTE: self._text(record), **loose}
        tags = self.client.get_run(run_id).data.tags
        stale = {name: text for name, text in wanted.items() if tags.get(name) != text}
        for name, text in stale.items():
            self.client.set_tag(run_id, name, text)
        return bool(stale)

    def _text(self, record: Record) -> str:
        lines = [record.text]
        if record.links:
            lines += ["", "Shared stages:", ""]
        for stage, key in record.links.items():
            run_id = self.ids.get(key)
            link = f"#/experiments/{self.experiment}/runs/{run_id}"
            lines.append(f"- {stage}: [{key}]({link})" if run_id else f"- {stage}: {key}")
        return "\n".join(lines)


def runs_by_key(store: Store, experiment: str) -> dict[str, list[Run]]:
    """Return all runs of the projection that are not in the bin."""
    found: dict[str, list[Run]] = {}
    token = None
    while True:
        page = store.client.search_runs([experiment], max_results=_PAGE, page_token=token)
        for run in page:
            key = run.data.tags.get(KEY)
            if key is not None:
                found.setdefault(key, []).append(run)
        token = page.token
        if not token:
            return found


def _batches(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    stream = iter(things)
    while some := list(islice(stream, size)):
        yield some
