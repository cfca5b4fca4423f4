"""Steps of every method and task in one process or several, for `test_distributed.py`.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.contract.ranks OUT [NAME...]

writes ``OUT/rank<k>.safetensors``: losses, gradients and state of each step.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.contract.test_methods import CLASSES, batch_of, config_of, make
from tests.tiny_backbone import tiny_backbone
from wsss.artifacts import save_weights
from wsss.config import load_params
from wsss.config.schema import Boundary, Training
from wsss.data.training import Batch
from wsss.distributed import collectives
from wsss.distributed.group import count, joined, rank
from wsss.distributed.parts import part_of
from wsss.engine.loop import Fit, train_step
from wsss.engine.optim import build_optimizer
from wsss.engine.task import Progress, Task
from wsss.methods import method_names
from wsss.models.affinitynet import AffinityNet
from wsss.models.irnet import IrNet
from wsss.models.largefov import LargeFov
from wsss.models.sync_norm import synchronise
from wsss.tasks.affinity import AffinityTask
from wsss.tasks.irnet import IrNetTask
from wsss.tasks.segmentation import SegmentationTask

# Not a multiple of the processes.
TAGS = [[0], [1], [2], [0], [1, 2]]
IMAGES = len(TAGS)
STEPS = [Progress(0, 100, 0), Progress(60, 100, 6), Progress(95, 100, 9)]
ROOT = Path(__file__).parents[2]


def lively(task: Task) -> Task:
    """Random weights whose features are not all 0: timm starts residual branches at 0."""
    generator = torch.Generator().manual_seed(5)
    for module in task.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            module.bias.data = torch.randn(module.bias.shape, generator=generator) / 5
    return task


def crops(batch: Batch) -> Batch:
    """A batch as a loader hands it on: images in bytes, without jitter; some share their tags."""
    raw = dict(batch)
    raw["label"] = torch.zeros_like(batch["label"])
    for image, kinds in enumerate(TAGS):
        raw["label"][image, kinds] = 1
    length, size = len(batch["id"]), batch["image"].shape[-1]
    raw["image"] = (batch["image"] * 255).byte()
    raw["box"] = torch.tensor([[0, size, 0, size]] * length)
    raw["jitter"] = torch.tensor([[1.0, 1.0, 1.0, 0.0]] * length)
    if "views" in batch:
        raw["views"] = (batch["views"] * 255).byte()
        raw["view_jitter"] = raw["jitter"][:, None].repeat(1, batch["views"].shape[1], 1)
    del raw["valid"]
    return raw


def masked(count: int, layers: int) -> Batch:
    """A batch with masks of two classes, of different numbers of known pixels an image."""
    generator = torch.Generator().manual_seed(3)
    batch = crops(batch_of(count, "baseline"))
    coarse = torch.randint(0, 3, (count, layers, 8, 8), generator=generator)
    masks = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    for k in range(count):
        masks[k, :, : 8 * k] = 255
    return {**batch, "masks": masks.byte()}


def segmentation(balanced: bool, boundary: bool) -> SegmentationTask:
    torch.manual_seed(0)
    network = LargeFov(tiny_backbone(), CLASSES + 1, 8, 2, 0.3, norm=True)
    beacon = Boundary(
        weight=0.1, step=2, points=8, least=1, share=0.5, sharpness=1.0, literal=False
    )
    return SegmentationTask(network, balanced, boundary=beacon if boundary else None)  # type: ignore[arg-type]


def affinity() -> AffinityTask:
    torch.manual_seed(0)
    return AffinityTask(AffinityNet(tiny_backbone(), (8, 8)), 3)


def irnet() -> IrNetTask:
    torch.manual_seed(0)
    return IrNetTask(IrNet(make("baseline").backbone), 3)


def cases() -> dict[str, tuple[Callable[[], Task], Batch]]:
    """Every method and every task, each with a global batch."""
    found: dict[str, tuple[Callable[[], Task], Batch]] = {
        name: ((lambda name=name: lively(make(name))), crops(batch_of(IMAGES, name, 96)))
        for name in method_names()
    }
    found["task-segment"] = (lambda: segmentation(False, False)), masked(IMAGES, 1)
    found["task-segment-balanced"] = (lambda: segmentation(True, True)), masked(IMAGES, 1)
    found["task-affinity"] = affinity, masked(IMAGES, 2)
    found["task-irnet"] = irnet, masked(IMAGES, 1)
    return found


def how(training: Training) -> Fit:
    compute = load_params([ROOT / "params.yaml"]).base.compute
    return Fit(training, compute, 0, 0, Path(), 0.0)


def trace(make_task: Callable[[], Task], batch: Batch) -> dict[str, Tensor]:
    """Losses, gradients and state of each phase of each step; of the whole on every process."""
    training = config_of("baseline").classify.model_copy(
        # Small steps: what is compared is the gradient, not how errors grow.
        update={"lr": 1e-4, "freeze_bn": False, "clip": 10.0, "micro_batch": None}
    )
    task = make_task()
    if count() > 1:
        synchronise(task)
    part = part_of(IMAGES, rank(), count())
    own = {name: value[part] for name, value in batch.items()}
    optimizer, found = build_optimizer(task, training), {}
    task.train()
    for step, progress in enumerate(STEPS):
        for phase in range(task.phases(progress)):
            terms = train_step(
                task, copy.copy(own), progress, phase, how(training), torch.device("cpu"), optimizer
            )
            where = f"{step}.{phase}"
            for name, value in terms.items():
                found[f"{where}/loss/{name}"] = collectives.total(value)
            for name, parameter in task.named_parameters():
                if parameter.grad is not None:
                    found[f"{where}/grad/{name}"] = parameter.grad.clone()
        task.after_step(progress)
        for name, value in task.state_dict().items():
            found[f"{step}/state/{name}"] = value.clone()
    return found


def in_double_precision() -> None:
    """Let losses that compute in float32 do so in float64: what then remains between one process
    and several is no rounding, which maxima and thresholds would make anything of."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign,assignment]


def main(out: Path, names: list[str]) -> None:
    in_double_precision()
    file = f"rank{rank()}of{count()}.safetensors"
    for name, (make_task, batch) in cases().items():
        if names and name not in names:
            continue
        save_weights(out / name / file, trace(make_task, batch), {})


if __name__ == "__main__":
    with joined("cpu"):
        main(Path(sys.argv[1]), sys.argv[2:])
