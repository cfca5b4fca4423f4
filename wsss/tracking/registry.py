"""Published networks under a name of their own, with versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsss.config import Params
from wsss.errors import UserError
from wsss.tracking.results import run_key
from wsss.tracking.store import open_store, reaching
from wsss.tracking.writer import CONTENT, runs_by_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def register_network(params: Params, variant: str, seed: int, name: str) -> tuple[int, bool]:
    """Register the network of a published run; return its version, and whether it is a new one.

    Raises UserError: nothing published of that variant and seed, no model in it, no store.
    """
    store = open_store(params.base.tracking)
    dataset = params.base.run.dataset
    with reaching(store.uri):
        key = run_key(dataset, variant, seed)
        found = runs_by_key(store, store.experiment(dataset)).get(key, ())
        runs = [run for run in found if CONTENT in run.data.tags]
        if not runs:
            raise UserError(f"{key} is not published: it has no finished stage")
        return _register(store.client, runs[0], name)


def _register(client: MlflowClient, run: Run, name: str) -> tuple[int, bool]:
    content = run.data.tags[CONTENT]
    for known in client.search_model_versions(f"name='{name}'"):
        if known.tags.get(CONTENT) == content:
            return int(known.version), False
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise UserError(f"{run.info.run_name} has no model to register: is tracking.models false?")
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    source = f"models:/{outputs[0].model_id}"
    made: Any = client.create_model_version(
        name, source, run_id=run.info.run_id, tags={CONTENT: content}
    )
    return int(made.version), True
