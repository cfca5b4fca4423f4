import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import yaml

from wsss.atomic import atomic_path
from wsss.cluster import mend_slurm_plugin
from wsss.config import Params, stage_params
from wsss.config.checked import validate_once
from wsss.config.slices import layout_of
from wsss.config.spread import spread
from wsss.errors import UserError
from wsss.provenance import code_hash
from wsss.pipeline import stages_run
from wsss.report.configuration import described
from wsss.stages.evaluations import (
    EVALUATIONS,
    stage_of,
    tuned_by,
    walk_tuned,
    wanted,
)
from wsss.tracking.store import wanted as publishes

try:
    PARAMS = Params(config, "params.yaml and overlays")
    if workflow.is_main_process:
        validate_once(PARAMS, Path(".snakemake") / "wsss")
    BASE = PARAMS.base
    SCORED = any(wanted(PARAMS.resolve(name)) for name in BASE.run.variants)
except UserError as error:
    sys.exit(f"error: {error}")

DATASET = BASE.run.dataset
SHARDS = BASE.resources.shards
ROOT = f"{BASE.run.results}/{{dataset}}"
DATA = f"{ROOT}/data"
RUN = f"{ROOT}/{{variant}}/seed{{seed}}"
LOGS = f"{RUN}/logs"
RESOLVED = f"{BASE.run.results}/{DATASET}/params.yaml"
# The profile for SLURM names a partition. Its jobs find GPUs; this machine may have none.
CLUSTER = "slurm_partition" in (workflow.resource_settings.default_resources or {})
# Scores take seconds, but of data so large that stages are cut.
SCORED_HERE = set(SHARDS.model_dump().values()) == {1}
# Files that pictures and curves of the report are made from, and the stages that make them.
SHOWN = {
    ("classify", "curve.csv"): "classify",
    ("affinity", "curve.csv"): "affinity",
    ("irnet", "curve.csv"): "irnet",
    ("segment", "curve.csv"): "segment",
    ("cam", "maps.zip"): "cam",
    ("pseudo", "masks.zip"): "pseudo",
    ("predict", "masks.zip"): "crf",
}
# The same of agreement, where no list has ground truth.
AGREEING = {
    ("seeds", "crf.zip"): "seeds_label",
    ("seeds", "confident.zip"): "seeds_confident",
    ("seeds", "high.zip"): "seeds_alpha",
    ("predict", "scores.zip"): "predict",
}
MANIFEST = [f"{DATA}/manifest.csv", f"{DATA}/dataset.json"]
JOB = f"--params {RESOLVED} --variant {{wildcards.variant}} --seed {{wildcards.seed}}"
# Which tables an evaluation writes beside its metrics depends on what is scored.
TABLES = ["classes", "confusion"]
# Variants whose walked scores are cut at a threshold, as CAMs are.
CUT = [
    name
    for name in BASE.run.variants
    if PARAMS.resolve(name).walk.background == "threshold"
]
CUT = "|".join(re.escape(name) for name in CUT) or "(?!)"


wildcard_constraints:
    dataset=re.escape(DATASET),
    variant="[A-Za-z0-9][A-Za-z0-9_.-]*",
    seed=r"\d+",
    shard=r"\d+",
    shards=r"\d+",


def write_params():
    """Write the merged configuration where every job finds it."""
    try:
        with atomic_path(RESOLVED) as temporary:
            temporary.write_text(yaml.safe_dump(PARAMS.raw, sort_keys=False))
    except UserError as error:
        sys.exit(f"error: {error}")


def publish():
    """Tell MLflow what there is now; the workflow's own outcome does not depend on it."""
    if not publishes(BASE.tracking):
        return
    # Here, unlike in jobs, PATH may lack the command: the environment need not be activated.
    command = [sys.executable, "-m", "wsss", "publish", "--auto", "--params", RESOLVED]
    try:
        subprocess.run(command, timeout=BASE.tracking.timeout, check=False)
    except OSError as error:
        sys.stderr.write(f"warning: not published: {error}\n")
    except subprocess.TimeoutExpired:
        sys.stderr.write(
            f"warning: publishing took more than {BASE.tracking.timeout:g} s and was "
            "stopped: `wsss publish` goes on from there\n"
        )


def variant_of(wildcards):
    """Resolved configuration of the job's variant, of the shared base where it has none."""
    variant = getattr(wildcards, "variant", None)
    return PARAMS.resolve(variant) if variant else BASE


def keys(stage):
    """Values of the keys that a stage reads: a changed one reruns the job."""
    return lambda wildcards: json.dumps(
        stage_params(variant_of(wildcards), stage), sort_keys=True
    )


def code(stage):
    """Hash of the stage's own source closure: a code edit reruns the job."""

    def digest(wildcards):
        variant = variant_of(wildcards)
        return code_hash(stage, variant.method.name, layout_of(variant, stage))

    return digest


def compute_threads(wildcards):
    """Cores that a training or inference job occupies."""
    return variant_of(wildcards).compute.threads


def gpus(wildcards):
    """GPUs that a job asks for; `auto` means one on a cluster, or where this machine has any."""
    device = variant_of(wildcards).compute.device
    found = CLUSTER or shutil.which("nvidia-smi") is not None
    return int(device.startswith("cuda") or (device == "auto" and found))


def training_threads(stage):
    """Cores that the processes of a training occupy on a node."""

    def threads(wildcards):
        variant = variant_of(wildcards)
        return variant.compute.threads * spread(variant, stage).processes

    return threads


def training_resources(stage):
    """What a training asks for, as functions by name; nothing of what is None.

    A GPU a process; none to copy published weights. On several nodes GPUs are counted a node
    (`gres`), not a job (`gpu`), and the shell command starts the stage once on each. A job with
    `mpi` leaves its steps to that: they need the CPUs, and SLURM tells them that time is up.
    """

    def asked(wildcards):
        wide = spread(variant_of(wildcards), stage)
        trained = imported_file(wildcards, stage) is None
        nodes, count = wide.nodes, gpus(wildcards) * wide.processes * trained
        if nodes == 1:
            return {"nodes": 1, "gpu": count}
        # Where `tasks_per_gpu` is not set, `tasks` is taken for it: a training once a GPU.
        several = {"nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0, "mpi": "srun"}
        return several | {"gres": f"gpu:{count}" if count else None}

    def one(name):
        return lambda wildcards: asked(wildcards).get(name)

    names = ("nodes", "gpu", "gres", "mpi", "tasks", "tasks_per_gpu")
    return {name: one(name) for name in names}


def start(stage):
    """What starts a training on each of several nodes; its processes there are its own matter."""

    def command(wildcards, threads):
        count = spread(variant_of(wildcards), stage).nodes
        tasks = f"--ntasks={count} --ntasks-per-node=1 --cpus-per-task={threads}"
        return f"srun --nodes={count} {tasks} " if count > 1 else ""

    return command


def pool_threads(wildcards):
    """Cores that a job with a process pool occupies."""
    return variant_of(wildcards).resources.processes


def part(stage, name, count):
    """Output of a sharded stage: the store itself, or one part of several."""
    if count == 1:
        return f"{RUN}/{stage}/{name}.zip"
    return f"{RUN}/{stage}/shards/{name}.{{shard}}of{count}.zip"


def parts(stage, name, count):
    """All parts of a store, in order."""
    return [
        f"{RUN}/{stage}/shards/{name}.{shard}of{count}.zip" for shard in range(count)
    ]


def shard_option(count):
    """Command-line option that selects a job's shard."""
    return "" if count == 1 else f"--shard {{wildcards.shard}}/{count}"


def shard_log(stage, count):
    """Log file of a possibly sharded job."""
    suffix = "" if count == 1 else f".{{shard}}of{count}"
    return f"{LOGS}/{stage}{suffix}.log"


def held(wildcards, key):
    """Run folder of the variant that holds a folder or evaluation, shared or its own."""
    owner = PARAMS.owners(wildcards.variant).get(key, wildcards.variant)
    return RUN.format(dataset=DATASET, variant=owner, seed=wildcards.seed)


def made(folder, *names):
    """Input function: files in a folder of the run."""
    return lambda wildcards: [f"{held(wildcards, folder)}/{folder}/{n}" for n in names]


def metric(wildcards, what):
    """File of an evaluation of the run."""
    return f"{held(wildcards, f'metrics/{what}')}/metrics/{what}.json"


def label_seed_input(wildcards):
    """CAMs and, where the threshold is tuned, the result of tuning it."""
    tuned = variant_of(wildcards).cam.threshold == "tune"
    cams = made("cam", "maps.zip")(wildcards)
    return [*cams, *([metric(wildcards, "cam_tune")] if tuned else [])]


def pseudo_input(wildcards):
    """What pseudo masks are made from: walked CAMs, or the CRF seeds without refinement."""
    config = variant_of(wildcards)
    if config.refine.method == "none":
        return made("seeds", "crf.zip")(wildcards)
    tuned = [metric(wildcards, "walk_tune")] if walk_tuned(config) else []
    return [*made("walk", "scores.zip")(wildcards), *tuned]


def walk_input(wildcards):
    """CAMs, and what says which cells belong together."""
    edges = variant_of(wildcards).refine.method == "irnet"
    source = ("irnet", "edges.zip") if edges else ("affinity", "weights.safetensors")
    return [*made("cam", "maps.zip")(wildcards), *made(*source)(wildcards)]


def soft_input(wildcards):
    """What soft labels are made from: walked CAMs, or the CAMs without refinement."""
    if variant_of(wildcards).refine.method == "none":
        return label_seed_input(wildcards)
    return pseudo_input(wildcards)


def imported_file(wildcards, stage):
    """The published weights that stand in for a stage's training, or None."""
    imported = getattr(getattr(variant_of(wildcards), stage), "checkpoint", None)
    return imported.file if imported else None


def classify_input(wildcards):
    """Published weights that stand in for the training, if there are any."""
    return imported_file(wildcards, "classify") or []


def segment_input(wildcards):
    """Pseudo masks, their scores or both, or published weights that stand in for the
    training; the upper bound reads ground truth, which is part of the data set."""
    variant = variant_of(wildcards)
    imported = imported_file(wildcards, "segment")
    if imported:
        return imported
    if variant.road == "supervised":
        return []
    labels = variant.segment.labels
    scores = labels != "hard" or variant.segment.ignore_below > 0
    names = {"masks": labels != "soft", "scores": scores}
    files = [f"{name}.zip" for name, needed in names.items() if needed]
    return made("pseudo", *files)(wildcards)


def predict_input(wildcards):
    """The network that predicts: the segmentation net, or the method's own."""
    single = variant_of(wildcards).road == "single-stage"
    stage = "classify" if single else "segment"
    return made(stage, "weights.safetensors")(wildcards)


def evaluate_input(wildcards):
    """The scored artifact and, for CAMs with a tuned threshold, the result of tuning."""
    evaluation = EVALUATIONS[wildcards.what]
    files = made(evaluation.stage, f"{evaluation.store}.zip")(wildcards)
    tuned = tuned_by(wildcards.what, variant_of(wildcards))
    if tuned:
        files.append(metric(wildcards, tuned))
    return files


def metrics_of(name, seed):
    """Evaluations that a variant ends with, its own and shared ones."""
    job = SimpleNamespace(variant=name, seed=seed)
    return [metric(job, what) for what in wanted(PARAMS.resolve(name))]


def compared(wildcards):
    """Metrics of every variant and seed."""
    runs = [(name, seed) for name in BASE.run.variants for seed in BASE.run.seeds]
    return list(dict.fromkeys(file for run in runs for file in metrics_of(*run)))


def drawn(wildcards):
    """What the report reads besides metrics: curves of trainings, and what pictures show."""
    shown = SHOWN if SCORED else {**SHOWN, **AGREEING}
    files = []
    for name in BASE.run.variants:
        stages = stages_run(PARAMS.resolve(name))
        for seed in BASE.run.seeds:
            job = SimpleNamespace(variant=name, seed=seed)
            for (folder, file), stage in shown.items():
                files += made(folder, file)(job) if stage in stages else []
    return list(dict.fromkeys(files))


def targets():
    """Everything that `snakemake` builds by default."""
    files = []
    for name in BASE.run.variants:
        for seed in BASE.run.seeds:
            run = RUN.format(dataset=DATASET, variant=name, seed=seed)
            files += [f"{run}/predict/masks.zip", *metrics_of(name, seed)]
    files.append(f"{ROOT}/report.html".format(dataset=DATASET))
    if SCORED:
        files.append(f"{ROOT}/comparison.md".format(dataset=DATASET))
    return list(dict.fromkeys(files))


def tables(*names):
    """Metrics and tables of an evaluation."""
    csv = [f"{RUN}/metrics/{{what}}.{name}.csv" for name in [*TABLES, *names]]
    return [f"{RUN}/metrics/{{what}}.json", *csv]
