"""The dense energy and its gradient against the double loop over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wsss.losses import dense_energy as module
from wsss.losses.dense_energy import dense_energy, filter_points, gated_energy, kernel_points

RGB, XY = 15.0, 6.0


def naive(images: Tensor, soft: Tensor, gate: Tensor) -> tuple[float, Tensor]:
    """Energy and gradient of maps at their own size; images in [0, 255]."""
    count, _, height, width = soft.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    gated = torch.zeros_like(soft)
    for b in range(count):
        for y, x in cells:
            for v, u in cells:
                colour = float((images[b, :, y, x] - images[b, :, v, u]).square().sum()) / RGB**2
                place = ((y - v) ** 2 + (x - u) ** 2) / XY**2
                gated[b, :, y, x] += math.exp(-(colour + place) / 2) * soft[b, :, v, u]
    gated = gated * gate
    return -float((soft * gated).sum()) / count, -2 * gated / count


def scene(count: int = 2, side: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(count, 3, side, side, generator=generator) * 0.2 + 0.4
    soft = torch.randn(count, 4, side, side, generator=generator).softmax(1)
    return images, soft


def test_energy_and_gradient_are_what_loops_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES", 100)  # less than one row of the kernel
    images, soft = scene()
    soft.requires_grad_()
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[:, :2] = False
    masks = torch.zeros(2, 8, 8, dtype=torch.int64)
    masks[:, 5] = 255
    energy = dense_energy(images, soft, valid, masks, RGB, XY, 1.0, 1000)
    energy.backward()
    inside = valid[:, None].float()
    gate = (inside - soft.detach().amax(1, keepdim=True)).clamp(min=0)
    gate = torch.where(masks[:, None] == 255, torch.ones(()), gate)
    value, gradient = naive(images * 255, soft.detach() * inside, gate)
    assert float(energy) == pytest.approx(value, rel=1e-4)
    assert soft.grad is not None
    assert torch.allclose(soft.grad, gradient * inside, rtol=1e-3, atol=1e-6)
    assert not soft.grad[:, :, :2].any()


def test_it_works_at_half_the_size_as_the_paper_does() -> None:
    images, soft = scene()
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    masks = torch.full((2, 8, 8), 255)
    half = soft.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))  # bilinear, exactly halved
    points = kernel_points(images[:, :, ::2, ::2] * 255, RGB, XY, (2, 2))
    expected = gated_energy(half, torch.ones(2, 1, 4, 4), points)
    energy = dense_energy(images, soft, valid, masks, RGB, XY, 0.5, 1000)
    assert torch.allclose(energy, expected)


def test_fewer_cells_keep_the_size_of_the_energy() -> None:
    """On an image of one colour and a wide kernel nearly every pair weighs 1."""
    images = torch.full((1, 3, 32, 32), 0.5)
    soft = torch.randn(1, 4, 8, 8).softmax(1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    valid, masks = torch.ones(1, 32, 32, dtype=torch.bool), torch.full((1, 32, 32), 255)
    full, coarse = (
        dense_energy(images, soft, valid, masks, RGB, 200.0, 1.0, cells) for cells in (4096, 64)
    )
    assert float(coarse) == pytest.approx(float(full), rel=0.02)


def test_rows_of_the_kernel_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    points, values = torch.rand(2, 30, 5) * 3, torch.rand(2, 30, 4)
    whole = filter_points(values, points)
    monkeypatch.setattr(module, "ENTRIES", 7 * 60)
    assert torch.allclose(filter_points(values, points), whole, rtol=1e-5)


def test_the_kernel_is_never_there_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = torch.Tensor.exp_

    def watched(self: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, self.numel())
        return original(self)

    monkeypatch.setattr(torch.Tensor, "exp_", watched)
    monkeypatch.setattr(module, "ENTRIES", 1 << 12)
    images, soft = scene(1, 32)
    valid, masks = torch.ones(1, 32, 32, dtype=torch.bool), torch.full((1, 32, 32), 255)
    dense_energy(images, soft, valid, masks, RGB, XY, 1.0, 1024)
    assert 0 < largest <= 1 << 12


def test_an_image_of_padding_alone_costs_nothing_in_bf16() -> None:
    images, soft = scene(1)
    soft.requires_grad_()
    nothing = torch.zeros(1, 8, 8, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        energy = dense_energy(images, soft, nothing, torch.full((1, 8, 8), 255), RGB, XY, 0.5, 64)
    energy.backward()
    assert float(energy) == 0
    assert soft.grad is not None
    assert not soft.grad.any()


def test_half_precision_gives_what_single_does() -> None:
    """Between black and white, squared differences of grey levels leave the range of fp16."""
    images, soft = scene(side=16)
    images = torch.zeros_like(images)
    images[:, :, 8:] = 1
    valid, masks = torch.ones(2, 16, 16, dtype=torch.bool), torch.zeros(2, 16, 16).long()
    masks[:, 4:12] = 255
    rounded, given = soft.half(), soft.half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        value = dense_energy(images.half(), given, valid, masks, RGB, XY, 0.5, 1000)
    exact = dense_energy(images, rounded.float(), valid, masks, RGB, XY, 0.5, 1000)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert value.item() < -10
    (value * 1e-3).backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert given.grad.any()
