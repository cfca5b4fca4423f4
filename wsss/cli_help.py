"""What ``wsss STAGE --help`` says."""

from __future__ import annotations

# What `wsss evaluate` scores; wsss/stages/evaluations.py says how.
EVALUATION_NAMES = (
    *("cam", "cam_tune", "boxes", "crf", "walk", "walk_tune", "pseudo"),
    *("single", "multi", "final"),
)

# Of each stage: what it does, what it reads and writes (under results/DATASET or, for one variant
# and seed, results/DATASET/VARIANT/seedN), and what else a user should know.
STAGE_HELP = {
    "manifest": (
        "write the manifest: images, tags, masks and lists",
        "the data set named by data.source and data.root",
        "data/manifest.csv, data/dataset.json",
        "Generates the scenes when data.source is 'scenes', draws masks.zip when it is 'coco'.",
    ),
    "classify": (
        "train the classification network on image labels",
        "the manifest and the training images",
        "classify/weights.safetensors, classify/curve.csv",
        "An interrupted run continues.",
    ),
    "cam": (
        "infer CAMs, multi-scale and flipped",
        "classify/weights.safetensors",
        "cam/maps.zip",
        "For the images of the train, seed and tune lists; present classes come from the tags.",
    ),
    "seeds": (
        "make CRF seeds from CAMs",
        "cam/maps.zip, and metrics/cam_tune.json where the threshold is tuned",
        "seeds/low.zip and seeds/high.zip, or seeds/confident.zip, or seeds/crf.zip",
        "",
    ),
    "affinity": (
        "train AffinityNet on the alpha seeds",
        "seeds/low.zip, seeds/high.zip",
        "affinity/weights.safetensors, affinity/curve.csv",
        "An interrupted run continues.",
    ),
    "irnet": (
        "train IRNet on the confident seeds",
        "seeds/confident.zip",
        "irnet/weights.safetensors, irnet/curve.csv",
        "Measures the mean displacement afterwards. An interrupted run continues.",
    ),
    "edges": (
        "infer class boundaries by IRNet",
        "irnet/weights.safetensors",
        "irnet/edges.zip",
        "",
    ),
    "walk": (
        "propagate CAMs by a random walk over learned affinities",
        "cam/maps.zip, and affinity/weights.safetensors or irnet/edges.zip",
        "walk/scores.zip",
        "",
    ),
    "pseudo": (
        "make the pseudo masks that segmentation is trained on",
        "walk/scores.zip or, without refinement, seeds/crf.zip; metrics/walk_tune.json where tuned",
        "pseudo/masks.zip",
        "",
    ),
    "soft": (
        "make the scores behind pseudo masks, for soft labels or to ignore unsure pixels",
        "walk/scores.zip or, without refinement, cam/maps.zip and metrics/cam_tune.json where "
        "the threshold is tuned",
        "pseudo/scores.zip",
        "",
    ),
    "segment": (
        "train the segmentation network",
        "pseudo/masks.zip, pseudo/scores.zip where labels are soft or ignored below a "
        "probability, or, on the supervised road, ground-truth masks",
        "segment/weights.safetensors, segment/curve.csv",
        "An interrupted run continues.",
    ),
    "predict": (
        "predict the val list, multi-scale and flipped, without tags",
        "segment/weights.safetensors or, single-stage, classify/weights.safetensors",
        "predict/scores.zip, predict/single.zip",
        "Where no list plays the role val, the training images are predicted. With --weights, "
        "--images and --out it predicts photos of yours instead.",
    ),
    "crf": (
        "refine predictions with a dense CRF: the final masks",
        "predict/scores.zip",
        "predict/masks.zip",
        "",
    ),
    "evaluate": (
        "score an artifact against ground truth",
        "the artifact and the masks of its list",
        "metrics/WHAT.json, .classes.csv, .confusion.csv, .images.csv, .sweep.csv",
        "",
    ),
    "compare": (
        "write and print the comparison of variants",
        "metrics of run.variants and run.seeds",
        "comparison.md, comparison.csv, timings.md, timings.csv, and miou.json of each run",
        "",
    ),
    "report": (
        "write the page of all results and print its path",
        "the manifest, metrics, training curves and stores of run.variants and run.seeds",
        "report.html",
        "One self-contained file. What has not run yet is named on it.",
    ),
}


def stage_epilog(name: str, reads: str, writes: str) -> str:
    """Say what a stage reads and writes, and which keys change its result."""
    from wsss.config.slices import STAGES

    stages = [stage for stage in STAGES if stage == name or stage.startswith(f"{name}_")]
    keys = sorted({key for stage in stages for key in STAGES[stage]})
    lines = [f"reads:  {reads}", f"writes: {writes}"]
    if keys:
        lines.append(f"keys:   {', '.join(keys)}")
    return "\n".join(lines)
