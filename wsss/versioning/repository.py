"""Git and DVC, called as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss.config.resolve import read_yaml
from wsss.errors import UserError
from wsss.versioning.graph import complaint, snakemake

LOCK = "dvc.lock"
# What DVC says of a stage, as `dvc status --json` prints it: a name, or a name and its changes.
Status = Mapping[str, Sequence[Any]]


def check_repository() -> None:
    """Raise UserError unless this folder is the root of a Git and a DVC repository."""
    if not Path(".dvc", "config").is_file():
        raise UserError("this folder is no DVC repository: go to the project's folder")
    inside = subprocess.run(
        ["git", "rev-parse", "--is-inside-work-tree"], capture_output=True, text=True, check=False
    )
    if inside.returncode:
        raise UserError("this folder is no Git repository: clone the project, or `git init`")


def check_unlocked() -> None:
    """Raise UserError while a Snakemake works in this folder, or after one was killed."""
    if any(Path(".snakemake", "locks").glob("*.lock")):
        raise UserError(
            "a Snakemake run holds this folder: wait for its end or, if it was killed, "
            "`snakemake --unlock`"
        )


def dvc(*arguments: str) -> str:
    """Run DVC and return what it printed; UserError with its own words if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {complaint(done.stderr)}")
    return done.stdout


def status() -> Status:
    """Return what differs from dvc.lock, by stage; empty if nothing does."""
    found: Status = json.loads(dvc("status", "--json") or "{}")
    return found


def touch(files: Sequence[str]) -> None:
    """Have Snakemake take every output as made by the workflow as it stands now.

    It notes parameters, code and checksums of inputs as if each job had just run, and gives the
    files new times in the order of the jobs.
    """
    command = snakemake(files, "--touch", "--forceall", "--cores", "1", "--quiet", "all")
    environment = {**os.environ, "WSSS_PUBLISH": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`snakemake --touch` failed: {complaint(done.stdout + done.stderr)}")


def locked_outs() -> dict[str, int]:
    """Return the outputs that dvc.lock holds and their bytes."""
    if not Path(LOCK).is_file():
        return {}
    stages = read_yaml(LOCK).get("stages") or {}
    outs = (out for stage in stages.values() for out in stage.get("outs", []))
    return {out["path"]: out["size"] for out in outs}


def changes(found: Status, kind: str) -> Iterator[tuple[str, str, str]]:
    """Yield stage, file and what is the matter with it, of one kind: ``deps`` or ``outs``.

    A changed key of a parameters file is yielded as ``FILE:KEY``.
    """
    for stage, entries in found.items():
        for entry in entries:
            of = entry.get(f"changed {kind}", {}) if isinstance(entry, Mapping) else {}
            for file, what in of.items():
                if isinstance(what, Mapping):
                    yield from ((stage, f"{file}:{key}", word) for key, word in what.items())
                else:
                    yield stage, file, what
