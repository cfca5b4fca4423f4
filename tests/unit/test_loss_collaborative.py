"""The contrast of class tokens against loops written from its equations."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from wsss.losses.collaborative import (
    coarse_masks,
    collaborative_contrast,
    most_visible,
    region_values,
    visible_positive,
)


def naive(teacher: Tensor, student: Tensor, positive: Tensor, temperature: float) -> float:
    total = 0.0
    for t, s, flags in zip(teacher.tolist(), student.tolist(), positive.tolist(), strict=True):
        loss = 0.0
        for anchor in t:
            e = [
                math.exp(sum(a * b for a, b in zip(anchor, one, strict=True)) / temperature)
                for one in s
            ]
            negatives = sum(value for value, flag in zip(e, flags, strict=True) if not flag)
            for value, flag in zip(e, flags, strict=True):
                if flag:
                    loss -= math.log(value / (value + negatives + 1e-4))
            loss -= math.log(1 / (1 + negatives + 1e-4))
        total += loss / (len(t) * (sum(flags) + 1e-4))
    return total / len(teacher)


def views(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.rand(count, 2, 16, generator=generator, dtype=torch.float64) - 0.5
    student = torch.rand(count, 10, 16, generator=generator, dtype=torch.float64) - 0.5
    positive = torch.rand(count, 10, generator=generator) < 0.5
    positive[:, :2] = True
    return teacher, student, positive


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_it_is_what_loops_give(count: int, temperature: float) -> None:
    teacher, student, positive = views(count)
    value = collaborative_contrast(teacher, student, positive, temperature)
    assert float(value) == pytest.approx(naive(teacher, student, positive, temperature), rel=1e-5)


@pytest.mark.parametrize("flag", [True, False])
def test_all_positive_or_none(flag: bool) -> None:
    teacher, student, positive = views(2)
    positive[:] = flag
    value = collaborative_contrast(teacher, student, positive, 0.5)
    assert float(value) == pytest.approx(naive(teacher, student, positive, 0.5), rel=1e-5)


def test_vectors_that_align_do_not_overflow() -> None:
    """1024 cosines of 1 give a product of 1024, whose exponential no float holds."""
    vectors = torch.ones(1, 10, 1024, requires_grad=True)
    positive = torch.arange(10)[None] < 4
    value = collaborative_contrast(vectors[:, :2].detach(), vectors, positive, 0.5)
    value.backward()
    # Six equal negatives: each positive costs ln 7, the last term what one product weighs.
    assert float(value.detach()) == pytest.approx(math.log(7) + (2048 + math.log(6)) / 4, rel=1e-4)
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_no_gradient_reaches_the_teacher_when_it_is_detached() -> None:
    teacher, student, positive = views(2)
    student.requires_grad_()
    collaborative_contrast(teacher.detach(), student, positive, 0.5).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_half_precision_gives_what_single_does() -> None:
    """Products of 1024 cosines leave the range of fp16 as exponentials, and do not get there."""
    generator = torch.Generator().manual_seed(4)
    teacher, student = (torch.rand(2, n, 1024, generator=generator) * 2 - 1 for n in (2, 10))
    student[:, 2] = teacher[:, 0]  # a product of 340, divided by a temperature of 0.5
    positive = torch.arange(10).expand(2, 10) < 6
    student = student.half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        value = collaborative_contrast(teacher.half(), student, positive, 0.5)
    exact = collaborative_contrast(teacher.half().float(), student.detach().float(), positive, 0.5)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    value.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.any()


def test_it_is_finite_in_bf16() -> None:
    teacher, student, positive = views(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = collaborative_contrast(teacher.bfloat16(), student.bfloat16(), positive, 0.5)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(naive(teacher, student, positive, 0.5), rel=0.02)


def test_regions_of_a_synthetic_map() -> None:
    cam = torch.zeros(1, 2, 1, 5)
    cam[0, 0, 0] = torch.tensor([0.0, 0.25, 0.26, 0.69, 0.7])
    cam[0, 1, 0, 1] = 0.9
    assert region_values(cam, 0.25, 0.7).tolist() == [[[0.0, 2.0, 1.0, 1.0, 2.0]]]


def test_flags_of_a_synthetic_region() -> None:
    """An object in the left half of a grid of 4 x 8."""
    values = torch.zeros(1, 4, 8)
    values[:, :, :4] = 2
    masked = torch.ones(1, 5, 4, 8, dtype=torch.bool)
    masked[0, 0, :, :4] = False  # the object
    masked[0, 1, :, 4:] = False  # the background
    masked[0, 2, 0, 0] = masked[0, 2, 0, 4:] = masked[0, 2, 1, 4:] = False  # 2 of 9 cells' worth
    masked[0, 2, 2, 4] = False  # 2 of 10: exactly the ratio, so negative
    masked[0, 3] = False  # everything
    # The fifth mask leaves nothing visible.
    assert visible_positive(values, masked, 0.2).tolist() == [[True, False, False, True, False]]


def test_masks_hide_whole_blocks() -> None:
    uniform = torch.tensor([[[[0.1, 0.9], [0.96, 0.2]]]])
    masks = coarse_masks(uniform, 0.95, 2, (3, 4))
    assert masks.int().tolist() == [[[[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]]]]


def test_the_share_of_hidden_cells_is_the_rate() -> None:
    uniform = torch.rand(50, 8, 7, 7, generator=torch.Generator().manual_seed(0))
    masks = coarse_masks(uniform, 0.95, 4, (28, 28))
    assert masks.shape == (50, 8, 28, 28)
    assert float(masks.float().mean()) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("blocks", "rate"), [(49, 0.95), (144, 0.95), (49, 0.5), (16, 0.75)])
def test_the_bound_of_visible_blocks_against_scipy(blocks: int, rate: float) -> None:
    most = most_visible(blocks, rate)
    visible = binom(blocks, 1 - rate)
    assert visible.sf(most) < 1e-6 <= visible.sf(most - 1)


def test_bounds_of_masks_that_do_not_vary() -> None:
    assert most_visible(49, 1.0) == 1  # nothing is visible; a bound is at least 1
    assert most_visible(49, 0.0) == 49
    assert most_visible(1, 0.5) == 1


def test_blocks_beyond_the_bound_are_hidden() -> None:
    uniform = torch.rand(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    free = coarse_masks(uniform, 0.5, 2, (10, 10))
    bound = coarse_masks(uniform, 0.5, 2, (10, 10), most=6)
    assert (~bound).flatten(2).sum(2).tolist() == [[24] * 4] * 3
    assert not (free & ~bound).any()  # nothing hidden is shown
    visible = (~bound)[:, :, ::2, ::2]
    assert uniform[visible].min() > 0.5
    for mask, values in zip(visible.flatten(0, 1), uniform.flatten(0, 1), strict=True):
        assert values[mask].min() > values[~mask].max()
    assert torch.equal(coarse_masks(uniform, 0.5, 2, (10, 10), most=25), free)
