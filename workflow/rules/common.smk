import json
import re
import shutil
import sys
from pathlib import Path

import yaml

from wsss.atomic import atomic_path
from wsss.config import Params, stage_params
from wsss.errors import UserError
from wsss.provenance import code_hash
from wsss.stages.evaluations import EVALUATIONS, stage_of, wanted

try:
    PARAMS = Params(config, "params.yaml and overlays")
    if workflow.is_main_process:
        PARAMS.validate()
    BASE = PARAMS.base
except UserError as error:
    sys.exit(f"error: {error}")

DATASET = BASE.run.dataset
SHARDS = BASE.resources.shards
ROOT = f"{BASE.run.results}/{{dataset}}"
DATA = f"{ROOT}/data"
RUN = f"{ROOT}/{{variant}}/seed{{seed}}"
LOGS = f"{RUN}/logs"
RESOLVED = f"{BASE.run.results}/{DATASET}/params.yaml"
MANIFEST = [f"{DATA}/manifest.csv", f"{DATA}/dataset.json"]
JOB = f"--params {RESOLVED} --variant {{wildcards.variant}} --seed {{wildcards.seed}}"


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
    return lambda wildcards: code_hash(stage, variant_of(wildcards).method.name)


def compute_threads(wildcards):
    """Cores that a training or inference job occupies."""
    return variant_of(wildcards).compute.threads


def gpus(wildcards):
    """GPUs that a job asks for; `auto` means one where this machine has any."""
    device = variant_of(wildcards).compute.device
    found = device == "auto" and shutil.which("nvidia-smi") is not None
    return int(found or device.startswith("cuda"))


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


def label_seed_input(wildcards):
    """CAMs and, where the threshold is tuned, the result of tuning it."""
    run = RUN.format(**wildcards)
    tuned = variant_of(wildcards).cam.threshold == "tune"
    return [f"{run}/cam/maps.zip", *([f"{run}/metrics/cam_tune.json"] if tuned else [])]


def pseudo_input(wildcards):
    """What pseudo masks are made from: walked CAMs, or the CRF seeds without refinement."""
    name = {"none": "seeds/crf.zip", "affinitynet": "walk/scores.zip"}
    return f"{RUN.format(**wildcards)}/{name[variant_of(wildcards).refine.method]}"


def segment_input(wildcards):
    """Pseudo masks; the upper bound reads ground truth, which is part of the data set."""
    supervised = variant_of(wildcards).road == "supervised"
    return [] if supervised else f"{RUN.format(**wildcards)}/pseudo/masks.zip"


def predict_input(wildcards):
    """The network that predicts: the segmentation net, or the method's own."""
    single = variant_of(wildcards).road == "single-stage"
    stage = "classify" if single else "segment"
    return f"{RUN.format(**wildcards)}/{stage}/weights.safetensors"


def evaluate_input(wildcards):
    """The scored artifact and, for CAMs with a tuned threshold, the result of tuning."""
    evaluation = EVALUATIONS[wildcards.what]
    run = RUN.format(**{k: v for k, v in wildcards.items() if k != "what"})
    files = [f"{run}/{evaluation.stage}/{evaluation.store}.zip"]
    if wildcards.what == "cam" and variant_of(wildcards).cam.threshold == "tune":
        files.append(f"{run}/metrics/cam_tune.json")
    return files


def compared(wildcards):
    """Metrics of every variant and seed."""
    return [
        f"{RUN.format(dataset=wildcards.dataset, variant=name, seed=seed)}/metrics/{what}.json"
        for name in BASE.run.variants
        for seed in BASE.run.seeds
        for what in wanted(PARAMS.resolve(name))
    ]


def targets():
    """Everything that `snakemake` builds by default."""
    files = []
    for name in BASE.run.variants:
        for seed in BASE.run.seeds:
            run = RUN.format(dataset=DATASET, variant=name, seed=seed)
            files.append(f"{run}/predict/masks.zip")
            files += [
                f"{run}/metrics/{what}.json" for what in wanted(PARAMS.resolve(name))
            ]
    if any(wanted(PARAMS.resolve(name)) for name in BASE.run.variants):
        files.append(f"{ROOT}/comparison.md".format(dataset=DATASET))
    return files
