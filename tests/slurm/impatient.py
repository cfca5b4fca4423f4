"""Snakemake, but it asks for its jobs every two seconds; otherwise, ten more each time it asks."""

from __future__ import annotations

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

SECONDS = 2


def _seconds(_: RemoteExecutor) -> int:
    return SECONDS


def _keep(_: RemoteExecutor, __: int) -> None:
    """The plugin's wish to wait longer."""


if __name__ == "__main__":
    RemoteExecutor.next_seconds_between_status_checks = property(_seconds, _keep)
    main()
