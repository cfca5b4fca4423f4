"""``wsss dvc``, ``wsss snapshot``, ``wsss restore``: versions of results, see wsss/versioning."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.commands.options import add_params

if TYPE_CHECKING:
    from wsss.versioning.snapshot import Version

    # Generic for type checkers alone.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_SNAPSHOT = """\
Commits every output of the finished workflow to DVC: checks that Snakemake has nothing to do,
that dvc.yaml describes the workflow and that the raw data is what the manifest describes; touches
no file. Then `git add dvc.lock`, commit and `dvc push` share the results.
"""
_RESTORE = """\
After `dvc pull` in a fresh clone, or `git checkout` and `dvc checkout`: checks that the files,
parameters and code are those of dvc.lock, and has Snakemake take the files as made by them. Then
both tools have nothing to do, and both see the next edit.
"""


def register(commands: Commands) -> None:
    """Add the commands."""
    tools = commands.add_parser(
        "dvc",
        help="the workflow as DVC's stages",
        description="Writes and checks dvc.yaml, which tells DVC what Snakemake's workflow is.",
    ).add_subparsers(required=True, metavar="COMMAND")
    write = tools.add_parser(
        "write", help="write dvc.yaml", description="Writes dvc.yaml from Snakemake's own graph."
    )
    add_params(write)
    write.set_defaults(handler=_write, needs_params=False)
    check = tools.add_parser(
        "check",
        help="compare dvc.yaml with the workflow",
        description="Fails if `wsss dvc write` would write another dvc.yaml.",
    )
    check.set_defaults(handler=_check, needs_params=False)
    run = tools.add_parser(
        "run",
        help="what the stages in dvc.yaml call",
        description="Has Snakemake run one job, whatever it thinks of it, and none before it.",
    )
    run.add_argument("rule", help="the job's rule")
    run.add_argument("target", help="one of its outputs")
    run.set_defaults(handler=_run, needs_params=False)
    for name, text, summary, handler in (
        ("snapshot", _SNAPSHOT, "commit the finished workflow to DVC", _snapshot),
        ("restore", _RESTORE, "give files that DVC brought back to Snakemake", _restore),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(handler=handler, needs_params=False)


def _write(args: argparse.Namespace, _params: Any) -> None:
    from wsss.atomic import atomic_path
    from wsss.versioning.document import NAME, document
    from wsss.versioning.graph import BASE, jobs

    files = [path.as_posix() for path in args.params or [Path(BASE)]]
    text = document(files, jobs(files, every=True))
    with atomic_path(NAME) as temporary:
        temporary.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{NAME} describes {' + '.join(files)}\n")


def _check(_args: argparse.Namespace, _params: Any) -> None:
    from wsss.config import load_params
    from wsss.versioning.document import files_of_written, refuse_stale
    from wsss.versioning.graph import jobs
    from wsss.versioning.snapshot import write_graph_file

    files = files_of_written()
    refuse_stale(files, jobs(files, every=True))
    write_graph_file(load_params(files))


def _run(args: argparse.Namespace, _params: Any) -> None:
    from wsss.versioning.document import files_of_written, refuse_stale_code
    from wsss.versioning.graph import snakemake

    # DVC tells its commands which stage they are.
    if stage := os.environ.get("DVC_STAGE"):
        refuse_stale_code(stage)
    cores = [] if os.environ.get("SNAKEMAKE_PROFILE") else ["--cores", "all"]
    only = ["--quiet", "all", "--allowed-rules", args.rule, "--force", args.target]
    command = snakemake(files_of_written(), *cores, *only)
    # In place of this process, so that signals reach it.
    os.execve(command[0], command, {**os.environ, "WSSS_PUBLISH": "0"})


def _snapshot(_args: argparse.Namespace, _params: Any) -> None:
    from wsss.versioning.snapshot import snapshot

    _report("committed to DVC", _version(snapshot))
    sys.stdout.write("next: git add dvc.lock && git commit, then dvc push\n")


def _restore(_args: argparse.Namespace, _params: Any) -> None:
    from wsss.versioning.snapshot import restore

    _report("restored", _version(restore))


def _version(function: Callable[[], Version]) -> Version:
    from wsss.versioning.snapshot import UnfinishedError

    try:
        return function()
    except UnfinishedError as error:
        sys.stdout.write("".join(f"{job}\n" for job in error.jobs))
        raise


def _report(done: str, version: Version) -> None:
    megabytes = version.size / 1e6
    sys.stdout.write(
        f"{version.files} files, {megabytes:.1f} MB {done}; Snakemake and DVC have nothing to do\n"
    )
    if version.unseen:
        sys.stdout.write(f"note: {version.unseen}\n")
