"""Stage: the report of a data set's results, one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from wsss.atomic import atomic_path
from wsss.config import Params
from wsss.context import Context
from wsss.report.page import page
from wsss.report.results import Results


def run(context: Context, params: Params) -> Path:
    """Write ``report.html`` from what the variants and seeds of ``params`` have left so far.

    What has not run yet is named on the page. The page depends on artifacts and configuration
    alone, its times, memory and versions apart, which come from the records of jobs.

    Raises:
        UserError: there is no manifest, or results are damaged or not comparable.
    """
    config, manifest = context.config, context.manifest
    results = Results(params, manifest, context.paths, config.report)
    text = page(results, config.resources.processes)
    out = context.paths.root / "report.html"
    with atomic_path(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out
