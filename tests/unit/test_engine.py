"""The training loop: resuming, accumulation, bad losses, schedules."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.config import Params
from wsss.config.schema import Training
from wsss.data.manifest import Item, Manifest
from wsss.data.training import Batch, CropDataset, EpochBatches, shuffled_batches
from wsss.engine.loop import Fit, NonFiniteLossError, fit
from wsss.engine.optim import lr_factor
from wsss.engine.task import Losses, Progress, Task
from wsss.errors import UserError
from wsss.interrupt import Interrupted, handled
from wsss.models.dropout import KeyedDropout
from wsss.stages.training import save_curve


class FakeManifest:
    """Random images in memory, in place of a data set on disk."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.images = {f"i{k}": rng.integers(0, 256, (20, 24, 3), np.uint8) for k in range(count)}

    def read_image(self, item: Item) -> np.ndarray:
        return self.images[item.id]

    def label(self, item: Item) -> np.ndarray:
        return np.array([int(item.id[1:]) % 2], np.float32)


class TinyBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("mean", torch.full((3,), 0.5))


class TinyTask(Task):
    def __init__(self, poison_at: int | None = None, batch_norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = TinyBackbone()  # type: ignore[assignment]
        self.norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        self.drop = KeyedDropout(0.3)
        self.head = nn.Linear(4, 1)
        self.poison_at = poison_at

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        x = self.norm(self.backbone.conv(batch["image"])).relu().mean((2, 3))
        loss = F.binary_cross_entropy_with_logits(self.head(self.drop(x)), batch["label"])
        if progress.step == self.poison_at:
            loss = loss * float("nan")
        return Losses(loss, {"bce": loss, "another": loss / 2})


class StopError(Exception):
    """Stands for a kill in the middle of training."""


@pytest.fixture
def training(tiny_params: Params) -> Callable[..., Training]:
    def make(**changes: Any) -> Training:
        base = {"crop": 16, "long_side": [16, 28], "batch": 4, "epochs": 4, "lr": 0.01}
        return tiny_params.base.classify.model_copy(update={**base, **changes})

    return make


def run(
    tmp_path: Path,
    params: Params,
    training: Training,
    task: Task,
    checkpoint: float = 1e9,
    workers: int = 0,
) -> tuple[dict[str, Tensor], Fit]:
    items = [Item(f"i{k}", "", None, (), ()) for k in range(40)]
    manifest: Manifest = FakeManifest(40)  # type: ignore[assignment]
    dataset = CropDataset(manifest, items, training, 0, (127, 127, 127))
    how = Fit(training, params.base.compute, 0, workers, tmp_path / "state", checkpoint)
    network = fit(task, dataset, shuffled_batches(40, training.batch, 0), how)
    return {k: v.clone() for k, v in network.state_dict().items()}, how


@pytest.mark.parametrize(("optimizer", "ema"), [("sgd", None), ("adamw", None), ("adamw", 0.9)])
def test_an_interrupted_run_ends_with_the_same_bytes(
    tmp_path: Path,
    tiny_params: Params,
    training: Callable[..., Training],
    optimizer: str,
    ema: float | None,
) -> None:
    config = training(optimizer=optimizer, ema=ema)
    expected, undisturbed = run(tmp_path / "a", tiny_params, config, TinyTask())

    class Killed(TinyTask):
        def after_step(self, progress: Progress) -> None:
            if progress.step == 25:
                raise StopError

    with pytest.raises(StopError):
        run(tmp_path / "b", tiny_params, config, Killed(), checkpoint=0.0)
    again = TinyTask()
    got, resumed = run(tmp_path / "b", tiny_params, config, again)
    assert resumed.rows == undisturbed.rows
    assert [row["step"] for row in resumed.rows] == [10, 20, 30, 40]
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


@pytest.mark.parametrize("at", [0, 12, 39])
def test_a_signal_saves_the_state_after_the_running_step(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training], at: int
) -> None:
    """Also between two rows of the curve, and after the last step."""
    config = training(ema=0.9)
    expected, undisturbed = run(tmp_path / "a", tiny_params, config, TinyTask())

    class Told(TinyTask):
        def after_step(self, progress: Progress) -> None:
            assert progress.step <= at
            if progress.step == at:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), handled():
        run(tmp_path / "b", tiny_params, config, Told())
    got, resumed = run(tmp_path / "b", tiny_params, config, TinyTask())
    assert resumed.continued_at == at + 1
    for name, how in (("a.csv", undisturbed), ("b.csv", resumed)):
        save_curve(tmp_path / name, how)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert all(torch.equal(got[name], value) for name, value in expected.items())


def test_a_signal_does_not_save_a_bad_loss(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    class Told(TinyTask):
        def after_step(self, progress: Progress) -> None:
            if progress.step == 13:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(NonFiniteLossError), handled():
        run(tmp_path, tiny_params, training(), Told(poison_at=12))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_workers_change_nothing(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    config = training(epochs=1)
    alone, _ = run(tmp_path / "a", tiny_params, config, TinyTask())
    helped, _ = run(tmp_path / "b", tiny_params, config, TinyTask(), workers=2)
    assert all(torch.equal(alone[name], helped[name]) for name in alone)


def test_accumulation_equals_the_whole_batch(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    whole, _ = run(tmp_path / "a", tiny_params, training(), TinyTask(batch_norm=False))
    parts, _ = run(tmp_path / "b", tiny_params, training(micro_batch=2), TinyTask(batch_norm=False))
    for name, value in whole.items():
        assert torch.allclose(parts[name], value, atol=1e-5), name


class TwoMeansTask(TinyTask):
    """Odd and even images are averaged apart, so that no weight a micro-batch would do."""

    def sizes(self, batch: Batch) -> dict[str, float]:
        odd = float(batch["label"].sum())
        return {"odd": odd, "even": len(batch["id"]) - odd}

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:  # noqa: ARG002
        x = self.backbone.conv(batch["image"]).relu().mean((2, 3))
        values = F.binary_cross_entropy_with_logits(
            self.head(x), batch["label"], reduction="none"
        ).flatten()
        odd, sizes = batch["label"].flatten() > 0, batch["sizes"]
        loss = (values[odd] / max(sizes["odd"], 1)).sum() / 2
        loss = loss + (values[~odd] / max(sizes["even"], 1)).sum() / 2
        return Losses(loss, {"two": loss})


def test_accumulation_of_two_means_equals_the_whole_batch(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    config = training(epochs=2)
    whole, undivided = run(tmp_path / "a", tiny_params, config, TwoMeansTask())
    parts = training(epochs=2, micro_batch=1)
    split, divided = run(tmp_path / "b", tiny_params, parts, TwoMeansTask())
    for name, value in whole.items():
        assert torch.allclose(split[name], value, atol=1e-5), name
    for mine, theirs in zip(undivided.rows, divided.rows, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_accumulation_is_refused_where_the_loss_couples_the_batch(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    task = TinyTask()
    task.couples_batch = True
    with pytest.raises(UserError, match="micro_batch is 2 of batch 4"):
        run(tmp_path, tiny_params, training(micro_batch=2), task)


class TwoStepTask(TinyTask):
    """Two optimiser steps on every batch from the second half on."""

    def phases(self, progress: Progress) -> int:
        return 2 if progress.fraction >= 0.5 else 1

    def losses(self, batch: Batch, progress: Progress, phase: int = 0) -> Losses:
        loss = super().losses(batch, progress).total
        return Losses(loss, {f"phase{phase}": loss})


def test_the_loss_of_a_batch_is_that_of_all_its_steps(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    _, how = run(tmp_path, tiny_params, training(epochs=2), TwoStepTask())
    first, second = how.rows
    assert "phase1" not in first
    assert first["loss"] == pytest.approx(first["phase0"])
    assert second["loss"] == pytest.approx(second["phase0"] + second["phase1"])


def test_a_bad_loss_names_step_and_images_and_is_never_saved(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    config = training()
    with pytest.raises(NonFiniteLossError) as caught:
        run(tmp_path, tiny_params, config, TinyTask(poison_at=13), checkpoint=0.0)
    order = shuffled_batches(40, 4, 0)(1)[3]
    assert "step 13" in str(caught.value)
    for index in order:
        assert f"i{index}" in str(caught.value)
    got, how = run(tmp_path, tiny_params, config, TinyTask())
    assert all(value.isfinite().all() for value in got.values() if value.is_floating_point())
    assert how.rows[0]["step"] == 10


class NormedTask(TinyTask):
    """Normalises in the backbone, too."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone.conv = nn.Sequential(self.backbone.conv, nn.BatchNorm2d(4))


def test_frozen_normalisation_stays_frozen(
    tmp_path: Path, tiny_params: Params, training: Callable[..., Training]
) -> None:
    """That of the backbone: new layers have no statistics yet that one could keep."""
    got, _ = run(tmp_path, tiny_params, training(freeze_bn=True, epochs=1), NormedTask())
    assert torch.equal(got["backbone.conv.1.running_mean"], torch.zeros(4))
    assert not torch.equal(got["norm.running_mean"], torch.zeros(4))
    moved, _ = run(tmp_path / "b", tiny_params, training(epochs=1), NormedTask())
    assert not torch.equal(moved["backbone.conv.1.running_mean"], torch.zeros(4))


def test_schedules(training: Callable[..., Training]) -> None:
    poly = training(schedule="poly", power=0.9, warmup=0.1)
    assert lr_factor(0.05, poly) == pytest.approx(0.5)
    assert lr_factor(0.5, poly) == pytest.approx(0.5**0.9)
    assert lr_factor(0.0, poly) > 0
    slow = training(schedule="poly", power=0.9, warmup=0.1, warmup_start=1e-6)
    assert lr_factor(0.0, slow) == pytest.approx(1e-6)
    assert lr_factor(0.025, slow) == pytest.approx(1 - (1 - 0.25) * (1 - 1e-6))
    assert lr_factor(0.1, slow) == lr_factor(0.1, poly)
    cosine = training(schedule="cosine", warmup=0.0)
    assert lr_factor(0.5, cosine) == pytest.approx(0.5)
    assert lr_factor(0.9, training(schedule="constant", warmup=0.0)) == 1.0


def test_batches_cover_an_epoch_and_restart_anywhere() -> None:
    orders = shuffled_batches(10, 3, 7)
    everything = list(EpochBatches(orders, 3))
    assert len(everything) == 9
    for epoch in range(3):
        seen = [i for batch in everything[epoch * 3 : epoch * 3 + 3] for _, i in batch]
        assert len(set(seen)) == 9
    for start in range(9):
        assert list(EpochBatches(orders, 3, start)) == everything[start:]
    assert shuffled_batches(2, 8, 0)(0) != []
