"""Constant tensors, made once."""

from __future__ import annotations

import pytest
import torch

from wsss.constants import constant


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_it_is_what_new_tensor_makes(dtype: torch.dtype) -> None:
    like, values = torch.zeros(1, dtype=dtype), ((0.299, 0.587), (0.114, -3))
    found = constant(values, like)
    assert found.dtype == dtype
    assert torch.equal(found, like.new_tensor(values))


def test_it_is_made_once() -> None:
    assert constant((1.5, 2.5), torch.zeros(1)) is constant((1.5, 2.5), torch.ones(7, 2))
    assert constant((1.5, 2.5), torch.zeros(1).double()) is not constant((1.5, 2.5), torch.ones(1))


def test_what_inference_made_can_be_trained_with() -> None:
    with torch.inference_mode():
        constant((4.25, 8.5), torch.zeros(1))
    weight = torch.ones(2, requires_grad=True)
    (weight * constant((4.25, 8.5), weight)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [4.25, 8.5]
