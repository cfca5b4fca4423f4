"""From records to MLflow: a run is written once, whole, and never again while it stays the same.

Every run carries its key and, as the last thing that is written, the hash of its content. A run
whose hash is another one, or that has none because its writing was cut short, is replaced. The
curve of a network that is training now, or goes on later, stays until its stage is finished.
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
from wsss.tracking.reading import reading
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
PARENT = "mlflow.parentRunId"
Thing = TypeVar("Thing")


class Writer:
    """Writes records into one experiment."""

    def __init__(self, store: Store, dataset: str) -> None:
        self.store, self.client = store, store.client
        self.experiment = store.experiment(dataset)
        self.known = runs_by_key(store, self.experiment)
        self.ids: dict[str, str] = {}
        self.training: set[str] = set()
        self.notes: list[str] = []

    def write(self, record: Record) -> bool:
        """Write a run unless it is there already; return whether anything was written."""
        mine: Run | None = None
        live: list[Run] = []
        for run in self.known.pop(record.key, []):
            if mine is None and run.data.tags.get(CONTENT) == record.content:
                mine = run
            elif unfinished(run) and run.info.start_time > record.times.ended:
                live.append(run)  # trains again what the results hold already
            else:
                self.remove(run)
        self.ids[record.key] = self._create(record) if mine is None else mine.info.run_id
        for run in live:
            self._keep(run, record.parent)
        return mine is None or self._refresh(mine, record)

    def _keep(self, run: Run, parent: str | None) -> None:
        """Leave a live curve alone, below the run of its variant."""
        self._adopt(run, parent)
        if parent is not None and run.info.status == "RUNNING":
            self.training.add(parent)

    def _refresh(self, run: Run, record: Record) -> bool:
        """Bring what stays as it is in order; return whether it lacked its network and has it now,
        as of weights that could not be read before."""
        self._adopt(run, record.parent)
        lacks = record.network is not None and not (run.outputs and run.outputs.model_outputs)
        added = lacks and self._network(run.info.run_id, record)
        if added or (record.parent is not None and run.info.status != "FINISHED"):
            self._end(run.info.run_id, record)
        return added

    def remove(self, run: Run) -> None:
        """Move a run, and the model it holds, to the bin."""
        run_id = run.info.run_id
        for model in self._models(run_id):
            self.client.delete_logged_model(model.model_id)
        self.client.delete_run(run_id)

    def _models(self, run_id: str) -> Sequence[Any]:
        condition = f"source_run_id='{run_id}'"
        return list(self.client.search_logged_models([self.experiment], filter_string=condition))

    def _adopt(self, run: Run, key: str | None) -> None:
        """Hang a run that stays below a parent that was written again."""
        parent = self.ids.get(key or "")
        if parent is not None and run.data.tags.get(PARENT) != parent:
            self.client.set_tag(run.info.run_id, PARENT, parent)

    def _create(self, record: Record) -> str:
        tags = {**record.tags, KEY: record.key, "mlflow.source.name": "wsss"}
        if record.parent is not None:
            tags[PARENT] = self.ids[record.parent]
        run = self.client.create_run(
            self.experiment, start_time=record.times.began, tags=tags, run_name=record.name
        )
        run_id = str(run.info.run_id)
        self._numbers(run_id, record)
        self._inputs(run_id, record.inputs)
        self._files(run_id, record)
        if record.network is not None:
            self._network(run_id, record)
        self._end(run_id, record)
        # Last: without it all of this is done again.
        self.client.set_tag(run_id, CONTENT, record.content)
        return run_id

    def _network(self, run_id: str, record: Record) -> bool:
        """Add the network as a model; whether that was possible."""
        assert record.network is not None
        try:
            log_network(run_id, record.network)
        except UserError as error:
            self.notes.append(f"{record.key}: no model: {error}")
            return False
        return True

    def _end(self, run_id: str, record: Record) -> None:
        self.client.set_terminated(run_id, self._status(record), record.times.ended)

    def _status(self, record: Record) -> str:
        """Of a variant that is not complete, whether one of its networks is training now."""
        if record.complete:
            return "FINISHED"
        return "RUNNING" if record.key in self.training else "KILLED"

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
                with reading():
                    data = file.read()
                path.write_bytes(data)
            self.client.log_artifacts(run_id, name)

    def remove_rest(self, parents: Iterable[str]) -> int:
        """Remove stages that the results no longer hold, of variants that they do hold.

        The curve of a stage that is training, or was stopped and goes on later, stays.
        """
        gone, held = 0, set(parents)
        for key, runs in self.known.items():
            parent = key.rpartition("/")[0]
            for run in runs if parent in held else ():
                if unfinished(run):
                    self._keep(run, parent)
                else:
                    self.remove(run)
                    gone += 1
        return gone

    def update(self, record: Record, loose: Mapping[str, str | None]) -> bool:
        """Bring what is no part of a run's content up to date: its description, with links to the
        runs that it shares, its status and tags; return whether it was not.

        Args:
            loose: tags; None for one that must not be there.
        """
        run_id = self.ids[record.key]
        run = self.client.get_run(run_id)
        wanted = {_NOTE: self._text(record), **loose}
        stale = {name: t for name, t in wanted.items() if run.data.tags.get(name) != t}
        for name, text in stale.items():
            if text is None:
                self.client.delete_tag(run_id, name)
            else:
                self.client.set_tag(run_id, name, text)
        moved = run.info.status != self._status(record)
        if moved:
            self._end(run_id, record)
        return bool(stale) or moved

    def _text(self, record: Record) -> str:
        lines = [record.text]
        if record.links:
            lines += ["", "Shared stages:", ""]
        for stage, key in record.links.items():
            run_id = self.ids.get(key)
            link = f"#/experiments/{self.experiment}/runs/{run_id}"
            lines.append(f"- {stage}: [{key}]({link})" if run_id else f"- {stage}: {key}")
        return "\n".join(lines)


def unfinished(run: Run) -> bool:
    """Whether a run is the live curve of a stage that trains, or was stopped and may go on."""
    tags = run.data.tags
    return LIVE in tags and PARENT in tags and run.info.status in ("RUNNING", "KILLED")


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
