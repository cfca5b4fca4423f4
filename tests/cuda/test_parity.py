"""bf16, channels_last and torch.compile against fp32 eager, where there is a GPU.

The reference computes in all bits of fp32. Stated tolerances, of the loss and of the direction of
the gradient: fp32 in another memory format or compiled 1e-3; TF32, with 11 bits of mantissa, 1e-2;
bf16, with 8, 5e-2. Of CAMs, which are divided by their peak, the same holds of the mean difference.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.ranks import crops, lively
from tests.contract.test_methods import batch_of, config_of, make
from wsss.config.schema import Compute
from wsss.data.training import finish_images
from wsss.engine.device import autocast, place
from wsss.engine.exact import exact_fp32
from wsss.engine.loop import to_device
from wsss.engine.task import Progress
from wsss.grids import grid_of
from wsss.inference.cam import multi_scale_cam
from wsss.methods import method_names
from wsss.methods.base import Method
from wsss.models.dropout import set_keys

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

DEVICE = "cuda"
EXACT = "exact"
FP32 = {"precision": "fp32", "channels_last": False, "compile": False}
FORMS: dict[str, tuple[dict[str, Any], float]] = {
    EXACT: (FP32, 0.0),
    "tf32": (FP32, 1e-2),
    "channels_last": ({**FP32, "channels_last": True}, 1e-3),
    "compile": ({**FP32, "compile": True}, 1e-3),
    "bf16": ({**FP32, "precision": "bf16"}, 5e-2),
    "all": ({"precision": "bf16", "channels_last": True, "compile": True}, 5e-2),
}
OTHERS = [form for form in FORMS if form != EXACT]
# Before any threshold of the activation maps decides, and after: those jump with the last bit, so
# that late in training only the loss is held, and only of forms that keep the bits.
EARLY, LATE = Progress(0, 100, 0), Progress(95, 100, 9)
KEEPING = ["channels_last", "compile"]
SIZES, SCALES = [(96, 128), (80, 112), (64, 64)], [0.5, 1.0]


def bits(form: str) -> AbstractContextManager[None]:
    """All of fp32's, but where TF32 is what is tried."""
    return nullcontext() if form == "tf32" else exact_fp32()


def compute_of(name: str, form: str) -> Compute:
    changes = {**FORMS[form][0], "device": DEVICE}
    return config_of(name).compute.model_copy(update=changes)


def placed(name: str, form: str, training: bool) -> Method:
    method = lively(make(name))
    method.freeze_bn = True
    place(method, compute_of(name, form), torch.device(DEVICE), training=training)
    method.train(training)
    return method


def loss_and_gradient(name: str, form: str, progress: Progress) -> tuple[Tensor, Tensor]:
    compute, device = compute_of(name, form), torch.device(DEVICE)
    method = placed(name, form, training=True)
    batch = finish_images(
        to_device(crops(batch_of(5, name)), device, compute), method.backbone.mean
    )
    set_keys(method, batch["key"])
    with bits(form):
        with autocast(compute, device):
            losses = method.losses(batch, progress)
        losses.total.backward()
    gradient = [p.grad.flatten().float() for p in method.heads() if p.grad is not None]
    return losses.total.detach().cpu(), torch.cat(gradient).cpu()


@torch.inference_mode()
def cams(name: str, form: str) -> list[Tensor]:
    """CAMs of images of several sizes, from one network."""
    compute, device = compute_of(name, form), torch.device(DEVICE)
    method = placed(name, form, training=False)
    generator, found = torch.Generator().manual_seed(2), []
    for size in SIZES:
        images = torch.rand(2, 3, *size, generator=generator).to(device)
        with bits(form), autocast(compute, device):
            maps = multi_scale_cam(
                *(method.seeds(None), images, SCALES, True, grid_of(size, 4), 16),
                method.normaliser(None, 2 * len(SCALES)),
            )
        found.append(maps.float().cpu())
    return found


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("name", method_names())
def test_a_step_agrees_with_fp32_eager(name: str, form: str) -> None:
    tolerance = FORMS[form][1]
    expected, mine = (loss_and_gradient(name, one, EARLY) for one in (EXACT, form))
    torch.testing.assert_close(mine[0], expected[0], rtol=tolerance, atol=tolerance)
    likeness = torch.cosine_similarity(mine[1], expected[1], dim=0)
    assert float(likeness) > 1 - tolerance


@pytest.mark.parametrize("form", KEEPING)
@pytest.mark.parametrize("name", method_names())
def test_every_term_agrees_late_in_training(name: str, form: str) -> None:
    expected, mine = (loss_and_gradient(name, one, LATE)[0] for one in (EXACT, form))
    torch.testing.assert_close(mine, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("form", OTHERS)
@pytest.mark.parametrize("name", method_names())
def test_cams_of_several_sizes_agree_with_fp32_eager(name: str, form: str) -> None:
    for mine, expected in zip(cams(name, form), cams(name, EXACT), strict=True):
        assert mine.shape == expected.shape
        assert float((mine - expected).abs().mean()) <= FORMS[form][1]
