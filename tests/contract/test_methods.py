"""What every registered method must satisfy, whatever its paper."""

from __future__ import annotations

import copy
import importlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.conftest import ROOT
from wsss.artifacts import load_weights, save_weights
from wsss.config import Config, load_params
from wsss.config.resolve import overlay
from wsss.config.schema import Backbone
from wsss.data.training import Batch, collate
from wsss.data.views import ViewRequest
from wsss.engine.loop import split_batch
from wsss.engine.optim import build_optimizer
from wsss.engine.task import Progress
from wsss.errors import UserError
from wsss.methods import check_method, load_method, method_names
from wsss.methods.base import Method
from wsss.models.backbones import build_backbone
from wsss.models.dropout import set_keys

CLASSES = 5
_OF_VIEWS = ("view", "overlap", "host_keys")
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
        Backbone(name="test_efficientnet", weights="random", allow_download=False), 16, True
    )
    params = cls.Params.model_validate(config_of(name).method.params)
    return cls(backbone, CLASSES, params, 0.5)


@cache
def views_of(name: str, crop: int) -> ViewRequest | None:
    """What a method asks for at the end of a training on crops of ``crop`` pixels."""
    return make(name).views(config_of(name).classify.model_copy(update={"crop": crop}), 1.0)


def batch_of(count: int, name: str, crop: int = 64) -> Batch:
    """Return a batch of crops with the views that a method asks for."""
    generator = torch.Generator().manual_seed(1)
    label = torch.zeros(count, CLASSES)
    label[torch.arange(count), torch.arange(count) % CLASSES] = 1
    batch = {
        "image": torch.rand(count, 3, crop, crop, generator=generator),
        "label": label,
        "valid": torch.ones(count, 1, crop, crop, dtype=torch.bool),
        "key": torch.arange(count),
        "id": [f"i{k}" for k in range(count)],
    }
    if (request := views_of(name, crop)) is not None:
        image = torch.randint(0, 256, (72, 90, 3), dtype=torch.uint8, generator=generator).numpy()
        cuts = [request.cut(np.random.default_rng(k), image, False) for k in range(count)]
        batch["views"] = torch.from_numpy(np.stack([pixels for pixels, _ in cuts]) / 255)
        batch["views"] = batch["views"].float().permute(0, 1, 4, 2, 3)
        samples = [{"host_keys": k, **more} for k, (_, more) in enumerate(cuts)]
        batch |= collate(samples)
    return batch


def train_step(method: Method, batch: Batch, progress: Progress) -> list[torch.Tensor]:
    """Run every phase of one step as the loop does; returns the losses."""
    config = config_of("baseline").classify.model_copy(update={"lr": 1e-3})
    optimizer, totals = build_optimizer(method, config), []
    method.train()
    for phase in range(method.phases(progress)):
        optimizer.zero_grad()
        set_keys(method, batch["key"])
        total = method.losses(batch, progress, phase).total
        total.backward()
        optimizer.step()
        totals.append(total.detach())
    method.after_step(progress)
    return totals


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


def test_papers_it_covers_differ_from_its_own(name: str) -> None:
    method = load_method(name)
    assert method.info.paper_of({}) == method.info.paper
    for other, known in method.info.configurations.items():
        assert other not in method_names()
        method.Params.model_validate(known.params)
        assert method.info.paper_of({**known.params, "temperature": 1.0}) == known.paper
        assert known.paper != method.info.paper


def test_unknown_parameters_are_refused(name: str) -> None:
    cls = load_method(name)
    known = config_of(name).method.params
    with pytest.raises(ValidationError):
        cls.Params.model_validate(overlay(known, {"no_such_parameter": 1}))


def test_numbers_that_yaml_reads_as_strings_are_numbers(name: str) -> None:
    """YAML 1.1 takes 1e-3 for a string; all keys take it for a number, whatever the method."""
    params = load_method(name).Params
    for key, field in params.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, float):
            spelled: object = f"{default:e}"
        elif isinstance(default, list) and all(isinstance(one, float) for one in default):
            spelled = [f"{one:e}" for one in default]
        else:
            continue
        assert getattr(params.model_validate({key: spelled}), key) == default, key
    weights = [key for key in params.model_fields if key.endswith("_weight")]
    for key in weights:
        assert getattr(params.model_validate({key: "1e-3"}), key) == 1e-3


@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 96), (2, 48, 64), (3, 64, 64)])
def test_shapes(name: str, count: int, height: int, width: int) -> None:
    method = make(name).eval()
    out = method(torch.rand(count, 3, height, width))
    assert out.logits.shape == (count, CLASSES)
    assert out.cam.shape[:2] == (count, CLASSES)
    assert out.features.shape[0] == count
    assert (method.seed_maps(torch.rand(count, 3, height, width)) >= 0).all()


def test_masks_of_its_own_where_it_takes_the_single_stage_road(name: str) -> None:
    method = make(name).eval()
    images = torch.rand(2, 3, 48, 64)
    if "single-stage" in method.info.roads:
        masks = method.segment(images)
        assert masks.shape[:2] == (2, CLASSES + 1)
        assert masks.isfinite().all()
        if not method.gives_scores():
            assert torch.allclose(method.scores(images), masks.float().softmax(1), atol=1e-6)
    else:
        with pytest.raises(NotImplementedError, match=method.info.title):
            method.segment(images)


def test_logits_are_combined_where_there_are_any(name: str) -> None:
    config = config_of(name)
    wanted = config.predict.model_copy(update={"combine": "max_logits"})
    changed = config.model_copy(update={"predict": wanted})
    if config.road == "single-stage" and load_method(name).gives_scores():
        with pytest.raises(UserError, match="no softmax of logits: set it to mean"):
            check_method(changed, "here")
    else:
        check_method(changed, "here")


def test_losses_are_finite_and_every_parameter_learns(name: str) -> None:
    method = make(name).train()
    batch = batch_of(4, name)
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    inherited = {id(p) for p in method.backbone.parameters()}
    assert {id(p) for p in method.heads()} == {id(p) for p in method.parameters()} - inherited
    reached = set()
    for progress in (START, LATE):
        for phase in range(method.phases(progress)):
            method.zero_grad()
            set_keys(method, batch["key"])
            losses = method.losses(batch, progress, phase)
            assert losses.total.shape == ()
            assert losses.total.isfinite()
            assert losses.terms
            assert set(losses.terms) <= set(method.info.terms), "info.terms lacks some"
            assert all(value.shape == () for value in losses.terms.values())
            losses.total.backward()
            for parameter, value in trained.items():
                if value.grad is not None:
                    assert value.grad.isfinite().all(), parameter
                    reached |= {parameter} if value.grad.any() else set()
        method.after_step(progress)
    assert reached == set(trained)


def test_no_mask_is_looked_at(name: str) -> None:
    """The batch of a weak stage has no masks; if it had, they would change nothing."""
    batch = batch_of(4, name)
    assert "masks" not in batch
    watched = {**batch, "masks": torch.randint(0, CLASSES + 1, (4, 1, 64, 64), dtype=torch.uint8)}
    blind, seeing = (train_step(make(name), given, START) for given in (batch, watched))
    assert all(map(torch.equal, blind, seeing))


def test_bf16_is_finite(name: str) -> None:
    method = make(name).train()
    batch = batch_of(2, name)
    set_keys(method, batch["key"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.losses(batch, LATE)
    assert losses.total.isfinite()
    assert losses.total.dtype == torch.float32
    losses.total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


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


def test_training_is_reproducible(name: str) -> None:
    """A global generator in another state must not matter."""
    runs = []
    for _ in range(2):
        method = make(name)
        torch.rand(len(runs) + 7)
        for progress in (START, LATE):
            train_step(method, batch_of(4, name), progress)
        runs.append(method.state_dict())
    assert [key for key in runs[0] if not torch.equal(runs[0][key], runs[1][key])] == []


def test_a_checkpoint_holds_all_of_its_state(name: str) -> None:
    """Averages, memories and prototypes included: a resumed run goes on as if undisturbed."""
    method, resumed = make(name), make(name)
    train_step(method, batch_of(4, name), START)
    resumed.load_state_dict(method.state_dict())
    went_on, came_back = (train_step(m, batch_of(3, name), LATE) for m in (method, resumed))
    assert all(map(torch.equal, went_on, came_back))


def test_it_can_be_averaged(name: str) -> None:
    """An EMA of the weights is kept in a deep copy."""
    method = make(name)
    train_step(method, batch_of(2, name), START)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        mine, theirs = (m.eval()(images).cam for m in (method, copy.deepcopy(method)))
    assert torch.equal(mine, theirs)


def test_batches_are_reproducible_and_in_range(name: str) -> None:
    training = config_of(name).classify.model_copy(update={"batch": 4})
    labels = torch.zeros(23, CLASSES)
    labels[torch.arange(23), torch.arange(23) % CLASSES] = 1
    method = make(name)
    first, again, other = (method.batches(labels, training, seed) for seed in (0, 0, 1))
    for epoch in range(3):
        batches = first(epoch)
        assert batches == again(epoch)
        assert len(batches) == len(first(0))
        assert all(1 <= len(batch) <= 4 for batch in batches)
        assert all(0 <= index < 23 for batch in batches for index in batch)
    assert first(0) != first(1)
    assert first(0) != other(0)


def test_views_are_there_when_a_step_needs_them(name: str) -> None:
    method, training = make(name), config_of(name).classify
    bare = {key: value for key, value in batch_of(2, name).items() if not key.startswith(_OF_VIEWS)}
    for epoch in range(10):
        views = method.views(training, (epoch + 1) / 10)
        if views is not None:
            image = np.zeros((90, 40, 3), np.uint8)
            pixels, _ = views.cut(np.random.default_rng(0), image, True)
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 4
            assert pixels.shape[1] == pixels.shape[2]
            continue
        for step in (0, 9):
            train_step(method, bare, Progress(10 * epoch + step, 100, epoch))


def test_seeds_are_brought_to_the_unit_interval(name: str) -> None:
    method = make(name)
    for total in (torch.rand(2, CLASSES, 6, 8) * 9, torch.zeros(1, CLASSES, 3, 4)):
        seeds = method.normalise_seeds(total)
        assert seeds.shape == total.shape
        assert seeds.min() >= 0
        assert seeds.max() <= 1
        assert seeds.isfinite().all()


def test_micro_batches_where_they_are_allowed(name: str) -> None:
    """A method that does not couple the batch has a loss that is a mean over images."""
    method = make(name).eval()
    if method.couples_batch:
        pytest.skip("the loss couples the batch; accumulation is refused")
    batch = batch_of(4, name)
    whole = method.losses(batch, LATE).total
    parts = [method.losses(part, LATE).total for part in split_batch(batch, 2)]
    assert torch.allclose(whole, torch.stack(parts).mean(), atol=1e-5)
