"""The training loop."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from wsss.config.schema import Compute, Training
from wsss.data.training import Batch, CropDataset, EpochBatches, collate, finish_images
from wsss.distributed import collectives
from wsss.distributed.group import count, rank
from wsss.distributed.parts import PartBatches, check_batches
from wsss.engine.device import autocast, pick_device, place
from wsss.engine.optim import build_optimizer, lr_factor, schedule_fraction, set_lr
from wsss.engine.state import load_state, save_state
from wsss.engine.task import Losses, Progress, Task
from wsss.errors import UserError
from wsss.interrupt import ask, deferred, leave_to_parent, pending
from wsss.models.dropout import set_keys
from wsss.models.sync_norm import synchronise
from wsss.runcurve import CostCurve

log = logging.getLogger(__name__)

LOG_EVERY = 10
STATE = "state.safetensors"


@dataclass
class Fit:
    """How to train one network.

    Attributes:
        state: folder of the resumable state; its name holds the hash of configuration, code and
            data, so that another key starts afresh.
        checkpoint_seconds: time between two saves of the state.
        watch: told of each row of the curve as it is known, with what the steps cost; it must
            neither wait nor raise.
    """

    training: Training
    compute: Compute
    seed: int
    workers: int
    state: Path
    checkpoint_seconds: float
    watch: Callable[[dict[str, Any], dict[str, Any]], None] = lambda _row, _costs: None
    rows: list[dict[str, Any]] = field(default_factory=list)
    costs: CostCurve = field(default_factory=CostCurve)
    images_per_second: float = 0.0
    continued_at: int = 0


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite; says at which step and on which images."""


class _Curve:
    """Collects losses on the device and moves them to the host only every few steps.

    Reading a loss each step would make the host wait for the device. ``read`` holds the values
    since the last flush that a saved state brought here.
    """

    def __init__(self, read: list[dict[str, float]]) -> None:
        self.read = list(read)
        self.pending: list[tuple[int, list[str], dict[str, Tensor]]] = []

    def add(self, step: int, ids: list[str], terms: dict[str, Tensor]) -> None:
        self.pending.append((step, ids, {name: value.detach() for name, value in terms.items()}))

    def values(self) -> list[dict[str, float]]:
        """Return the terms of each step since the last flush, or stop at the first bad loss.

        All processes must ask at the same step.
        """
        for step, ids, terms in self.pending:
            known = collectives.total(torch.stack([value.float() for value in terms.values()]))
            numbers = dict(zip(terms, known.tolist(), strict=True))
            for name, number in numbers.items():
                if not math.isfinite(number):
                    raise NonFiniteLossError(
                        f"loss term {name!r} is {number} at step {step}, images "
                        f"{', '.join(collectives.host_texts(ids))}: lower the learning rate, set "
                        "clip, or look at them"
                    )
            self.read.append(numbers)
        self.pending.clear()
        return self.read

    def flush(self) -> dict[str, float]:
        """Return the mean of each term since the last flush."""
        sums: dict[str, list[float]] = defaultdict(list)
        for numbers in self.values():
            for name, number in numbers.items():
                sums[name].append(number)
        self.read = []
        return {name: sum(values) / len(values) for name, values in sums.items()}


def fit(
    task: Task, dataset: CropDataset, orders: Callable[[int], list[list[int]]], how: Fit
) -> nn.Module:
    """Train ``task`` and return the network to keep: its EMA where one is configured.

    Continues from ``how.state`` when an earlier run with the same key was interrupted, to the
    same result. ``how.rows`` holds the curves afterwards. Several processes train as one, see
    :mod:`wsss.distributed`; the first of them alone writes.

    Raises:
        Interrupted: a signal asked to end; the state is saved after the running step.
        NonFiniteLossError: with the step and the ids of the batch.
        UserError: gradient accumulation with a loss that couples the batch, or a batch that
            cannot be shared by the processes.
    """
    config = how.training
    if task.couples_batch and config.micro_batch not in (None, config.batch):
        raise UserError(
            f"micro_batch is {config.micro_batch} of batch {config.batch}, but this loss compares "
            "images of the whole batch: set micro_batch to null"
        )
    if count() > 1:
        check_batches(orders, count(), config.micro_batch, task.fewest)
        synchronise(task)
    device = pick_device(how.compute)
    place(task, how.compute, device, training=True)
    task.freeze_bn = config.freeze_bn
    task.set_bn_momentum(config.bn_momentum)
    optimizer = build_optimizer(task, config)
    modules: dict[str, nn.Module] = {"task": task}
    ema = None
    if config.ema is not None:
        ema = AveragedModel(
            task,
            multi_avg_fn=get_ema_multi_avg_fn(config.ema),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        modules["ema"] = ema
    curve = _Curve([])
    if (path := how.state / STATE).exists():
        meta = load_state(path, modules, optimizer)
        how.continued_at, how.rows, curve = meta["step"], meta["rows"], _Curve(meta["losses"])
        how.costs = CostCurve(meta.get("costs", ()))
        log.info("continuing at step %d", how.continued_at)
    _check_agreement(how)
    collectives.replicate(modules.values())
    batches = EpochBatches(orders, config.epochs, how.continued_at)
    with deferred():
        _Run(task, how, device, optimizer, modules, curve).steps(dataset, batches)
    kept = ema.module if ema is not None else task
    return kept.eval()


def _check_agreement(how: Fit) -> None:
    """Refuse processes that do not see the same state, as without a shared file system."""
    steps = {row[0] for row in collectives.host_table([how.continued_at])}
    if len(steps) > 1:
        raise UserError(
            f"processes would continue at different steps {sorted(steps)}: {how.state.parent} "
            "must be one folder that all of them see"
        )


@dataclass
class _Run:
    """What the steps of one training share."""

    task: Task
    how: Fit
    device: torch.device
    optimizer: torch.optim.Optimizer
    modules: dict[str, nn.Module]
    curve: _Curve

    def steps(self, dataset: CropDataset, batches: EpochBatches) -> None:
        """Train on all batches, or until told to stop."""
        how, total = self.how, batches.per_epoch * self.how.training.epochs
        saved, began, seen = time.monotonic(), time.monotonic(), 0
        how.costs.start()
        self.task.train()
        hidden = True if rank() else None  # None: where there is no terminal
        loader = _loader(dataset, batches, how.workers, self.device)
        steps = tqdm(loader, total=total, initial=batches.start, desc="train", disable=hidden)
        for step, batch in enumerate(steps, batches.start):
            progress, done = Progress(step, total, step // batches.per_epoch), step + 1
            self._learn(batch, progress)
            due = time.monotonic() - saved > how.checkpoint_seconds and done < total
            news = _exchange(len(batch["id"]), due)
            seen += news.images
            how.costs.add(news.images)
            if done % LOG_EVERY == 0 or done == total:
                steps.set_postfix_str(self._report(done, progress))
            if news.stop or news.save:
                self._save(done)
                saved = time.monotonic()
            if news.stop:
                collectives.barrier()  # nobody leaves before the state is written
                log.info("state saved at step %d of %d", done, total)
                break
        how.images_per_second = seen / max(time.monotonic() - began, 1e-9)

    def _learn(self, batch: Batch, progress: Progress) -> None:
        """All phases of one batch, and what follows them."""
        task, config, terms = self.task, self.how.training, dict[str, Tensor]()
        fraction = schedule_fraction(progress.step, progress.total, config)
        set_lr(self.optimizer, lr_factor(fraction, config))
        for phase in range(task.phases(progress)):
            found = train_step(task, batch, progress, phase, self.how, self.device, self.optimizer)
            # What several steps on a batch report is summed: its loss.
            for name, value in found.items():
                terms[name] = terms[name] + value if name in terms else value
        task.after_step(progress)
        if "ema" in self.modules:
            ema = self.modules["ema"]
            assert isinstance(ema, AveragedModel)
            ema.update_parameters(task)
        self.curve.add(progress.step, batch["id"], terms)

    def _report(self, done: int, progress: Progress) -> str:
        """Add a row to the curves, tell of it and return it as text."""
        means, lr = self.curve.flush(), self.optimizer.param_groups[0]["lr"]
        how, text = self.how, _describe(means)
        how.rows.append({"step": done, "epoch": progress.epoch, "lr": lr, **means})
        how.watch(how.rows[-1], how.costs.flush(done))
        log.info("step %d/%d %s", done, progress.total, text)
        return text

    def _save(self, done: int) -> None:
        """Write the resumable state; all processes must come here at the same step."""
        how = self.how
        meta = {"step": done, "rows": how.rows, "losses": self.curve.values()}
        meta["costs"] = how.costs.rows
        if rank() == 0:
            save_state(how.state / STATE, self.modules, self.optimizer, meta)


def _loader(
    dataset: CropDataset, batches: EpochBatches, workers: int, device: torch.device
) -> DataLoader[Any]:
    """This process's part of each batch."""
    return DataLoader(
        dataset,
        batch_sampler=batches if count() == 1 else PartBatches(batches, rank(), count()),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_to_parent,
    )


class _News(NamedTuple):
    """What all processes agree on after a step: images of the global batch, and what to do."""

    images: int
    save: bool
    stop: bool


def _exchange(images: int, due: bool) -> _News:
    """Add up images; save where the first process's clock says so, stop where any was told to."""
    stop = pending()
    number = 0 if stop is None else stop.code - 128
    table = collectives.host_table([images, due, number])
    asked = max(row[2] for row in table)
    if asked and stop is None:
        ask(asked)
    return _News(sum(row[0] for row in table), bool(table[0][1]), asked > 0)


def train_step(
    task: Task,
    batch: Batch,
    progress: Progress,
    phase: int,
    how: Fit,
    device: torch.device,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Tensor]:
    """One optimiser step, accumulated over micro-batches, of all processes, weighted as one global
    mean; terms are this process's share.

    With a GPU the host does not wait for it, unless the task's losses do.
    """
    micro = how.training.micro_batch or len(batch["id"])
    parts = [task.prepare(part) for part in split_batch(batch, micro)]
    sizes = [task.sizes(part) for part in parts]
    totals = {name: sum(size[name] for size in sizes) for name in sizes[0]}
    totals = collectives.host_sums(totals)
    weights = [1.0 if totals else task.weight(part) for part in parts]
    whole = collectives.host_sums({"weight": sum(weights)})["weight"]
    scale = 1.0 if totals else 1.0 / max(whole, 1e-12)
    optimizer.zero_grad(set_to_none=True)
    terms: dict[str, Tensor] = {}
    for part, weight in zip(parts, weights, strict=True):
        moved = finish_images(to_device(part, device, how.compute), task.backbone.mean)
        moved["sizes"] = totals
        set_keys(task, moved["key"])
        with autocast(how.compute, device):
            losses: Losses = task.losses(moved, progress, phase)
        share = weight * scale
        (losses.total * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {**losses.terms, "loss": losses.total}.items():
            part_of = value.detach() * share
            terms[name] = terms[name] + part_of if name in terms else part_of
    collectives.sum_gradients(task.parameters())
    if how.training.clip is not None:
        nn.utils.clip_grad_norm_(task.parameters(), how.training.clip)
    optimizer.step()
    return terms


def split_batch(batch: Batch, size: int) -> list[Batch]:
    """Cut a batch into micro-batches of at most ``size`` images."""
    count = len(batch["id"])
    return [
        {name: value[i : i + size] for name, value in batch.items()} for i in range(0, count, size)
    ]


def to_device(batch: Batch, device: torch.device, compute: Compute) -> Batch:
    """Move the tensors of a batch; images in the configured memory format."""
    moved: Batch = {}
    for name, value in batch.items():
        if isinstance(value, Tensor):
            value = value.to(device, non_blocking=True)
            if value.dim() == 4 and name == "image" and compute.channels_last:
                value = value.contiguous(memory_format=torch.channels_last)
        moved[name] = value
    return moved


def _describe(means: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.4f}" for name, value in sorted(means.items()))
