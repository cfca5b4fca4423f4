"""bf16, channels_last and torch.compile against fp32 eager, where there is a GPU.

Stated tolerances, of the loss and of the direction of the gradient: fp32 in another memory format
or compiled 1e-3; bf16, with 8 bits of mantissa, 5e-2.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.ranks import crops, lively
from tests.contract.test_methods import batch_of, config_of, make
from wsss.config.schema import Compute
from wsss.data.training import finish_images
from wsss.engine.device import autocast, place
from wsss.engine.loop import to_device
from wsss.engine.task import Progress
from wsss.methods import method_names
from wsss.models.dropout import set_keys

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

FP32 = {"precision": "fp32", "channels_last": False, "compile": False}
FORMS: dict[str, tuple[dict[str, Any], float]] = {
    "channels_last": ({**FP32, "channels_last": True}, 1e-3),
    "compile": ({**FP32, "compile": True}, 1e-3),
    "bf16": ({**FP32, "precision": "bf16"}, 5e-2),
    "all": ({"precision": "bf16", "channels_last": True, "compile": True}, 5e-2),
}
# Before any threshold of the activation maps decides: those jump with the last bit.
EARLY = Progress(0, 100, 0)


def loss_and_gradient(name: str, form: dict[str, Any]) -> tuple[Tensor, Tensor]:
    compute = config_of(name).compute.model_copy(update={**form, "device": "cuda"})
    assert isinstance(compute, Compute)
    device = torch.device("cuda")
    method = lively(make(name))
    method.freeze_bn = True
    place(method, compute, device, training=True)
    method.train()
    batch = finish_images(
        to_device(crops(batch_of(5, name)), device, compute), method.backbone.mean
    )
    set_keys(method, batch["key"])
    with autocast(compute, device):
        losses = method.losses(batch, EARLY)
    losses.total.backward()
    gradient = [p.grad.flatten().float() for p in method.heads() if p.grad is not None]
    return losses.total.detach().cpu(), torch.cat(gradient).cpu()


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("name", method_names())
def test_a_step_agrees_with_fp32_eager(name: str, form: str) -> None:
    changes, tolerance = FORMS[form]
    expected, mine = (loss_and_gradient(name, one) for one in (FP32, changes))
    torch.testing.assert_close(mine[0], expected[0], rtol=tolerance, atol=tolerance)
    likeness = torch.cosine_similarity(mine[1], expected[1], dim=0)
    assert float(likeness) > 1 - tolerance
