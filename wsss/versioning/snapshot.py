"""``wsss snapshot``: what Snakemake made becomes a version of DVC's, without a file being touched.

``wsss restore`` is the way back: files that DVC brought become Snakemake's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from wsss.atomic import atomic_path
from wsss.config import Params, load_params
from wsss.errors import UserError
from wsss.versioning import document, repository
from wsss.versioning.graph import Job, jobs
from wsss.versioning.rawdata import check_data
from wsss.versioning.stages import graph_file

# The same bytes for every graph: a stage that is added makes no other one stale.
_GRAPH_TEXT = "dvc.yaml describes the workflow\n"


class Version(NamedTuple):
    """What a snapshot or a restoration covers; ``unseen`` says what could not be looked at."""

    files: int
    size: int
    unseen: str | None


class UnfinishedError(UserError):
    """Snakemake has something to do; ``jobs`` says what."""

    def __init__(self, waiting: Sequence[Job]) -> None:
        self.jobs = waiting
        super().__init__(
            f"Snakemake has {len(waiting)} jobs to do: run `snakemake --cores all` first"
        )


def write_graph_file(params: Params) -> None:
    """Write what stands for a checked dvc.yaml among the files that stages read."""
    path = Path(graph_file(params))
    if path.is_file() and path.read_text(encoding="utf-8") == _GRAPH_TEXT:
        return
    with atomic_path(path) as temporary:
        temporary.write_text(_GRAPH_TEXT, encoding="utf-8")


def snapshot() -> Version:
    """Commit every output of the finished workflow to DVC.

    Raises UserError if the workflow is unfinished or running, dvc.yaml is stale or the raw data
    has changed; then nothing is committed.
    """
    files, params, every = _ready()
    _refuse_unfinished(files)
    unseen = check_data(params)
    write_graph_file(params)
    outs = [output for job in every for output in job.outputs]
    before = _times(outs)
    # Relinking would give large files new times, and Snakemake would make everything again.
    repository.dvc("commit", "--force", "--no-relink", "--quiet")
    touched = [name for name, time in _times(outs).items() if time != before[name]]
    if touched:
        raise UserError(f"DVC touched {len(touched)} files, such as {touched[0]}: `wsss restore`")
    if left := repository.status():
        raise UserError(f"DVC still sees changes after the commit: {', '.join(sorted(left))}")
    return _version(unseen)


def restore() -> Version:
    """Give Snakemake back what it knew of the files that ``dvc pull`` or ``checkout`` brought.

    Raises UserError if files are missing, or if files, parameters or code are not those of
    dvc.lock; then nothing is touched.
    """
    files, params, _ = _ready()
    if not Path(repository.LOCK).is_file():
        raise UserError("there is no dvc.lock here: nothing was committed; see `wsss snapshot`")
    _refuse_other_version()
    unseen = check_data(params)
    repository.touch(files)
    _refuse_unfinished(files)
    if left := repository.status():
        raise UserError(f"DVC sees changes: {', '.join(sorted(left))}")
    return _version(unseen)


def _ready() -> tuple[list[str], Params, list[Job]]:
    repository.check_repository()
    repository.check_unlocked()
    files = document.files_of_written()
    params = load_params(files)
    every = jobs(files, every=True)
    document.refuse_stale(files, every)
    return files, params, every


def _refuse_unfinished(files: Sequence[str]) -> None:
    if waiting := jobs(files):
        raise UnfinishedError(waiting)


def _refuse_other_version() -> None:
    found = repository.status()
    outs = list(repository.changes(found, "outs"))
    missing = sorted(file for _, file, what in outs if what in ("deleted", "not in cache"))
    if missing:
        raise UserError(
            f"{len(missing)} files of dvc.lock are missing, such as {missing[0]}: run `dvc pull`"
        )
    if others := sorted(file for _, file, _ in outs):
        raise UserError(
            f"{len(others)} files are not those of dvc.lock, such as {others[0]}: `dvc checkout` "
            "brings those back, `wsss snapshot` commits these"
        )
    edits = sorted({file for _, file, _ in repository.changes(found, "deps")})
    if edits or found:
        what = ", ".join(edits[:3] or sorted(found)[:3])
        raise UserError(
            f"not as in dvc.lock: {what}: restore first and edit then (`git stash`, `wsss "
            "restore`, `git stash pop`), or have Snakemake run"
        )


def _times(files: Iterable[str]) -> dict[str, int]:
    return {file: Path(file).stat().st_mtime_ns for file in files}


def _version(unseen: str | None) -> Version:
    outs = repository.locked_outs()
    return Version(len(outs), sum(outs.values()), unseen)
