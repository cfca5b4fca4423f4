"""What a bench measured: seconds a step or a megapixel, memory, and for which configuration.

An entry holds for every variant whose stage reads the same values, those apart that cost nothing
to change (:data:`FREE`): a plan never takes the time of another network for this one's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wsss.artifacts import load_json
from wsss.config import Config, stage_params
from wsss.errors import UserError

VERSION = 2
# Keys whose values change a result and not what a step or an image costs.
FREE = frozenset(
    {
        *("epochs", "lr", "head_lr", "bias_lr", "bias_decay", "momentum", "weight_decay"),
        *("schedule", "power", "schedule_every", "warmup", "warmup_start", "bn_momentum"),
        *("combine", "flip_combine"),
        *("threshold", "background_threshold", "background_alpha", "label_confidence"),
        *("confident_fg", "confident_bg", "alpha_low", "alpha_high", "beta"),
        *("checkpoint", "weights", "allow_download", "about"),
    }
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Strict):
    """One measured task.

    Attributes:
        task: a stage, or an evaluation's stage and kind.
        key: see :func:`cost_key`.
        unit: ``step`` or ``Mpx``.
        seconds: of one unit, wall time; the median of ``repeats``.
        cpu_seconds: of one unit, processor time of the process and its children.
        start_seconds: processor time from the start of the process to its first unit.
        base_mb: resident with the network and without images.
        peak_mb: largest resident size.
        cuda_peak_mb: the most that was allocated on the GPU, None without one.
        pixels: of the images that were timed (training: of a crop).
        batch_pixels: of the largest batch, while ``peak_mb`` was measured.
        artifact_bytes: size of the weights that a training wrote.
    """

    task: str
    key: str
    unit: str
    repeats: int
    seconds: float
    cpu_seconds: float
    start_seconds: float
    base_mb: float
    peak_mb: float
    cuda_peak_mb: float | None
    pixels: int
    batch_pixels: int
    artifact_bytes: int | None


class BenchFile(_Strict):
    """A whole bench: where and when, on images of which kind, and all entries."""

    version: int
    machine: str
    device: str
    python: str
    versions: dict[str, str]
    shape: tuple[int, int]
    classes: int
    tags: int
    entries: list[Entry]


def cost_key(task: str, config: Config) -> str:
    """Return a hash of the values that decide what one unit of a task costs."""
    stage = task.partition(" ")[0]
    read = stage_params(config, stage)
    if task.startswith("evaluate"):
        read = {"evaluate": read.get("evaluate", {})}
    for section in _unused(stage, config):
        read.pop(section, None)
    text = json.dumps([task, _costly(read)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _unused(stage: str, config: Config) -> tuple[str, ...]:
    """Sections that a stage reads for another road than this one."""
    if stage == "predict" and config.road == "single-stage":
        return ("road", "segment")
    return {"predict": ("road", "method", "classify"), "segment": ("road",)}.get(stage, ())


def _costly(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _costly(v) for k, v in value.items() if k not in FREE}
    return value


@dataclass(frozen=True)
class Bench:
    """The entries of a bench by task and key."""

    file: BenchFile
    _found: Mapping[tuple[str, str], Entry]

    def entry(self, task: str, config: Config) -> Entry | None:
        """Return what was measured of a task of a variant; None if it was not."""
        return self._found.get((task, cost_key(task, config)))

    def seconds(self, entry: Entry, threads: int) -> float:
        """Seconds of one unit on the measured machine with nothing else to do.

        The processor time of a single thread is that, whatever else ran while it was measured;
        of several threads, or with a GPU, only the wall time tells.
        """
        alone = threads == 1 and self.file.device == "cpu"
        return entry.cpu_seconds if alone else entry.seconds


def read_bench(path: Path) -> Bench:
    """Read what ``wsss bench`` wrote. Raises UserError if it is anything else."""
    again = "write it with `wsss bench --out FILE`"
    if not path.is_file():
        raise UserError(f"{path} does not exist: {again}")
    raw = load_json(path)
    try:
        file = BenchFile.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is no bench ({where}: {first['msg']}): {again}") from error
    if file.version != VERSION:
        raise UserError(f"{path} has version {file.version}, not {VERSION}: {again}")
    return Bench(file, {(entry.task, entry.key): entry for entry in file.entries})
