"""Snakemake's graph and DVC's, each by its own code, in one form."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pipeline.repositories import ok

DUMP = Path(__file__).parent / "snakemake_graph.py"
GRAPH = "graph"


@dataclass(frozen=True)
class Node:
    """A job: what it reads and writes, the values it depends on, what must run before it."""

    inputs: frozenset[str]
    outputs: frozenset[str]
    params: Mapping[str, Any]
    code: str
    after: frozenset[str]


# By the first name among a job's outputs.
Graph = dict[str, Node]


def snakemake_graph(folder: Path, *overlays: str) -> Graph:
    """The jobs of the default target."""
    text = ok(folder, sys.executable, str(DUMP), *overlays)
    return {min(job["outputs"]): _job(job) for job in json.loads(text)}


def _job(job: Mapping[str, Any]) -> Node:
    params = job["params"]
    assert {*params} <= {"config", "code"}, f"DVC does not know the parameters of {job['rule']}"
    return Node(
        inputs=frozenset(job["inputs"]),
        outputs=frozenset(job["outputs"]),
        params=dict(_leaves(json.loads(params.get("config", "{}")))),
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

    params: dict[str, Any] = {}
    files = set()
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            for key, value in dep.read_params().items():
                path = key.split(".")
                # What a variant states for itself is, for the stage, that key.
                params |= _leaves(value, tuple(path[2:] if path[0] == "variants" else path))
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


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values by dotted key; text that is a number counts as that number, as it does for us."""
    if isinstance(value, Mapping) and value:
        parts = (_leaves(child, (*path, str(key))).items() for key, child in value.items())
        return {key: leaf for part in parts for key, leaf in part}
    return {".".join(path): value} if path else {}


def _hash(folder: Path, files: set[str]) -> str:
    """The code hash of :mod:`wsss.provenance`, over the files that DVC watches."""
    names = {
        file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in files
    }
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(names):
        digest.update(f"{name}\n".encode() + (folder / names[name]).read_bytes())
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
