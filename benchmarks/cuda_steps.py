"""Images a second of every method's training step and of CAM inference, form by form.

python benchmarks/cuda_steps.py [--crop 448] [--batch 16] [--methods NAME...] [--out FILE]
python benchmarks/cuda_steps.py --small        a minute on a CPU: does it run at all?

Forms: fp32 eager in all its bits, which the others are compared with; the same with TF32 in
convolutions, which is torch's default on GPUs; bf16; bf16 with channels_last; that with
torch.compile. Also how fast the device multiplies matrices, as what the steps can be held against.
Images, tags and weights are random: no data and no download are needed. Writes JSON with the date
and the device; `docs/performance.py` makes the page of it. Needs torch, timm, numpy, pydantic,
pyyaml, Pillow; nothing is imported that a form does not use.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from wsss.config import Config, load_params
from wsss.data.training import collate
from wsss.engine.device import autocast, pick_device, place
from wsss.engine.exact import exact_fp32
from wsss.engine.loop import Fit, train_step
from wsss.engine.optim import build_optimizer
from wsss.engine.task import Progress
from wsss.errors import UserError
from wsss.grids import grid_of
from wsss.inference.cam import multi_scale_cam
from wsss.methods import method_names
from wsss.methods.base import Method
from wsss.networks.method import build_method

FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "channels_last": False, "compile": False},
    "tf32": {"precision": "fp32", "channels_last": False, "compile": False},
    "bf16": {"precision": "bf16", "channels_last": False, "compile": False},
    "bf16+channels_last": {"precision": "bf16", "channels_last": True, "compile": False},
    "bf16+channels_last+compile": {"precision": "bf16", "channels_last": True, "compile": True},
}
CLASSES = 20
# Late enough that every term of every method takes part.
LATE = Progress(95, 100, 9)


def configuration(name: str, options: argparse.Namespace, form: dict[str, Any]) -> Config:
    """The first variant of params.yaml with a method, in one form."""
    params = load_params([ROOT / "params.yaml"])
    for variant in params.variants:
        config = params.resolve(variant)
        if config.method.name == name and config.road != "supervised":
            break
    else:
        raise UserError(f"no variant of params.yaml uses method {name!r}")
    network: dict[str, Any] = {"weights": "random"}
    if options.backbone:
        network["name"] = options.backbone
    return config.model_copy(
        update={
            "backbone": config.backbone.model_copy(update=network),
            "compute": config.compute.model_copy(
                update={**form, "device": options.device, "threads": options.threads}
            ),
            "classify": config.classify.model_copy(
                update={"crop": options.crop, "batch": options.batch, "micro_batch": None}
            ),
        }
    )


def random_batch(method: Method, config: Config) -> dict[str, Any]:
    """A batch as the loader hands it on: each image has one to three of the tags."""
    rng, size = np.random.default_rng(0), config.classify.crop
    count, request = config.classify.batch, method.views(config.classify, 1.0)
    samples = []
    for key in range(count):
        # Blocks and not noise: methods look for regions of one colour.
        blocks = rng.integers(0, 256, (-(-size // 16), -(-size // 16), 3), np.uint8)
        image = blocks.repeat(16, 0).repeat(16, 1)[:size, :size]
        label = np.zeros(CLASSES, np.float32)
        label[rng.choice(CLASSES, 1 + key % 3, replace=False)] = 1
        sample: dict[str, Any] = {
            "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
            "label": torch.from_numpy(label),
            "box": torch.tensor([0, size, 0, size]),
            "jitter": torch.tensor([1.1, 0.9, 1.1, 0.02]),
            "key": key,
            "id": f"random{key}",
        }
        if request is not None:
            views, more = request.cut(rng, image, False)
            sample["views"] = torch.from_numpy(views.transpose(0, 3, 1, 2).copy())
            sample["view_jitter"] = sample["jitter"].repeat(len(views), 1)
            sample |= {"host_keys": key, **more}
        samples.append(sample)
    return collate(samples)


def rate(run: Callable[[], Any], images: int, options: argparse.Namespace) -> float:
    """Images a second: the best of several repetitions, after some that are not counted."""
    for _ in range(options.warm):
        run()
    best = float("inf")
    for _ in range(options.repeat):
        synchronise(options.device)
        began = time.perf_counter()
        for _ in range(options.steps):
            run()
        synchronise(options.device)
        best = min(best, (time.perf_counter() - began) / options.steps)
    return images / best


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def training(config: Config, device: torch.device) -> Callable[[], Any]:
    """One step of the loop, all its optimiser steps."""
    method = build_method(config, CLASSES, True)
    place(method, config.compute, device, training=True)
    method.freeze_bn = config.classify.freeze_bn
    method.train()
    optimizer = build_optimizer(method, config.classify)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # as fast, and no loss can run away
    batch = random_batch(method, config)
    how = Fit(config.classify, config.compute, 0, 0, Path(), 0.0)

    def step() -> None:
        for phase in range(method.phases(LATE)):
            train_step(method, dict(batch), LATE, phase, how, device, optimizer)
        method.after_step(LATE)

    return step


def inference(config: Config, device: torch.device) -> Callable[[], Tensor]:
    """Multi-scale CAMs of a batch, mirrored passes included."""
    method = build_method(config, CLASSES, True).eval()
    place(method, config.compute, device)
    size, maps = (config.classify.crop, config.classify.crop), method.seeds(config.cam.maps)
    images = torch.rand(config.classify.batch, 3, *size, device=device)

    def cams() -> Tensor:
        with torch.inference_mode(), autocast(config.compute, device):
            return multi_scale_cam(
                maps,
                images,
                config.cam.scales,
                config.cam.flip,
                grid_of(size, config.cam.stride),
                config.classify.output_stride,
                method.normalise_seeds,
            )

    return cams


def bits(form: str) -> AbstractContextManager[None]:
    """All of fp32's in the reference, torch's default in all other forms."""
    return exact_fp32() if form == "fp32" else nullcontext()


def measured(name: str, form: str, options: argparse.Namespace) -> dict[str, Any]:
    """Rates of one method in one form; what went wrong instead, if anything did."""
    found: dict[str, Any] = {"method": name, "form": form}
    for kind, make in (("step", training), ("cam", inference)):
        try:
            config = configuration(name, options, FORMS[form])
            with bits(form):
                run = make(config, pick_device(config.compute))
                found[kind] = round(rate(run, config.classify.batch, options), 2)
        except (UserError, RuntimeError) as error:
            found[f"{kind}_error"] = str(error).splitlines()[0]
        if options.device.startswith("cuda"):
            found[f"{kind}_peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        torch._dynamo.reset() if options.compiles else None
    return found


def matmul(options: argparse.Namespace) -> dict[str, float]:
    """TFLOP/s of square products in each precision."""
    size, found = 512 if options.small else 8192, {}
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        if tf32 and not options.device.startswith("cuda"):
            continue
        left, right = (torch.rand(size, size, device=options.device).to(dtype) for _ in range(2))
        with exact_fp32():
            torch.backends.cuda.matmul.allow_tf32 = tf32
            products = rate(lambda a=left, b=right: a @ b, 1, options)
        found[name] = round(2 * size**3 * products / 1e12, 3)
    return found


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores {platform.machine()}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--methods", nargs="+", default=method_names())
    parser.add_argument("--forms", nargs="+", choices=FORMS)
    parser.add_argument("--backbone", help="default: that of params.yaml")
    parser.add_argument("--crop", type=int, default=448)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.json")
    options = parser.parse_args()
    options.warm, options.steps, options.repeat = (1, 2, 2) if options.small else (5, 10, 3)
    if options.small:
        options.crop, options.batch = 96, 4
    # Compiling takes minutes a method, and on a CPU says nothing of a GPU; nor has one TF32.
    left_out = {f for f in FORMS if options.small and "compile" in f}
    left_out |= set() if options.device.startswith("cuda") else {"tf32"}
    options.forms = options.forms or [f for f in FORMS if f not in left_out]
    options.compiles = any("compile" in form for form in options.forms)
    return options


def main() -> None:
    options = parse()
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name(options.device),
        "on_gpu": options.device.startswith("cuda"),
        "torch": torch.__version__,
        "crop": options.crop,
        "batch": options.batch,
        "backbone": options.backbone or "that of params.yaml",
        "tflops": matmul(options),
        "rows": [],
    }
    print(f"{report['device']}, torch {report['torch']}: {report['tflops']} TFLOP/s", flush=True)
    for name in options.methods:
        for form in options.forms:
            row = measured(name, form, options)
            report["rows"].append(row)
            print(json.dumps(row), flush=True)
            # After each row: what was measured stays if the time ends.
            options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
