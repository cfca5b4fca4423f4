"""Print Snakemake's graph as JSON, from its own objects: run in a workspace, by tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)


def dump(arguments: list[str]) -> list[dict[str, Any]]:
    """Return every job of the default target: rule, files, parameters, what it waits for, and what
    it asks for.

    Args:
        arguments: overlays, and resources that all jobs ask for (``NAME=VALUE``), as a profile
            says it.
    """
    overlays = [argument for argument in arguments if "=" not in argument]
    defaults = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        flow = api.workflow(
            resource_settings=ResourceSettings(cores=64, default_resources=defaults or None),
            config_settings=ConfigSettings(configfiles=[Path(name) for name in overlays]),
            snakefile=Path("Snakefile"),
        )
        flow.dag(DAGSettings(forceall=True)).printrulegraph()
        dag = flow._workflow.dag
        return [
            {
                "rule": job.rule.name,
                "inputs": sorted(map(str, job.input)),
                "outputs": sorted(map(str, job.output)),
                "params": dict(job.params.items()),
                "after": sorted(min(map(str, up.output)) for up in dag.dependencies[job]),
                "threads": job.threads,
                "resources": {k: v for k, v in job.resources.items() if not k.startswith("_")},
                "local": job.rule.name in flow._workflow._localrules,
            }
            for job in dag.jobs
            if job.rule.name != "all"
        ]


if __name__ == "__main__":
    out, sys.stdout = sys.stdout, sys.stderr  # the graph that the call above prints
    json.dump(dump(sys.argv[1:]), out)
