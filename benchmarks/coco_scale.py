"""Time and memory of everything that touches every image, on data of COCO's size in small.

python benchmarks/coco_scale.py --out docs/scaling/coco.json [--sizes 10000 20000 41000 82000]

A data set in COCO's layout with 80 classes and images of 16 to 32 pixels: what depends on the
number of images and classes has full size, what depends on pixels has not. Pixels are shared: 64
different pictures, linked under as many names as there are images; 3 tags and 7 outlines each, as
in train2014. A quarter as many images are on the list val. Each step runs in a process of its own;
seconds are its processor time and that of its children, memory is that of its largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from wsss.artifacts import ArrayStoreWriter, MaskStore, MaskStoreWriter, merge_stores, save_json
from wsss.config import Params, load_params
from wsss.context import make_context
from wsss.data.manifest import Manifest
from wsss.runrecord import machine, peak_memory_mb
from wsss.shards import WINDOW

SIZES = (10_000, 20_000, 41_000, 82_000)
CLASSES, PICTURES = 80, 64
TAGS, OUTLINES = 3, 7
VAL = 4  # one image on the list val for so many training images
TUNE = 20  # one image in so many is on the list tune
VARIANTS = ("plain", "refined")


def make_data(root: Path, images: int) -> None:
    """Write a data set of ``images`` training and a quarter as many validation images."""
    pictures(root / "pictures")
    rng = np.random.default_rng(0)
    for name, count, offset in (("train2014", images, 0), ("val2014", images // VAL, 10**6)):
        folder = root / name
        folder.mkdir(parents=True)
        numbers = range(offset, offset + count)
        for number in numbers:
            os.link(root / "pictures" / f"{number % PICTURES}.png", folder / f"{number:012d}.png")
        (root / "annotations").mkdir(exist_ok=True)
        text = json.dumps(instances(rng, list(numbers)))
        (root / "annotations" / f"instances_{name}.json").write_text(text)
    lists(root, images)


def lists(root: Path, images: int) -> None:
    """The list to tune on, and the rest to train on."""
    (root / "lists").mkdir()
    ids = [f"{number:012d}" for number in range(images)]
    (root / "lists" / "tune.txt").write_text("\n".join(ids[::TUNE]) + "\n")
    rest = [i for n, i in enumerate(ids) if n % TUNE]
    (root / "lists" / "fit.txt").write_text("\n".join(rest) + "\n")


def shape_of(number: int) -> tuple[int, int]:
    """(H, W) of an image: 16 to 32 pixels."""
    kind = number % PICTURES
    return 16 + kind % 17, 16 + kind * 7 % 17


def pictures(folder: Path) -> None:
    """The different pictures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(PICTURES):
        pixels = rng.integers(0, 255, (*shape_of(number), 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def instances(rng: np.random.Generator, numbers: list[int]) -> dict[str, Any]:
    """Annotations in COCO's format."""
    annotations = []
    for number in numbers:
        height, width = shape_of(number)
        present = rng.choice(CLASSES, TAGS, replace=False)
        for _ in range(OUTLINES):
            x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
            w, h = rng.uniform(4, width / 2), rng.uniform(4, height / 2)
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    "id": len(annotations) + numbers[0] * 10,
                    "image_id": number,
                    "category_id": int(rng.choice(present)) + 1,
                    "iscrowd": 0,
                    "area": w * h,
                    "segmentation": [[round(c, 2) for c in corners]],
                }
            )
    sizes = {number: shape_of(number) for number in numbers}
    return {
        "images": [
            {"id": n, "file_name": f"{n:012d}.png", "height": sizes[n][0], "width": sizes[n][1]}
            for n in numbers
        ],
        "annotations": annotations,
        "categories": [{"id": c + 1, "name": f"class{c + 1}"} for c in range(CLASSES)],
    }


def overlay_of(root: Path, results: Path) -> dict[str, Any]:
    """What is laid over params.yaml."""
    splits = {"train": "fit", "seed": "fit", "tune": "tune", "val": "val2014"}
    top = {"share": {"from": "plain", "through": "pseudo"}, "segment": {"net": "deeplabv2"}}
    return {
        "run": {"dataset": "coco", "variants": [*VARIANTS], "results": str(results)},
        "data": {"source": "coco", "root": str(root), "splits": splits},
        "resources": {"processes": 2, "shards": {"cam": 8, "seeds": 8, "walk": 8, "crf": 8}},
        "tracking": {"mlflow": False},
        "refine": {"method": "none"},
        "variants": {"plain": {}, "refined": top},
    }


# Steps: each runs in a process of its own with the overlay's path.


def data_check(params: Params) -> None:
    """`wsss data check`."""
    from wsss.data.check import check

    check(params.base.data, make_context(params, "manifest", "", 0).paths.data)


def manifest(params: Params) -> None:
    """`wsss manifest`: draws and hashes."""
    from wsss.stages import manifest as stage

    stage.run(make_context(params, "manifest", "", 0))


def loading(params: Params) -> None:
    """Reading the manifest, as every job does."""
    _manifest(params)


def store_write(params: Params) -> None:
    """CAMs of three classes an image, window by window, joined as a job does."""
    data, paths = _manifest(params), make_context(params, "cam", "plain", 0).paths
    items, folder = data.union("train", "seed", "tune"), paths.run / "windows"
    rng = np.random.default_rng(0)
    parts = []
    for start in range(0, len(items), WINDOW):
        parts.append(folder / f"{start:06d}.zip")
        with ArrayStoreWriter(parts[-1]) as store:
            for item in items[start : start + WINDOW]:
                height, width = shape_of(int(item.id))
                grid = (-(-height // 4), -(-width // 4))
                maps = rng.uniform(0, 1, (len(item.labels), *grid))
                store.add(item.id, maps, data.present(item), (height, width))
    merge_stores(parts, paths.store("cam", "maps"))
    shutil.rmtree(folder)


def store_merge(params: Params) -> None:
    """`wsss merge` of eight shards of masks."""
    data, paths = _manifest(params), make_context(params, "cam", "plain", 0).paths
    items = data.union("train", "seed", "tune")
    shards = [paths.shard("seeds", "crf", i, 8) for i in range(8)]
    rng = np.random.default_rng(0)
    for index, shard in enumerate(shards):
        with MaskStoreWriter(shard) as store:
            for item in items[len(items) * index // 8 : len(items) * (index + 1) // 8]:
                ids = [0, *(c + 1 for c in data.present(item))]
                shape = shape_of(int(item.id))
                store.add(item.id, rng.choice(ids, shape).astype(np.uint8))
    merge_stores(shards, paths.store("seeds", "crf"))
    shutil.copyfile(paths.store("seeds", "crf"), _made(paths.store("pseudo", "masks")))


def store_read(params: Params) -> None:
    """Every mask of a store, once."""
    store = MaskStore(make_context(params, "pseudo", "plain", 0).paths.store("seeds", "crf"))
    for identifier in store.ids:
        store.get(identifier)


def evaluate_cam(params: Params) -> None:
    """Tuning the threshold and scoring CAMs."""
    from wsss.stages import evaluate

    evaluate.run(make_context(params, "evaluate_tune", "plain", 0), "cam_tune")
    evaluate.run(make_context(params, "evaluate_cam", "plain", 0), "cam")


def evaluate_masks(params: Params) -> None:
    """Scoring pseudo masks."""
    from wsss.stages import evaluate

    evaluate.run(make_context(params, "evaluate", "plain", 0), "pseudo")


def evaluate_final(params: Params) -> None:
    """Final masks of two variants, made up, and their scores."""
    from wsss.stages import evaluate

    data, rng = _manifest(params), np.random.default_rng(0)
    for variant in VARIANTS:
        paths = make_context(params, "crf", variant, 0).paths
        with MaskStoreWriter(paths.store("predict", "masks")) as store:
            for item in data.role("val"):
                truth = data.read_mask(item)
                noise = rng.integers(0, CLASSES + 1, truth.shape)
                store.add(
                    item.id,
                    np.where(rng.random(truth.shape) < 0.3, noise, truth % 81).astype(np.uint8),
                )
        evaluate.run(make_context(params, "evaluate", variant, 0), "final")


def compare(params: Params) -> None:
    """`wsss compare`."""
    from wsss.stages import compare as stage

    run = params.base.run
    stage.compare(Path(run.results), run.dataset, run.variants, run.seeds, owners=params.owners)


def report(params: Params) -> None:
    """`wsss report`: bootstrap of 82k images, pictures, tables."""
    from wsss.stages import report as stage

    stage.run(make_context(params, "report", "", 0), params)


def agreement(params: Params) -> None:
    """What the report says of data without masks: every pseudo mask against its seed."""
    from wsss.report.agreement import Sources
    from wsss.report.agreement import agreement as agree

    data, paths = _manifest(params), make_context(params, "report", "plain", 0).paths
    seeds = paths.store("seeds", "crf")
    agree(data, data.role("train"), Sources(seeds, paths.store("pseudo", "masks"), seeds, None), 2)


STEPS: dict[str, Callable[[Params], None]] = {
    "data check": data_check,
    "manifest": manifest,
    "read manifest": loading,
    "write CAM store": store_write,
    "merge 8 shards": store_merge,
    "read mask store": store_read,
    "evaluate CAMs": evaluate_cam,
    "evaluate pseudo masks": evaluate_masks,
    "evaluate final masks, 2 variants": evaluate_final,
    "compare": compare,
    "report": report,
    "agreement": agreement,
}
# Commands that start processes of their own: measured from outside.
OUTSIDE = {
    "snakemake -n": ["-m", "snakemake", "--dry-run", "--quiet", "progress", "--configfile"],
    "wsss plan": ["-m", "wsss", "plan", "--all", "--params", "params.yaml"],
}


def _manifest(params: Params) -> Manifest:
    return make_context(params, "manifest", "", 0).manifest


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def child(step: str, overlay: str) -> None:
    """Run one step and print what it took, the imports left out."""
    params = load_params(["params.yaml", overlay])
    before, wall = os.times(), time.perf_counter()
    STEPS[step](params)
    after = os.times()
    spent = {
        "seconds": round(sum(after[:4]) - sum(before[:4]), 2),
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "peak_mb": round(peak_memory_mb()),
    }
    sys.stdout.write(json.dumps(spent))


def measure(step: str, overlay: Path) -> dict[str, Any]:
    """Run one step in a process of its own."""
    if step in STEPS:
        line = [sys.executable, __file__, "--step", step, "--overlay", str(overlay)]
    else:
        line = [sys.executable, *OUTSIDE[step], str(overlay)]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(line, stdout=out, stderr=error, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (out, error):
            stream.seek(0)
        if process.returncode:
            raise SystemExit(f"{step}: {error.read().strip()[-800:]}")
        if step in STEPS:
            found: dict[str, Any] = json.loads(out.read().splitlines()[-1])
            return found
    return {
        "seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_seconds": round(time.perf_counter() - began, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    """Measure all sizes and write the JSON after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--steps", nargs="+", default=[*OUTSIDE, *STEPS], metavar="STEP")
    parser.add_argument("--folder", type=Path, help="for the data (default: a temporary one)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--overlay", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        child(args.step, args.overlay)
        return
    rows: list[dict[str, Any]] = []
    for images in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            make_data(folder / "data", images)
            overlay = folder / "overlay.yaml"
            overlay.write_text(yaml.safe_dump(overlay_of(folder / "data", folder / "results")))
            for step in args.steps:
                rows.append({"images": images, "step": step, **measure(step, overlay)})
                sys.stdout.write(f"{rows[-1]}\n")
                sys.stdout.flush()
        if args.out:
            about = {"machine": machine(), "classes": CLASSES, "pictures": PICTURES}
            save_json(args.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
