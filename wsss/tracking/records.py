"""What one run of the store is to hold, as plain data with a hash of all of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# Part of every hash: another one has all runs written again.
FORMAT = 1
# Longest value of a parameter that the store takes (MLflow 3).
PARAM_LENGTH = 6000


class Metric(NamedTuple):
    """One point of a curve; a number that is no curve has step 0."""

    name: str
    value: float
    step: int = 0


class Input(NamedTuple):
    """A list of the data set that the run read; ``profile`` says what is on it."""

    name: str
    digest: str
    context: str
    source: str
    profile: dict[str, Any]


class File(NamedTuple):
    """A small file of the run, at ``path`` in the store; read, or drawn, when it is written.

    ``digest`` is of its content, or of everything its content depends on.
    """

    path: str
    digest: str
    read: Callable[[], bytes]


class Network(NamedTuple):
    """A trained network with the settings it predicts with, to be kept as a model."""

    weights: Path
    digest: str
    settings: dict[str, Any]


class Times(NamedTuple):
    """Start and end in milliseconds since 1970; not part of the hash."""

    began: int
    ended: int


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        key: its name in the store for ever, ``DATASET/VARIANT/seedN`` and for a stage ``/STAGE``.
        parent: key of the run it belongs to; None for a variant and seed.
        complete: everything that belongs to it is there.
        links: where stages that another variant ran are, by stage.
        text: what the UI shows as description.
    """

    key: str
    name: str
    parent: str | None
    complete: bool
    times: Times
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    inputs: tuple[Input, ...] = ()
    files: tuple[File, ...] = ()
    network: Network | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def content(self) -> str:
        """Hash of all of it but the times: the same content is never written again."""
        network = (self.network.digest, self.network.settings) if self.network else None
        facts = [
            *(FORMAT, self.key, self.name, self.parent, self.complete),
            *(dict(self.params), dict(self.tags), self.metrics, self.inputs),
            *([(file.path, file.digest) for file in self.files], network),
        ]
        return digest(json.dumps(facts, sort_keys=True).encode())


def digest(data: bytes) -> str:
    """Return a short hash."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as ``section.key`` -> text; what is no text is written as JSON.

    A value that is too long for the store is cut and says so: the run's config.yaml has it whole.
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat[name] = _cut(text)
    return flat


def _cut(text: str) -> str:
    if len(text) <= PARAM_LENGTH:
        return text
    note = f"... ({len(text)} characters)"
    return text[: PARAM_LENGTH - len(note)] + note


def metric_name(name: str) -> str:
    """Return a name the store accepts: letters, digits and ``_ - . : /`` and space."""
    return re.sub(r"[^\w\-. :/]", "_", name)
