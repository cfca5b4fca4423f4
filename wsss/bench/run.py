"""A bench: every different task of a configuration, each measured in a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from wsss.artifacts import save_json
from wsss.atomic import check_writable
from wsss.bench.subject import LIST, OTHER, Subject
from wsss.config import Config, Params
from wsss.config.resolve import VARIANTS, lay_over, overlay
from wsss.errors import UserError
from wsss.pipeline import TRAINED, stages_run
from wsss.planning.dataset import DataFacts, Size
from wsss.planning.rates import VERSION, cost_key
from wsss.planning.work import batch_of, evaluation_task, group_of, work_of
from wsss.stages.evaluations import stage_of, wanted

_PACKAGES = ("numpy", "torch", "timm", "pydensecrf2")
_DIGITS = 6
# Measured, these stand for thresholds that would have to be tuned first.
_THRESHOLD = 0.3


class Task(NamedTuple):
    """A stage (and evaluation) of a variant, and the name and key that its time is kept under."""

    stage: str
    what: str
    variant: str
    task: str
    key: str


def tasks_of(params: Params, facts_of: Subject) -> list[Task]:
    """The tasks of all variants; of those that cost the same, the first.

    Trainings on several nodes are left out: there is one here.
    """
    found: dict[tuple[str, str], Task] = {}
    for variant in params.base.run.variants:
        config = params.resolve(variant)
        for stage, what in _stages(config):
            several = stage in TRAINED and config.distributed.nodes > 1
            if several or not work_of(stage, config, facts_of.facts(1), what):
                continue
            task = evaluation_task(what, config) if what else stage
            key = cost_key(task, config)
            found.setdefault((task, key), Task(stage, what, variant, task, key))
    return list(found.values())


def _stages(config: Config) -> Iterator[tuple[str, str]]:
    for stage in stages_run(config):
        if not stage.startswith("evaluate"):
            yield stage, ""
    for what in wanted(config):
        yield stage_of(what), what


def bench_raw(params: Params, folder: Path) -> dict[str, Any]:
    """The configuration of a bench: the user's, on made-up data, without what tunes or shares."""
    lists = {"train": LIST, "seed": LIST, "tune": OTHER, "val": LIST}
    base = {
        "run": {"dataset": "bench", "seeds": [0], "results": str(folder / "results")},
        "data": {"source": "folder", "root": str(folder / "photos"), "classes": None}
        | {"splits": lists},
        "resources": {"processes": 1, "checkpoint_seconds": 1e9}
        | {"shards": dict.fromkeys(params.raw["resources"]["shards"], 1)},
        "tracking": {"mlflow": False, "live": False},
    }
    same = {
        "classify": {"checkpoint": None},
        "segment": {"checkpoint": None},
        "cam": {"threshold": _THRESHOLD},
        "walk": {"background_threshold": _THRESHOLD},
    }
    raw = overlay(overlay(params.raw, base), same)
    raw["about"] = None
    variants = {}
    for name in params.base.run.variants:
        top = lay_over(params.variants, name, params.origin)
        config = params.resolve(name)
        variants[name] = overlay({**top, "about": None}, same | _random(config, folder))
    return {**raw, VARIANTS: variants}


def _random(config: Config, folder: Path) -> dict[str, Any]:
    """Initial weights that have to be fetched first are replaced by random ones."""
    source = config.backbone.weights
    missing = source.startswith("file:") and not Path(source.removeprefix("file:")).is_file()
    if source != "hub" and not missing:
        return {}
    return {"backbone": {"weights": f"file:{_random_file(config, folder)}"}}


def _random_file(config: Config, folder: Path) -> Path:
    """A file of random initial weights: frozen layers refuse to be random without one."""
    path = folder / f"{config.backbone.name}.safetensors"
    if not path.is_file():
        from wsss.artifacts import save_weights
        from wsss.bench.inputs import random_state

        save_weights(path, random_state(config.backbone.name), {})
    return path


def bench(
    params: Params, subject: Subject, facts: DataFacts | None, out: Path, seconds: float
) -> None:
    """Measure every task and write ``out``; say on stdout what is measured and what failed.

    ``facts`` know the sizes of images that inference has to do with at once, for its memory.
    Raises UserError if nothing could be measured.
    """
    check_writable(out)
    entries: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wsss-bench-") as name:
        folder = Path(name)
        raw = bench_raw(params, folder)
        for task in tasks_of(params, subject):
            window = _window(task, params, facts)
            found = _measure(task, raw, subject, window, folder, seconds)
            if found is not None:
                told = {key: found.pop(key) for key in ("device", "machine")}
                about = told if told["device"] != "cpu" or not about else about
                entries.append(found)
    if not entries:
        raise UserError("no stage could be measured, see the lines above")
    save_json(out, _file(about, subject, entries))
    sys.stdout.write(f"{out}: {len(entries)} tasks\n")


def _file(
    about: Mapping[str, Any], subject: Subject, entries: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "machine": about["machine"],
        "device": about["device"],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "shape": list(subject.shape),
        "classes": subject.classes,
        "tags": subject.tags,
        "entries": entries,
    }


def _window(task: Task, params: Params, facts: DataFacts | None) -> tuple[Size, ...]:
    if facts is None or task.stage in TRAINED:
        return ()
    batch = batch_of(task.stage, params.resolve(task.variant))
    return facts.largest_window(group_of(task.stage), batch)


def _measure(
    task: Task,
    raw: Mapping[str, Any],
    subject: Subject,
    window: tuple[Size, ...],
    folder: Path,
    seconds: float,
) -> dict[str, Any] | None:
    """One task in a child; None if it failed, which is said."""
    job = folder / f"{task.task.replace(' ', '-')}-{task.key}.json"
    content = {
        **{"stage": task.stage, "what": task.what, "variant": task.variant, "raw": raw},
        **{"shape": list(subject.shape), "classes": subject.classes, "tags": subject.tags},
        **{"folder": str(folder), "seconds": seconds, "window": window},
    }
    job.write_text(json.dumps(content))
    label = f"{task.task} ({task.variant})"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "wsss.bench.child", str(job)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        sys.stderr.write(f"warning: {label} was not measured: {why}\n")
        return None
    found: dict[str, Any] = json.loads(job.with_suffix(".out.json").read_text())
    unit = "step" if found["artifact_bytes"] else "Mpx"
    sys.stdout.write(
        f"{label}: {found['seconds']:.4g} s a {unit}, {found['peak_mb']:.0f} MB "
        f"({time.monotonic() - began:.0f} s)\n"
    )
    sys.stdout.flush()
    rounded = {k: round(v, _DIGITS) if isinstance(v, float) else v for k, v in found.items()}
    return {"task": task.task, "key": task.key, "unit": unit, **rounded}
