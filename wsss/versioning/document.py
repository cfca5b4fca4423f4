"""The text of ``dvc.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from wsss.config import load_params
from wsss.config.resolve import read_yaml
from wsss.errors import UserError
from wsss.provenance import PACKAGE, closure, files_of, modules_of
from wsss.versioning.graph import BASE, Job
from wsss.versioning.places import read
from wsss.versioning.plots import plots
from wsss.versioning.stages import GRAPH, Stage, make_stages

NAME = "dvc.yaml"
METRICS = "/miou.json"
_HEAD = """\
# Written by `wsss dvc write` from Snakemake's graph, and compared with it by the tests: change the
# rules or params.yaml and write it again.
#
# A stage's command has Snakemake run that one job. `persist` keeps DVC from taking the outputs of
# an earlier run out of its cache instead: Snakemake would not know what they were made from.
"""


class _Flow(dict):  # type: ignore[type-arg]
    """A mapping that is written on one line."""


class _Row(list):  # type: ignore[type-arg]
    """A list that is written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Flow,
    lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True),
)
_Dumper.add_representer(
    _Row,
    lambda dumper, value: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", value, flow_style=True
    ),
)


def document(files: Sequence[str], every: Sequence[Job]) -> str:
    """Return the text of dvc.yaml.

    Args:
        files: the configuration, params.yaml first.
        every: all jobs that Snakemake has for it.
    """
    stages = make_stages(every, load_params(files), read(files))
    content = {
        "stages": {stage.name: _entry(stage) for stage in stages},
        "plots": plots(sorted(file for job in every for file in job.outputs)),
    }
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return _HEAD + text


def _entry(stage: Stage) -> dict[str, Any]:
    params: list[Any] = [*stage.params.get(BASE, [])]
    params += [{file: keys} for file, keys in stage.params.items() if file != BASE]
    outs = [{file: _Flow(persist=True)} for file in stage.outs if not file.endswith(METRICS)]
    metrics = [{file: _Flow(persist=True)} for file in stage.outs if file.endswith(METRICS)]
    entry = {
        "matrix": _Flow({axis: _Row(values) for axis, values in stage.matrix.items()}),
        "cmd": stage.cmd,
        "deps": stage.deps,
        "params": params,
        "outs": outs,
        "metrics": metrics,
        "meta": stage.meta,
    }
    return {key: value for key, value in entry.items() if value}


def written() -> dict[str, Any]:
    """Return what the dvc.yaml of this folder holds; UserError if there is none."""
    if not Path(NAME).is_file():
        raise UserError(f"there is no {NAME} here: go to the project's folder, or `wsss dvc write`")
    return read_yaml(NAME)


def files_of_written() -> list[str]:
    """Return the configuration files that this folder's dvc.yaml was written for."""
    try:
        return [str(file) for file in written()["stages"][GRAPH]["meta"]["params"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{NAME} was not written by `wsss dvc write`: run it") from error


def refuse_stale(files: Sequence[str], every: Sequence[Job]) -> None:
    """Raise UserError if dvc.yaml is not what :func:`document` gives."""
    now = document(files, every)
    if Path(NAME).read_text(encoding="utf-8") == now:
        return
    what = "; ".join(_differences(written(), yaml.safe_load(now))) or "its text"
    raise UserError(
        f"{NAME} no longer describes {' + '.join(files)} ({what}): run `wsss dvc write`"
    )


def refuse_stale_code(stage: str) -> None:
    """Raise UserError if the sources of a stage import one that dvc.yaml does not name for it.

    Args:
        stage: as DVC addresses it, such as ``crf@baseline-0``.
    """
    name = stage.rpartition(":")[2].partition("@")[0]
    deps = written()["stages"].get(name, {}).get("deps", [])
    code = [file for file in deps if file.startswith(f"{PACKAGE}/")]
    if new := {*files_of(closure(*modules_of(code)))} - {*code}:
        raise UserError(
            f"stage {name} of {NAME} does not name {', '.join(sorted(new))}, which its sources "
            "import: run `wsss dvc write`"
        )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Say which stages are new, gone or other."""
    before, after = old.get("stages") or {}, new["stages"]
    gone, fresh = sorted({*before} - {*after}), sorted({*after} - {*before})
    other = sorted(name for name in {*before} & {*after} if before[name] != after[name])
    named = {"new": fresh, "gone": gone, "changed": other}
    said = [f"{word}: {_some(names)}" for word, names in named.items() if names]
    return said or (["other plots"] if old.get("plots") != new["plots"] else [])


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
