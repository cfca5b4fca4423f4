"""Snakemake's graph and DVC's, each by its own code, in one form."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.pipeline.repositories import ok
from wsss.provenance import data_files

DUMP = Path(__file__).parent / "snakemake_graph.py"
GRAPH = "graph"


@dataclass(frozen=True)
class Node:
    """A job: what it reads and writes, the values it depends on, what must run before it."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    params: Mapping[str, set[str]]
    code: str
    after: frozenset[str]


# Of each key the values that are read, several where a job reads those of several variants.
Values: TypeAlias = defaultdict[str, set[str]]
# By the first name among a job's outputs.
Graph = dict[str, Node]


def snakemake_graph(folder: Path, *overlays: str) -> Graph:
    """The jobs of the default target."""
    text = ok(folder, sys.executable, str(DUMP), *overlays)
    return {min(job["outputs"]): _job(job) for job in json.loads(text)}


def _job(job: Mapping[str, Any]) -> Node:
    params = job["params"]
    known = {"config", "code", "described", "start"}  # the last follows from `distributed`
    assert {*params} <= known, f"DVC does not know the parameters of {job['rule']}"
    values: Values = defaultdict(set)
    _collect(json.loads(params.get("config", "{}")), values)
    for found in json.loads(params.get("described", "{}")).values():
        for key, value in found.items():
            _collect(value, values, key)
    return Node(
        inputs=frozenset(job["inputs"]),
        outputs=frozenset(job["outputs"]),
        params=values,
        code=params.get("code", ""),
        after=frozenset(job["after"]),
    )


def dvc_graph(folder: Path) -> Graph:
    """The stages of dvc.yaml as DVC itself reads them, without the one that checks dvc.yaml."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
        first = {name: min(out.def_path for out in stage.outs) for name, stage in stages.items()}
        graph = repo.index.graph
        return {
            first[name]: _stage(
                stage,
                {up.name for up in graph.successors(stage)} - {GRAPH},
                first,
                folder,
                first[GRAPH],
            )
            for name, stage in stages.items()
            if name != GRAPH
        }


def _stage(stage: Any, after: set[str], first: Mapping[str, str], folder: Path, check: str) -> Node:
    from dvc.dependency.param import ParamsDependency

    params: Values = defaultdict(set)
    files = set()
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            for key, value in dep.read_params().items():
                # What a variant states for itself is, for the stage, that key.
                own = key.split(".", 2)[2] if key.startswith("variants.") else key
                _collect(value, params, own)
        else:
            files.add(dep.def_path)
    code = {file for file in files if file.startswith("wsss/")}
    return Node(
        inputs=frozenset(files - code - {check}),
        outputs=frozenset(out.def_path for out in stage.outs),
        params=params,
        code=_hash(folder, code) if code else "",
        after=frozenset(first[name] for name in after),
    )


def _collect(value: Any, into: Values, key: str = "") -> None:
    """Add the values below a key."""
    if isinstance(value, Mapping) and value:
        for name, child in value.items():
            _collect(child, into, f"{key}.{name}" if key else str(name))
    elif key:
        into[key].add(json.dumps(_number(value)))


def _number(value: Any) -> Any:
    """The schema makes some whole numbers floats."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _hash(folder: Path, files: set[str]) -> str:
    """The code hash of :mod:`wsss.provenance`, over the files that DVC watches."""
    sources = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file
        for file in files
        if file.endswith(".py")
    }
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(sources):
        source = folder / sources[name]
        digest.update(f"{name}\n".encode() + source.read_bytes())
        for beside in data_files(source):
            if beside.relative_to(folder).as_posix() in files:
                digest.update(f"{beside.name}\n".encode() + beside.read_bytes())
    return digest.hexdigest()


def drift(one: Graph, other: Graph) -> list[str]:
    """Say in what two graphs differ."""
    return list(_drift(one, other))


def _drift(one: Graph, other: Graph) -> Iterator[str]:
    for name in sorted({*one} ^ {*other}):
        yield f"{name}: in one graph only"
    for name in sorted({*one} & {*other}):
        for part in ("inputs", "outputs", "params", "code", "after"):
            first, second = getattr(one[name], part), getattr(other[name], part)
            if first != second:
                yield f"{name}: {part}: {first} and {second}"


def downstream(graph: Graph, names: set[str]) -> set[str]:
    """Return ``names`` and everything that runs after them."""
    found = set(names)
    while more := {name for name, node in graph.items() if node.after & found} - found:
        found |= more
    return found
