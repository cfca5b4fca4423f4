"""Where runs are kept: a server, or a database beside the results, made once under a lock.

MLflow waits minutes for a store that does not answer, and processes that open a fresh sqlite file
at once damage it. Here every wait is bounded, and the first to come makes the database.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsss.config.schema import Tracking
from wsss.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI = "MLFLOW_TRACKING_URI"
# "0": nothing is published unless `wsss publish` is called.
SWITCH = "WSSS_PUBLISH"
_SQLITE = "sqlite:///"
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # Nothing is sent to anybody but the store.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_BUSY_SECONDS = 3.0


@dataclass(frozen=True)
class Store:
    """An open store, and what error messages call it."""

    client: MlflowClient
    uri: str
    artifacts: str

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of a data set; make it, or take it from the bin."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            local = self.uri.startswith(_SQLITE)
            place = str(Path(self.artifacts) / name) if local else None
            # The UI has two faces; this is the one for training.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            return str(self.client.create_experiment(name, artifact_location=place, tags=tags))
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def uri_of(tracking: Tracking) -> str:
    """Return the store's address: of the environment, else the configured one."""
    return os.environ.get(URI) or tracking.uri


def wanted(tracking: Tracking) -> bool:
    """Whether results go to the store by themselves."""
    return tracking.mlflow and os.environ.get(SWITCH, "1") != "0"


def open_store(tracking: Tracking, patience: float = 60.0) -> Store:
    """Open the store; a fresh database gets its tables, by one process alone.

    Raises UserError within seconds if it cannot be used, after ``patience`` if another process is
    making it all that time.
    """
    uri = uri_of(tracking)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with reaching(uri):
        if uri.startswith(_SQLITE):
            _check_sqlite(Path(uri.removeprefix(_SQLITE)))
            with alone(uri, "init", patience):
                return _open(uri, tracking.artifacts)
        return _open(uri, tracking.artifacts)


def _open(uri: str, artifacts: str) -> Store:
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    given = os.environ.get(URI)
    mlflow.set_tracking_uri(uri)
    # It also changes the environment, where the next store would take it for the user's wish.
    if given is None:
        os.environ.pop(URI, None)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri)
    client.search_experiments(max_results=1)
    return Store(client, uri, artifacts)


def _check_sqlite(path: Path) -> None:
    """Find out in seconds what MLflow tries for minutes: locked, read-only, no database."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(f"the folder of {path} cannot be written")
        return
    with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is read-only")


@contextmanager
def alone(uri: str, purpose: str, patience: float) -> Iterator[None]:
    """Hold a database alone for a purpose among processes of this project.

    A server takes care of itself. Raises UserError after ``patience`` seconds.
    """
    if not uri.startswith(_SQLITE):
        yield
        return
    path = Path(f"{uri.removeprefix(_SQLITE)}.{purpose}.lock")
    deadline = time.monotonic() + patience
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise UserError(
                    f"MLflow store {uri}: another process is publishing (it holds {path}): publish "
                    "again when it is done"
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn what a store that is down, locked or no store raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _of_the_store(error):
            raise
        first = " ".join(str(error).split())
        raise UserError(
            f"MLflow store {uri} cannot be used ({first[:300]}): check {URI} and the section "
            "tracking of params.yaml, then run `wsss publish`"
        ) from error


def _of_the_store(error: Exception) -> bool:
    """Errors of the network, the disk and the database, by the packages that raise them."""
    known = ("mlflow", "sqlalchemy", "alembic", "requests", "urllib3", "sqlite3")
    modules = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return isinstance(error, OSError) or not modules.isdisjoint(known)
