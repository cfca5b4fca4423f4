"""Measures one task in a process of its own: ``python -m wsss.bench.child JOB.json``.

A process of its own, so that its memory is that of the task, and its start is counted once.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from wsss.artifacts import load_json, save_json
from wsss.bench.inputs import build_network, network_of, stores_of, write_network, write_store
from wsss.bench.subject import (
    LIST,
    OTHER,
    Subject,
    usual_window,
    write_manifest,
    write_photos,
)
from wsss.config import Config, Params
from wsss.config.resolve import overlay
from wsss.errors import UserError
from wsss.paths import Paths
from wsss.pipeline import TRAINED
from wsss.planning.dataset import Size, largest_batch
from wsss.planning.work import ON_GPU, batch_of, work_of
from wsss.runrecord import machine, peak_memory_mb, resident_mb

REPEATS = 3
MOST = 256  # steps or images of a measurement
DATASET, SEED = "bench", 0


class Spent(NamedTuple):
    """Wall and processor seconds, those of ended children included."""

    wall: float
    cpu: float


def now() -> Spent:
    """Return both clocks."""
    times = os.times()
    return Spent(time.perf_counter(), sum(times[:4]))


@dataclass(frozen=True)
class Job:
    """One task: a stage (and evaluation) of a variant, and the folder to work in; ``window``, the
    sizes of images that inference has to do with at once, if they are known."""

    stage: str
    what: str
    variant: str
    raw: Mapping[str, Any]
    subject: Subject
    folder: Path
    seconds: float
    window: tuple[Size, ...] = ()

    @property
    def trained(self) -> bool:
        """Whether its unit is a step."""
        return self.stage in TRAINED

    def params(self, count: int) -> Params:
        """The configuration; of a training with ``count`` epochs of one step."""
        if not self.trained:
            return Params(self.raw)
        changed = {self.stage: {"epochs": count}}
        variants = {n: overlay(top or {}, changed) for n, top in self.raw["variants"].items()}
        return Params({**overlay(self.raw, changed), "variants": variants})

    def config(self, count: int = 1) -> Config:
        """The variant's configuration."""
        return self.params(count).resolve(self.variant)

    def paths(self) -> Paths:
        """Where its artifacts go."""
        return Paths(self.folder / "results", DATASET, self.variant, SEED)

    def amount(self, count: int) -> float:
        """Units of work in ``count`` steps or images."""
        if self.trained:
            return count
        return work_of(self.stage, self.config(), self.subject.facts(count), self.what)[0].amount


def prepare(job: Job, count: int) -> Path:
    """Write everything that the stage reads; return the configuration file."""
    config, paths = job.config(count), job.paths()
    images = getattr(config, job.stage).batch if job.trained else count
    photos = job.folder / "photos"
    roles: dict[str, str | None] = dict.fromkeys(("train", "seed", "val"), LIST)
    roles["tune"] = LIST if job.what.endswith("_tune") else None
    if job.what == "boxes":
        roles["tune"] = OTHER
    write_photos(photos, job.subject, images * (2 if job.what == "boxes" else 1))
    write_manifest(paths.data, photos, job.subject, images, roles)
    for folder, name in stores_of(job.stage, job.what, config):
        double = 2 if job.what == "boxes" else 1
        write_store((folder, name), paths.store(folder, name), config, job.subject, images * double)
    network = network_of(job.stage, config)
    if network and not paths.weights(network).is_file():
        write_network(network, config, job.subject.classes, paths.weights(network))
    path = job.folder / f"params.{job.variant}.yaml"
    path.write_text(yaml.safe_dump(job.params(count).raw, sort_keys=False))
    return path


def command(job: Job, params: Path) -> list[str]:
    """The command line of the stage."""
    first = [job.stage]
    if job.what:
        first = ["evaluate", job.what]
    elif job.stage.startswith("seeds_"):
        first = ["seeds", job.stage.removeprefix("seeds_")]
    log = job.folder / "stage.log"
    where = ["--params", str(params), "--variant", job.variant, "--seed", str(SEED)]
    return [*first, *where, "--log", str(log)]


def run(job: Job, count: int) -> Spent:
    """Run the stage on ``count`` images or steps and return what that took."""
    from wsss.cli import main

    line = command(job, prepare(job, count))
    began = now()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        code = main(line)
    ended = now()
    if code:
        raise UserError(f"{' '.join(line[:2])} failed, see the lines above")
    return Spent(ended.wall - began.wall, ended.cpu - began.cpu)


def measure(job: Job, once: Callable[[Job, int], Spent] = run) -> dict[str, Any]:
    """Return what one unit costs: the difference of a run of many and a run of one."""
    begun = now().cpu
    prepare(job, 1)
    loading, base = _with_network(job)
    first = once(job, 1)
    base = base or resident_mb() or 0.0
    began = time.perf_counter()
    one = once(job, 1)
    more = _first_try(job)
    trial = once(job, 1 + more)
    while trial.wall - one.wall < job.seconds / 4 and more < MOST:
        # As many as fill the time, by what the last ones took.
        known = max(trial.wall - one.wall, 0.01) / more
        more = min(MOST, max(2 * more, round(job.seconds / 3 / known)))
        trial = once(job, 1 + more)
    # The trial is not counted: a batch of another size has memory and kernels made for it first,
    # which doubled what CAMs seemed to cost and which a job pays for once.
    runs: list[Spent] = []
    while len(runs) < 2 or (len(runs) < REPEATS and time.perf_counter() - began < job.seconds):
        runs.append(once(job, 1 + more))
    largest = _mix(job)
    units = job.amount(1 + more) - job.amount(1)
    wall = statistics.median(r.wall for r in runs) - one.wall
    cpu = statistics.median(r.cpu for r in runs) - one.cpu
    each = max(cpu / units, 0.0)
    return {
        "repeats": len(runs),
        "seconds": max(wall / units, 0.0),
        "cpu_seconds": each,
        "start_seconds": max(begun + loading + first.cpu - each * job.amount(1), 0.0),
        "base_mb": base,
        "peak_mb": peak_memory_mb(),
        "pixels": _pixels(job),
        "batch_pixels": largest or _pixels(job),
        "artifact_bytes": _bytes(job),
        **_device(),
    }


def _with_network(job: Job) -> tuple[float, float]:
    """Processor seconds of loading a stage's network, and the memory with it and no image; zeros
    for stages without one, which are measured after their first image."""
    name = network_of(job.stage, job.config())
    if name is None:
        return 0.0, 0.0
    began = now().cpu
    network = build_network(name, job.config(), job.subject.classes)
    found = now().cpu - began, resident_mb() or 0.0
    del network
    return found


def _mix(job: Job) -> int:
    """Run batches of several sizes, for the memory that they take: what one size has freed fits
    another badly. Return the pixels of the largest, 0 for stages that have no batches."""
    batch = batch_of(job.stage, job.config())
    if batch == 1 or job.stage not in ON_GPU:
        return 0
    window = job.window or usual_window(job.subject.shape, batch)
    subject = job.subject._replace(sizes=window)
    run(
        replace(job, subject=subject, folder=job.folder / "mixed", raw=_moved(job)),
        len(window),
    )
    return largest_batch(window, batch)


def _moved(job: Job) -> dict[str, Any]:
    folder = job.folder / "mixed"
    top = {"run": {"results": str(folder / "results")}, "data": {"root": str(folder / "photos")}}
    return overlay(job.raw, top)


def _first_try(job: Job) -> int:
    """Steps or images of a first try: of images, a whole batch."""
    return 2 if job.trained else max(4, batch_of(job.stage, job.config()))


def _pixels(job: Job) -> int:
    return int(getattr(job.config(), job.stage).crop ** 2) if job.trained else job.subject.pixels


def _bytes(job: Job) -> int | None:
    return job.paths().weights(job.stage).stat().st_size if job.trained else None


def _device() -> dict[str, Any]:
    """Which device torch used, where it was used, and how much of its memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        peak = torch.cuda.max_memory_allocated() / 1024**2
        return {"device": "cuda", "machine": machine(), "cuda_peak_mb": round(peak, 1)}
    return {"device": "cpu", "machine": machine(), "cuda_peak_mb": None}


def main(path: Path) -> int:
    """Measure the job of a file and write the result beside it."""
    raw = load_json(path)
    subject = Subject(tuple(raw["shape"]), raw["classes"], raw["tags"])
    window = tuple((height, width) for height, width in raw["window"])
    job = Job(
        raw["stage"],
        raw["what"],
        raw["variant"],
        raw["raw"],
        subject,
        Path(raw["folder"]),
        raw["seconds"],
        window,
    )
    try:
        save_json(path.with_suffix(".out.json"), measure(job))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
