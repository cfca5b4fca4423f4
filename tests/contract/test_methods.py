"""What every registered method must satisfy, whatever its paper."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tests.conftest import ROOT
from wsss.artifacts import load_weights, save_weights
from wsss.config import Config, load_params
from wsss.config.resolve import overlay
from wsss.config.schema import Backbone
from wsss.data.training import Batch
from wsss.engine.loop import split_batch
from wsss.engine.task import Progress
from wsss.methods import load_method, method_names
from wsss.methods.base import Method
from wsss.models.backbones import build_backbone
from wsss.models.dropout import set_keys

CLASSES = 5
START, LATE = Progress(0, 100, 0), Progress(95, 100, 9)


def config_of(name: str) -> Config:
    """Return the configuration of the first variant that uses a method."""
    params = load_params([ROOT / "params.yaml"])
    for variant in params.variants:
        config = params.resolve(variant)
        if config.method.name == name and config.road != "supervised":
            return config
    raise AssertionError(f"no variant of params.yaml uses method {name!r}")


def make(name: str) -> Method:
    cls = load_method(name)
    torch.manual_seed(0)
    backbone = build_backbone(
        Backbone(name="tf_efficientnet_lite0", weights="random", allow_download=False), 16, True
    )
    params = cls.Params.model_validate(config_of(name).method.params)
    return cls(backbone, CLASSES, params, 0.5)


def batch_of(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    label = torch.zeros(count, CLASSES)
    label[torch.arange(count), torch.arange(count) % CLASSES] = 1
    return {
        "image": torch.rand(count, 3, 64, 64, generator=generator),
        "label": label,
        "valid": torch.ones(count, 1, 64, 64, dtype=torch.bool),
        "key": torch.arange(count),
        "id": [f"i{k}" for k in range(count)],
    }


@pytest.fixture(params=method_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_says_what_it_is(name: str) -> None:
    info = load_method(name).info
    assert info.paper
    assert info.title
    assert info.status in ("faithful", "reconstruction", "reference")
    assert info.roads
    text = importlib.import_module(f"wsss.methods.{name}").__doc__ or ""
    assert "Source:" in text
    assert "Deviations" in text


def test_unknown_parameters_are_refused(name: str) -> None:
    cls = load_method(name)
    known = config_of(name).method.params
    with pytest.raises(ValidationError):
        cls.Params.model_validate(overlay(known, {"no_such_parameter": 1}))


@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 96), (2, 48, 64), (3, 64, 64)])
def test_shapes(name: str, count: int, height: int, width: int) -> None:
    method = make(name).eval()
    out = method(torch.rand(count, 3, height, width))
    assert out.logits.shape == (count, CLASSES)
    assert out.cam.shape[:2] == (count, CLASSES)
    assert out.features.shape[0] == count
    assert (method.seed_maps(torch.rand(count, 3, height, width)) >= 0).all()


@pytest.mark.parametrize("progress", [START, LATE])
def test_losses_are_finite_and_teach(name: str, progress: Progress) -> None:
    method = make(name).train()
    batch = batch_of(4)
    assert "masks" not in batch
    for phase in range(method.phases(progress)):
        set_keys(method, batch["key"])
        losses = method.losses(batch, progress, phase)
        assert losses.total.isfinite()
        assert losses.terms
        losses.total.backward()
    reached = [p.grad is not None and bool((p.grad != 0).any()) for p in method.heads()]
    assert any(reached)
    assert any(p.grad is not None and (p.grad != 0).any() for p in method.backbone.parameters())


def test_bf16_is_finite(name: str) -> None:
    method = make(name).train()
    batch = batch_of(2)
    set_keys(method, batch["key"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.losses(batch, LATE)
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32


def test_an_image_is_judged_alone_at_inference(name: str) -> None:
    method = make(name).eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = method(images), method(images[1:2])
    assert torch.allclose(together.cam[1], alone.cam[0], atol=1e-4)


def test_weights_survive_the_disk(name: str, tmp_path: Path) -> None:
    method, other = make(name), make(name)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_weights(tmp_path / "w.safetensors", method.state_dict(), {"a": 1})
    state, meta = load_weights(tmp_path / "w.safetensors")
    other.load_state_dict(state)
    assert meta == {"a": 1}
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(method.eval()(images).cam, other.eval()(images).cam)


def test_the_loss_is_a_function_of_its_inputs(name: str) -> None:
    totals = []
    for _ in range(2):
        method, batch = make(name).train(), batch_of(4)
        set_keys(method, batch["key"])
        torch.rand(7)  # a global generator in another state must not matter
        totals.append(method.losses(batch, LATE).total)
    assert torch.equal(*totals)


def test_micro_batches_where_they_are_allowed(name: str) -> None:
    """A method that does not couple the batch has a loss that is a mean over images."""
    method = make(name).eval()
    if method.couples_batch:
        pytest.skip("the loss couples the batch; accumulation is refused")
    batch = batch_of(4)
    whole = method.losses(batch, LATE).total
    parts = [method.losses(part, LATE).total for part in split_batch(batch, 2)]
    assert torch.allclose(whole, torch.stack(parts).mean(), atol=1e-5)
