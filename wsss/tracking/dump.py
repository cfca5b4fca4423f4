"""Everything that is published of a data set, without ids and times: what a rebuild must equal."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from wsss.tracking.store import Store
from wsss.tracking.writer import CONTENT, runs_by_key

if TYPE_CHECKING:
    from mlflow.entities import Run

# Lines of a model's description that differ each time it is saved.
_PASSING = ("artifact_path", "model_id", "model_uuid", "run_id", "utc_time_created")


def dump(store: Store, dataset: str) -> dict[str, Any]:
    """Return parameters, metrics with steps, tags, inputs and hashes of all files, by run.

    Live curves are not published yet. Ids of runs inside texts are replaced by their keys.
    """
    experiment = store.experiment(dataset)
    every = runs_by_key(store, experiment).items()
    written = {key: [run for run in runs if CONTENT in run.data.tags] for key, runs in every}
    found = {key: runs for key, runs in written.items() if runs}
    twice = [key for key, runs in found.items() if len(runs) > 1]
    assert not twice, f"published twice: {twice}"
    keys = {runs[0].info.run_id: key for key, runs in found.items()}
    return {key: _run(store, runs[0], keys) for key, runs in sorted(found.items())}


def _run(store: Store, run: Run, keys: dict[str, str]) -> dict[str, Any]:
    run_id = run.info.run_id
    assert run.inputs is not None
    assert run.outputs is not None
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": dict(sorted(run.data.params.items())),
        "metrics": {name: _history(store, run_id, name) for name in sorted(run.data.metrics)},
        "tags": {name: _named(text, keys) for name, text in sorted(run.data.tags.items())},
        "inputs": sorted(_input(given) for given in run.inputs.dataset_inputs),
        "files": _run_files(store, run_id),
        "models": [_model_files(store, made.model_id) for made in run.outputs.model_outputs],
    }


def _history(store: Store, run_id: str, name: str) -> list[tuple[int, float]]:
    points = store.client.get_metric_history(run_id, name)
    return sorted((point.step, point.value) for point in points)


def _input(given: Any) -> tuple[Any, ...]:
    data, tags = given.dataset, sorted((tag.key, tag.value) for tag in given.tags)
    return (data.name, data.digest, data.source_type, data.source, data.profile, tags)


def _named(text: str, keys: dict[str, str]) -> str:
    for run_id, key in keys.items():
        text = text.replace(run_id, key)
    return text


def _run_files(store: Store, run_id: str) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        return _hashes(Path(store.client.download_artifacts(run_id, "", folder)))


def _model_files(store: Store, model_id: str) -> dict[str, str]:
    from mlflow.artifacts import download_artifacts

    with TemporaryDirectory() as folder:
        uri = f"models:/{model_id}"
        return _hashes(Path(download_artifacts(uri, dst_path=folder, tracking_uri=store.uri)))


def _hashes(root: Path) -> dict[str, str]:
    """Hash of every file below a folder, by path."""
    # Loading a model may leave compiled code beside its source.
    paths = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return {path.relative_to(root).as_posix(): _hash(path) for path in paths}


def _hash(path: Path) -> str:
    data = path.read_bytes()
    if path.name == "MLmodel":
        facts = yaml.safe_load(data)
        code = facts["flavors"]["python_function"]
        for part in (code["artifacts"]["weights"], code):  # paths of the machine that saved it
            part.pop("uri", None)
            part.pop("model_code_path", None)
        data = yaml.safe_dump({k: v for k, v in facts.items() if k not in _PASSING}).encode()
    if path.name == "registered_model_meta":
        return ""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
