"""Stage: the manifest of the configured data source."""

from __future__ import annotations

from wsss.context import Context
from wsss.data.sources import build


def run(context: Context) -> None:
    """Read or generate the data set and write ``manifest.csv`` and ``dataset.json``."""
    data = context.paths.data
    with context.recording(data / "manifest.csv"):
        build(context.config.data, data, context.config.resources.processes).save(data)
